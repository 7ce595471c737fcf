"""The layers of the 3D UNet in as few passes over memory as they need.

diffusers' modules hold the weights; what they compute is written here again, because between their layers the published
forms turn and copy the whole tensor, repeat the text for every frame and put a convolution along time on a slow path.
Pictures are in channels-last order throughout: what is a picture to a convolution is then a row of tokens to a
transformer, and a clip to a convolution along time, each without a copy.

Letters: B windows, m texts a window, G 1, or F where each frame hears its own text, C channels, F frames, H W latent
height and width, L text tokens, D text width, h heads.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import TemporalConvLayer
from torch import Tensor
from torch.nn import functional as F

from fifo_diffusion.models.group_norm import group_norm
from fifo_diffusion.models.linear import CalledLinear, convolve, linear, project


class Layer(NamedTuple):
    """A step of a block: a ResnetBlock2D, a TemporalConvLayer, a Transformer2DModel, a TransformerTemporalModel; the
    last two are None in blocks without attention."""

    resnet: Any
    convolutions: Any
    within: Any
    along: Any

    def __call__(self, x: Tensor, emb: Tensor, text: Tensor, frames: int) -> Tensor:
        """x (B F, C, H, W), emb (B F, 4 C0) through its activation, text (m B, G, L, D) -> (m B F, C', H, W)

        Where x has m B F rows already, for it heard the texts before, it stays at that.
        """
        x = residual(self.resnet, x, emb)
        if isinstance(self.convolutions, TemporalConvLayer):
            x = convolve_along(self.convolutions, x, frames)
        if self.within is not None:
            x = attend_along(self.along, attend_within(self.within, x, text, frames), frames)
        return x


def layers(block: Any) -> list[Layer]:
    """In the order they are computed; the middle block's last has no attention."""
    within, along = getattr(block, "attentions", ()), getattr(block, "temp_attentions", ())
    return [Layer(*parts) for parts in zip_longest(block.resnets, block.temp_convs, within, along)]


def repeated(x: Tensor, rows: int) -> Tensor:
    """x over and over until it has so many rows."""
    return x if len(x) == rows else x.repeat(rows // len(x), *[1] * (x.ndim - 1))


def residual(net: Any, x: Tensor, emb: Tensor) -> Tensor:
    y = net.conv1(group_norm(net.norm1, x, silu=True))
    y += repeated(net.time_emb_proj(emb), len(x))[:, :, None, None]
    y = group_norm(net.norm2, y, silu=True)
    x = x if net.conv_shortcut is None else net.conv_shortcut(x)
    return convolve(y, net.conv2.weight, net.conv2.bias, (1, 1), plus=x)


def _clips(x: Tensor, frames: int) -> Tensor:
    """(B F, C, H, W) -> (B, C, F, H W), channels last if x is"""
    return torch.unflatten(x, 0, (-1, frames)).flatten(3).transpose(1, 2)


def convolve_along(net: Any, x: Tensor, frames: int) -> Tensor:
    """Convolutions over (time, place): the published form is over (time, height, width), which torch computes four
    times as slowly in float32 on a CPU."""
    y = clips = _clips(x, frames)
    for norm, *_, convolution in (net.conv1, net.conv2, net.conv3):
        weight = convolution.weight.squeeze(-1)
        y = F.conv2d(group_norm(norm, y, silu=True), weight, convolution.bias, padding=(1, 0))
    norm, *_, last = net.conv4
    y = convolve(group_norm(norm, y, silu=True), last.weight.squeeze(-1), last.bias, (1, 0), plus=clips)
    return torch.unflatten(y.transpose(1, 2).flatten(0, 1), 2, x.shape[2:])


def attend_within(net: Any, x: Tensor, text: Tensor, frames: int) -> Tensor:
    y = project(net.proj_in, group_norm(net.norm, x).permute(0, 2, 3, 1).flatten(1, 2))  # (B F, H W, C)
    rows = len(text) * frames
    for block in net.transformer_blocks:
        y = block.attn1(block.norm1(y), plus=y)
        y = repeated(y, rows)
        y = _read(block.attn2, block.norm2(y), text, plus=y)
        y = feed_forward(block.ff, block.norm3(y), plus=y)
    y = project(net.proj_out, y, plus=repeated(x, rows).permute(0, 2, 3, 1).flatten(1, 2))
    return torch.unflatten(y, 1, x.shape[2:]).permute(0, 3, 1, 2)


def attend_along(net: Any, x: Tensor, frames: int) -> Tensor:
    y = group_norm(net.norm, _clips(x, frames))  # (B, C, F, H W)
    y = project(net.proj_in, y.permute(0, 2, 3, 1))  # (B, F, H W, C)
    for block in net.transformer_blocks:
        y = y + _from_frame_to_frame(block.attn1, block.norm1(y))
        y = y + _from_frame_to_frame(block.attn2, block.norm2(y))
        y = feed_forward(block.ff, block.norm3(y), plus=y)
    y = project(net.proj_out, y, plus=_clips(x, frames).permute(0, 2, 3, 1))  # (B, F, H W, C)
    return torch.unflatten(y.flatten(0, 1), 1, x.shape[2:]).permute(0, 3, 1, 2)


def _read(attn: Attention, x: Tensor, text: Tensor, plus: Tensor) -> Tensor:
    """Attention from x (m B F, H W, C) to its text, whose keys and values are computed once for all frames that hear
    it, and plus, which is like x, added."""
    shape = x.shape
    x, plus = (each.reshape(text.shape[0] * text.shape[1], -1, each.shape[2]) for each in (x, plus))
    out: Tensor = attn(x, text.flatten(0, 1), plus=plus)
    return out.view(shape)


def _from_frame_to_frame(attn: Attention, x: Tensor) -> Tensor:
    """x (B, F, H W, C): every place attends along its own frames."""
    b, f, places, c = x.shape
    out: Tensor = attn(x.transpose(1, 2).reshape(b * places, f, c))
    return out.view(b, places, f, c).transpose(1, 2)


def feed_forward(net: Any, x: Tensor, plus: Tensor | None = None) -> Tensor:
    """GEGLU (arXiv:2002.05202): the half with the gate goes through GELU, the other is multiplied by it."""
    enter, leave = net.net[0].proj, net.net[2]
    if isinstance(enter, CalledLinear):
        y, gate = enter(x).chunk(2, dim=-1)
        y = y * F.gelu(gate)
    else:
        (w, w_gate), (bias, gate_bias) = enter.weight.chunk(2), enter.bias.chunk(2)
        y = linear(x, w, bias).mul_(linear(x, w_gate, gate_bias, "gelu"))
    return project(leave, y, plus=plus)
