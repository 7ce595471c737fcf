"""Attention within a picture, as the 3D UNet has it: many tokens, few heads, a row a frame.

Letters: N batch, L tokens that ask, S that answer.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from fifo_diffusion.models.attend import attention
from fifo_diffusion.models.linear import project, together


class PlaceAttention:
    """A processor for diffusers' Attention, to the picture itself or to a text."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        plus: Tensor | None = None,
        **ignored: object,
    ) -> Any:
        """(N, L, width of the block) and maybe (N, S, width of the text) -> (N, L, width of the block), plus added"""
        if encoder_hidden_states is None:
            each = together(hidden_states, attn.to_q, attn.to_k, attn.to_v)
        else:
            each = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        q, k, v = (torch.unflatten(x, -1, (attn.heads, -1)).transpose(1, 2) for x in each)
        return project(attn.to_out[0], attention(q, k, v).transpose(1, 2).flatten(2), plus=plus)
