"""Which text each frame number hears, as data: encoded once, looked up by frame."""

from __future__ import annotations

from dataclasses import dataclass

from fifo_diffusion.protocols import Cond


@dataclass(frozen=True)
class OnePrompt:
    """The same text for every frame; for classifier-free guidance the unconditional text beside it.

    text, negative: what the model's `embed` gave, each tensor (B, ...), one row for each stream.
    """

    text: Cond
    negative: Cond

    def __call__(self, frames: range, /) -> Cond:
        """Cond of a window: the text as it is, and `negative_` keys for `guidance.Guided`."""
        return {**self.text, **{f"negative_{name}": value for name, value in self.negative.items()}}
