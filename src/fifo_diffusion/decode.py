"""Latents to pixels as they come, pixels to 8-bit frames and back, and how far pictures are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fifo_diffusion.devices import fetched


@dataclass(frozen=True)
class PerFrame:
    """A decoder of single pictures, applied to each frame on its own: (B, C, H, W) -> (B, 3, height, width)."""

    decode: Callable[[Tensor], Tensor]
    period: ClassVar[int] = 1
    memory: ClassVar[int] = 0

    @torch.no_grad()
    def __call__(self, latents: Iterator[Tensor], /) -> Iterator[Tensor]:
        """Chunks (B, C, k, H, W) -> chunks (B, k, 3, height, width)."""
        for chunk in latents:
            flat = self.decode(chunk.transpose(1, 2).flatten(0, 1))
            yield flat.view(chunk.shape[0], chunk.shape[2], *flat.shape[1:])


def encode_each(encode: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """An encoder of single pictures, (B, 3, height, width) -> (B, C, H, W), applied to each frame on its own:
    (B, F, 3, height, width) -> (B, C, F, H, W).
    """
    return torch.stack([encode(frame) for frame in pixels.unbind(1)], dim=2)


def to_frames(pixels: Tensor) -> NDArray[np.uint8]:
    """(..., 3, H, W) floats in [-1, 1] -> (..., H, W, 3) uint8 on the host, rounded to the nearest."""
    frames: NDArray[np.uint8] = fetched(rounded(pixels)).numpy()
    return frames


def rounded(pixels: Tensor) -> Tensor:
    """What `to_frames` gives, on the device."""
    scaled = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round()
    return scaled.to(torch.uint8).movedim(-3, -1).contiguous()


def to_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) floats in [-1, 1]; `to_frames` gives the frames back."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 127.5 - 1


def psnr(frames: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Peak signal to noise ratio in dB of 8-bit pictures, over all of them together."""
    error = (frames.astype(np.float64) - truth) / 255
    return float(-10 * np.log10(np.square(error).mean()))
