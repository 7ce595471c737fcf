"""The picture autoencoder of the embedded model: 64x64 pixels <-> 8x8 latents, one frame at a time.

Plain convolutions at a quarter, an eighth and a half of the picture's size; pixels enter and leave by
pixel-unshuffle, so nothing is ever computed at full size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SPACE = 8  # pixels per latent, each way


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def _up(wide: int, narrow: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(wide, 4 * narrow, 1), nn.PixelShuffle(2))


class Autoencoder(nn.Module):
    """Pixels in [-1, 1], latents of mean 0 and deviation 1 per channel (once `fit_scale` has seen data)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, 48, 3, padding=1),
            _Residual(48),
            nn.Conv2d(48, 96, 4, stride=2, padding=1),
            _Residual(96),
            nn.Conv2d(96, 160, 4, stride=2, padding=1),
            _Residual(160),
            _Residual(160),
            nn.GroupNorm(8, 160),
            nn.SiLU(),
            nn.Conv2d(160, channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, 192, 3, padding=1),
            _Residual(192),
            _Residual(192),
            _up(192, 128),
            _Residual(128),
            _Residual(128),
            _up(128, 64),
            _Residual(64),
            _Residual(64),
            nn.GroupNorm(8, 64),
            nn.SiLU(),
            nn.Conv2d(64, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, 8h, 8w) in [-1, 1] -> (B, C, h, w)"""
        latents: Tensor = self.encoder(pixels)
        return (latents - self.mean) / self.deviation

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, 8h, 8w), about [-1, 1] (not clamped)"""
        pixels: Tensor = self.decoder(latents * self.deviation + self.mean)
        return pixels

    @torch.no_grad()
    def fit_scale(self, pixels: Tensor) -> None:
        """Measure the latents' mean and deviation per channel on real pictures."""
        raw = self.encoder(pixels)
        self.mean.copy_(raw.mean(dim=(0, 2, 3))[:, None, None])
        self.deviation.copy_(raw.std(dim=(0, 2, 3))[:, None, None])
