"""Plain sampling, every frame at the same level: what the model was trained for.

The queue can be started from a clip made so (`Engine.warm_start`), and an endless video is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fifo_diffusion.errors import NotFinite
from fifo_diffusion.noise import draw
from fifo_diffusion.protocols import Conditioner, Denoiser, Noise
from fifo_diffusion.schedule import NoiseSchedule

Answer = Callable[[Tensor, Tensor], Tensor]
"""What is said of frames z (B, C, F, H, W), all at one level, given as (F,): like z, in the schedule's terms."""


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
    answer = answering(denoise, schedule, condition, like.shape[2])
    yield from descend(answer, schedule, noise, draw(noise, 0, schedule.levels, like), eta)


def answering(denoise: Denoiser, schedule: NoiseSchedule, condition: Conditioner, frames: int) -> Answer:
    """What the network says of a clip of so many frames."""
    cond = condition(range(frames))

    def answer(z: Tensor, level: Tensor) -> Tensor:
        return denoise(z, schedule.times(level, z).expand(len(z), -1), cond)

    return answer


@torch.no_grad()
def descend(
    answer: Answer,
    schedule: NoiseSchedule,
    noise: Noise,
    z: Tensor,
    eta: float,
    first: int = 0,
    begin: int | None = None,
) -> Iterator[Tensor]:
    """Yields frames z (B, C, F, H, W) after each of the steps that they take together, down to level 0.

    first: what the first of them is called when noise is asked for.  begin: the level they are at (None: K).
    Raises NotFinite as `sample_clip` does.
    """
    for k in range(schedule.levels if begin is None else begin, 0, -1):
        level = torch.full((z.shape[2],), k, device=z.device)
        z = schedule.step(z, answer(z, level), level, eta, draw(noise, first, k - 1, z) if eta > 0 else None)
        yield z
    if not bool(z.isfinite().all()):
        raise NotFinite("the network's clip holds NaN or infinity; use dtype float32, or less guidance")
