"""Layer norm of the embedded model's networks, whose weights come from timestep and text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm


class Norm(nn.Module):
    """Layer norm without weights: with ones and zeros for weights it is twice as fast on a CPU as with none."""

    one: Tensor
    zero: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(width), persistent=False)
        self.register_buffer("zero", torch.zeros(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.one.shape, self.one, self.zero)
