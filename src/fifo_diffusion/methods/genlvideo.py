"""Gen-L-Video (Wang et al. 2023, arXiv:2305.18264): overlapping short clips of one video, denoised together.

At every level each clip is answered by itself, and where clips overlap a frame goes on by the mean of what they say
(sec. 4.1: the least-squares solution, with the same weight for every frame).  The mean is taken of the answers; the
step is linear in them (where the schedule sets no limit), so it is the mean of the steps too.  Letters as in `setting`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fifo_diffusion.methods.overlapping import even, fused, windows
from fifo_diffusion.methods.setting import Setting


def genlvideo(setting: Setting, length: int, stride: int) -> Iterator[Tensor]:
    """Yields `length` frames (B, C, 1, H, W).  About length / stride evaluations of f frames a level."""

    def answer(z: Tensor, level: Tensor) -> Tensor:
        where = windows(z.shape[2], setting.window, stride)
        calls = [setting.call(z[:, :, at], level[at], range(at.start, at.stop)) for at in where]
        return fused(setting.execute(calls), where, even, dim=2)

    return setting.whole(answer, length)
