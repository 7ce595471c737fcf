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

    Only calls that hear conditions of the same names and shapes share a batch: where a prompt changes, windows whose
    frames hear different texts are a batch of their own.  Raises BadInput for a limit below 1.
    """

    denoise: Denoiser
    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise BadInput(f"the limit is {self.limit} windows at once; it must be at least 1")

    def __call__(self, calls: Sequence[Call], /) -> list[Tensor]:
        """Each answer is (B, C, F, H, W)."""
        alike: dict[object, list[int]] = {}
        for i, call in enumerate(calls):
            alike.setdefault(frozenset((name, c.shape[1:]) for name, c in call.cond.items()), []).append(i)
        out: dict[int, Tensor] = {}
        for places in alike.values():
            for first in range(0, len(places), self.limit):
                some = places[first : first + self.limit]
                zs, ts, conds, _ = zip(*(calls[i] for i in some), strict=True)
                cond = {name: torch.cat([c[name] for c in conds]) for name in conds[0]}
                answers = self.denoise(torch.cat(zs), torch.cat(ts), cond).chunk(len(some))
                out.update(zip(some, answers, strict=True))
        return [out[i] for i in range(len(calls))]
