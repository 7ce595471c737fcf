"""A running stream: a `Run` made into model, prompts, engine, decoder and state; frames come out one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fifo_diffusion import models
from fifo_diffusion.baseclip import sample_clip
from fifo_diffusion.config import Decided, Run
from fifo_diffusion.decode import to_frames
from fifo_diffusion.devices import choose_device, choose_dtype
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Batched
from fifo_diffusion.guidance import Guided
from fifo_diffusion.meter import Meter
from fifo_diffusion.models.base import Model
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.prompts import OnePrompt
from fifo_diffusion.protocols import Denoiser
from fifo_diffusion.schedule import NoiseSchedule
from fifo_diffusion.trail import Place, Trail
from fifo_diffusion.windows import Keep, Plan

Frame = NDArray[np.uint8]
Watch = Callable[[str, int, int], None]  # stage, done, of how many (0: endless)


def unwatched(stage: str, done: int, total: int) -> None:
    """Nobody looks on."""


_KEEP: Mapping[str, Keep] = {"off": "all", "last": "last", "middle": "middle"}


def resolve(run: Run) -> Decided:
    """The run with every setting decided: the model's defaults, this machine's device and dtype.

    Raises BadInput or DeviceError for what this model or this machine cannot do, before any work.
    """
    card, device = models.card(run.model), choose_device(run.device)
    said = run.model_dump(exclude_none=True)
    defaults = {
        "weights": card.weights,
        "frames": max(1, round(10 * (run.fps or card.fps))),
        "size": card.size,
        "fps": card.fps,
        "partitions": card.partitions,
        "lookahead": card.lookahead,
        "eta": 0.0 if run.solver == "2m" else card.eta,
        "guidance": card.guidance,
    }
    here = {"device": str(device), "dtype": choose_dtype(run.dtype, device)}
    plan = _plan(run.model, said.get("partitions", card.partitions), said.get("lookahead", card.lookahead))
    decided = Decided.of({**defaults, "batch": len(plan.windows), **said, **here})
    card.check_weights(decided.weights)
    card.check_size(decided.size)
    card.check_levels(plan.levels)
    if decided.solver == "2m" and decided.eta != 0:
        raise BadInput(f"eta is {decided.eta:g} with solver 2m, which adds no noise; use eta 0 or solver ddim")
    return decided


def _plan(model: str, partitions: int, lookahead: str) -> Plan:
    return Plan(models.card(model).window, partitions, _KEEP[lookahead])


@dataclass(frozen=True, eq=False)
class Session:
    """One stream of one resolved run (see `resolve`).  Iterate `frames()`."""

    run: Decided
    watch: Watch = unwatched
    meter: Meter = field(default_factory=Meter)
    trail: Trail[State] = field(default_factory=Trail)  # where the stream could be begun again

    def described(self) -> Decided:
        """The run as it is by now: what sidecars and checkpoints store."""
        return self.run

    @cached_property
    def model(self) -> Model:
        """Raises ModelError when the weights cannot be used."""
        run = self.run
        self.watch("loading", 0, 1)
        return models.load(run.model, torch.device(run.device), getattr(torch, run.dtype), run.weights)

    def _denoiser(self, schedule: NoiseSchedule) -> Denoiser:
        return self.meter.around("network", Guided(self.model.denoiser(schedule), self.run.guidance))

    @cached_property
    def engine(self) -> Engine:
        run, model = self.run, self.model
        plan = _plan(run.model, run.partitions, run.lookahead)
        schedule = model.schedule(plan.levels, run.levels)
        return Engine(
            plan=plan,
            schedule=schedule,
            execute=Batched(self._denoiser(schedule), run.batch),
            condition=OnePrompt(model.embed([run.prompt]), model.embed([run.negative_prompt])),
            noise=SeededNoise(run.seed),
            eta=run.eta,
            solver=run.solver,
        )

    def start(self) -> State:
        """The first state: from a base clip of the model, or from noise."""
        run, engine, model = self.run, self.engine, self.model
        card = models.card(run.model)
        width, height = (pixels // card.space for pixels in run.size)
        like = torch.zeros(1, model.channels, card.window, height, width, device=model.device)
        if run.start == "noise":
            return engine.cold_start(like[:, :, 0])
        steps = sample_clip(
            self._denoiser(engine.schedule),
            engine.schedule,
            engine.condition,
            SeededNoise(_other_seed(run.seed)),
            like,
            run.eta,
        )
        clip = like
        for done, latest in enumerate(self.meter.each("base clip", steps), 1):
            clip = latest
            self.watch("base clip", done, engine.schedule.levels)
        return engine.warm_start(clip)

    def latents(self, state: State) -> Iterator[Tensor]:
        """Chunks (1, C, k, H, W) without end; the run-in is made and left out, and told to `watch`."""
        hidden, each = self.engine.hidden(state), self.engine.plan.frames_per_level
        self.trail.passes(max(state.iteration, 0) * each, state)
        for done, (frames, after) in enumerate(self.meter.each("iteration", self.engine.iterations(state)), 1):
            self.trail.passes(max(after.iteration, 0) * each, after)
            if frames.shape[2]:
                yield frames
            else:
                self.watch("run-in", done, hidden)

    def frames(self, place: Place[State] | None = None) -> Iterator[Frame]:
        """(height, width, 3) uint8 up to number `run.frames`, or without end where that is 0.

        place: where a session of the same run was, to go on from; None: the start.
        Raises NotFinite when the network breaks down.
        """
        made, skip = (0, 0) if place is None else (place.frame, place.skip)
        if made and made == self.run.frames:
            return
        decoder = self.model.decoder()
        self.trail.begin(decoder.period, models.card(self.run.model).frames_per_latent, made)
        pixels = decoder(self.latents(self.start() if place is None else place.state))
        for chunk in self.meter.each("pixels", (to_frames(part[0]) for part in pixels)):
            for frame in chunk:
                if skip:
                    skip -= 1
                    continue
                made += 1
                self.trail.given = made
                self.watch("streaming", made, self.run.frames)
                yield frame
                if made == self.run.frames:  # never, where that is 0
                    return


def _other_seed(seed: int) -> int:
    """The base clip's own noise, told apart from the queue's."""
    return int.from_bytes(blake2b(f"base clip of {seed}".encode(), digest_size=7).digest())
