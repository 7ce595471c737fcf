"""One video on many devices: the calls of an iteration dealt over the ranks of torch.distributed.

Every rank holds the same queue and runs the same engine, so nothing but answers travels, and of those only the
part that is kept.  The bits that a rank computed are the bits that all of them go on with: where each call is
computed alone (`Serial`), the video is the same for any number of ranks.

Letters: R ranks, N calls of an iteration, S = ceil(N / R) the most calls a rank answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fifo_diffusion.lost import heard
from fifo_diffusion.meter import Meter
from fifo_diffusion.protocols import Call, Executor


@dataclass(frozen=True)
class Ranks:
    """Calls dealt over all ranks of a process group; every rank gets every answer.

    execute: how a rank answers its own calls.  group: None for the default one, all ranks.  All ranks of it must make
    the same calls in the same order (the same seed, plan, prompts and state).  In what comes back only the frames
    `call.kept` are filled; the others are 0.

    `sent` counts the bytes this rank has given to each of the others: an iteration adds S times the bytes of the
    longest kept part.  `meter` counts the time of "exchange": until the last rank has its answers, and theirs are here.
    """

    execute: Executor
    group: Any = None
    sent: list[int] = field(default_factory=lambda: [0])
    meter: Meter = field(default_factory=Meter)

    def __call__(self, calls: Sequence[Call], /) -> list[Tensor]:
        """Each answer is (B, C, F, H, W).  Raises RankLost."""
        rank, ranks = dist.get_rank(self.group), dist.get_world_size(self.group)
        turns = [list(turn) for turn in _deal(len(calls), ranks)]
        own = self.execute([calls[i] for i in turns[rank]])
        if ranks == 1:
            return list(own)
        longest = max(len(range(*call.kept.indices(call.z.shape[2]))) for call in calls)
        slots = max(len(turn) for turn in turns)
        b, c, _, h, w = calls[0].z.shape
        mine = calls[0].z.new_zeros(slots, b, c, longest, h, w)
        for slot, (i, answer) in enumerate(zip(turns[rank], own, strict=True)):
            part = answer[:, :, calls[i].kept]
            mine[slot, :, :, : part.shape[2]] = part
        every = [torch.empty_like(mine) for _ in range(ranks)]
        with self.meter.time("exchange", mine.device):
            heard(lambda: dist.all_gather(every, mine, group=self.group, async_op=True), mine.device)
        self.sent[0] += mine.numel() * mine.element_size()
        out = [torch.zeros_like(call.z) for call in calls]
        for turn, answers in zip(turns, every, strict=True):
            for i, answer in zip(turn, answers, strict=False):  # a rank with fewer calls leaves slots empty
                into = out[i][:, :, calls[i].kept]
                into.copy_(answer[:, :, : into.shape[2]])
        return out


def _deal(calls: int, ranks: int) -> list[range]:
    """Which calls each rank answers: as evenly as whole calls allow, and rank 0, which also decodes, the fewest."""
    return [range(ranks - 1 - rank, calls, ranks) for rank in range(ranks)]
