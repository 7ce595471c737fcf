"""The causal video autoencoder of Open-Sora Plan v1.1.0: 4 frames and 8x8 pixels a latent, the first frame alone.

T latents are 1 + 4 (T - 1) frames.  Causal in time: convolutions see the frames before, never those after (the
first frame stands in for what is before it).  Only two things look further: group norms, which take their statistics
over the whole chunk that is decoded at once, and the doubling of the frame rate, one latent ahead.  So decoding latent
by latent is another video; decoding the chunks that the authors decode is theirs exactly (`ChunkedDecoder`).

Written from the published key names and from what each block does; names are those of the weight file, so a published
file loads as it is.  Letters: B clips, C channels, T latent or pixel frames, H W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.causal_vae_layers import CausalConv3d, Down, Mid, Up, conv2d, norm
from fifo_diffusion.models.causal_vae_shape import Shape, shape_of
from fifo_diffusion.models.tiles import tiled

TIME, SPACE = 4, 8  # frames a latent, pixels a latent each way
SCALE = 0.18215  # latents the diffusion network sees = what the encoder says x SCALE


class _Encoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths, s = shape.widths, shape
        self.conv_in = conv2d(3, widths[0], 3) if s.picture_in else CausalConv3d(3, widths[0], 3)
        self.down = nn.ModuleList(
            Down(widths[max(i - 1, 0)], widths[i], s.blocks, s.down_video[i], s.down_space[i], s.down_time[i])
            for i in range(len(widths))
        )
        self.mid = Mid(widths[-1])
        self.norm_out, self.conv_out = norm(widths[-1]), CausalConv3d(widths[-1], 2 * s.latent, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(x))))
        return out


class _Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths, s, last = shape.widths, shape, len(shape.widths) - 1
        self.conv_in = CausalConv3d(s.latent, widths[-1], 3)
        self.mid = Mid(widths[-1])
        self.up = nn.ModuleList(  # by level: the last one comes first
            Up(widths[min(i + 1, last)], widths[i], s.blocks + 1, s.up_video[i], s.up_space[i], s.up_time[i])
            for i in range(len(widths))
        )
        self.norm_out, self.conv_out = norm(widths[0]), CausalConv3d(widths[0], 3, 3)

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
        shape = shape_of(config)
        self.config = {"latent_channels": shape.embedded}  # where diffusers' autoencoders say it
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
        return tiled(self._encode, pixels, None if tile is None else tile * SPACE, 1 / SPACE)

    @torch.no_grad()
    def decode(self, latents: Tensor, tile: int | None = None) -> Tensor:
        """All frames of a chunk together, about [-1, 1] (not clamped).

        tile: decode squares of that many latents each way, a quarter of it shared with the neighbour and blended
        linearly from one to the other: a bounded amount of memory at any size, and another picture, since the norms
        see less of it.
        """
        return tiled(self._decode, latents, tile, SPACE)

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
