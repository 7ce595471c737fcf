"""Attention on a CPU, written out in matrix products: torch's own is far from what those reach.

Letters: N batch, L tokens that ask, S that answer, h heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fifo_diffusion.models import linear

MANY = 400
"""With fewer tokens torch's own is as quick in float32."""
MOST = 2**22
"""Bytes of logits at once, or those of one token that asks: they stay in the cache, and of a whole video as one window
they do not grow with its length squared."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(E)) v, as torch's: (N, h, L, E), (N, h, S, E), (N, h, S, E) -> (N, h, L, E)

    In bfloat16 the logits are rounded to it.  With fewer than `MANY` tokens on either side in float32, with gradients,
    compiled, for other precisions and on other devices it is torch's.
    """
    ours = linear.HERE and linear.by_hand(q)
    if ours and q.dtype is torch.bfloat16:
        return _batches(q, k, v)
    if ours and q.dtype is torch.float32 and min(q.shape[2], k.shape[2]) >= MANY:
        return _one_by_one(q, k, v)
    return scaled_dot_product_attention(q, k, v)


def _batches(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Some heads at once, whichever window they are of: torch's batched products in bfloat16 are oneDNN's."""
    n, h, length, e = q.shape
    heads = (x.flatten(0, 1) for x in (q, k, v))
    out = q.new_empty(n * h, length, e)
    some = max(1, MOST // (length * k.shape[2] * q.element_size()))
    # Over a number of tokens that is no multiple of its vectors torch's softmax is slow in bfloat16, not in float32.
    exact = torch.float32 if k.shape[2] % 32 else None
    for to, *parts in zip(*(torch.split(x, some) for x in (out, *heads)), strict=True):
        asks, answers, said = parts
        for rows in _rows(length, k):
            logits = torch.baddbmm(q.new_empty(1, 1, 1), asks[:, rows], answers.transpose(1, 2), beta=0, alpha=e**-0.5)
            torch.bmm(logits.softmax(dim=-1, dtype=exact).to(q.dtype), said, out=to[:, rows])
    return torch.unflatten(out, 0, (n, h))


def _one_by_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each head by itself, contiguous: on strided ones oneDNN falls back to a kernel that is a thousand times as slow.
    torch's batched products in float32 are MKL's."""
    n, h, length, e = q.shape
    out = q.new_empty(n, length, h, e)  # as the layer after it reads it
    q, k, v = (q * e**-0.5).contiguous(), k.contiguous(), v.transpose(-1, -2).contiguous()
    for i in range(n):
        for j in range(h):
            for rows in _rows(length, k):
                out[i, rows, j] = linear.linear(linear.linear(q[i, j, rows], k[i, j]).softmax(dim=-1), v[i, j])
    return out.transpose(1, 2)


def _rows(length: int, k: Tensor) -> Iterator[slice]:
    """Parts of the tokens that ask, so that one head's logits over all of k's are at most `MOST` bytes."""
    some = max(1, MOST // (k.shape[2] * k.element_size()))
    return (slice(first, min(first + some, length)) for first in range(0, length, some))
