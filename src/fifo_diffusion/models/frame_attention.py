"""Attention from frame to frame, as the 3D UNet has it for every place of a picture: a few frames, a huge batch.

Processors for diffusers' Attention.  Letters: N batch, F frames, h heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fifo_diffusion.models.linear import together


class FrameAttention:
    """Plain attention, written out on a CPU: torch's own takes 2.5 times as long over 16 frames there."""

    def __call__(self, attn: Attention, hidden_states: Tensor, *ignored: object, **also: object) -> Any:
        """(N, F, width of the block) -> the same; each frame attends to all frames."""
        q, k, v = _heads(attn, hidden_states)
        if hidden_states.device.type == "cpu":
            n, h = q.shape[:2]
            q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # copied before k is turned: that is the quicker order
            scale = q.shape[-1] ** -0.5
            logits = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)
            share = logits.softmax(dim=-1, dtype=torch.float32).to(v.dtype)  # also quicker than in bfloat16
            out = torch.unflatten(torch.bmm(share, v), 0, (n, h))
        else:
            out = scaled_dot_product_attention(q, k, v)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


class RelativePosition(nn.Module):
    """An embedding for each distance between two frames, -most..most; farther ones share the last (eq. 4 of
    arXiv:1803.02155)."""

    def __init__(self, width: int, most: int) -> None:
        super().__init__()
        self.embeddings_table = nn.Parameter(torch.zeros(2 * most + 1, width))

    def forward(self, frames: int) -> Tensor:
        """(2 F - 1, width): for the distances 1 - F..F - 1 from the frame that asks to the frame that answers."""
        most = len(self.embeddings_table) // 2
        distance = torch.arange(1 - frames, frames, device=self.embeddings_table.device)
        return self.embeddings_table[distance.clamp(-most, most) + most]


class RelativeAttention:
    """Self-attention in which keys and values know how far apart two frames are.

    softmax(q (k + K)' / sqrt(E)) (v + V), K and V being the embeddings of distances (eq. 1 and 2 of
    arXiv:1803.02155); written out, since only the logits' half of it fits torch's own attention.  Products are with the
    2 F - 1 distances, not with the F x F pairs of frames: one matrix for the whole batch, read along its diagonals.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, *ignored: object, **also: object) -> Any:
        """(N, F, width of the block) -> the same; each frame attends to all frames."""
        q, k, v = _heads(attn, hidden_states)
        frames = hidden_states.shape[1]
        to_keys, to_values = attn.relative_position_k(frames), attn.relative_position_v(frames)
        q = q * q.shape[-1] ** -0.5  # before the products, which half precision may not hold
        logits = q @ k.transpose(-1, -2) + along_diagonals((q @ to_keys.T).contiguous())
        share = logits.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        by_distance = share.new_zeros(*share.shape[:3], 2 * frames - 1)
        along_diagonals(by_distance).copy_(share)
        out = share @ v + by_distance @ to_values
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def along_diagonals(x: Tensor) -> Tensor:
    """(N, h, F, 2 F - 1) by distance, contiguous -> (N, h, F, F) by frame, the same memory: entry (i, j) is the one of
    distance j - i."""
    frames = x.shape[2]
    rows = x.flatten(2)[..., frames - 1 : frames - 1 + frames * (2 * frames - 2)]
    return torch.unflatten(rows, -1, (frames, 2 * frames - 2))[..., :frames] if frames > 1 else x


def _heads(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (N, h, F, E)."""
    each = together(x, attn.to_q, attn.to_k, attn.to_v)
    q, k, v = (torch.unflatten(part, -1, (attn.heads, -1)).transpose(1, 2) for part in each)
    return q, k, v
