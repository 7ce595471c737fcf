"""Plain sampling of one short clip, every frame at the same level: what the model was trained for.

The queue can be started from it (`Engine.warm_start`), and an endless video is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fifo_diffusion.errors import NotFinite
from fifo_diffusion.protocols import Conditioner, Denoiser, Noise
from fifo_diffusion.schedule import NoiseSchedule


@torch.no_grad()
def sample_clip(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    condition: Conditioner,
    noise: Noise,
    like: Tensor,
    eta: float = 0.0,
) -> Iterator[Tensor]:
    """Yields the clip (B, C, F, H, W) after each of the K steps; the last one is clean.

    like: (B, C, F, H, W) of the clip's shape, dtype and device.  noise is asked for (frame, level) names, so
    it must be another one than the queue's, or a frame would be noised twice with the same numbers.
    Raises NotFinite if the network answers with NaN or infinity.
    """
    frames = like.shape[2]

    def draw(level: int) -> Tensor:
        return torch.stack([noise(i, level, like[:, :, i]) for i in range(frames)], dim=2)

    cond = condition(range(frames))
    z = draw(schedule.levels)
    for k in range(schedule.levels, 0, -1):
        level = torch.full((frames,), k, device=like.device)
        time = schedule.times(level, z).expand(len(z), -1)
        out = denoise(z, time, cond)
        z = schedule.step(z, out, level, eta, draw(k - 1) if eta > 0 else None)
        yield z
    if not bool(z.isfinite().all()):
        raise NotFinite("the network's base clip holds NaN or infinity; use dtype float32, or less guidance")
