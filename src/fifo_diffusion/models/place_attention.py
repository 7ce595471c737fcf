"""Attention within a picture, as the 3D UNet has it: many tokens, few heads, a row a frame.

On a CPU torch's own attention over many tokens is far from what its matrix products reach; one head after the other by
oneDNN's products takes about half its time.  Letters: N batch, L tokens that ask, S that answer, h heads, E width of a
head.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fifo_diffusion.models import linear

MANY = 256
"""From so many tokens on either side on, heads are computed one by one; with fewer, torch's own is as quick."""


class PlaceAttention:
    """A processor for diffusers' Attention, to the picture itself or to a text."""

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **ignored: object
    ) -> Any:
        """(N, L, width of the block) and maybe (N, S, width of the text) -> (N, L, width of the block)"""
        heard = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            project(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project, x in ((attn.to_q, hidden_states), (attn.to_k, heard), (attn.to_v, heard))
        )
        return attn.to_out[0](attention(q, k, v).transpose(1, 2).flatten(2))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(E)) v, as torch's: (N, h, L, E), (N, h, S, E), (N, h, S, E) -> (N, h, L, E)

    With few tokens or gradients, compiled, for other precisions and on other devices it is torch's.
    """
    by_head = linear.HERE and q.device.type == "cpu" and q.dtype in (torch.float32, torch.bfloat16)
    by_head = by_head and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if by_head and min(q.shape[2], k.shape[2]) >= MANY:
        return _head_by_head(q, k, v)
    return scaled_dot_product_attention(q, k, v)


def _head_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each head contiguous: on strided ones oneDNN falls back to a kernel that is a thousand times as slow."""
    n, h, length, e = q.shape
    out = q.new_empty(n, length, h, e)  # as the layer after it reads it
    q, k, v = (q * e**-0.5).contiguous(), k.contiguous(), v.transpose(-1, -2).contiguous()
    for i in range(n):
        for j in range(h):
            out[i, :, j] = linear.linear(linear.linear(q[i, j], k[i, j]).softmax(dim=-1), v[i, j])
    return out.transpose(1, 2)
