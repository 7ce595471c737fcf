"""What the causal autoencoder is made of: convolutions, attention and changes of size, each causal in time.

Named as the keys of the published weight file want it.  Letters: B clips, C channels, T frames, H W.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST = 2**26  # numbers that a convolution reads at once


class CausalConv3d(nn.Module):
    """A convolution over time and space, `same` in size; before the first frame there is the first frame."""

    def __init__(self, wide: int, narrow: int, kernel: int | tuple[int, int, int]) -> None:
        super().__init__()
        time, high, across = (kernel,) * 3 if isinstance(kernel, int) else kernel
        self.before = time - 1
        self.conv = nn.Conv3d(wide, narrow, (time, high, across), padding=(0, high // 2, across // 2))

    def forward(self, x: Tensor) -> Tensor:
        """A few frames at a time, so that what stands before them is put before few; the numbers are the same."""
        b, c, t, h, w = x.shape
        out = x.new_empty(b, self.conv.out_channels, t, h, w)
        step = max(1, MOST // (b * c * h * w))
        for start in range(0, t, step):
            piece = x[:, :, max(start - self.before, 0) : start + step]
            out[:, :, start : start + step] = self.conv(_held(piece, max(self.before - start, 0)))
        return out


class _PerFrameConv2d(nn.Conv2d):
    """The same picture convolution for every frame."""

    def forward(self, x: Tensor) -> Tensor:
        return _per_frame(super().forward, x)


class _Resnet(nn.Module):
    """Two convolutions and a way round them; the picture kind norms each frame alone, the video kind all together."""

    def __init__(self, wide: int, narrow: int, video: bool) -> None:
        super().__init__()
        conv: Callable[[int, int, int], nn.Module]
        conv = CausalConv3d if video else conv2d
        self.video = video
        self.norm1, self.conv1 = norm(wide), conv(wide, narrow, 3)
        self.norm2, self.conv2 = norm(narrow), conv(narrow, narrow, 3)
        self.nin_shortcut = conv(wide, narrow, 1) if wide != narrow else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self._body(x) if self.video else _per_frame(self._body, x)

    def _body(self, x: Tensor) -> Tensor:
        h: Tensor = functional.silu(self.norm1(x), inplace=True)  # one name, so that no step keeps the one before it
        h = self.conv1(h)
        h = functional.silu(self.norm2(h), inplace=True)
        h = self.conv2(h)
        h += self.nin_shortcut(x)
        return h


class _Attention(nn.Module):
    """One head of attention over the pixels of each frame; the norm before it is over all frames."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (CausalConv3d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        y = self.norm(x)
        q, k, v = (  # (B T, 1, H W, C)
            part(y).permute(0, 2, 3, 4, 1).reshape(b * t, 1, h * w, c) for part in (self.q, self.k, self.v)
        )
        seen = functional.scaled_dot_product_attention(q, k, v).view(b, t, h, w, c).permute(0, 4, 1, 2, 3)
        out: Tensor = x + self.proj_out(seen)
        return out


class _Downsample(nn.Module):
    """Half the height and width of each frame; the edge is padded on the right and below only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return _per_frame(lambda flat: self.conv(functional.pad(flat, (0, 1, 0, 1))), x)


class _TimeDownsample(nn.Module):
    """Every second frame, the first kept: a mean of three mixed with a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, width, 3, stride=(2, 1, 1), padding=(0, 1, 1))
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        x = _held(x, 2)
        mean = functional.avg_pool3d(x, (3, 1, 1), stride=(2, 1, 1))
        return torch.lerp(self.conv(x), mean, self.mix_factor.sigmoid())


class _Upsample(nn.Module):
    """Twice the height and width: nearest pixels, then a convolution of each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(width, width, (1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        few = torch.split(x, max(1, MOST // (4 * x[:, :, 0].numel())), dim=2)
        larger = (_per_frame(lambda flat: functional.interpolate(flat, scale_factor=2.0), part) for part in few)
        return torch.cat([self.conv(part) for part in larger], dim=2)


class _TimeUpsample(nn.Module):
    """Twice the frames but the first, which stays one: in-between frames mixed with a convolution of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(width, width, 3)
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, :, :1], _twice(x[:, :, 1:])], dim=2)
        return torch.lerp(self.conv(x), x, self.mix_factor.sigmoid())


class Mid(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1, self.block_2 = _Resnet(width, width, True), _Resnet(width, width, True)
        self.attn_1 = _Attention(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Down(nn.Module):
    def __init__(self, wide: int, narrow: int, blocks: int, video: bool, space: bool, time: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Resnet(narrow if i else wide, narrow, video) for i in range(blocks))
        self.downsample = _Downsample(narrow) if space else nn.Identity()
        self.time_downsample = _TimeDownsample(narrow) if time else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        out: Tensor = self.time_downsample(self.downsample(x))
        return out


class Up(nn.Module):
    def __init__(self, wide: int, narrow: int, blocks: int, video: bool, space: bool, time: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Resnet(narrow if i else wide, narrow, video) for i in range(blocks))
        self.upsample = _Upsample(narrow) if space else nn.Identity()
        self.time_upsample = _TimeUpsample(narrow) if time else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        out: Tensor = self.time_upsample(self.upsample(x))
        return out


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


def conv2d(wide: int, narrow: int, kernel: int) -> nn.Conv2d:
    return _PerFrameConv2d(wide, narrow, kernel, padding=kernel // 2)


def _held(x: Tensor, times: int) -> Tensor:
    """(B, C, T, H, W) with its first frame `times` more at the front."""
    return torch.cat([x[:, :, :1].expand(-1, -1, times, -1, -1), x], dim=2) if times else x


def _per_frame(change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of pictures (N, C, H, W) to every frame of (B, C, T, H, W); pictures go through as they are."""
    if x.ndim == 4:
        return change(x)
    flat = change(x.transpose(1, 2).flatten(0, 1))
    return flat.view(x.shape[0], x.shape[2], *flat.shape[1:]).transpose(1, 2)


def _twice(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B, C, 2T, H, W): linear in time, each frame's two halves a quarter of the way to its
    neighbours (what `interpolate(..., mode="trilinear")` does with scale (2, 1, 1), without its limit on size).
    """
    if not x.shape[2]:
        return x
    before = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
    after = torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)
    return torch.stack([x.lerp(before, 0.25), x.lerp(after, 0.25)], dim=3).flatten(2, 3)
