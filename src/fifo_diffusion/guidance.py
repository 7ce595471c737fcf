"""Classifier-free guidance (arXiv:2207.12598): a Denoiser around a Denoiser; and at which noise levels there is any."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.protocols import GUIDANCE, NEGATIVE, Call, Cond, Denoiser, Executor, SharedDenoiser


@dataclass(frozen=True)
class Guided:
    """u + scale (c - u): c hears the prompt, u hears each `negative_x` in place of `x`; the rest they share.

    Scale 1 is the network itself: one evaluation, negatives ignored.  Otherwise both sides are one batch of 2B (of B
    for as long as the network hears nothing, where it can tell: see `SharedDenoiser`), or two calls of B with
    `batched` off (half the memory; or texts of different lengths).
    A condition `guidance`, (B, 1) or (B, F), is the scale of each stream, or of each frame, instead; the network
    does not hear it.
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
            scales = cond[GUIDANCE]
            scale = 1 if bool((scales == 1).all()) else scales.to(z)[:, None, :, None, None]
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


@dataclass(frozen=True)
class GuidedLevels:
    """Guidance at levels first .. last only (a limited interval, arXiv:2404.07724): an Executor around one of `Guided`.

    A frame outside them is moved by what the network says of its prompt alone, as at scale 1.  So a window whose kept
    frames all lie outside is asked once instead of twice; one whose kept frames all lie inside is asked as ever, and
    one that keeps some of both is asked twice, with a scale for every frame.
    scale: `Guided`'s; a call's own condition `guidance` goes before it.
    """

    execute: Executor
    scale: float
    first: int
    last: int

    def __call__(self, calls: Sequence[Call], /) -> Sequence[Tensor]:
        """Each answer is (B, C, F, H, W).  The calls must say their levels, as the engine's do."""
        return self.execute([self._within(call) for call in calls])

    def _within(self, call: Call) -> Call:
        assert call.level is not None
        inside = (call.level >= self.first) & (call.level <= self.last)  # (F,)
        if bool(inside[call.kept].all()):
            return call
        if not bool(inside[call.kept].any()):
            alone = {name: c for name, c in call.cond.items() if not name.startswith(NEGATIVE)}
            return call._replace(cond={**alone, GUIDANCE: torch.ones(len(call.z), 1)})
        scales = call.cond.get(GUIDANCE, torch.full((len(call.z), 1), self.scale))
        return call._replace(cond={**call.cond, GUIDANCE: torch.where(inside, scales, 1.0)})
