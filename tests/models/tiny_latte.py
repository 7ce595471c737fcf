"""Latte at tiny size: the text model's diffusers folder, and the class-conditional one's .pt with its autoencoder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_parts import network, scramble, silenced, write_autoencoder, write_scheduler, write_t5
from torch import Tensor

from fifo_diffusion.models.base import Model
from fifo_diffusion.protocols import Cond


def make_latte(folder: Path) -> str:
    """The layout of maxin-cn/Latte-1."""
    from diffusers import LatteTransformer3DModel

    from fifo_diffusion.models.latte import PUBLISHED

    small = {"num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24, "num_layers": 2}
    net = LatteTransformer3DModel(**{**PUBLISHED, **small, "sample_size": 8, "caption_channels": 32})
    scramble(net, 1).save_pretrained(folder / "transformer")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    # Which the published file holds too: by its size it is 967 tensors of diffusers' and this one.
    save_file({**load_file(file), "caption_projection.y_embedding": torch.randn(120, 32)}, file, {"format": "pt"})
    write_autoencoder(folder / "vae")
    write_t5(folder / "text_encoder", folder / "tokenizer")
    write_scheduler(folder / "scheduler", "linear", 1e-4, 0.02)
    return str(folder)


def said_by_latte(model: Model, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """diffusers' own forward, each text cut to its tokens as diffusers' pipeline does."""
    net = network(model)
    out = []
    for i in range(len(z)):
        text = cond["text"][i : i + 1, : int(cond["heard"][i].sum())]
        out.append(net(z[i : i + 1], t[i : i + 1], text.to(z.dtype)).sample[:, : z.shape[1]])
    return torch.cat(out)


def latte_apart(model: Model) -> AbstractContextManager[None]:
    return silenced(*(block.attn1.to_out[0] for block in network(model).temporal_transformer_blocks))


def make_ucf101(folder: Path) -> str:
    """The layout of the authors' ucf101.pt: a checkpoint of their training, and the autoencoder's folder beside it."""
    from fifo_diffusion.models.latte_classes import ClassLatte

    net = scramble(tiny_ucf101(ClassLatte), 2)
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    torch.save({"model": {key: value + 1 for key, value in weights.items()}, "ema": weights}, folder / "ucf101.pt")
    write_autoencoder(folder / "vae")
    return str(folder / "ucf101.pt")


def tiny_ucf101(kind: Any) -> Any:
    return kind(width=128, depth=4, heads=2, patch=2, patches=16, frames=16, channels=4, out=8, classes=101, hidden=512)


def said_by_ucf101(model: Model, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """The same weights in diffusers' DiT blocks (arXiv:2212.09748), which know the class by its number."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.embeddings import Timesteps

    net = network(model)
    weights, b, f = net.state_dict(), z.shape[0], z.shape[2]
    table = weights["y_embedder.embedding_table.weight"]
    label = torch.cdist(cond["text"][:, 0], table).argmin(dim=1)
    x = torch.nn.functional.conv2d(
        z.transpose(1, 2).flatten(0, 1), weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"], stride=2
    )
    h, w = x.shape[2:]
    x = x.flatten(2).mT + weights["pos_embed"]
    for i in range(len(net.blocks)):
        block = BasicTransformerBlock(
            128, 2, 64, num_embeds_ada_norm=101, norm_type="ada_norm_zero", norm_elementwise_affine=False,
            norm_eps=1e-6, activation_fn="gelu-approximate", attention_bias=True,
        )  # fmt: skip
        block.load_state_dict(_as_dit(weights, f"blocks.{i}."))
        block.norm1.emb.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)  # as DiT's authors
        block.eval()
        if i % 2:
            x = x.unflatten(0, (b, f)).transpose(1, 2).flatten(0, 1)
            x = x + weights["temp_embed"] if i == 1 else x
        copies = len(x) // b
        x = block(x, timestep=t.repeat_interleave(copies), class_labels=label.repeat_interleave(copies))
        told = block.norm1.emb(t, label, hidden_dtype=x.dtype)
        if i % 2:
            x = x.unflatten(0, (b, h * w)).transpose(1, 2).flatten(0, 1)
    shift, scale = net.final_layer["adaLN_modulation"](told).repeat_interleave(f, dim=0)[:, None].chunk(2, dim=-1)
    x = net.final_layer["linear"](torch.nn.functional.layer_norm(x, (128,), eps=1e-6) * (1 + scale) + shift)
    x = x.view(b, f, h, w, 2, 2, 8).permute(0, 6, 1, 2, 4, 3, 5).reshape(b, 8, f, 2 * h, 2 * w)
    answer: Tensor = x[:, : z.shape[1]]
    return answer


def _as_dit(weights: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    own = {key.removeprefix(head): value for key, value in weights.items() if key.startswith(head)}
    out = {"norm1.emb.class_embedder.embedding_table.weight": weights["y_embedder.embedding_table.weight"]}
    for kind in ("weight", "bias"):
        for ours, theirs in (("t_embedder.mlp.0", "linear_1"), ("t_embedder.mlp.2", "linear_2")):
            out[f"norm1.emb.timestep_embedder.{theirs}.{kind}"] = weights[f"{ours}.{kind}"]
        out[f"norm1.linear.{kind}"] = own[f"adaLN_modulation.1.{kind}"]
        parts = zip(("to_q", "to_k", "to_v"), own[f"attn.qkv.{kind}"].chunk(3), strict=True)
        out |= {f"attn1.{name}.{kind}": value for name, value in parts}
        out[f"attn1.to_out.0.{kind}"] = own[f"attn.proj.{kind}"]
        out[f"ff.net.0.proj.{kind}"], out[f"ff.net.2.{kind}"] = own[f"mlp.fc1.{kind}"], own[f"mlp.fc2.{kind}"]
    return out


def ucf101_apart(model: Model) -> AbstractContextManager[None]:
    return silenced(*(block.attn["proj"] for block in network(model).blocks[1::2]))
