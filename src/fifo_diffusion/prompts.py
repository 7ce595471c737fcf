"""Which text each frame number hears, as data: encoded once, looked up by frame.

A frame hears the same text in every call from the day it enters the queue, so a video is a function of its table of
cues and not of when they were said.  Letters: B streams, F frames of one window.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from fifo_diffusion.config import Cue
from fifo_diffusion.errors import BadInput
from fifo_diffusion.protocols import GUIDANCE, NEGATIVE, Cond

KEPT = 128  # texts, and mixtures of texts, that are remembered: about as many as a queue can hear at once,
ROOM = 2**26  # and no more bytes of each than these: a text of Wan's takes 4 MiB of the device


@dataclass(frozen=True)
class OnePrompt:
    """The same text for every frame; for classifier-free guidance the unconditional text beside it.

    text, negative: what the model's `embed` gave, each tensor (B, ...), one row for each stream.
    """

    text: Cond
    negative: Cond

    def __call__(self, frames: range, /) -> Cond:
        """Cond of a window: the text as it is, and `negative_` keys for `guidance.Guided`."""
        return _beside(self.text, self.negative)


def _beside(text: Cond, negative: Cond) -> Cond:
    return {**text, **{f"{NEGATIVE}{name}": value for name, value in negative.items()}}


class _Remembered:
    """A function of texts whose latest answers are kept."""

    def __init__(self, make: Callable[..., Cond]) -> None:
        self._make, self._lock = make, Lock()
        self._kept: dict[tuple[Any, ...], Cond] = {}  # what was asked for last stands last

    def __call__(self, *asked: Any) -> Cond:
        with self._lock:
            made = self._kept.pop(asked, None)
            if made is not None:
                self._kept[asked] = made
                return made
        made = self._make(*asked)
        with self._lock:
            self._kept[asked] = made
            while len(self._kept) > KEPT or (len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > ROOM):
                del self._kept[next(iter(self._kept))]
        return made


def _bytes(cond: Cond) -> int:
    return sum(value.numel() * value.element_size() for value in cond.values())


Mixture = tuple[tuple[str, float], ...]  # prompts and their shares, which make 1


class Heard(NamedTuple):
    """What one frame hears."""

    text: Mixture
    negative: Mixture
    guidance: float


@dataclass(eq=False)
class Table:
    """A Conditioner that looks up a table of cues; more can be said from any thread while a stream runs.

    cues: sorted by frame of the video; the first holds from before the first frame on.
    embed, embed_negative: the model's, for one prompt at a time; every tensor (1, ...), of the same shape whatever
        the prompt.
    per_frame: whether the network takes a text for every frame.  Otherwise a window hears what its middle frame
        hears; where two prompts meet in it, that is the one most of its frames hear.
    negative_prompt, guidance: what holds where a cue says None.
    frames_per_latent: of the decoder; its latents are the engine's frames.  first: frames of latent 0, which is one
        alone where nothing was before it, and as many as any other behind a clip.
    """

    cues: tuple[Cue, ...]
    embed: Callable[[Sequence[str]], Cond]
    embed_negative: Callable[[Sequence[str]], Cond]
    per_frame: bool
    negative_prompt: str = ""
    guidance: float = 1.0
    frames_per_latent: int = 1
    first: int = 1
    _begun: int = field(default=0, init=False)  # frame numbers of the engine below this may have been heard
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        # None of these holds the table: in a cycle, a model would outlive its stream until the collector comes.
        embed, embed_negative = self.embed, self.embed_negative
        self._text = text = _Remembered(lambda prompt: embed([prompt]))
        self._against = against = _Remembered(lambda prompt: embed_negative([prompt]))
        self._cond = _Remembered(lambda said, other: _beside(_mixed(text, said), _mixed(against, other)))

    def __call__(self, frames: range, /) -> Cond:
        """What the window over these frames of the engine hears.

        Where all its frames hear the same, every tensor is (1, ...), as for `OnePrompt`; otherwise (1, F, ...).
        `guidance`, (1, 1) or (1, F), is there where a frame has another one than the run's; it stays on the CPU.
        """
        with self._lock:
            self._begun = max(self._begun, frames.stop)
            cues = self.cues
        numbers = frames if self.per_frame else [frames[len(frames) // 2]]
        heard = [self._heard(cues, self.shows(n)) for n in numbers]
        same = len(set(heard)) == 1
        if same:
            cond = self._cond(heard[0].text, heard[0].negative)
        else:
            each = [self._cond(h.text, h.negative) for h in heard]
            cond = {name: torch.stack([c[name] for c in each], dim=1) for name in each[0]}
        if any(h.guidance != self.guidance for h in heard):
            cond = {**cond, GUIDANCE: torch.tensor([[h.guidance for h in heard[: 1 if same else None]]])}
        return cond

    def say(
        self,
        prompt: str,
        *,
        at: int | None = None,
        negative_prompt: str | None = None,
        guidance: float | None = None,
        blend: int = 0,
        last: bool = False,
    ) -> int:
        """Add a cue at a frame of the video, or at the first one that nothing has heard yet; returns its frame.

        last: in place of all that were to come after it.

        Said again for the same frame, the last one counts.  Raises BadInput for values that are not allowed, and
        for a frame that has been begun: it would depend on when this was said.
        """
        said = {"prompt": prompt, "negative_prompt": negative_prompt, "guidance": guidance, "blend": blend}
        cue = Cue.of({"at": 0 if at is None else at, **said})
        self._text(prompt)  # here, so that the stream need not wait for it
        if negative_prompt is not None:
            self._against(negative_prompt)
        with self._lock:
            first = self.first_free
            if at is None:
                cue = cue.model_copy(update={"at": first})
            elif at < first:
                raise BadInput(
                    f"frame {at} is already being made; the first that can hear a new prompt is frame {first}"
                )
            others = (other for other in self.cues if (other.at < cue.at if last else other.at != cue.at))
            self.cues = tuple(sorted((*others, cue), key=lambda c: c.at))
        return cue.at

    @property
    def first_free(self) -> int:
        """The first frame of the video that nothing has heard yet."""
        return max(0, self.shows(self._begun - 1) + 1)

    def begin(self, frame: int) -> None:
        """The engine's frames below this number are taken: a state that is taken up again has made them begin."""
        with self._lock:
            self._begun = max(self._begun, frame)

    def shows(self, latent: int) -> int:
        """The last frame of the video that a latent stands for: it hears what that one does."""
        return latent * self.frames_per_latent + self.first - 1

    def _heard(self, cues: Sequence[Cue], frame: int) -> Heard:
        """Newest first: a cue that blends over b frames has the share 1/(b+1), 2/(b+1), ... of its first frames, and
        leaves the rest to what those frames would have heard without it.  So a cue may come while one before
        it still blends.
        """
        voices: list[tuple[Cue, float]] = []
        rest = 1.0
        for i in range(max(bisect_right(cues, frame, key=lambda c: c.at), 1) - 1, -1, -1):
            cue = cues[i]
            share = rest if i == 0 else rest * min(1.0, (frame - cue.at + 1) / (cue.blend + 1))
            voices.append((cue, share))
            rest -= share
            if rest <= 0:
                break
        against = ((self.negative_prompt if c.negative_prompt is None else c.negative_prompt, w) for c, w in voices)
        scales = _shares((self.guidance if c.guidance is None else c.guidance, w) for c, w in voices)
        text = _shares((c.prompt, w) for c, w in voices)
        return Heard(text, _shares(against), sum(scale * w for scale, w in scales))


def _mixed(embedded: Callable[[str], Cond], mixture: Mixture) -> Cond:
    if len(mixture) == 1:
        return embedded(mixture[0][0])
    return mix([(embedded(prompt), share) for prompt, share in mixture])


What = TypeVar("What", str, float)


def _shares(parts: Iterable[tuple[What, float]]) -> tuple[tuple[What, float], ...]:
    """Equal parts put together; the only one there is has all, exactly."""
    shares: dict[What, float] = {}
    for what, share in parts:
        shares[what] = shares.get(what, 0.0) + share
    return ((next(iter(shares)), 1.0),) if len(shares) == 1 else tuple(shares.items())


def mix(parts: Sequence[tuple[Cond, float]]) -> Cond:
    """The weighted mean of embeddings; a mask lets through what any of them lets through."""

    def one(tensors: Sequence[Tensor]) -> Tensor:
        if tensors[0].is_floating_point():
            return sum((t * share for t, (_, share) in zip(tensors, parts, strict=True)), torch.zeros_like(tensors[0]))
        return torch.stack(list(tensors)).amax(dim=0)

    return {name: one([cond[name] for cond, _ in parts]) for name in parts[0][0]}
