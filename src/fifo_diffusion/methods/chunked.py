"""Clip after clip, each going on from the last frames of the one before: the replacement method (Ho et al. 2022,
arXiv:2204.03458, sec. 3.1).

A clip's first frames are known; at every level they are what noising the known frames gives, and the network answers
for the rest.  The known frames move by what is known of them, which is an exact sample of their noising at every eta.
Letters as in `setting`; o frames overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor

from fifo_diffusion.methods.setting import Setting
from fifo_diffusion.noise import draw


def chunked(setting: Setting, overlap: int) -> Iterator[Tensor]:
    """Yields frames without end: f of them, then f - o at a time, (B, C, k, H, W).  K evaluations each time."""
    known, f = setting.like[:, :, :0], setting.window
    for number in count():
        clip = _next(setting, known, number * f, number * (f - overlap))
        yield clip[:, :, known.shape[2] :]
        known = clip[:, :, f - overlap :]


def _next(setting: Setting, known: Tensor, name: int, first: int) -> Tensor:
    """The clip (B, C, f, H, W) that begins with these frames.

    first: the number of its first frame.  name: what that is called when noise is asked for: a frame that is noised
    again is noised with other numbers.
    """
    schedule, held = setting.schedule, known.shape[2]
    z = draw(setting.noise, name, schedule.levels, setting.like)
    if held:
        level = torch.full((held,), schedule.levels, device=z.device)
        z = torch.cat([schedule.add_noise(known, z[:, :, :held], level), z[:, :, held:]], dim=2)

    def answer(z: Tensor, level: Tensor) -> Tensor:
        frames = range(first, first + z.shape[2])
        (said,) = setting.execute([setting.call(z, level, frames)])
        if not held:
            return said
        truth = schedule.answer(z[:, :, :held], known, level[:held])
        return torch.cat([truth.to(said.dtype), said[:, :, held:]], dim=2)

    return setting.down(answer, z, name)
