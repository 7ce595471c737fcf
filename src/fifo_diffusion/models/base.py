"""What every model gives to the rest of the house: a denoiser, text, pixels and a schedule.

A model never learns that FIFO exists: it answers windows of frames, each frame at its own time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.split import Part
from fifo_diffusion.protocols import Cond, Decoder, Denoiser, Temporal, Turn
from fifo_diffusion.schedule import NoiseSchedule


class Model(ABC):
    """A loaded model.  Letters: P prompts, C latent channels, H W latent height and width.

    What a model cannot do raises BadInput; its card says so before anything is loaded.
    """

    channels: int
    device: torch.device
    dtype: torch.dtype
    per_frame_text: bool = False  # whether the denoiser takes what `embed` gives with a frame axis, (B, F, ...)
    fps: float = 8.0  # what a network that listens to a frame rate is told; a session says its video's
    size: tuple[int, int] | None = (
        None  # width, height in pixels of what is made, for a schedule that goes by it; likewise
    )

    @abstractmethod
    def schedule(self, levels: int, table: str) -> NoiseSchedule:
        """The level table; table is "even" (no wasted evaluation) or "paper" (the authors')."""

    @abstractmethod
    def denoiser(self, schedule: NoiseSchedule) -> Denoiser:
        """The network, for times of this schedule."""

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> Cond:
        """What the network hears for each prompt, every tensor (P, ...), of one shape whatever the prompts."""

    def embed_negative(self, prompts: Sequence[str]) -> Cond:
        """What the unconditional side of guidance hears in its place; what is left out it shares with the prompt."""
        return self.embed(prompts)

    @abstractmethod
    def decoder(self) -> Decoder:
        """Latents to pixels; a new one for each stream, since it may hold frames back."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, T, 3, height, width) in [-1, 1] -> latents (B, C, F, H, W), such as `decoder` gives the pixels of;
        T is the card's `frames` for a whole window.
        """
        raise _lacks("encoder")

    def add_lora(self, file: Path, scale: float) -> None:
        """Add a LoRA file to the network.  Raises ModelError for one that does not fit."""
        raise _lacks("layers that take LoRA weights")

    def split(self, part: Part, device: torch.device) -> None:
        """Keep one part of the network and put all on the device; the model was loaded on the CPU.  The others of the
        part's group must answer the same calls.
        """
        raise _lacks("network that can be split")

    def in_eight_bits(self, device: torch.device, products: bool = False) -> None:
        """Keep the network's large weights in eight bits (see `eight_bits`) and put all on the device; the model was
        loaded on the CPU.  products: multiply in eight bits too.
        """
        raise _lacks("network to keep in eight bits")

    def attend_over(self, temporal: Temporal) -> None:
        """From now on attend along frames by this rule."""
        raise _lacks("attention along frames that can be windowed")

    @property
    def rates(self) -> tuple[float, ...]:
        """Radians a latent frame that each component of the rotary positions in time turns; none where they are of
        another kind.
        """
        return ()

    def turning(self, turn: Turn) -> Denoiser:
        """The network with one of these components turning otherwise; the model itself stays as it is."""
        raise _lacks("rotary positions in time")

    def compile(self, backend: str = "inductor") -> None:
        """From now on the network is a compiled one (see `compiled`)."""
        raise _lacks("network to compile")

    def save_memory(self) -> None:
        """From now on use less memory on the device, however slow; a model that has nothing to save does nothing."""
        return

    def remarks(self, prompt: str) -> list[str]:
        """What of a prompt the text encoder cannot hear, a sentence each."""
        return []

    @property
    def weights(self) -> str:
        """What tells these weights from others: a hash of the files, or nothing where there are none."""
        return ""


def _lacks(what: str) -> BadInput:
    return BadInput(f"this model has no {what}; use one whose card says that it has")
