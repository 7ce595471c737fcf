"""Latte (arXiv:2401.03048): a transformer that attends within frames and across frames in turn.

`Latte` hears text and is loaded from the diffusers folder its authors publish (maxin-cn/Latte-1).  Nothing of the
network is written again: diffusers' own blocks are called in diffusers' order, each frame with its own time.  The
class-conditional network for UCF-101 is another one; see `latte_classes`.

Letters: B streams, C latent channels, F frames, H W latent height and width, P patches of a frame, D width, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fifo_diffusion.devices import sent
from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.compiled import compiled
from fifo_diffusion.models.files import component, locate
from fifo_diffusion.models.latent import FOLDER, MOST_ROWS, LatentModel, autoencoder, table_of
from fifo_diffusion.models.text import t5_reader
from fifo_diffusion.protocols import Cond

TOKENS = 120  # what diffusers' pipeline for these weights pads to
PUBLISHED = {  # transformer/config.json of maxin-cn/Latte-1
    "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8, "num_layers": 28,
    "cross_attention_dim": 1152, "attention_bias": True, "sample_size": 64, "patch_size": 2,
    "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False, "norm_eps": 1e-6, "caption_channels": 4096, "video_length": 16,
}  # fmt: skip


class Latte(LatentModel):
    """A Latte network that hears T5's tokens, of each prompt its own: Latte-1, and Open-Sora Plan's."""

    _whole = False  # hear all tokens, the others masked: else each length of a prompt would be compiled anew

    def compile(self, backend: str = "inductor") -> None:
        self._answer = compiled(self._answer, self.device, backend)  # type: ignore[method-assign]
        self._whole = True

    def _denoise(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """cond["text"] (B, L, D) and its own tokens cond["heard"] (B, L), or (B, F, ...) where each frame hears its
        own.  What depends on the host's numbers is done here, outside of what is compiled.
        """
        text, heard = trimmed(cond["text"], cond["heard"], whole=self._whole)
        return self._answer(z, t, {"text": text} if heard is None else {"text": text, "heard": heard})

    def _answer(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        out = latte(self.network, z.to(self.dtype), t, cond["text"].to(z.device, self.dtype), cond.get("heard"))
        return out[:, : z.shape[1]].to(z.dtype)  # the other half is a learned variance, which no step here uses

    def embed(self, prompts: Sequence[str]) -> Cond:
        """All tokens of each prompt, and on the CPU which of them are its own."""
        text, heard = self.reader(prompts)
        return {"text": text.to(self.device), "heard": heard}

    def embed_negative(self, prompts: Sequence[str]) -> Cond:
        """Only the text: as in diffusers' pipeline and by Open-Sora Plan's authors, as many of its tokens are heard as
        the prompt beside it has.
        """
        return {"text": self.embed(prompts)["text"]}


def latte(net: Any, z: Tensor, t: Tensor, text: Tensor, heard: Tensor | None) -> Tensor:
    """A `LatteTransformer3DModel` with a time for every frame: (B, C, F, H, W), (B, F) -> (B, C', F, H, W).

    text (B, L, D) or (B, F, L, D); heard (B, L) or (B, F, L) says which tokens count, None for all of them.
    The published network at one time is this one with all times equal.
    """
    b, _, f, height, width = z.shape
    if f != net.config.video_length:
        raise BadInput(
            f"a window of {f} frames was given to a Latte whose positions are for {net.config.video_length}; "
            "the window must be that long"
        )
    side = net.config.patch_size
    h, w = height // side, width // side
    x: Any = net.pos_embed(z.transpose(1, 2).flatten(0, 1))  # (B F, P, D)
    none = {"resolution": None, "aspect_ratio": None}
    shifts, time = net.adaln_single(t.flatten(), none, batch_size=b * f, hidden_dtype=x.dtype)  # (B F, 6 D), (B F, D)
    along = shifts.view(b, 1, f, 6, -1)  # the same, across frames
    text = _each_frame(net.caption_projection(text), f)
    bias = None if heard is None else _bias(_each_frame(heard[..., None], f).squeeze(-1), x.dtype)
    for i, (within, across) in enumerate(zip(net.transformer_blocks, net.temporal_transformer_blocks, strict=True)):
        x = within(x, None, text, bias, shifts, None, None)
        x = x.unflatten(0, (b, f)).transpose(1, 2)  # (B, P, F, D)
        if i == 0:
            x = x + net.temp_pos_embed.to(x.dtype)
        x = _across(across, x, along).transpose(1, 2).flatten(0, 1)
    shift, scale = (net.scale_shift_table + time[:, None]).chunk(2, dim=1)
    x = net.proj_out(net.norm_out(x) * (1 + scale) + shift)
    x = x.unflatten(1, (h, w)).unflatten(-1, (side, side, -1))  # (B F, h, w, side, side, C')
    answer: Tensor = x.permute(0, 5, 1, 3, 2, 4).reshape(b, f, -1, height, width).transpose(1, 2)
    return answer


def trimmed(text: Tensor, heard: Tensor, whole: bool = False) -> tuple[Tensor, Tensor | None]:
    """Text (..., L, D) with as many tokens as any of the batch has of its own, and which those are; None: all.

    What a shorter text has too many is masked, which gives what cutting it to its length alone gives.
    heard (..., L) is on the CPU, so that asking it makes no device wait.  whole: nothing is cut, and there is always a
    mask.
    """
    rows = tuple(map(tuple, (heard > 0).flatten(0, -2).tolist()))
    longest, own = _own(rows, tuple(heard.shape[:-1]), text.device, whole)
    return text[..., :longest, :], own


@lru_cache(maxsize=128)
def _own(
    rows: Sequence[Sequence[bool]], shape: Sequence[int], device: torch.device, whole: bool
) -> tuple[int, Tensor | None]:
    """The most tokens that any row has, and (*shape, that many) which are its own, sent there once; None: all."""
    longest = len(rows[0]) if whole else 1 + max(i for row in rows for i, own in enumerate(row) if own)
    short = [row[:longest] for row in rows]
    if all(map(all, short)) and not whole:
        return longest, None
    return longest, sent(torch.tensor(short), device).view(*shape, longest)


def _across(block: Any, x: Tensor, shifts: Tensor) -> Tensor:
    """A temporal block whose modulation differs from frame to frame: x (B, P, F, D), shifts (B, 1, F, 6, D)."""
    shift, scale, gate, shift_ff, scale_ff, gate_ff = (shifts + block.scale_shift_table).unbind(dim=3)
    heard = (block.norm1(x) * (1 + scale) + shift).flatten(0, 1)
    said = torch.cat([block.attn1(rows) for rows in torch.split(heard, MOST_ROWS)])
    x = x + gate * said.view_as(x)
    answer: Tensor = x + gate_ff * block.ff(block.norm2(x) * (1 + scale_ff) + shift_ff)
    return answer


def _each_frame(x: Tensor, f: int) -> Tensor:
    """(B, L, D) for all frames, or (B, F, L, D) -> (B F, L, D)."""
    return x.repeat_interleave(f, dim=0) if x.ndim == 3 else x.flatten(0, 1)


def _bias(heard: Tensor, dtype: torch.dtype) -> Tensor:
    """(B F, L) -> what is added to the attention to each token, (B F, 1, L)."""
    out = torch.zeros(heard.shape, dtype=dtype, device=heard.device)
    return out.masked_fill(~heard, torch.finfo(dtype).min)[:, None]


def load(device: torch.device, dtype: torch.dtype, weights: str) -> Latte:
    """weights: a Hub id or a folder with transformer/, vae/, text_encoder/ (T5), tokenizer/ and scheduler/.

    Raises ModelError for files that are missing, damaged or another model's.
    """
    from diffusers import LatteTransformer3DModel

    folder = locate(weights, FOLDER)
    # A guess at no text, which the diffusers that saved the published file (0.24) kept beside the weights.
    guess = r"^caption_projection\.y_embedding$"
    network = component(LatteTransformer3DModel, folder / "transformer", dtype, ignore=guess)
    reader = t5_reader(folder, device, dtype, TOKENS)
    table = table_of(folder)
    return Latte(network, autoencoder(folder / "vae", device, dtype), table, reader, device, dtype, [folder])
