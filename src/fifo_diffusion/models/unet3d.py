"""The 3D UNet of ModelScope, zeroscope and VideoCrafter (arXiv:2308.06571), each frame at its own timestep.

diffusers' UNet3DConditionModel with a forward of our own: in the published one a clip has one timestep, which is
repeated over the frames right before the blocks, and the blocks read one row a frame; so here each frame may have a row
of its own.  Three switches make it VideoCrafter's: a frame rate that is told to the network beside the timestep, no
temporal convolutions, and relative positions in the temporal attention (arXiv:1803.02155).

Letters: B windows, C channels, F frames, H W latent height and width, L text tokens, D text width, N attention
batch, h heads.  Only loaded by the models that use it, since it needs diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.models.along import AlongFrames
from fifo_diffusion.models.frame_attention import FrameAttention, RelativeAttention, RelativePosition
from fifo_diffusion.models.group_norm import group_norm
from fifo_diffusion.models.latent import MOST_ROWS, LatentModel
from fifo_diffusion.models.place_attention import PlaceAttention
from fifo_diffusion.models.unet3d_layers import attend_along, layers, repeated
from fifo_diffusion.protocols import Cond, Temporal
from fifo_diffusion.schedule import NoiseSchedule


class FrameUNet(UNet3DConditionModel):
    """`FrameUNet.from_pretrained(folder)` reads the published folders of the stock class as they are.

    fps_condition: the network is told a frame rate; temporal_convolutions: whether it has them; relative_positions: the
    farthest distance between frames that has an embedding of its own, 0 for none.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        num_attention_heads: int | None = None,
        time_cond_proj_dim: int | None = None,
        fps_condition: bool = False,
        temporal_convolutions: bool = True,
        relative_positions: int = 0,
    ) -> None:
        super().__init__(
            sample_size, in_channels, out_channels, down_block_types, up_block_types, block_out_channels,
            layers_per_block, downsample_padding, mid_block_scale_factor, act_fn, norm_num_groups, norm_eps,
            cross_attention_dim, attention_head_dim, num_attention_heads, time_cond_proj_dim,
        )  # fmt: skip
        if fps_condition:
            self.fps_embedding = TimestepEmbedding(block_out_channels[0], block_out_channels[0] * 4, act_fn=act_fn)
        if not temporal_convolutions:
            for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
                block.temp_convs = nn.ModuleList(_Same() for _ in block.temp_convs)
        for module in self.modules():
            if isinstance(module, Attention):
                module.set_processor(PlaceAttention())
        for attention in self.temporal_attentions():
            if relative_positions:
                width = attention.inner_dim // attention.heads
                attention.relative_position_k = RelativePosition(width, relative_positions)
                attention.relative_position_v = RelativePosition(width, relative_positions)
            attention.set_processor(RelativeAttention() if relative_positions else FrameAttention())

    def temporal_attentions(self) -> Iterator[Attention]:
        """Every attention from frame to frame."""
        for name, module in self.named_modules():
            if isinstance(module, Attention) and ("temp_attentions" in name or name.startswith("transformer_in")):
                yield module

    def attend_over(self, temporal: Temporal) -> None:
        """Attend from frame to frame by this rule."""
        for attention in self.temporal_attentions():
            inner = attention.processor
            attention.set_processor(AlongFrames(temporal, getattr(inner, "inner", inner)))

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, fps: Tensor | None = None
    ) -> Any:
        """(B, C, F, H, W), (B, F) -> (B, C, F, H, W).

        encoder_hidden_states: text (B, L, D), or (B, F, L, D) where each frame hears its own.  fps: frames a second,
        (B,) or (B, F), where the network has an embedding for it.

        For m B texts all windows are answered for the first B, then for the next B, and so on: (m B, C, F, H, W).
        What comes before the network first hears a text is computed once for all m: 7 % of VideoCrafter2.
        """
        windows, _, frames, height, width = sample.shape
        text = encoder_hidden_states
        if text.ndim == 3:
            text = text[:, None]
        times = len(text) // windows
        if windows > 1 and times * windows * height * width > MOST_ROWS:
            size = max(1, MOST_ROWS // (times * height * width))
            texts = torch.split(torch.unflatten(text, 0, (times, windows)), size, dim=1)
            rates = [None] * len(texts) if fps is None else torch.split(fps, size)
            some = zip(torch.split(sample, size), torch.split(timestep, size), texts, rates, strict=True)
            parts = [torch.unflatten(self(x, t, c.flatten(0, 1), r), 0, (times, -1)) for x, t, c, r in some]
            return torch.cat(parts, dim=1).flatten(0, 1)

        def embed(layers: nn.Module, number: Tensor) -> Tensor:
            row: Tensor = layers(self.time_proj(number.flatten()).to(sample.dtype))
            return row

        emb = embed(self.time_embedding, timestep)  # (B F, 4 C0)
        if fps is not None:
            rate = fps[:, None].expand(-1, frames) if fps.ndim == 1 else fps
            emb = emb + embed(self.fps_embedding, rate)
        emb = functional.silu(emb)
        size = 2**self.num_upsamplers  # heights and widths that do not halve so often are told to the upsamplers
        odd = bool(height % size or width % size)

        x = sample.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = attend_along(self.transformer_in, self.conv_in(x), frames)  # (B F, C0, H, W)
        skips: list[Tensor] = [x]
        for block in self.down_blocks:
            for layer in layers(block):
                x = layer(x, emb, text, frames)
                skips.append(x)
            for down in block.downsamplers or ():
                x = down(x)
                skips.append(x)
        for layer in layers(self.mid_block):
            x = layer(x, emb, text, frames)
        for block in self.up_blocks:
            for layer in layers(block):
                x = torch.cat([x, repeated(skips.pop(), len(x))], dim=1)
                x = layer(x, emb, text, frames)
            for up in block.upsamplers or ():
                x = up(x, skips[-1].shape[2:] if odd else None)
        x = self.conv_out(group_norm(self.conv_norm_out, x, silu=True))
        return torch.unflatten(x, 0, (-1, frames)).transpose(1, 2)


class _Same(nn.Module):
    """In place of a temporal convolution that the network was trained without."""

    def forward(self, hidden_states: Tensor, num_frames: int = 1) -> Tensor:
        return hidden_states


@dataclass(frozen=True)
class Shared:
    """A denoiser by a network that answers m B texts for B windows (see `FrameUNet.forward`)."""

    denoise: Callable[[Tensor, Tensor, Cond], Tensor]

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        return self.denoise(z, t, cond)

    def each(self, z: Tensor, t: Tensor, conds: Sequence[Cond], /) -> Sequence[Tensor]:
        """One answer, (B, C, F, H, W), for each condition."""
        together = {name: torch.cat([cond[name] for cond in conds]) for name in conds[0]}
        return self.denoise(z, t, together).chunk(len(conds))


class UNetModel(LatentModel):
    """A LatentModel whose network is a FrameUNet, and hears CLIP's text."""

    def denoiser(self, schedule: NoiseSchedule) -> Shared:
        return Shared(self._denoise)

    def _denoise(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """z (B, C, F, H, W), t (B, F), cond["text"] (B, L, D), or (B, F, L, D) where each frame hears its own."""
        rate = torch.full(z.shape[:1], self.fps, device=z.device) if self.network.config.fps_condition else None
        noise: Tensor = self.network(z.to(self.dtype), t, cond["text"].to(self.dtype), rate)
        return noise.to(z.dtype)

    def embed(self, prompts: Sequence[str]) -> Cond:
        """{"text": (P, L, D)}; the padding is heard too."""
        return {"text": self.reader(prompts)[0].to(self.device)}

    def attend_over(self, temporal: Temporal) -> None:
        self.network.attend_over(temporal)
