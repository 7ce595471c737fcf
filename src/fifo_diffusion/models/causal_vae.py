"""The causal video autoencoder of Open-Sora Plan v1.1.0: 4 frames and 8x8 pixels a latent, the first frame alone.

T latents are 1 + 4 (T - 1) frames.  Causal in time: convolutions see the frames before, never those after (the
first frame stands in for what is before it).  Only two things look further: group norms, which take their statistics
over the whole chunk that is decoded at once, and the doubling of the frame rate, one latent ahead.  So decoding latent
by latent is another video; decoding the chunks that the authors decode is theirs exactly (`ChunkedDecoder`).

Written from the published key names and from what each block does; the names below are those of the weight file, so a
published file loads as it is.  Letters: B clips, C channels, T latent or pixel frames, H W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.errors import BadInput, ModelError

TIME, SPACE = 4, 8  # frames a latent, pixels a latent each way
SCALE = 0.18215  # latents the diffusion network sees = what the encoder says x SCALE
_MOST = 2**26  # numbers that a convolution reads at once

PUBLISHED: Mapping[str, Any] = {  # vae/config.json, without what only its training used
    "attn_resolutions": [], "decoder_attention": "AttnBlock3DFix", "decoder_conv_in": "CausalConv3d",
    "decoder_conv_out": "CausalConv3d", "decoder_mid_resnet": "ResnetBlock3D",
    "decoder_resnet_blocks": ["ResnetBlock3D"] * 4, "decoder_spatial_upsample": ["", *["SpatialUpsample2x"] * 3],
    "decoder_temporal_upsample": ["", "", "TimeUpsampleRes2x", "TimeUpsampleRes2x"], "double_z": True, "embed_dim": 4,
    "encoder_attention": "AttnBlock3DFix", "encoder_conv_in": "Conv2d", "encoder_conv_out": "CausalConv3d",
    "encoder_mid_resnet": "ResnetBlock3D",
    "encoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock2D", "ResnetBlock3D", "ResnetBlock3D"],
    "encoder_spatial_downsample": ["Downsample", "Downsample", "Downsample", ""],
    "encoder_temporal_downsample": ["", "TimeDownsampleRes2x", "TimeDownsampleRes2x", ""], "hidden_size": 128,
    "hidden_size_mult": [1, 2, 4, 4], "num_res_blocks": 2, "q_conv": "CausalConv3d", "z_channels": 4,
}  # fmt: skip


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
        step = max(1, _MOST // (b * c * h * w))
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
        conv = CausalConv3d if video else _conv2d
        self.video = video
        self.norm1, self.conv1 = _norm(wide), conv(wide, narrow, 3)
        self.norm2, self.conv2 = _norm(narrow), conv(narrow, narrow, 3)
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
        self.norm = _norm(width)
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
        few = torch.split(x, max(1, _MOST // (4 * x[:, :, 0].numel())), dim=2)
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


class _Mid(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1, self.block_2 = _Resnet(width, width, True), _Resnet(width, width, True)
        self.attn_1 = _Attention(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class _Down(nn.Module):
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


class _Up(nn.Module):
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


class _Encoder(nn.Module):
    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        widths, s = shape.widths, shape
        self.conv_in = _conv2d(3, widths[0], 3) if s.picture_in else CausalConv3d(3, widths[0], 3)
        self.down = nn.ModuleList(
            _Down(widths[max(i - 1, 0)], widths[i], s.blocks, s.down_video[i], s.down_space[i], s.down_time[i])
            for i in range(len(widths))
        )
        self.mid = _Mid(widths[-1])
        self.norm_out, self.conv_out = _norm(widths[-1]), CausalConv3d(widths[-1], 2 * s.latent, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(x))))
        return out


class _Decoder(nn.Module):
    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        widths, s, last = shape.widths, shape, len(shape.widths) - 1
        self.conv_in = CausalConv3d(s.latent, widths[-1], 3)
        self.mid = _Mid(widths[-1])
        self.up = nn.ModuleList(  # by level: the last one comes first
            _Up(widths[min(i + 1, last)], widths[i], s.blocks + 1, s.up_video[i], s.up_space[i], s.up_time[i])
            for i in range(len(widths))
        )
        self.norm_out, self.conv_out = _norm(widths[0]), CausalConv3d(widths[0], 3, 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


class CausalVAE(nn.Module):
    """Pixels (B, 3, 1 + 4 (T - 1), 8H, 8W) in [-1, 1] <-> latents (B, C, T, H, W) of deviation about 1."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """config: the published config.json.  Raises ModelError for a block this module does not know."""
        super().__init__()
        shape = _shape(config)
        self.channels = shape.embedded
        self.encoder = _Encoder(shape)
        self.quant_conv = CausalConv3d(2 * shape.latent, 2 * shape.embedded, 1)
        self.post_quant_conv = CausalConv3d(shape.embedded, shape.latent, 1)
        self.decoder = _Decoder(shape)

    @torch.no_grad()
    def encode(self, pixels: Tensor, tile: int | None = None) -> Tensor:
        """The mean of what the encoder says.  tile: as for `decode`, in latents.

        Raises BadInput for frames that do not fill whole latents.
        """
        frames, height, width = pixels.shape[2:]
        if (frames - 1) % TIME or height % SPACE or width % SPACE:
            raise BadInput(
                f"{frames} frames of {width}x{height} do not fill whole latents; give 1 + {TIME} k frames, "
                f"width and height multiples of {SPACE}"
            )
        return _tiled(self._encode, pixels, None if tile is None else tile * SPACE, 1 / SPACE)

    @torch.no_grad()
    def decode(self, latents: Tensor, tile: int | None = None) -> Tensor:
        """All frames of a chunk together, about [-1, 1] (not clamped).

        tile: decode squares of that many latents each way, a quarter of it shared with the neighbour and blended
        linearly from one to the other: a bounded amount of memory at any size, and another picture, since the norms
        see less of it.
        """
        return _tiled(self._decode, latents, tile, SPACE)

    def _encode(self, pixels: Tensor) -> Tensor:
        mean: Tensor = self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)[0]
        return mean * SCALE

    def _decode(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(self.post_quant_conv(latents / SCALE))
        return pixels


@dataclass(frozen=True)
class ChunkedDecoder:
    """Decode a stream in chunks of `sizes` latents, taken in turn; each begins with the last latent of the one before.

    decode: (B, C, k, H, W) -> (B, 3, 1 + 4 (k - 1), 8H, 8W).  Of every chunk but the first the first frame is
    dropped: it is the last one of the chunk before.  So T latents are 1 + 4 (T - 1) frames however they come in, and
    no more than a chunk is held.  When the latents end, the rest is decoded as a shorter chunk.
    """

    decode: Callable[[Tensor], Tensor]
    sizes: Sequence[int]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 2:
            raise BadInput(f"chunks of {self.sizes} latents; each must be at least 2, one of them the one before")

    memory: ClassVar[int] = 0

    @property
    def period(self) -> int:
        """A whole turn of the sizes: there the next chunk begins as the first one did."""
        return sum(self.sizes) - len(self.sizes)

    def __call__(self, latents: Iterator[Tensor], /) -> Iterator[Tensor]:
        """Chunks (B, C, k, H, W) -> chunks (B, k', 3, 8H, 8W)."""
        sizes = cycle(self.sizes)
        size, held, known = next(sizes), None, 0  # known: how many of the held latents have been shown
        for chunk in latents:
            held = chunk if held is None else torch.cat([held, chunk], dim=2)
            while held.shape[2] >= size:
                yield self._show(held[:, :, :size], known)
                held, known, size = held[:, :, size - 1 :], 1, next(sizes)
        if held is not None and held.shape[2] > known:
            yield self._show(held, known)

    def _show(self, latents: Tensor, known: int) -> Tensor:
        return self.decode(latents)[:, :, known:].transpose(1, 2)


@dataclass(frozen=True)
class _Shape:
    """What a config says, by level from the pixels down."""

    widths: tuple[int, ...]
    blocks: int
    latent: int
    embedded: int
    picture_in: bool
    down_video: tuple[bool, ...]
    down_space: tuple[bool, ...]
    down_time: tuple[bool, ...]
    up_video: tuple[bool, ...]
    up_space: tuple[bool, ...]
    up_time: tuple[bool, ...]


_RESNETS = {"ResnetBlock2D": False, "ResnetBlock3D": True}


def _shape(config: Mapping[str, Any]) -> _Shape:
    def one(name: str, blocks: Mapping[str, bool]) -> bool:
        return _known(name, config[name], blocks)

    def each(name: str, blocks: Mapping[str, bool]) -> tuple[bool, ...]:
        if len(config[name]) != len(config["hidden_size_mult"]):
            raise ModelError(
                f"the autoencoder's config.json lists {len(config[name])} blocks as {name} and "
                f"{len(config['hidden_size_mult'])} as hidden_size_mult; both must name every level"
            )
        return tuple(_known(name, block, blocks) for block in config[name])

    try:
        for name in ("encoder_attention", "decoder_attention"):
            # AttnBlock3D has the same keys and says something else, so the name must be looked at.
            one(name, {"AttnBlock3DFix": True})
        for name in ("encoder_mid_resnet", "decoder_mid_resnet"):
            one(name, {"ResnetBlock3D": True})
        for name in ("encoder_conv_out", "decoder_conv_in", "decoder_conv_out", "q_conv"):
            one(name, {"CausalConv3d": True})
        if config["attn_resolutions"] or not config["double_z"]:
            raise ModelError(
                f"the autoencoder's config.json has attn_resolutions {config['attn_resolutions']} and double_z "
                f"{config['double_z']}; only [] and true, as in Open-Sora Plan v1.1.0, are known here"
            )
        shape = _Shape(
            widths=tuple(config["hidden_size"] * times for times in config["hidden_size_mult"]),
            blocks=config["num_res_blocks"],
            latent=config["z_channels"],
            embedded=config["embed_dim"],
            picture_in=one("encoder_conv_in", {"Conv2d": True, "CausalConv3d": False}),
            down_video=each("encoder_resnet_blocks", _RESNETS),
            down_space=each("encoder_spatial_downsample", {"": False, "Downsample": True}),
            down_time=each("encoder_temporal_downsample", {"": False, "TimeDownsampleRes2x": True}),
            up_video=each("decoder_resnet_blocks", _RESNETS),
            up_space=each("decoder_spatial_upsample", {"": False, "SpatialUpsample2x": True}),
            up_time=each("decoder_temporal_upsample", {"": False, "TimeUpsampleRes2x": True}),
        )
    except KeyError as error:
        raise ModelError(
            f"the autoencoder's config.json has no {error}; it must be that of Open-Sora Plan v1.1.0's vae folder"
        ) from error
    steps = tuple(sum(level) for level in (shape.down_time, shape.up_time, shape.down_space, shape.up_space))
    if steps != (2, 2, 3, 3):
        raise ModelError(
            f"the autoencoder's config.json halves and doubles time {steps[0]} and {steps[1]} times, space {steps[2]} "
            f"and {steps[3]} times; 2 and 3 are those of Open-Sora Plan v1.1.0"
        )
    return shape


def _known(name: str, block: str, blocks: Mapping[str, bool]) -> bool:
    if block not in blocks:
        raise ModelError(
            f"the autoencoder's config.json names {block!r} as {name}, which is not known here; "
            f"known are {', '.join(repr(one) for one in blocks)}"
        )
    return blocks[block]


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


def _conv2d(wide: int, narrow: int, kernel: int) -> nn.Conv2d:
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


def _tiled(change: Callable[[Tensor], Tensor], x: Tensor, tile: int | None, scale: float) -> Tensor:
    """`change` of squares of x, put together; scale: how much wider and higher what comes out is."""
    if tile is None:
        return change(x)
    return _strips(lambda row: _strips(change, row, 4, tile, scale), x, 3, tile, scale)


def _strips(change: Callable[[Tensor], Tensor], x: Tensor, axis: int, tile: int, scale: float) -> Tensor:
    """`change` of overlapping stretches along one axis, going over linearly from each to the next."""
    length, shared = x.shape[axis], tile // 4
    step = tile - shared
    step_out, shared_out = int(step * scale), int(shared * scale)
    done: list[Tensor] = []
    tail: Tensor | None = None
    for start in range(0, length, step):
        part = change(x.narrow(axis, start, min(tile, length - start)))
        if tail is not None:
            ramp = torch.arange(shared_out, device=part.device, dtype=part.dtype).div(max(shared_out, 1))
            head = part.narrow(axis, 0, shared_out)
            head.copy_(tail.lerp(head, ramp.view(-1, *[1] * (4 - axis))))
        if start + tile >= length:
            return torch.cat([*done, part], dim=axis)
        done.append(part.narrow(axis, 0, step_out))
        tail = part.narrow(axis, step_out, shared_out)
    raise AssertionError(length)
