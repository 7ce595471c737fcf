"""Windows that overlap, and how what they say is put together.

Letters: N rows, f frames of a window, F of the video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def windows(frames: int, window: int, stride: int) -> list[slice]:
    """Every stride-th window; the last one ends where the video ends."""
    last = max(frames - window, 0)
    starts = [*range(0, last, stride), last]
    return [slice(start, min(start + window, frames)) for start in starts]


def even(window: int) -> Tensor:
    """Every frame of a window counts the same, (f,)."""
    return torch.ones(window)


def pyramid(window: int) -> Tensor:
    """A frame counts the less the farther it is from the window's middle, (f,): 1 at its ends."""
    place = torch.arange(1, window + 1)
    return torch.minimum(place, window + 1 - place).float()


def fused(parts: Sequence[Tensor], where: Sequence[slice], weigh: Callable[[int], Tensor], dim: int) -> Tensor:
    """The weighted mean of parts, one for each of the windows, frames along `dim`; a single window is left as it is."""
    if len(parts) == 1:
        return parts[0]
    shape = [1] * parts[0].ndim
    size = list(parts[0].shape)
    size[dim] = where[-1].stop
    total, weights = parts[0].new_zeros(size), parts[0].new_zeros(size[dim])
    for part, at in zip(parts, where, strict=True):
        weight = weigh(part.shape[dim]).to(part)
        shape[dim] = len(weight)
        total.narrow(dim, at.start, len(weight)).add_(part * weight.view(shape))
        weights[at] += weight
    shape[dim] = len(weights)
    return total / weights.view(shape)


@dataclass(frozen=True)
class Windowed:
    """A rule for attention along frames: f neighbouring frames attend to each other, every stride-th such window, and
    where windows overlap a frame takes their mean, weighted by `pyramid`: FreeNoise's window-based attention fusion
    (arXiv:2310.15169, sec. 3.3).  It is computed window after window, so that memory grows with the frames only.
    """

    window: int
    stride: int

    def __call__(self, attend: Callable[[slice], Tensor], frames: int, /) -> Tensor:
        """(N, part, ...) -> (N, frames, ...)"""
        where = windows(frames, self.window, self.stride)
        return fused([attend(part) for part in where], where, pyramid, dim=1)
