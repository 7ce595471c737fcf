"""Wan 2.1 (arXiv:2503.20314): text to video, 81 frames a window, 1.3 or 14 billion parameters.

Loaded from the diffusers folders its authors publish (Wan-AI/Wan2.1-T2V-1.3B-Diffusers and -14B-): transformer/, vae/,
text_encoder/ (UMT5), tokenizer/, scheduler/.  Nothing of the networks is written again: diffusers' own layers are
called in diffusers' order.  diffusers can give every token a time of its own, which makes six shifts for each of 32,760
tokens; here each frame has one, and its tokens share its shifts.

Letters: B streams, C latent channels, F latent frames, H W latent height and width, P patches of a frame, D width,
L text tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.models.files import component, locate
from fifo_diffusion.models.latent import FOLDER, LatentModel
from fifo_diffusion.models.split import Part, split_attention, split_feed_forward
from fifo_diffusion.models.text import umt5_reader
from fifo_diffusion.protocols import Cond, Denoiser, Turn
from fifo_diffusion.schedule import NoiseSchedule, rectified_flow

TOKENS = 512  # what the network was trained on; zeros after a prompt's own
SMALL: Mapping[str, Any] = {  # transformer/config.json of Wan-AI/Wan2.1-T2V-1.3B-Diffusers
    "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "text_dim": 4096,
    "in_channels": 16, "out_channels": 16, "patch_size": (1, 2, 2), "freq_dim": 256,
}  # fmt: skip
LARGE: Mapping[str, Any] = {**SMALL, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}  # -14B-
SHIFT, SHIFT_720P = 3.0, 5.0  # how far the levels lean towards noise, as the authors advise at 480p and at 720p
_BETWEEN = 640_000  # pixels: 832x480 are 399,360, 1280x720 are 921,600


class Wan(LatentModel):
    """A WanTransformer3DModel and its AutoencoderKLWan.  shift: of the folder's scheduler."""

    def __init__(self, shift: float, *parts: Any) -> None:
        super().__init__(*parts)
        self.shift = shift

    def schedule(self, levels: int, table: str) -> NoiseSchedule:
        """A rectified flow.  Larger pictures need more noise to hide as much, so 720p has a shift of its own; a folder
        that asks for another than the published one gets it at every size.
        """
        large = self.size is not None and self.size[0] * self.size[1] > _BETWEEN
        return rectified_flow(levels, SHIFT_720P if large and self.shift == SHIFT else self.shift)

    @property
    def rates(self) -> tuple[float, ...]:
        rope = self.network.rope
        sin, cos = (table[1, : rope.t_dim : 2].double() for table in (rope.freqs_sin, rope.freqs_cos))
        return tuple(torch.atan2(sin, cos).tolist())  # of the second frame's angles, all below half a turn

    def turning(self, turn: Turn) -> Denoiser:
        return partial(self._denoise, turn=turn)

    def _denoise(self, z: Tensor, t: Tensor, cond: Cond, /, *, turn: Turn | None = None) -> Tensor:
        """cond["text"] (B, L, D), or (B, F, L, D) where each frame hears its own."""
        return wan(self.network, z.to(self.dtype), t, cond["text"].to(z.device, self.dtype), turn).to(z.dtype)

    def embed(self, prompts: Sequence[str]) -> Cond:
        """All tokens of each prompt, and zeros in place of its padding, which the network hears too."""
        text, own = self.reader(prompts)
        return {"text": text.where(own[..., None], 0).to(self.device)}

    def split(self, part: Part, device: torch.device) -> None:
        split_wan(self.network, part)
        self._arrive(device)

    def _pictures_in(self, device: torch.device) -> torch.dtype:
        return torch.float32  # as its authors run it

    def decoder(self) -> Streamed:
        return Streamed(self.autoencoder)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 1 + 4 (F - 1), 3, 8H, 8W) in [-1, 1] -> (B, C, F, H, W), the mean of what the autoencoder says.  Raises
        BadInput for other numbers of frames.
        """
        if pixels.shape[1] % 4 != 1:
            raise BadInput(
                f"{pixels.shape[1]} frames are no whole number of latents; give 1 and then any number of fours"
            )
        vae = self.autoencoder
        latents = vae.encode(pixels.to(self.device, vae.dtype).transpose(1, 2)).latent_dist.mode()
        mean, deviation = _spread(vae)
        scaled: Tensor = (latents.float() - mean) / deviation
        return scaled


def wan(net: Any, z: Tensor, t: Tensor, text: Tensor, turn: Turn | None = None) -> Tensor:
    """A `WanTransformer3DModel` with a time for every frame: (B, C, F, H, W), (B, F) -> (B, C, F, H, W).

    text (B, L, D), or (B, F, L, D) for a text a frame.  turn: of the positions in time, what turns otherwise.  The
    published network at one time is this one with all times equal.
    """
    b, _, f, height, width = z.shape
    _, side, side_too = net.config.patch_size
    turns = net.rope(z) if turn is None else turned(net.rope(z), turn, f)
    x: Any = net.patch_embedding(z).flatten(3).permute(0, 2, 3, 1)  # (B, F, P, D)
    per_frame = text.ndim == 4
    time, shifts, heard, _ = net.condition_embedder(
        t.flatten(), text.flatten(0, 1) if per_frame else text, timestep_seq_len=f
    )  # (B, F, D), (B, F, 6 D)
    shifts = shifts.unflatten(-1, (6, -1))
    for block in net.blocks:
        x = _block(block, x, shifts, heard, turns, per_frame)
    shift, scale = (net.scale_shift_table[:, None] + time[:, :, None]).chunk(2, dim=2)  # (B, F, 1, D)
    x = net.proj_out((net.norm_out(x.float()) * (1 + scale) + shift).type_as(x))
    x = x.unflatten(2, (height // side, width // side_too)).unflatten(-1, (side, side_too, -1))
    answer: Tensor = x.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, -1, f, height, width)
    return answer


def turned(tables: tuple[Tensor, Tensor], turn: Turn, frames: int) -> tuple[Tensor, Tensor]:
    """cos and sin (1, F P, 1, E) of `WanRotaryPosEmbed` with one component of the time's changed; the rest as it was.

    A component is two neighbouring entries, and time's come first.
    """
    cos, sin = (table.clone() for table in tables)
    angle = (torch.arange(frames, device=cos.device, dtype=torch.float32) * turn.rate).view(frames, 1, 1)
    pair = slice(2 * turn.component, 2 * turn.component + 2)
    for table, value in ((cos, angle.cos()), (sin, angle.sin())):
        table.view(frames, -1, table.shape[-1])[..., pair] = value
    return cos, sin


def _block(block: Any, x: Tensor, shifts: Tensor, text: Tensor, turns: Any, per_frame: bool) -> Tensor:
    """x (B, F, P, D), shifts (B, F, 6, D), text (B, L, D) or (B F, L, D)."""
    table = (block.scale_shift_table[:, None] + shifts.float())[:, :, :, None]
    shift, scale, gate, shift_ff, scale_ff, gate_ff = table.unbind(dim=2)  # (B, F, 1, D) each, in float32
    told = (block.norm1(x.float()) * (1 + scale) + shift).type_as(x)
    said = block.attn1(told.flatten(1, 2), None, None, turns).view_as(x)
    x = (x.float() + said * gate).type_as(x)
    asking = block.norm2(x.float()).type_as(x)
    x = x + block.attn2(asking.flatten(0, 1) if per_frame else asking.flatten(1, 2), text, None, None).view_as(x)
    told = (block.norm3(x.float()) * (1 + scale_ff) + shift_ff).type_as(x)
    answer: Tensor = (x.float() + block.ffn(told).float() * gate_ff).type_as(x)
    return answer


def split_wan(net: Any, part: Part) -> None:
    """Keep one part of the blocks of a `WanTransformer3DModel`; what is around them every part has whole."""
    for block in net.blocks:
        split_attention(block.attn1, part)
        split_attention(block.attn2, part)
        split_feed_forward(block.ffn, part)


@dataclass(frozen=True)
class Streamed:
    """AutoencoderKLWan's decoder, latent by latent: what its `decode` gives of all at once.

    Each causal convolution keeps its last two frames, so memory stays the same however long the stream is.  diffusers
    keeps them on the autoencoder, where a second stream would spoil them; here each stream has its own.
    """

    autoencoder: Any
    period: ClassVar[int] = 1

    @property
    def memory(self) -> int:
        return reach(self.autoencoder.decoder)

    @torch.no_grad()
    def __call__(self, latents: Iterator[Tensor], /) -> Iterator[Tensor]:
        """Chunks (B, C, k, H, W) -> for each latent (B, 4, 3, 8H, 8W), but one frame for the first."""
        vae = self.autoencoder
        mean, deviation = _spread(vae)
        kept: list[Any] = [None] * sum(_temporal(module) for module in vae.decoder.modules())
        first = True
        for latent in (one for chunk in latents for one in torch.split(chunk, 1, dim=2)):
            z = vae.post_quant_conv((latent * deviation + mean).to(vae.dtype))
            out = vae.decoder(z, feat_cache=kept, feat_idx=[0], first_chunk=first)
            first = False
            yield out.clamp(-1, 1).transpose(1, 2)


def reach(decoder: Any) -> int:
    """How many latents before it a frame can depend on, and one more: the first latent of a stream has one frame
    instead of four.  So many a new decoder must see before it gives what the running one gives.
    """
    rate, latents = 1, Fraction(0)  # frames a latent at this depth
    for name, module in decoder.named_modules():
        if _temporal(module):
            latents += Fraction(module.kernel_size[0] - 1, rate)
        if name.endswith("time_conv"):  # makes two frames of one
            rate *= 2
    return ceil(latents) + 1


def _temporal(module: Any) -> bool:
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return isinstance(module, WanCausalConv3d)


def _spread(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the autoencoder's latents, (C, 1, 1, 1) each; the network's have 0 and 1."""
    said = torch.tensor([vae.config.latents_mean, vae.config.latents_std], device=vae.device)
    mean, deviation = said[:, :, None, None, None]
    return mean, deviation


def load(device: torch.device, dtype: torch.dtype, weights: str) -> Wan:
    """weights: a Hub id or a folder in the published layout.

    Raises ModelError for files that are missing, damaged or another model's.
    """
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    folder = locate(weights, FOLDER)
    network = component(WanTransformer3DModel, folder / "transformer", dtype)
    autoencoder = component(AutoencoderKLWan, folder / "vae", torch.float32).to(device)  # as its authors run it
    _check(network, autoencoder, folder)
    shift = _shift(folder / "scheduler" / "scheduler_config.json")
    reader = umt5_reader(folder, device, dtype, TOKENS)
    return Wan(shift, network, autoencoder, None, reader, device, dtype, [folder])


def _check(network: Any, autoencoder: Any, folder: Path) -> None:
    """Raises ModelError for a relative of Wan 2.1's text-to-video networks that needs more than they do."""
    config, vae = network.config, autoencoder.config
    wanted = {"in_channels": vae.z_dim, "out_channels": vae.z_dim, "image_dim": None, "added_kv_proj_dim": None}
    odd = [name for name, value in wanted.items() if config[name] != value]
    if config.patch_size[0] != 1:
        odd.append("patch_size")
    if vae.patch_size is not None or vae.is_residual:
        raise ModelError(
            f"the autoencoder in {folder / 'vae'} is Wan 2.2's, which is not known here; give Wan 2.1's folder"
        )
    if odd or (folder / "transformer_2").is_dir():
        what = f"{odd[0]} {config[odd[0]]}" if odd else "a second transformer"
        raise ModelError(
            f"{folder} has {what}, so it is not a text-to-video model of Wan 2.1; give "
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers or -14B-Diffusers"
        )


def _shift(file: Path) -> float:
    """Raises ModelError for a scheduler that is no rectified flow."""
    try:
        said = json.loads(file.read_text())
        shift = said["flow_shift"] if said.get("use_flow_sigmas") else said["shift"]  # UniPC's, or FlowMatchEuler's
        if not float(shift) > 0:
            raise ValueError(f"a shift of {shift}")
        return float(shift)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file} is missing or no rectified flow's scheduler_config.json ({error}); fetch the folder again"
        ) from error
