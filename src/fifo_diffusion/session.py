"""A running stream: a `Run` made into model, prompts, engine, decoder and state; frames come out one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fifo_diffusion import methods, models
from fifo_diffusion.baseclip import sample_clip
from fifo_diffusion.config import Decided
from fifo_diffusion.dealing import Dealing
from fifo_diffusion.decide import clip_of, guided_levels_of, plan_of
from fifo_diffusion.decode import to_frames, to_pixels
from fifo_diffusion.engine import Engine, State, check_finite
from fifo_diffusion.groups import groups
from fifo_diffusion.meter import Meter
from fifo_diffusion.methods.setting import Setting
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.lora import find_lora
from fifo_diffusion.models.split import Part
from fifo_diffusion.names import Frame, Watch
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.overlap import beside
from fifo_diffusion.preview import Preview, Queue
from fifo_diffusion.prompts import Table
from fifo_diffusion.protocols import Decoder, Turn
from fifo_diffusion.schedule import NoiseSchedule
from fifo_diffusion.sources import Clip
from fifo_diffusion.together import Together, in_step, together
from fifo_diffusion.trail import Place, Trail
from fifo_diffusion.version import __version__


class Came(NamedTuple):
    """What an iteration gives."""

    latents: Tensor  # (1, C, k, H, W), or none of them (k = 0)
    number: int  # of the first
    shown: bool  # or only looked at for errors, in the run-in


def unwatched(stage: str, done: int, total: int) -> None:
    """Nobody looks on."""


@dataclass(frozen=True, eq=False)
class Session:
    """One stream of one resolved run (see `decide`).  Iterate `frames()`."""

    run: Decided
    watch: Watch = unwatched
    meter: Meter = field(default_factory=Meter)
    preview: Preview | None = None
    group: Together | None = field(default_factory=together)
    trail: Trail[State] = field(default_factory=Trail)  # where the stream could be begun again

    @cached_property
    def model(self) -> Model:
        """Raises ModelError when the weights cannot be used."""
        run = self.run
        self.watch("loading", 0, 1)
        device = torch.device(run.device)
        whole = self._part is None and run.fp8 == "off"  # else it may fit on the device only when it is smaller
        first = device if whole else torch.device("cpu")
        model = models.load(run.model, first, getattr(torch, run.dtype), run.weights)
        model.fps, model.size = run.fps, run.size
        for given in run.lora:
            model.add_lora(*find_lora(given))
        if self._part is not None:
            model.split(self._part, device if run.fp8 == "off" else first)
        if run.fp8 != "off":
            model.in_eight_bits(device, products=run.fp8 == "products")
        if run.memory == "low":
            model.save_memory()
        if run.compile == "on":
            model.compile()
        self.watch("loading", 1, 1)  # which may stop it, before the disk knows of a video
        return model

    @cached_property
    def _part(self) -> Part | None:
        """Which part of the network this rank has; None where it has all."""
        if self.group is None or self.run.split == 1:
            return None
        split = self.run.split
        return Part(self.group.rank % split, split, lambda: groups(split).within)

    @cached_property
    def clip(self) -> Clip | None:
        """What the video goes on from, matched to the model."""
        return clip_of(self.run)

    @cached_property
    def prompts(self) -> Table:
        """Which frame of the video hears what; `say` adds to it, from any thread."""
        run, model = self.run, self.model
        per_latent = models.card(run.model).frames_per_latent
        return Table(
            run.table,
            model.embed,
            model.embed_negative,
            per_frame=model.per_frame_text,
            negative_prompt=run.negative_prompt,
            guidance=run.guidance,
            frames_per_latent=per_latent,
            first=1 if run.clip is None else per_latent,
        )

    def described(self) -> Decided:
        """The run with all that was said so far: scripted from the start, it makes the same video bit for bit."""
        cues = self.prompts.cues
        if cues == self.run.table:
            return self.run
        return self.run.model_copy(update={"prompt": cues[0].prompt, "cues": cues})

    def _dealing(self, schedule: NoiseSchedule, turn: Turn | None = None) -> Dealing:
        """turn: what of its positions in time turns otherwise."""
        timed = partial(self.meter.around, "network", device=self.model.device)
        network = self.model.denoiser(schedule) if turn is None else self.model.turning(turn)
        return Dealing(self.run, network, timed, self.group, self.meter)

    @cached_property
    def engine(self) -> Engine:
        run, model = self.run, self.model
        plan = plan_of(run)
        schedule = model.schedule(plan.levels, run.levels)
        return Engine(
            plan=plan,
            schedule=schedule,
            execute=self._dealing(schedule).executor(self.prompts, guided_levels_of(run)),
            condition=self.prompts,
            noise=SeededNoise(run.seed),
            eta=run.eta,
            solver=run.solver,
        )

    def follow(self, state: State | None) -> None:
        """On a rank other than 0: make the iterations that rank 0 makes, and nothing of them.

        state: the first; None where all make it together, for it needs a network that is split.
        """
        assert self.group is not None
        state = self.start() if state is None else state
        while (cues := self.group.hear()) is not None:
            self.prompts.cues = cues or self.prompts.cues  # none are said where they are as before
            _, state = self.engine.advance(state)

    def start(self) -> State:
        """The first state: after the user's clip, from a base clip of the model, or from noise."""
        run, engine, model = self.run, self.engine, self.model
        card = models.card(run.model)
        if self.clip is not None:
            seen = to_pixels(self.clip.window(card.frames)).to(model.device)
            return engine.continue_from(model.encode(seen[None]))
        like = self._like()
        if run.start == "noise":
            return engine.cold_start(like[:, :, 0])
        steps = sample_clip(
            self._dealing(engine.schedule).guided,
            engine.schedule,
            engine.condition,
            SeededNoise(_other_seed(run.seed)),
            like,
            run.eta,
        )
        clip = like
        for done, latest in enumerate(self.meter.each("base clip", steps, model.device), 1):
            clip = latest
            self.watch("base clip", done, engine.schedule.levels)
        return engine.warm_start(clip)

    def _like(self) -> Tensor:
        """A window of latents, (1, C, f, H, W)."""
        run, model = self.run, self.model
        card = models.card(run.model)
        width, height = (pixels // card.space for pixels in run.size)
        return torch.zeros(1, model.channels, card.window, height, width, device=model.device)

    def sampled(self) -> Iterator[Tensor]:
        """Chunks (1, C, k, H, W) by another method than FIFO."""
        run, model = self.run, self.model
        card = models.card(run.model)
        along = methods.temporal(run, card)
        if along is not None:
            model.attend_over(along)
        assert run.steps is not None
        schedule = model.schedule(run.steps, run.levels)
        setting = Setting(
            execute=self._dealing(schedule, methods.turn(run, card, model.rates)).alone,
            schedule=schedule,
            condition=self.prompts,
            noise=SeededNoise(run.seed),
            like=self._like(),
            eta=run.eta,
            watch=partial(self.watch, "sampling"),
        )
        return self.meter.each("iteration", methods.sample(run, setting, card.latents(run.frames)), model.device)

    def latents(self, state: State) -> Iterator[Tensor]:
        """Chunks (1, C, k, H, W) without end, the run-in left out.  Raises NotFinite."""
        return self._given(_sound(self.came(state)))

    def _given(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """As if they were shown, so that few states are kept to begin again from."""
        for chunk in chunks:
            self.trail.given += chunk.shape[2] * self.trail.per_latent
            yield chunk

    def came(self, state: State, known: Sequence[Tensor] = (), memory: int = 0) -> Iterator[Came]:
        """What each iteration gives, without end; the run-in is told to `watch`.

        known: those that the decoder sees before, one by one; memory: how many it remembers.
        """
        self.prompts.begin(self.engine.entered(state))  # at once, not with the first chunk
        before = (Came(latent, 0, True) for latent in known)
        return chain(before, self._came(state, deque(known, memory)))

    def _came(self, state: State, seen: deque[Tensor]) -> Iterator[Came]:
        hidden, each = self.engine.hidden(state), self.engine.plan.frames_per_level
        self.trail.passes(max(state.iteration, 0) * each, _remembered(state, seen))
        iterations = self.engine.iterations(state, self._look)
        for done, (frames, after) in enumerate(self.meter.each("iteration", iterations, self.model.device), 1):
            shown = after.iteration > 0 and frames.shape[2] > 0
            seen.extend(torch.split(frames, 1, dim=2) if shown else ())
            self.trail.passes(max(after.iteration, 0) * each, _remembered(after, seen))
            if not shown:
                self.watch("run-in", done, hidden)
            yield Came(frames, (after.iteration - 1) * each, shown)

    def _look(self, state: State, answers: Sequence[Tensor]) -> None:
        """Show the queue, where anyone wants to see it."""
        if self.preview is not None:
            with self.meter.time("preview"):
                self.preview(lambda: self._shown(state, answers))

    def _shown(self, state: State, answers: Sequence[Tensor]) -> Queue:
        """At most 16 places from the first to the last, each decoded by itself and for as much memory as one takes."""
        plan, expected = self.engine.plan, self.engine.expected(state, answers)
        places = sorted({round(i * (plan.length - 1) / 15) for i in range(16)})
        first = state.iteration * plan.frames_per_level - plan.context
        rows = []
        for latents in (state.queue, expected):
            shown = (latents[:, :, place : place + 1] for place in places)
            rows.append(np.concatenate([to_frames(next(self.model.decoder()(iter([one])))[0, :1]) for one in shown]))
        return Queue([f"frame {self.prompts.shows(first + p)}" for p in places], *rows)

    def frames(self, place: Place[State] | None = None) -> Generator[Frame, None, None]:
        """(height, width, 3) uint8 up to number `run.frames`, or without end where that is 0.

        place: where a session of the same run was, to go on from; None: the start.
        Raises NotFinite when the network breaks down.
        """
        made, skip = (0, 0) if place is None else (place.frame, place.skip)
        if made and made == self.run.frames:
            return
        if self.run.method != "fifo":
            came = (Came(latents, 0, True) for latents in self.sampled())
            with closing(self._frames(self.model.decoder(), came, None)) as frames:
                yield from self._seen(frames, 0, 0)
            return
        decoder, start = self.model.decoder(), self._first() if place is None else place.state
        per_latent = models.card(self.run.model).frames_per_latent
        known, again = self._known(start, decoder)
        skip += again
        lead = 0 if self.run.clip is None else models.card(self.run.model).window
        self.trail.begin(decoder.period, per_latent, made, lead)
        last = None
        if self.run.frames:  # by then as many latents have come as the frames could be of
            latents = 1 + -(-(self.run.frames - made + skip - 1) // per_latent) - len(known)
            iterations = -(-latents // self.engine.plan.frames_per_level)
            last = len(known) + self.engine.hidden(start) + max(1, iterations)
        frames = self._frames(decoder, self.came(start, known, decoder.memory), last)
        if self.group is not None and not (place is None and self._made_by_all):
            self._share({name: t.cpu() for name, t in start.tensors().items()})
        try:
            yield from self._seen(frames, made, skip)
        finally:
            frames.close()
            if self.group is not None:
                self.group.dismiss()

    def _known(self, start: State, decoder: Decoder) -> tuple[Sequence[Tensor], int]:
        """The latents that a decoder which remembers must have seen, and how many frames, not to be shown again, it
        makes of them.
        """
        card = models.card(self.run.model)
        if card.frames_per_latent == decoder.period == 1 and decoder.memory == 0:
            return (), 0  # each frame is decoded by itself
        if start.given is not None:  # the clip
            return torch.split(start.given, 1, dim=2), card.frames
        if start.seen is not None:  # of the latent after these the trail counts the last frame alone
            return torch.split(start.seen, 1, dim=2), start.seen.shape[2] * card.frames_per_latent
        return (), 0

    @property
    def _made_by_all(self) -> bool:
        """Whether the first state needs the network, and that is split over ranks."""
        return self._part is not None and self.run.start == "clip" and self.run.clip is None

    def _share(self, first: dict[str, Tensor] | None) -> None:
        """The job, told to all ranks; until they are ready for it.  first: None where all make that state together."""
        assert self.group is not None
        job = versions(), self.described(), self.model.weights, first
        with in_step():
            self.group.say(job, awaited=True)
            self.group.under_way = True
            self.group.loaded()
            self.group.awaited = first is None

    def _first(self) -> State:
        """`start`, on rank 0; where it takes all ranks, they are told before."""
        if not self._made_by_all:
            return self.start()
        assert self.group is not None
        self.prompts.begin(models.card(self.run.model).window)  # what is said while ranks load comes after these
        self._share(None)
        start = self.start()
        self.group.awaited = False
        return start

    def _frames(self, decoder: Decoder, came: Iterator[Came], last: int | None) -> Generator[Frame, None, None]:
        """Decoded, on the host: (height, width, 3) uint8.  last: of what came, the first that may be all there is to
        be shown.
        """

        def decode(came: Iterator[Came]) -> Iterator[NDArray[np.uint8]]:
            pixels = decoder(self.meter.each("latents", _sound(came)))
            return self.meter.each("pixels", (to_frames(part[0]) for part in pixels))

        if self.decodes_aside:
            alone = self.group is None
            with closing(beside(decode, came, last=last, device=self.model.device, alone=alone)) as chunks:
                yield from (frame for chunk in chunks for frame in chunk)
        else:
            yield from (frame for chunk in decode(came) for frame in chunk)

    @property
    def decodes_aside(self) -> bool:
        """Where the device has streams, and memory for an evaluation and a frame at once.  On a CPU both would want the
        same cores, and Apple's MPS has one stream.
        """
        return self.model.device.type == "cuda" and self.run.memory == "high"

    def _seen(self, frames: Iterator[Frame], made: int, skip: int) -> Iterator[Frame]:
        for frame in frames:
            if skip:
                skip -= 1
                continue
            made += 1
            self.trail.given = made
            self.watch("streaming", made, self.run.frames)
            yield frame
            if made == self.run.frames:  # never, where that is 0
                return


def versions() -> str:
    """Of what all ranks of a job must have alike, for each keeps the queue itself."""
    return f"fifo-diffusion {__version__} and torch {torch.__version__}"


def _remembered(state: State, seen: Sequence[Tensor]) -> State:
    """The state with the latents that a decoder begun there must see first; a clip that is given stands for itself."""
    return replace(state, seen=torch.cat(tuple(seen), dim=2)) if seen and state.given is None else state


def _sound(came: Iterator[Came]) -> Iterator[Tensor]:
    """Those that are shown.  Raises NotFinite."""
    for latents, number, shown in came:
        check_finite(latents, number)
        if shown:
            yield latents


def _other_seed(seed: int) -> int:
    """The base clip's own noise, told apart from the queue's."""
    return int.from_bytes(blake2b(f"base clip of {seed}".encode(), digest_size=7).digest())
