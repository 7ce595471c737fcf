"""Ways to answer an iteration's calls.  The calls are independent, so all of these give the same frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.protocols import Call, Denoiser


@dataclass(frozen=True)
class Serial:
    """One call at a time: the least memory."""

    denoise: Denoiser

    def __call__(self, calls: Sequence[Call], /) -> list[Tensor]:
        """Each answer is (B, C, F, H, W)."""
        return [self.denoise(call.z, call.t, call.cond) for call in calls]


@dataclass(frozen=True)
class Batched:
    """Up to `limit` windows as one batch: the most of one large device.  `limit` bounds the memory.

    All calls must hear conditions of the same names and shapes.  Raises BadInput for a limit below 1.
    """

    denoise: Denoiser
    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise BadInput(f"the limit is {self.limit} windows at once; it must be at least 1")

    def __call__(self, calls: Sequence[Call], /) -> list[Tensor]:
        """Each answer is (B, C, F, H, W)."""
        out: list[Tensor] = []
        for i in range(0, len(calls), self.limit):
            zs, ts, conds, _ = zip(*calls[i : i + self.limit], strict=True)
            cond = {name: torch.cat([c[name] for c in conds]) for name in conds[0]}
            out += self.denoise(torch.cat(zs), torch.cat(ts), cond).chunk(len(zs))
        return out
