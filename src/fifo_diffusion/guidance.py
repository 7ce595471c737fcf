"""Classifier-free guidance (arXiv:2207.12598): a Denoiser around a Denoiser, or an Executor around an Executor; and at
which noise levels there is any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from fifo_diffusion.devices import sent
from fifo_diffusion.errors import BadInput
from fifo_diffusion.protocols import GUIDANCE, NEGATIVE, Call, Cond, Denoiser, Executor, SharedDenoiser


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
        sides = _sides(cond, self.scale, z)
        if len(sides.conds) == 1 or not self.batched:
            return sides.joined([self.denoise(z, t, heard) for heard in sides.conds])
        if isinstance(self.denoise, SharedDenoiser):
            return sides.joined(self.denoise.each(z, t, sides.conds))
        both = {name: torch.cat([heard[name] for heard in sides.conds]) for name in sides.conds[0]}
        return sides.joined(self.denoise(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2))


@dataclass(frozen=True)
class Halves:
    """`Guided` with `batched` off, as an Executor around one of the bare network: each side is a call of its own, so
    that the two can be answered in different places.  With each call computed alone the answers are the same bits.
    """

    execute: Executor
    scale: float

    def __call__(self, calls: Sequence[Call], /) -> list[Tensor]:
        """Each answer is (B, C, F, H, W).  Raises BadInput as `Guided` does."""
        each = [_sides(call.cond, self.scale, call.z) for call in calls]
        halves = [call._replace(cond=heard) for call, sides in zip(calls, each, strict=True) for heard in sides.conds]
        answers = iter(self.execute(halves))
        return [sides.joined(list(islice(answers, len(sides.conds)))) for sides in each]


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


class _Sides(NamedTuple):
    """What the network is asked for a window, and what is made of it."""

    conds: Sequence[Cond]  # the prompt's, and but for scale 1 the other side's
    scale: Tensor | float

    def joined(self, answers: Sequence[Tensor]) -> Tensor:
        if len(answers) == 1:
            return answers[0]
        c, u = answers
        return u + self.scale * (c - u)


def _sides(cond: Cond, scale: Tensor | float, z: Tensor) -> _Sides:
    """The names that begin with NEGATIVE, and GUIDANCE, the network itself never hears."""
    if GUIDANCE in cond:
        scale = _scales(tuple(map(tuple, cond[GUIDANCE].tolist())), z.device, z.dtype)
    positive = {name: c for name, c in cond.items() if not name.startswith(NEGATIVE) and name != GUIDANCE}
    if isinstance(scale, float | int) and scale == 1:
        return _Sides([positive], scale)
    instead = {name.removeprefix(NEGATIVE): c for name, c in cond.items() if name.startswith(NEGATIVE)}
    if not instead or not instead.keys() <= positive.keys():
        raise BadInput(
            f"guidance other than 1 got the conditions {sorted(cond)}; it needs at least one "
            f"{NEGATIVE}x beside its x (or scale 1, which needs none)"
        )
    return _Sides([positive, {**positive, **instead}], scale)


@lru_cache(maxsize=256)
def _scales(each: tuple[tuple[float, ...], ...], device: torch.device, dtype: torch.dtype) -> Tensor | float:
    """(B, 1, 1 or F, 1, 1) on the device, sent there once; 1 where all are."""
    if all(scale == 1 for stream in each for scale in stream):
        return 1.0
    return sent(torch.tensor(each, dtype=dtype), device)[:, None, :, None, None]
