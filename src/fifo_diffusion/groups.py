"""Ranks in groups: each group holds one network, split over its ranks, and windows are dealt over the groups.

For a model too large for one device.  Ranks 0 .. N - 1 are the first group, N .. 2 N - 1 the second, and so on, so that
a group stays on one host where the numbers allow.  Answers travel between ranks of the same place in their groups.

Letters: R ranks, N ranks a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch.distributed as dist
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.lost import heard, hearing, silence
from fifo_diffusion.protocols import Call, Executor


@dataclass(frozen=True, eq=False)
class Groups:
    """This rank's two process groups."""

    within: Any  # the ranks that hold parts of the same network
    across: Any  # the ranks that hold the same part


@cache
def groups(size: int) -> Groups:
    """Groups of `size` ranks; every rank must ask for the same sizes in the same order, for all make them together."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    with hearing():
        within = [_group(range(first, first + size)) for first in range(0, ranks, size)]
        across = [_group(range(place, ranks, size)) for place in range(size)]
    return Groups(within[rank // size], across[rank % size])


def _group(ranks: range) -> Any:
    return dist.new_group(list(ranks), timeout=silence())  # torch would wait half an hour


def check_split(size: int, ranks: int, able: Sequence[int], model: str) -> None:
    """Raises BadInput where `size` ranks cannot hold one of this model's networks, or do not divide all `ranks`."""
    if size not in able:
        can = f"it can be split over {', '.join(map(str, able[1:]))}" if len(able) > 1 else "leave --split out"
        raise BadInput(f"{model} cannot be split over {size} ranks; {can}")
    if ranks % size:
        started = f"there are {ranks}" if ranks > 1 else "this is one process alone"
        raise BadInput(
            f"split {size} needs groups of {size} ranks and {started}; start a multiple of {size}, as in "
            f"torchrun --nproc-per-node {size} -m fifo_diffusion generate ..."
        )


@dataclass(frozen=True)
class Agreed:
    """What the first rank of the group answers, on all of them.

    The sums within a network are the same on all ranks of a group only if the library that sums makes them so; a queue
    that differs from rank to rank in a last bit would drift apart.
    """

    execute: Executor
    within: Any  # a process group

    def __call__(self, calls: Sequence[Call], /) -> list[Tensor]:
        """Each answer is (B, C, F, H, W)."""
        answers = [answer.contiguous() for answer in self.execute(calls)]
        for answer in answers:
            begin = partial(dist.broadcast, answer, group_src=0, group=self.within, async_op=True)
            heard(begin, answer.device)
        return answers
