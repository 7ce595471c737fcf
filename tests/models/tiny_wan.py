"""Wan 2.1 at tiny size: the diffusers folder its authors publish."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tiny_parts import network, scramble, silenced, write_sentencepiece
from torch import Tensor

from fifo_diffusion.models.base import Model
from fifo_diffusion.models.wan import SMALL
from fifo_diffusion.protocols import Cond

WIDTH = 32  # of the text


def make(folder: Path) -> str:
    """The layout of Wan-AI/Wan2.1-T2V-1.3B-Diffusers."""
    from diffusers import AutoencoderKLWan
    from transformers import UMT5Config, UMT5EncoderModel

    transformer().save_pretrained(folder / "transformer")
    scramble(AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 2, 2], num_res_blocks=1), 3).save_pretrained(folder / "vae")
    config = UMT5Config(vocab_size=64, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    scramble(UMT5EncoderModel(config), 6).save_pretrained(folder / "text_encoder")
    write_sentencepiece(folder / "tokenizer")
    write_scheduler(folder, 3.0)
    return str(folder)


def write_scheduler(folder: Path, shift: float) -> None:
    from diffusers import UniPCMultistepScheduler

    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift).save_pretrained(
        folder / "scheduler"
    )


def transformer(heads: int = 2) -> Any:
    from diffusers import WanTransformer3DModel

    small = {"num_attention_heads": heads, "attention_head_dim": 12, "ffn_dim": 48, "num_layers": 2}
    return scramble(WanTransformer3DModel(**{**SMALL, **small, "text_dim": WIDTH, "freq_dim": 32}), 1)


def said(model: Model, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """diffusers' own forward, every frame at one time."""
    answer: Tensor = network(model)(z, t, cond["text"].to(z.dtype)).sample
    return answer


def apart(model: Model) -> AbstractContextManager[None]:
    return silenced(*(block.attn1.to_out[0] for block in network(model).blocks))
