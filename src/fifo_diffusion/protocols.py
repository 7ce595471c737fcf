"""The words every floor shares.  Imports nothing of ours.

Letters: B streams, C latent channels, F frames of one window, k frames that leave together,
H W height and width (latent for latents, pixels for pixels).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

Cond = Mapping[str, Tensor]
"""What a window hears: by name, each (B, ...), whatever the network cross-attends to.  Where the frames of a window
hear different texts, and only there, each is (B, F, ...)."""

NEGATIVE = "negative_"
"""Prefix of the conditions that the unconditional side of guidance hears in place of the ones they are named for."""

GUIDANCE = "guidance"
"""Name of the condition that holds guidance scales, (B, 1) or (B, F), where they are not the run's."""


class Call(NamedTuple):
    """One network evaluation of one window."""

    z: Tensor  # (B, C, F, H, W)
    t: Tensor  # (B, F) every frame at its own time, float32 or float64
    cond: Cond
    kept: slice = slice(None)  # the frames of the window whose answer will be used
    level: Tensor | None = None  # (F,) which levels those times are, on the host; None where nobody says


class Denoiser(Protocol):
    """The whole of what a network is to us."""

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """(B, C, F, H, W), (B, F) -> (B, C, F, H, W), in the terms `NoiseSchedule.predicts` names."""
        ...


class Temporal(Protocol):
    """Attention along frames, in place of every frame attending to every other."""

    def __call__(self, attend: Callable[[slice], Tensor], frames: int, /) -> Tensor:
        """(N, frames, ...), put together of what attend(part) gives: (N, part's frames, ...), the frames of that part
        attending to each other only.
        """
        ...


class Turn(NamedTuple):
    """One component of rotary positions in time, and how fast it is to turn instead of as it was trained to."""

    component: int  # from 0, in the network's own order
    rate: float  # radians a latent frame


@runtime_checkable
class SharedDenoiser(Denoiser, Protocol):
    """A denoiser that computes once what windows have in common whatever they hear."""

    def each(self, z: Tensor, t: Tensor, conds: Sequence[Cond], /) -> Sequence[Tensor]:
        """As if called with each of these conditions, which have the same names and shapes."""
        ...


class Executor(Protocol):
    """A way to answer the calls of an iteration."""

    def __call__(self, calls: Sequence[Call], /) -> Sequence[Tensor]:
        """Answer the calls, in order.  They do not depend on each other."""
        ...


class Conditioner(Protocol):
    """Prompts as data: which frame number hears what."""

    def __call__(self, frames: range, /) -> Cond:
        """What the window over these frame numbers hears.  Numbers below 0 are frames nobody will see."""
        ...


class Noise(Protocol):
    """The seam through which all randomness comes."""

    def __call__(self, frame: int, level: int, like: Tensor, /) -> Tensor:
        """The unit normal of one frame at one level, as `like` (B, C, H, W): always the same one.  The engine asks for
        it on the host.

        A name is used at most once in a stream: (frame, its first level) when the frame enters the
        queue, (frame, k) for the fresh noise of its step down to level k.
        """
        ...


class Decoder(Protocol):
    """Latents to pixels, as they come.

    period: a decoder begun at a latent whose number is a multiple of this gives what the running one gives, but
    for the first frame where a latent stands for several; 1 where each latent is decoded by itself, None where
    all depends on all that was before.  memory: and if it has seen this many of the latents before that one, or all
    there were.  So a stopped stream can go on.
    """

    @property
    def period(self) -> int | None: ...

    @property
    def memory(self) -> int: ...

    def __call__(self, latents: Iterator[Tensor], /) -> Iterator[Tensor]:
        """Chunks (B, C, k, H, W) of latents -> chunks (B, k, 3, H, W) of pixels, floats in [-1, 1].

        It may hold frames back (a causal 3D decoder does) and gives what is left when the latents end.
        """
        ...
