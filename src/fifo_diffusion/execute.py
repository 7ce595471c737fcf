"""Ways to answer an iteration's calls.  The calls are independent, so all of these give the same frames."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.memory import lacks_memory
from fifo_diffusion.protocols import Call, Denoiser


@dataclass(frozen=True)
class Serial:
    """One call at a time: the least memory."""

    denoise: Denoiser

    def __call__(self, calls: Sequence[Call], /) -> list[Tensor]:
        """Each answer is (B, C, F, H, W)."""
        return [self.denoise(call.z, call.t, call.cond) for call in calls]


@dataclass
class Batched:
    """Up to `limit` windows as one batch: the most of one large device.  `limit` bounds the memory.

    Where the device has too little memory for that, `limit` is halved, with a warning, and the same windows are asked
    again; one window that does not fit raises torch.OutOfMemoryError.

    Only calls that hear conditions of the same names and shapes share a batch: where a prompt changes, windows whose
    frames hear different texts are a batch of their own.  Raises BadInput for a limit below 1.

    few_sizes: a batch is filled up to a power of two, or the limit, with its last window once more.  For networks that
    are compiled for every size, which takes minutes: a clip that goes on, or a start from noise, asks for every number
    of windows up to all.

    gives_way: halve the limit where memory does not suffice; not where other ranks compute layers of the same windows,
    for they would not.
    """

    denoise: Denoiser
    limit: int
    few_sizes: bool = False
    gives_way: bool = True

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
            while places:
                some = places[: self.limit]
                asked = [calls[i] for i in some]
                if self.few_sizes:
                    asked += asked[-1:] * (min(self.limit, 1 << (len(some) - 1).bit_length()) - len(some))
                cond = {name: torch.cat([call.cond[name] for call in asked]) for name in asked[0].cond}
                z, t = torch.cat([call.z for call in asked]), torch.cat([call.t for call in asked])
                try:
                    answers = self.denoise(z, t, cond).chunk(len(asked))
                except RuntimeError as error:
                    if len(some) == 1 or not self.gives_way or not lacks_memory(error):
                        raise
                    self.limit = len(some) // 2
                    warnings.warn(
                        f"{len(some)} windows at once do not fit into the device's memory; it goes on with "
                        f"{self.limit} (--batch {self.limit}), which may change the last bits of the frames",
                        stacklevel=2,
                    )
                    continue
                out.update(zip(some, answers, strict=False))
                places = places[self.limit :]
        return [out[i] for i in range(len(calls))]
