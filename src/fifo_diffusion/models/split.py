"""A transformer split over the ranks of a group (tensor parallelism, arXiv:1909.08053): each holds its share of every
block's weights and computes its share of the heads and of the feed-forward's width.

Written out because torch's own plans (torch.distributed.tensor.parallel) want their process group when the weights are
cut, which is before the others have come, and have no norm over all heads where the heads are split.

A layer split by columns gives a share of its outputs; one split by rows takes a share of the inputs, and what the ranks
make of theirs is summed.  So all ranks of a group have the same at the end of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fifo_diffusion.lost import hearing


@dataclass(eq=False)
class Part:
    """Which part of a network this rank has: number `place` of `of`.

    group: gives the process group that the parts are in; not asked before the network is, when all ranks are there.
    """

    place: int
    of: int
    group: Callable[[], Any]

    def cut(self, x: Tensor, dim: int) -> Tensor:
        """This rank's share along a dimension, in memory of its own."""
        return x.chunk(self.of, dim)[self.place].clone()

    def sum(self, x: Tensor) -> Tensor:
        """The sum over the group, in place.  Raises RankLost."""
        with hearing():
            dist.all_reduce(x, group=self.group())
        return x


class _Rows(nn.Module):
    """A linear layer of which this rank has the columns of the weight that belong to its share of the inputs."""

    def __init__(self, whole: nn.Linear, part: Part) -> None:
        super().__init__()
        self.own, self.bias, self.part = whole, whole.bias, part  # a layer in a layer, which may be in eight bits
        whole.weight = _kept(part.cut(whole.weight, 1))
        whole.register_parameter("bias", None)  # it is added once, to the sum
        whole.in_features //= part.of

    def forward(self, x: Tensor) -> Tensor:
        out = self.part.sum(self.own(x))
        return out if self.bias is None else out + self.bias


class _Norm(nn.Module):
    """RMSNorm over a width of which this rank has a share."""

    def __init__(self, whole: nn.RMSNorm, part: Part) -> None:
        super().__init__()
        assert whole.eps is not None
        self.weight, self.part = _kept(part.cut(whole.weight, 0)), part
        self.width, self.eps = whole.normalized_shape[0], whole.eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        square = self.part.sum(wide.square().sum(dim=-1, keepdim=True)) / self.width
        return (wide * torch.rsqrt(square + self.eps)).type_as(x) * self.weight


def split_attention(attention: Any, part: Part) -> None:
    """A diffusers attention with norms over all heads: this rank's share of the heads."""
    for name in ("to_q", "to_k", "to_v"):
        _columns(getattr(attention, name), part)
    attention.norm_q, attention.norm_k = _Norm(attention.norm_q, part), _Norm(attention.norm_k, part)
    attention.to_out[0] = _Rows(attention.to_out[0], part)
    attention.heads //= part.of


def split_feed_forward(feed_forward: Any, part: Part) -> None:
    """A diffusers FeedForward with one activation (no gate): this rank's share of the width in its middle."""
    _columns(feed_forward.net[0].proj, part)
    feed_forward.net[2] = _Rows(feed_forward.net[2], part)


def _columns(whole: nn.Linear, part: Part) -> None:
    """In place: this rank's share of the outputs."""
    whole.weight = _kept(part.cut(whole.weight, 0))
    if whole.bias is not None:
        whole.bias = _kept(part.cut(whole.bias, 0))
    whole.out_features //= part.of


def _kept(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)
