"""Classifier-free guidance (arXiv:2207.12598): a Denoiser around a Denoiser."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.protocols import Cond, Denoiser

NEGATIVE = "negative_"
"""Prefix of the conditions that the unconditional side hears in place of the ones they are named for."""


@dataclass(frozen=True)
class Guided:
    """u + scale (c - u): c hears the prompt, u hears each `negative_x` in place of `x`; the rest they share.

    Scale 1 is the network itself: one evaluation, negatives ignored.  Otherwise both sides are one batch
    of 2B, or two calls of B with `batched` off (half the memory; or texts of different lengths).
    """

    denoise: Denoiser
    scale: float
    batched: bool = True

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """(B, C, F, H, W), (B, F) -> (B, C, F, H, W).  Raises BadInput when there is nothing to guide away
        from.
        """
        positive = {name: c for name, c in cond.items() if not name.startswith(NEGATIVE)}
        if self.scale == 1:
            return self.denoise(z, t, positive)
        instead = {name.removeprefix(NEGATIVE): c for name, c in cond.items() if name.startswith(NEGATIVE)}
        if not instead or not instead.keys() <= positive.keys():
            raise BadInput(
                f"guidance of scale {self.scale} got the conditions {sorted(cond)}; it needs at least one "
                f"{NEGATIVE}x beside its x (or scale 1, which needs none)"
            )
        negative = {**positive, **instead}
        if self.batched:
            both = {name: torch.cat([c, negative[name]]) for name, c in positive.items()}
            c, u = self.denoise(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2)
        else:
            c, u = self.denoise(z, t, positive), self.denoise(z, t, negative)
        return u + self.scale * (c - u)
