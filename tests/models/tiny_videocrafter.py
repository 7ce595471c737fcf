"""Tiny VideoCrafter checkpoints with exactly the keys and the structure of the published ones.

The keys are listed here from the structure of the published networks, in their own words and by no way that the
converter goes; `test_videocrafter.py` holds the lists against counts and sums recorded from the authors' modules.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fifo_diffusion.models.base import Model
from fifo_diffusion.models.videocrafter import VideoCrafter
from fifo_diffusion.protocols import Cond

Shapes = dict[str, tuple[int, ...]]
SWITCHES = {  # fps, temporal convolutions, relative positions, length and end of scale_arr
    "videocrafter2": (True, True, False, 1400, 0.7),
    "videocrafter1": (False, False, True, 0, 1.0),
    "videocrafter1-1024": (True, False, True, 1000, 0.3),
}


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """A weight that only its key and shape decide."""
    r: Tensor = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if key.endswith("bias"):
        return 0.05 * r
    if len(shape) < 2:
        return 1.0 + 0.1 * r
    r *= max(1, r[:1].numel()) ** -0.5
    return r


class Keys:
    """A list of keys and shapes that grows layer by layer."""

    def __init__(self) -> None:
        self.shapes: Shapes = {}

    def layer(self, name: str, out: int, *rest: int, bias: bool = True) -> None:
        self.shapes[f"{name}.weight"] = (out, *rest)
        if bias:
            self.shapes[f"{name}.bias"] = (out,)


class UNetKeys(Keys):
    """lvdm's openaimodel3d."""

    def __init__(
        self, c: int, mult: tuple[int, ...], head: int, context: int, fps: bool, convs: bool, relative: bool
    ) -> None:
        super().__init__()
        self.c, self.head, self.context, self.convs, self.relative = c, head, context, convs, relative
        for name in ("time_embed", "fps_embedding") if fps else ("time_embed",):
            self.layer(f"{name}.0", 4 * c, c)
            self.layer(f"{name}.2", 4 * c, 4 * c)
        self.layer("input_blocks.0.0", c, 4, 3, 3)
        self.transformer("init_attn.0", c, 8 * head, None, (1,))
        block, width, skips = 1, c, [c]
        for level, m in enumerate(mult):
            for _ in range(2):
                self.places(f"input_blocks.{block}", width, c * m, level < 3)
                width, block = c * m, block + 1
                skips.append(width)
            if level < 3:
                self.layer(f"input_blocks.{block}.0.op", width, width, 3, 3)
                block += 1
                skips.append(width)
        self.resnet("middle_block.0", width, width)
        self.transformer("middle_block.1", width, width, context)
        self.transformer("middle_block.2", width, width, None)
        self.resnet("middle_block.3", width, width)
        for level, m in reversed(list(enumerate(mult))):
            for layer in range(3):
                block = 3 * (3 - level) + layer
                self.places(f"output_blocks.{block}", width + skips.pop(), c * m, level < 3)
                width = c * m
            if level:
                self.layer(f"output_blocks.{block}.{3 if level < 3 else 1}.conv", width, width, 3, 3)
        self.layer("out.0", c)
        self.layer("out.2", 4, c, 3, 3)

    def places(self, name: str, before: int, after: int, attends: bool) -> None:
        self.resnet(f"{name}.0", before, after)
        if attends:
            self.transformer(f"{name}.1", after, after, self.context)
            self.transformer(f"{name}.2", after, after, None)

    def resnet(self, name: str, before: int, after: int) -> None:
        self.layer(f"{name}.in_layers.0", before)
        self.layer(f"{name}.in_layers.2", after, before, 3, 3)
        self.layer(f"{name}.emb_layers.1", after, 4 * self.c)
        self.layer(f"{name}.out_layers.0", after)
        self.layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            self.layer(f"{name}.skip_connection", after, before, 1, 1)
        for i in range(1, 5) if self.convs else ():
            self.layer(f"{name}.temopral_conv.conv{i}.0", after)
            self.layer(f"{name}.temopral_conv.conv{i}.{2 if i == 1 else 3}", after, after, 3, 1, 1)

    def transformer(self, name: str, width: int, inner: int, heard: int | None, kernel: tuple[int, ...] = ()) -> None:
        self.layer(f"{name}.norm", width)
        self.layer(f"{name}.proj_in", inner, width, *kernel)
        block = f"{name}.transformer_blocks.0"
        for attention, source in (("attn1", inner), ("attn2", heard or inner)):
            self.layer(f"{block}.{attention}.to_q", inner, inner, bias=False)
            self.layer(f"{block}.{attention}.to_k", inner, source, bias=False)
            self.layer(f"{block}.{attention}.to_v", inner, source, bias=False)
            self.layer(f"{block}.{attention}.to_out.0", inner, inner)
            for side in ("k", "v") if self.relative and heard is None else ():
                self.shapes[f"{block}.{attention}.relative_position_{side}.embeddings_table"] = (33, self.head)
        self.layer(f"{block}.ff.net.0.proj", 8 * inner, inner)
        self.layer(f"{block}.ff.net.2", inner, 4 * inner)
        for i in (1, 2, 3):
            self.layer(f"{block}.norm{i}", inner)
        self.layer(f"{name}.proj_out", width, inner, *kernel)


class AutoencoderKeys(Keys):
    """Latent diffusion's AutoencoderKL: 4 latent channels, 2 layers a level."""

    def __init__(self, c: int, mult: tuple[int, ...]) -> None:
        super().__init__()
        last = len(mult) - 1
        widths = [c * m for m in mult]
        self.layer("encoder.conv_in", c, 3, 3, 3)
        width = c
        for level, after in enumerate(widths):
            for i in range(2):
                self.resnet(f"encoder.down.{level}.block.{i}", width, after)
                width = after
            if level < last:
                self.layer(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
        self.end("encoder", width, 8)
        self.layer("decoder.conv_in", width, 4, 3, 3)
        for level in range(last, -1, -1):
            for i in range(3):
                self.resnet(f"decoder.up.{level}.block.{i}", width, widths[level])
                width = widths[level]
            if level:
                self.layer(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
        self.middle("decoder", widths[-1])
        self.layer("decoder.norm_out", width)
        self.layer("decoder.conv_out", 3, width, 3, 3)
        self.layer("quant_conv", 8, 8, 1, 1)
        self.layer("post_quant_conv", 4, 4, 1, 1)

    def end(self, side: str, width: int, out: int) -> None:
        self.middle(side, width)
        self.layer(f"{side}.norm_out", width)
        self.layer(f"{side}.conv_out", out, width, 3, 3)

    def middle(self, side: str, width: int) -> None:
        self.resnet(f"{side}.mid.block_1", width, width)
        self.layer(f"{side}.mid.attn_1.norm", width)
        for name in ("q", "k", "v", "proj_out"):
            self.layer(f"{side}.mid.attn_1.{name}", width, width, 1, 1)
        self.resnet(f"{side}.mid.block_2", width, width)

    def resnet(self, name: str, before: int, after: int) -> None:
        self.layer(f"{name}.norm1", before)
        self.layer(f"{name}.conv1", after, before, 3, 3)
        self.layer(f"{name}.norm2", after)
        self.layer(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            self.layer(f"{name}.nin_shortcut", after, before, 1, 1)


class TextKeys(Keys):
    """open_clip's text tower."""

    def __init__(self, width: int, layers: int, words: int) -> None:
        super().__init__()
        self.shapes = {"positional_embedding": (77, width), "text_projection": (width, width), "logit_scale": ()}
        self.layer("token_embedding", words, width, bias=False)
        for i in range(layers):
            block = f"transformer.resblocks.{i}"
            self.layer(f"{block}.ln_1", width)
            self.shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
            self.shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
            self.layer(f"{block}.attn.out_proj", width, width)
            self.layer(f"{block}.ln_2", width)
            self.layer(f"{block}.mlp.c_fc", 4 * width, width)
            self.layer(f"{block}.mlp.c_proj", width, 4 * width)
        self.layer("ln_final", width)


BUFFERS = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
)  # fmt: skip


def checkpoint(name: str) -> dict[str, Tensor]:
    """All tensors of a tiny checkpoint of this model, under the published keys."""
    fps, convs, relative, scales, end = SWITCHES[name]
    width = 64
    parts = {
        "model.diffusion_model.": UNetKeys(32, (1, 1, 2, 4), 16, width, fps, convs, relative),
        "first_stage_model.": AutoencoderKeys(32, (1, 1, 1, 1)),
        "cond_stage_model.model.": TextKeys(width, 24, 514),
    }
    out = {head + key: weight(key, shape) for head, keys in parts.items() for key, shape in keys.shapes.items()}
    for buffer in BUFFERS:
        out[buffer] = torch.zeros(1000)
    if scales:
        out["scale_arr"] = torch.cat([torch.linspace(1, end, 400), torch.full((scales - 400,), end)])
    return out


def write_tokenizer(folder: Path) -> None:
    """A real CLIP tokenizer that knows the 256 bytes, inside and at the end of a word, and no longer pieces."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(str(folder / "tokenizer"))


def make(name: str, folder: Path) -> str:
    """model.ckpt with its tokenizer beside it; what `--weights` is given."""
    write_tokenizer(folder)
    torch.save({"state_dict": checkpoint(name)}, folder / "model.ckpt")
    return str(folder / "model.ckpt")


def stock(model: VideoCrafter) -> Any:
    """diffusers' own network with this model's weights; where it has temporal convolutions that the model lacks, they
    add nothing."""
    config = model.network.config
    width, heard, head = tuple(config.block_out_channels), config.cross_attention_dim, config.attention_head_dim
    net = _empty(model.variant.name, block_out_channels=width, cross_attention_dim=heard, attention_head_dim=head)
    held = model.network.state_dict()
    state = {key: held[key] if key in held else torch.zeros(empty.shape) for key, empty in net.state_dict().items()}
    assert all("temp_convs" in key for key in state.keys() - held.keys())
    assert all("fps_" in key or "relative_" in key for key in held.keys() - state.keys())
    net.load_state_dict(state, assign=True)
    return net


@cache
def _empty(name: str, **settings: Any) -> Any:
    from accelerate import init_empty_weights
    from diffusers import UNet3DConditionModel

    with init_empty_weights():
        return UNet3DConditionModel(**settings).eval()


class Shaw:
    """Self-attention with relative positions, a frame and a head at a time, as arXiv:1803.02155 defines it."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def __call__(self, attn: Any, x: Tensor, *ignored: object, **also: object) -> Tensor:
        width, most = self.keys.shape[1], len(self.keys) // 2
        q, k, v = attn.to_q(x), attn.to_k(x), attn.to_v(x)
        out = torch.zeros_like(q)
        for head in range(attn.heads):
            at = slice(head * width, (head + 1) * width)
            for i in range(x.shape[1]):
                row = [max(-most, min(most, j - i)) + most for j in range(x.shape[1])]
                logits = (q[:, i : i + 1, at] * (k[:, :, at] + self.keys[row])).sum(-1) / width**0.5
                out[:, i, at] = (logits.softmax(-1)[..., None] * (v[:, :, at] + self.values[row])).sum(1)
        return attn.to_out[0](out)  # type: ignore[no-any-return]


def published(model: Model, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """diffusers' network, the frame rate's embedding added by a hook and relative positions by a plain processor."""
    assert isinstance(model, VideoCrafter)
    net, ours = stock(model), dict(model.network.named_modules())
    for name, module in net.named_modules():
        if hasattr(ours.get(name), "relative_position_k"):
            own = ours[name]
            module.set_processor(
                Shaw(own.relative_position_k.embeddings_table, own.relative_position_v.embeddings_table)
            )
    if not model.variant.fps:
        return net(z, t, cond["text"]).sample  # type: ignore[no-any-return]
    rate = ours["fps_embedding"](net.time_proj(torch.full((len(t),), 8.0)))
    hook = net.time_embedding.register_forward_hook(lambda layer, given, out: out + rate)
    out: Tensor = net(z, t, cond["text"]).sample
    hook.remove()
    return out


@contextmanager
def apart(model: Model) -> Iterator[None]:
    """No frame hears another: what looks along the frames adds nothing."""
    assert isinstance(model, VideoCrafter)
    ends = [
        value
        for key, value in model.network.named_parameters()
        if ("temp_convs" in key and ".conv4.3." in key)
        or (("temp_attentions" in key or "transformer_in" in key) and ".proj_out." in f".{key}")
    ]
    were = [value.clone() for value in ends]
    for value in ends:
        value.zero_()
    yield
    for value, was in zip(ends, were, strict=True):
        value.copy_(was)
