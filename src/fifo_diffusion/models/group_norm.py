"""Group norm of pictures in channels-last order, and the activation after it.

torch's own in bfloat16 has a slow path on a CPU for pictures of few places: it reads a group's few channels place by
place.  Here all channels are summed at once and the sums of a group's channels then put together.

Letters: N pictures, C channels, G groups, P places of a picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fifo_diffusion.models.linear import by_hand

FEW = 1024
"""Places.  From so many on torch takes another path, which is quick."""
MOST = 2**22
"""Bytes in float32 at once: they stay in the cache from one pass to the next."""


def group_norm(norm: nn.GroupNorm, x: Tensor, silu: bool = False) -> Tensor:
    """(N, C, height, width) -> the same, by the norm and then maybe SiLU; sums are in float32."""
    if by_hand(x) and x.dtype is torch.bfloat16 and x.shape[2:].numel() < FEW:
        return _by_channel(norm, x, silu)
    # With channels last, half precision and narrow groups torch is up to 40 times as slow on a CPU as with channels
    # first, copy included.
    narrow = norm.num_channels < 16 * norm.num_groups and x.shape[2:].numel() < FEW
    slow = narrow and x.device.type == "cpu" and x.dtype is not torch.float32
    out: Tensor = norm(x.contiguous() if slow else x)
    return F.silu(out, inplace=True) if silu else out


def _by_channel(norm: nn.GroupNorm, x: Tensor, silu: bool) -> Tensor:
    rows = x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)  # (N, P, C)
    channels, groups = norm.num_channels, norm.num_groups
    weight, bias = norm.weight.float(), norm.bias.float()
    size = rows.shape[1] * channels // groups

    def mean(x: Tensor) -> Tensor:
        """Over each group: (N, P, C) -> (N, 1, C), the same for all its channels."""
        each = torch.unflatten(x.sum(dim=1), 1, (groups, -1)).sum(dim=2, keepdim=True) / size
        return each.expand(-1, -1, channels // groups).flatten(1)[:, None]

    out = torch.empty_like(rows)
    some = max(1, MOST // (4 * rows[0].numel()))
    for to, these in zip(torch.split(out, some), torch.split(rows, some), strict=True):
        y = these.float()
        y.sub_(mean(y))
        y = torch.addcmul(bias, y, (mean(y.square()) + norm.eps).rsqrt_() * weight, out=y)
        to.copy_(F.silu(y, inplace=True) if silu else y)
    return torch.unflatten(out, 1, x.shape[2:]).permute(0, 3, 1, 2)
