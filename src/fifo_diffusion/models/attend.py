"""Attention on a CPU, written out in matrix products: torch's own is far from what those reach.

Letters: N batch, L tokens that ask, S that answer, h heads, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fifo_diffusion.models import linear

MANY = 256
"""With fewer tokens that ask, torch's own is as quick in float32."""
MOST = 2**21
"""Bytes of logits at once, or those of one head: what is read again right after it was written stays in the cache."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(E)) v, as torch's: (N, h, L, E), (N, h, S, E), (N, h, S, E) -> (N, h, L, E)

    In bfloat16 the logits are rounded to it.  With few tokens in float32, with gradients, compiled, for other
    precisions and on other devices it is torch's.
    """
    ours = linear.HERE and q.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if ours and q.dtype is torch.bfloat16:
        return _batches(q, k, v)
    if ours and q.dtype is torch.float32 and q.shape[2] >= MANY:
        return _groups(q, k, v)
    return scaled_dot_product_attention(q, k, v)


def _batches(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Some heads at once, whichever window they are of: torch's batched products in bfloat16 are oneDNN's."""
    n, h, length, e = q.shape
    heads = (x.flatten(0, 1) for x in (q * e**-0.5, k, v))
    out = q.new_empty(n * h, length, e)
    some = _at_once(q, k)
    # Over a number of tokens that is no multiple of its vectors torch's softmax is slow in bfloat16, not in float32.
    exact = torch.float32 if k.shape[2] % 32 else None
    for to, *parts in zip(*(x.split(some) for x in (out, *heads)), strict=True):
        asks, answers, said = parts
        share = torch.bmm(asks, answers.transpose(1, 2)).softmax(dim=-1, dtype=exact)
        torch.bmm(share.to(q.dtype), said, out=to)
    return out.unflatten(0, (n, h))


def _groups(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Some heads of a window at once: torch's batched products in float32 are MKL's, so oneDNN's is taken that has
    groups, the convolution."""
    n, h, length, e = q.shape
    out = q.new_empty(n, length, h, e)  # as the layer after it reads it
    k, v, some = k * e**-0.5, v.transpose(2, 3), min(h, _at_once(q, k))
    for i in range(n):
        for j in range(0, h, some):
            now = slice(j, j + some)
            heads = out[i, :, now].shape[1]
            asks = q[i, now].transpose(0, 1).flatten(1)  # (L, heads E)
            share = _product(asks, k[i, now].flatten(0, 1), heads).unflatten(1, (heads, -1)).softmax(dim=-1)
            out[i, :, now] = _product(share.flatten(1), v[i, now].flatten(0, 1), heads).unflatten(1, (heads, -1))
    return out.transpose(1, 2)


def _at_once(q: Tensor, k: Tensor) -> int:
    """Heads."""
    return max(1, MOST // (q.shape[2] * k.shape[2] * q.element_size()))


def _product(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(L, groups in), (groups out, in) -> (L, groups out), each group by its own weight.

    All contiguous: on strided ones oneDNN falls back to a kernel that is a thousand times as slow.
    """
    x, weight = x.contiguous(), weight.contiguous()
    if groups == 1:
        return linear.linear(x, weight)
    picture = x[None, :, None].permute(0, 3, 1, 2)  # (1, groups in, L, 1), channels last
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        picture, weight[:, :, None, None], None, [0, 0], [1, 1], [1, 1], groups, "none", [], ""
    )
    return y.permute(0, 2, 3, 1).reshape(len(x), -1)
