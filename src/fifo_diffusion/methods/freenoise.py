"""FreeNoise (Qiu et al. 2023, arXiv:2310.15169): a long video from the noise of a short one.

The first f frames have noise of their own; later ones have it again, shuffled within blocks of `stride` frames, so that
far frames are correlated (sec. 3.2).  Attention along frames goes by overlapping windows (sec. 3.3,
`overlapping.Windowed`), which the model must have been told.  Letters as in `setting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

from torch import Tensor

from fifo_diffusion.methods.plain import plain
from fifo_diffusion.methods.setting import Setting
from fifo_diffusion.protocols import Noise


@dataclass(frozen=True)
class Rescheduled:
    """Noise by name whose frames from f on enter with the noise of an earlier one; fresh noise (eta) is left alone."""

    noise: Noise
    seed: int
    levels: int  # K, at which frames enter
    window: int
    stride: int

    def __call__(self, frame: int, level: int, like: Tensor, /) -> Tensor:
        """As `protocols.Noise`."""
        return self.noise(self.source(frame) if level == self.levels else frame, level, like)

    def source(self, frame: int) -> int:
        """The frame of the first f whose noise this one has: each block of the first f is shuffled anew each time."""
        if frame < self.window:
            return frame
        time, place = divmod(frame - self.window, self.window)
        start = place - place % self.stride
        block = range(start, min(start + self.stride, self.window))
        shuffled = sorted(block, key=lambda i: blake2b(f"{self.seed}/{time}/{i}".encode(), digest_size=8).digest())
        return shuffled[place - start]


def freenoise(setting: Setting, length: int, stride: int, seed: int) -> Iterator[Tensor]:
    """Yields `length` frames (B, C, 1, H, W).  One evaluation of all frames a level."""
    noise = Rescheduled(setting.noise, seed, setting.schedule.levels, setting.window, stride)
    return plain(replace(setting, noise=noise), length)
