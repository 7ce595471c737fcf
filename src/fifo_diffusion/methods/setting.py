"""What every method is given: the seams that the engine stands on too.

Letters: B streams, C latent channels, f frames of the window that the network was trained on, F of what is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fifo_diffusion.baseclip import Answer, descend
from fifo_diffusion.noise import draw
from fifo_diffusion.protocols import Call, Conditioner, Executor, Noise
from fifo_diffusion.schedule import NoiseSchedule

Watch = Callable[[int, int], None]  # steps done, of how many


def unwatched(done: int, total: int) -> None:
    """Nobody looks on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """like: (B, C, f, H, W), a window of the latents that are wanted."""

    execute: Executor
    schedule: NoiseSchedule
    condition: Conditioner
    noise: Noise
    like: Tensor
    eta: float = 0.0
    watch: Watch = unwatched

    @property
    def window(self) -> int:
        """f."""
        return self.like.shape[2]

    def call(self, z: Tensor, level: Tensor, frames: range) -> Call:
        """One evaluation of frames z (B, C, F, H, W) with these numbers, all at one level (F,)."""
        time = self.schedule.times(level, z).expand(len(z), -1)
        return Call(z, time, self.condition(frames))

    def down(self, answer: Answer, z: Tensor, first: int = 0) -> Tensor:
        """Frames z (B, C, F, H, W) from the last level to level 0; first: what the noise calls the first of them."""
        for done, after in enumerate(descend(answer, self.schedule, self.noise, z, self.eta, first), 1):
            z = after
            self.watch(done, self.schedule.levels)
        return z

    def whole(self, answer: Answer, length: int) -> Iterator[Tensor]:
        """A video sampled at once, then its frames one by one, (B, C, 1, H, W).

        It is never shorter than a window: what is too much is not given.
        """
        like = self.like[:, :, :1].expand(-1, -1, max(length, self.window), -1, -1)
        z = self.down(answer, draw(self.noise, 0, self.schedule.levels, like))
        yield from torch.split(z[:, :, :length], 1, dim=2)
