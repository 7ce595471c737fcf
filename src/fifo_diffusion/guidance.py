"""Classifier-free guidance (arXiv:2207.12598): a Denoiser around a Denoiser."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fifo_diffusion.devices import sent
from fifo_diffusion.errors import BadInput
from fifo_diffusion.protocols import GUIDANCE, NEGATIVE, Cond, Denoiser, SharedDenoiser


@dataclass(frozen=True)
class Guided:
    """u + scale (c - u): c hears the prompt, u hears each `negative_x` in place of `x`; the rest they share.

    Scale 1 is the network itself: one evaluation, negatives ignored.  Otherwise both sides are one batch of 2B (of B
    for as long as the network hears nothing, where it can tell: see `SharedDenoiser`), or two calls of B with
    `batched` off (half the memory; or texts of different lengths).
    A condition `guidance`, (B, 1) or (B, F), is the scale of each stream, or of each frame, instead; the network
    does not hear it.  It should be on the CPU, for it is looked at.
    """

    denoise: Denoiser
    scale: float
    batched: bool = True

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """(B, C, F, H, W), (B, F) -> (B, C, F, H, W).  Raises BadInput when there is nothing to guide away
        from.
        """
        scale: Tensor | float = self.scale
        if GUIDANCE in cond:
            scale = _scales(tuple(map(tuple, cond[GUIDANCE].tolist())), z.device, z.dtype)
        positive = {name: c for name, c in cond.items() if not name.startswith(NEGATIVE) and name != GUIDANCE}
        if isinstance(scale, float | int) and scale == 1:
            return self.denoise(z, t, positive)
        instead = {name.removeprefix(NEGATIVE): c for name, c in cond.items() if name.startswith(NEGATIVE)}
        if not instead or not instead.keys() <= positive.keys():
            raise BadInput(
                f"guidance other than 1 got the conditions {sorted(cond)}; it needs at least one "
                f"{NEGATIVE}x beside its x (or scale 1, which needs none)"
            )
        negative = {**positive, **instead}
        if self.batched and isinstance(self.denoise, SharedDenoiser):
            c, u = self.denoise.each(z, t, [positive, negative])
        elif self.batched:
            both = {name: torch.cat([c, negative[name]]) for name, c in positive.items()}
            c, u = self.denoise(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2)
        else:
            c, u = self.denoise(z, t, positive), self.denoise(z, t, negative)
        return u + scale * (c - u)


@lru_cache(maxsize=256)
def _scales(each: tuple[tuple[float, ...], ...], device: torch.device, dtype: torch.dtype) -> Tensor | float:
    """(B, 1, 1 or F, 1, 1) on the device, sent there once; 1 where all are."""
    if all(scale == 1 for stream in each for scale in stream):
        return 1.0
    return sent(torch.tensor(each, dtype=dtype), device)[:, None, :, None, None]
