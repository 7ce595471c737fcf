"""Noise that depends on nothing but its name: (seed, frame, level).

So a stream resumed, re-partitioned, batched with others or spread over devices draws the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from fifo_diffusion.devices import sent
from fifo_diffusion.errors import BadInput
from fifo_diffusion.protocols import Noise


@dataclass(frozen=True)
class SeededNoise:
    """Unit normals drawn on the CPU in float32, then sent to where they are needed.

    seeds: one for each stream of the batch; a single int is a batch of one stream.
    """

    seeds: int | Sequence[int]

    def __call__(self, frame: int, level: int, like: Tensor) -> Tensor:
        """The noise of `frame` at `level`, as `like` (B, C, H, W).  Raises BadInput unless there are B
        seeds.
        """
        seeds = (self.seeds,) if isinstance(self.seeds, int) else self.seeds
        if len(seeds) != like.shape[0]:
            raise BadInput(f"{len(seeds)} seeds were given for a batch of {like.shape[0]} streams; give one for each")
        return torch.stack([_draw(f"{seed}/{frame}/{level}", like.shape[1:]) for seed in seeds]).to(like)


def draw(noise: Noise, first: int, levels: int | Sequence[int], like: Tensor) -> Tensor:
    """(B, C, F, H, W): the noise of the frames from `first` on, as like: each at its level, or all of like's at one.
    Asked for on the host, and sent to the device all at once, which nobody waits for.
    """
    levels = [levels] * like.shape[2] if isinstance(levels, int) else levels
    one = torch.empty((*like.shape[:2], *like.shape[3:]), dtype=like.dtype, device="cpu")
    return sent(torch.stack([noise(first + i, k, one) for i, k in enumerate(levels)], dim=2), like.device)


def _draw(name: str, shape: torch.Size) -> Tensor:
    digest = blake2b(name.encode(), digest_size=8).digest()
    # manual_seed takes 63 bits without wrapping into negative numbers
    rng = torch.Generator("cpu").manual_seed(int.from_bytes(digest) >> 1)
    return torch.randn(shape, generator=rng, dtype=torch.float32, device="cpu")  # whatever the default is
