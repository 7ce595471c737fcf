"""A function of pictures done square by square, in a bounded amount of memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def tiled(change: Callable[[Tensor], Tensor], x: Tensor, tile: int | None, scale: float) -> Tensor:
    """`change` of squares of x, put together; scale: how much wider and higher what comes out is."""
    if tile is None:
        return change(x)
    return _strips(lambda row: _strips(change, row, 4, tile, scale), x, 3, tile, scale)


def _strips(change: Callable[[Tensor], Tensor], x: Tensor, axis: int, tile: int, scale: float) -> Tensor:
    """`change` of overlapping stretches along one axis, going over linearly from each to the next."""
    length, shared = x.shape[axis], tile // 4
    step = tile - shared
    step_out, shared_out = int(step * scale), int(shared * scale)
    done: list[Tensor] = []
    tail: Tensor | None = None
    for start in range(0, length, step):
        part = change(x.narrow(axis, start, min(tile, length - start)))
        if tail is not None:
            ramp = torch.arange(shared_out, device=part.device, dtype=part.dtype).div(max(shared_out, 1))
            head = part.narrow(axis, 0, shared_out)
            head.copy_(tail.lerp(head, ramp.view(-1, *[1] * (4 - axis))))
        if start + tile >= length:
            return torch.cat([*done, part], dim=axis)
        done.append(part.narrow(axis, 0, step_out))
        tail = part.narrow(axis, step_out, shared_out)
    raise AssertionError(length)
