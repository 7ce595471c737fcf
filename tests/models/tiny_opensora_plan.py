"""Open-Sora Plan v1.1.0 at tiny size: the folder its authors publish, T5 beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import LatteTransformer3DModel
from safetensors.torch import save_file
from tiny_parts import network, scramble, silenced, write_t5
from torch import Tensor

from fifo_diffusion.models.base import Model
from fifo_diffusion.models.causal_vae import CausalVAE
from fifo_diffusion.models.causal_vae_shape import PUBLISHED
from fifo_diffusion.protocols import Cond

TRANSFORMER_CONFIG: dict[str, Any] = {  # 65x512x512/config.json; the larger network says 56
    "_class_name": "LatteT2V", "_diffusers_version": "0.27.2", "activation_fn": "gelu-approximate",
    "attention_bias": True, "attention_head_dim": 72, "attention_mode": "xformers", "attention_type": "default",
    "caption_channels": 4096, "compress_kv_factor": 1, "cross_attention_dim": 1152, "double_self_attention": False,
    "dropout": 0.0, "in_channels": 4, "interpolation_scale_1d": None, "model_max_length": 300,
    "norm_elementwise_affine": False, "norm_eps": 1e-06, "norm_num_groups": 32, "norm_type": "ada_norm_single",
    "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": None,
    "only_cross_attention": False, "out_channels": 8, "patch_size": 2, "patch_size_t": 1, "rope_scaling_type": None,
    "sample_size": [64, 64], "upcast_attention": False, "use_linear_projection": False, "use_rope": False,
    "video_length": 17,
}  # fmt: skip
TINY = {"num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24, "num_layers": 2,
        "caption_channels": 32, "sample_size": [8, 8]}  # fmt: skip


def stock(config: dict[str, Any]) -> LatteTransformer3DModel:
    """diffusers' own class for the published settings."""
    import inspect

    known = inspect.signature(LatteTransformer3DModel).parameters
    return LatteTransformer3DModel(
        **{k: v for k, v in config.items() if k in known} | {"sample_size": config["sample_size"][0]}
    )


def make(folder: Path, window: int = 17) -> str:
    """The layout of LanguageBind/Open-Sora-Plan-v1.1.0, and of DeepFloyd/t5-v1_1-xxl inside it."""
    name = f"{4 * window - 3}x512x512"
    for part in (name, "vae"):
        (folder / part).mkdir(parents=True)
    config = {**TRANSFORMER_CONFIG, **TINY, "video_length": window}
    weights = scramble(stock(config), 1).state_dict()
    weights["caption_projection.y_embedding"] = torch.randn(120, 32)
    save_file(weights, folder / name / "diffusion_pytorch_model.safetensors")
    (folder / name / "config.json").write_text(json.dumps(config))

    config = {
        **PUBLISHED,
        "_class_name": "CausalVAEModel",
        "resolution": 256,
        "hidden_size": 32,
        "hidden_size_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
    }
    weights = {**scramble(CausalVAE(config), 2).state_dict(), "loss.logvar": torch.zeros(())}
    save_file(weights, folder / "vae" / "diffusion_pytorch_model.safetensors")
    (folder / "vae" / "config.json").write_text(json.dumps(config))

    t5 = folder / "t5-v1_1-xxl"
    write_t5(t5, folder / "words")
    for file in (folder / "words").iterdir():
        file.rename(t5 / file.name)
    (folder / "words").rmdir()
    return str(folder)


def maker(window: int) -> Callable[[Path], str]:
    return partial(make, window=window)


def said(model: Model, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """diffusers' own network, each text alone and cut to its length, as the authors do.

    It knows the frames' positions for 16 and 17 latents only; for 56 they are the authors' formula, i / 3.
    """
    ours = network(model)
    net = LatteTransformer3DModel(**{k: v for k, v in ours.config.items() if k != "interpolation_scale_1d"})
    net.load_state_dict(ours.state_dict())
    if z.shape[2] == 56:
        rate = torch.exp(-torch.arange(12) / 12 * torch.log(torch.tensor(10_000.0)))
        angle = torch.arange(56)[:, None] / 3 * rate
        net.temp_pos_embed = torch.cat([angle.sin(), angle.cos()], dim=1)[None]
    out = []
    for i in range(len(z)):
        text = cond["text"][i : i + 1, : int(cond["heard"][i].sum())]
        out.append(net.eval()(z[i : i + 1], t[i : i + 1], text).sample[:, :4])
    return torch.cat(out)


def apart(model: Model) -> AbstractContextManager[None]:
    return silenced(*(block.attn1.to_out[0] for block in network(model).temporal_transformer_blocks))
