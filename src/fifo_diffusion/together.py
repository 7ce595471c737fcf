"""The processes that torchrun starts, as one program: rank 0 speaks with people and files, the others compute along.

    torchrun --nproc-per-node 8 -m fifo_diffusion generate "a red balloon" -o balloon.mp4

Rank 0 runs the command as it always runs.  The others wait for a job: a run and the state of its queue.  From then on
every rank makes the same calls of the same queue, answers its share of them (`ranks`) and gets the others' answers.
Before each iteration rank 0 says which prompts there are by now, or that the job is over; so what is said, stopped or
saved on rank 0 holds for all.

A rank that dies closes its connections: the others stop at once, and torchrun ends the job.  One that only falls silent
is given up after FIFO_SILENCE seconds (ten minutes where the environment does not say).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist

from fifo_diffusion.errors import BadInput


def silence() -> timedelta:
    """How long a rank waits for another.  Raises BadInput where FIFO_SILENCE is no number of seconds above 0."""
    said = os.environ.get("FIFO_SILENCE", "600")
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise BadInput(f"FIFO_SILENCE is {said!r}; give the seconds after which a silent rank is given up, such as 600")
    return timedelta(seconds=seconds)


@dataclass(eq=False)
class Together:
    """This process among the others.  Words travel over gloo whatever the tensors travel over."""

    rank: int
    ranks: int
    device: str  # of this rank, where the run is on CUDA
    words: Any  # a process group
    awaited: bool = False  # rank 0: whether the others are waiting for its answers, and hear no words

    def share(self, what: Any) -> Any:
        """What rank 0 gave, on every rank."""
        box = [what]
        dist.broadcast_object_list(box, src=0, group=self.words)
        return box[0]

    def dismiss(self) -> None:
        """Rank 0: no more iterations, or no more jobs.  A group that is broken, or waits for answers that will not
        come, ends when the connections do.
        """
        if not self.awaited:
            with suppress(RuntimeError):
                self.share(None)

    def leave(self) -> None:
        """The end of every rank: none closes its connections while another still reads from them."""
        with suppress(RuntimeError):
            dist.barrier(self.words)
            dist.destroy_process_group()


@cache
def together() -> Together | None:
    """None for a process by itself.  Joins the others the first time it is asked."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks < 2 or "RANK" not in os.environ:
        return None
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=silence())
    words = dist.new_group(backend="gloo", timeout=silence())
    return Together(int(os.environ["RANK"]), ranks, f"cuda:{local}", words)
