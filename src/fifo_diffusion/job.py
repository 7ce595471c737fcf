"""The job that torchrun runs, over all the times that it starts the processes (`--max-restarts`).

torchrun keeps one store of keys and values for the whole job.  torch itself writes the ranks' addresses there under the
same names every time, so processes that were started again would call those that are gone, and wait.  Here the ranks of
one start first agree on a name that no start had before, and all that they write stands under it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import uuid4

import torch.distributed as dist

from fifo_diffusion.lost import hearing

_JOINING = timedelta(minutes=10)  # until all ranks are there; torchrun sees sooner when one has died


@dataclass(frozen=True, eq=False)
class Job:
    """This process's part in it."""

    name: str  # of all starts
    start: str  # of this one
    store: Any  # of torch.distributed, for this start alone

    @property
    def mark(self) -> str:
        return f"{self.name} {self.start}"

    def began(self, mark: str | None) -> bool:
        """Whether this is the `mark` of an earlier start."""
        return mark is not None and mark.split()[0] == self.name and mark != self.mark


def number(name: str, unsaid: int = 0) -> int:
    """What torchrun says to its processes in their environment."""
    return int(os.environ.get(name, unsaid))


def ranks() -> int:
    """How many processes torchrun started, on all machines; 1 without it."""
    return number("WORLD_SIZE", 1)


def starts_again() -> bool:
    """Whether torchrun starts the processes anew when one of them fails."""
    return number("TORCHELASTIC_RESTART_COUNT") < number("TORCHELASTIC_MAX_RESTARTS")


_takes_part = False


def take_part() -> None:
    """This process is one of those that make a video together, as far as torchrun started it: the command's are.  A
    program of the user's own, under torchrun for its own ends, is not, and makes its videos by itself.
    """
    global _takes_part
    _takes_part = True


def job() -> Job | None:
    """None for a process that torchrun did not start, or that has not said to `take_part`.

    Raises RankLost where another rank does not come.
    """
    return _join() if _takes_part else None


@cache
def _join() -> Job | None:
    keeps = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun, and not rank 0
    if not {"RANK", "MASTER_ADDR"} <= os.environ.keys() or (ranks() == 1 and not keeps):
        return None
    rank = number("RANK")
    with hearing():
        store = dist.TCPStore(  # type: ignore[attr-defined]  # in the manual, not in __all__
            os.environ["MASTER_ADDR"],
            number("MASTER_PORT"),
            is_master=rank == 0 and not keeps,
            timeout=_JOINING,
        )
        name = store.compare_set("fifo job", "", uuid4().hex).decode()
        start = _agree(store, rank, ranks())
        return Job(name, start, dist.PrefixStore(start, store))  # type: ignore[attr-defined]


def _agree(store: Any, rank: int, ranks: int) -> str:
    """The same new name on all ranks.  Each asks in a name of its own, for what an earlier start wrote still stands."""
    if rank:
        mine = uuid4().hex
        store.set(f"fifo rank {rank} asks", mine)
        start = str(store.get(f"fifo answer to {mine}").decode())
        store.add(f"{start} heard", 1)
        return start
    start, until = uuid4().hex, time.monotonic() + _JOINING.total_seconds()
    while store.add(f"{start} heard", 0) < ranks - 1:
        for asks in (f"fifo rank {other} asks" for other in range(1, ranks)):
            if store.check([asks]):
                store.set(f"fifo answer to {store.get(asks).decode()}", start)
        if time.monotonic() > until:
            raise RuntimeError("timed out")
        time.sleep(0.02)
    return start
