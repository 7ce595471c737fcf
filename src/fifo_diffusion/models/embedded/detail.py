"""What the video network adds latent by latent, where its tokens are coarse.

A token of the larger model is a quarter of the picture each way: it knows what is where, and draws it softly.  Here
convolutions over all latents, and over neighbouring frames, sharpen that: they see the noisy latents, the coarse
velocity, and what each token has to say about each of its latents.  A CPU does three times as many of their products a
second as of a transformer's (docs/log.md, 2026-11-28).

Letters: B streams, C latent channels, F frames, H W latent size, D width of the tokens, E width here, T tokens of a
frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fifo_diffusion.models.embedded.norm import Norm
from fifo_diffusion.models.linear import Linear, convolve

Told = Sequence[tuple[Tensor, Tensor]]  # shift and scale (with 1 added) of every block and of the last norm


def _over_space(layer: nn.Conv2d, x: Tensor, plus: Tensor | None = None) -> Tensor:
    """x and plus, which is added, (B, F, H, W, E)"""
    return _convolved(layer, x.flatten(0, 1), None if plus is None else plus.flatten(0, 1)).view(*x.shape[:-1], -1)


def _over_time(layer: nn.Conv2d, x: Tensor, plus: Tensor) -> Tensor:
    """x and plus, which is added, (B, F, H, W, E).  Of each latent by itself, a frame and its neighbours: as a picture
    of F by H W, three times as fast on a CPU as the same in three dimensions.
    """
    return _convolved(layer, x.flatten(2, 3), plus.flatten(2, 3)).view(x.shape)


def _convolved(layer: nn.Conv2d, x: Tensor, plus: Tensor | None) -> Tensor:
    """(N, height, width, in), (N, height, width, out) -> like plus"""
    x = x.movedim(-1, 1)
    if plus is None:
        out = nn.functional.conv2d(x, layer.weight, layer.bias, padding=layer.padding)
    else:
        rows, columns = layer.kernel_size
        out = convolve(x, layer.weight, layer.bias, (rows // 2, columns // 2), plus.movedim(-1, 1))
    return out.movedim(1, -1).contiguous()


class _Block(nn.Module):
    """Over the picture, then over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.space = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Conv2d(width, width, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """x (B, F, H, W, E)"""
        y = _over_space(self.space, torch.addcmul(shift, self.norm(x), scale))
        return _over_time(self.time, nn.functional.silu(y), x)


class Detail(nn.Module):
    """Begins as nothing: the last layer's weights are zero until they are trained."""

    def __init__(self, channels: int, patch: int, tokens: int, width: int, depth: int = 4) -> None:
        """tokens: their width; width: of the convolutions."""
        super().__init__()
        self.patch, self.width = patch, width
        self.enter = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.say = Linear(tokens, width * patch**2)
        self.modulation = Linear(tokens, 2 * width * (depth + 1))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = Norm(width)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        for layer in (self.modulation, self.leave):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def told(self, hint: Tensor) -> Told:
        """hint (B, F, D), of timestep and text -> (B, F, 1, 1, E) each"""
        parts = self.modulation(hint)[:, :, None, None].chunk(2 * (len(self.blocks) + 1), dim=-1)
        return [(shift, 1 + scale) for shift, scale in zip(parts[::2], parts[1::2], strict=True)]

    def forward(self, z: Tensor, coarse: Tensor, tokens: Tensor, told: Told) -> Tensor:
        """z, the noisy latents, and coarse, the velocity so far, (B, C, F, H, W); tokens (B, F, T, D) -> like z"""
        b, _, f, h, w = z.shape
        p = self.patch
        said = self.say(tokens).view(b, f, h // p, w // p, p, p, self.width).transpose(3, 4)
        seen = torch.cat([z, coarse], dim=1).permute(0, 2, 3, 4, 1).contiguous()
        x = _over_space(self.enter, seen, said.reshape(b, f, h, w, self.width))
        for block, (shift, scale) in zip(self.blocks, told, strict=False):
            x = block(x, shift, scale)
        shift, scale = told[-1]
        return coarse + _over_space(self.leave, torch.addcmul(shift, self.norm(x), scale)).movedim(-1, 1)
