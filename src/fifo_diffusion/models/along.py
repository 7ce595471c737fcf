"""A diffusers attention processor that goes along frames by a rule of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fifo_diffusion.protocols import Temporal


@dataclass
class AlongFrames:
    """Around the processor of an attention whose tokens are frames: (N, F, width) -> the same.

    The output projection is inside; it is linear, so that it commutes with a weighted mean.
    """

    temporal: Temporal
    inner: Any

    def __call__(self, attn: Any, hidden_states: Tensor, *more: Any, **also: Any) -> Tensor:
        def attend(part: slice) -> Tensor:
            mixed: Tensor = self.inner(attn, hidden_states[:, part], *more, **also)
            return mixed

        return self.temporal(attend, hidden_states.shape[1])
