"""FreeLong (Lu et al. 2024, arXiv:2407.19918): slow from the whole video, quick from short stretches of it.

Attention along frames is computed twice, over all frames and over windows of f, and a frame takes the low frequencies
of the first and the high ones of the second (SpectralBlend temporal attention, sec. 3.2).  Sampling is plain, so it is
FreeNoise's opposite: each frame's noise is its own, and far frames agree by hearing each other.

Letters: N rows, F frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fifo_diffusion.methods.overlapping import Windowed

STOP = 0.25  # the deviation of the Gaussian low-pass, in parts of the highest frequency


@dataclass(frozen=True)
class SpectralBlend:
    """A rule for attention along frames.

    The filter goes along frames only, since tokens of some networks have no picture to be filtered in.  Windows are
    FreeNoise's, one for `stride` frames; the authors' code gives every frame its own window, the 8 frames on each side
    of it, and blends nothing in where the picture is largest.
    """

    local: Windowed

    def __call__(self, attend: Callable[[slice], Tensor], frames: int, /) -> Tensor:
        """(N, part, ...) -> (N, frames, ...); a video of one window is left as it is."""
        everywhere = attend(slice(0, frames))
        if frames <= self.local.window:
            return everywhere
        near = self.local(attend, frames)
        return near + low_pass(everywhere - near)


def low_pass(x: Tensor) -> Tensor:
    """x (N, F, ...) with its frequencies along F damped by exp(-(frequency / STOP)^2 / 2), 1 being the highest."""
    length = x.shape[1]
    frequency = torch.arange(length // 2 + 1, device=x.device) / (length / 2)
    keep = torch.exp(-((frequency / STOP) ** 2) / 2).view(-1, *[1] * (x.ndim - 2))
    wave = torch.fft.rfft(x.float(), dim=1)
    slow: Tensor = torch.fft.irfft(wave * keep, n=length, dim=1).to(x.dtype)
    return slow
