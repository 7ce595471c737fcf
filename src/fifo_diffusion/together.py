"""The processes that torchrun starts, as one program: rank 0 speaks with people and files, the others compute along.

    torchrun --nproc-per-node 8 -m fifo_diffusion generate "a red balloon" -o balloon.mp4

Rank 0 runs the command as it always runs.  The others wait for a job: a run and the state of its queue.  From then on
every rank makes the same calls of the same queue, answers its share of them (`ranks`) and gets the others' answers.
Before each iteration rank 0 says which prompts there are by now, or that the job is over; so what is said, stopped or
saved on rank 0 holds for all.

A rank that dies closes its connections: the others stop at once, and torchrun ends the job or starts it anew (`job`).
One that only falls silent is given up after FIFO_SILENCE seconds (ten minutes where the environment does not say);
while ranks load a model, which may take one of them far longer than another, after ten minutes in any case.
Rank 0 is not silent while it has much to do between two iterations, or is paused because nobody takes its frames: a
thread says so.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from threading import Event, Lock, Thread
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group: imported later, it keeps the default one for good

from fifo_diffusion.errors import BadInput, RankLost
from fifo_diffusion.groups import groups
from fifo_diffusion.interrupt import stop_listening, uninterrupted
from fifo_diffusion.job import Job, job, number, ranks
from fifo_diffusion.lost import heard, hearing, silence

T = TypeVar("T")


_STILL_HERE = "still here"
_ASKED, _HERE, _TOLD = "is rank 0 here", "rank 0 is here", "told"  # keys of the store
_SOON = 2.0  # seconds for an answer by the store, which may be out of reach
_LOOK = 0.25  # seconds between two looks at it
_LOADING = timedelta(minutes=10)  # for a rank to load a model, at least


@dataclass(eq=False)
class Together:
    """This process among the others.  Words travel over gloo whatever the tensors travel over."""

    rank: int
    ranks: int
    device: str  # of this rank, where the run is on CUDA
    words: Any  # a process group
    patient: Any  # another, which waits longer
    store: Any  # of torch.distributed, for what is said after a loss
    awaited: bool = False  # rank 0: whether the others load, or wait for its answers, and hear no words
    under_way: bool = False  # rank 0: whether the others compute along with a job
    broken: bool = False  # a word did not reach all: who waits for its end would take the next one for that
    _speaking: Lock = field(default_factory=Lock)
    _over: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        if self.rank == 0:
            self._staying = Thread(target=self._stay, name="rank 0 is here", daemon=True)
            self._staying.start()

    def say(self, what: Any, *, awaited: bool = False) -> None:
        """Rank 0: to all others.  awaited: they hear no more until that is taken back.  Raises RankLost."""
        with uninterrupted(), self._speaking:  # half a word would be taken for the next one
            self._broadcast(what)
            self.awaited = awaited  # before another word: who says it would wait for who does not hear

    def loaded(self) -> None:
        """On every rank: wait until all have loaded the model of a job that rank 0 has said.  Raises RankLost."""
        try:
            heard(lambda: dist.barrier(self.patient, async_op=True))
        except RankLost:
            self.broken = True
            raise

    def hear(self) -> Any:
        """On another rank: what rank 0 says next.  Raises RankLost."""
        while (what := self._broadcast(None)) == _STILL_HERE:
            pass
        return what

    def _broadcast(self, what: Any) -> Any:
        said = torch.frombuffer(bytearray(pickle.dumps(what)), dtype=torch.uint8)
        length = torch.tensor([len(said)])
        try:
            heard(lambda: dist.broadcast(length, 0, self.words, async_op=True))
            said = said if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
            heard(lambda: dist.broadcast(said, 0, self.words, async_op=True))
        except RankLost:
            self.broken = True
            raise
        return what if self.rank == 0 else pickle.loads(said.numpy().tobytes())

    def _stay(self) -> None:
        """Rank 0: tell the others that it is here, those who wait for a word and those who lost another rank."""
        often, spoken = silence().total_seconds() / 3, time.monotonic()
        while not self._over.wait(_LOOK):
            with suppress(RuntimeError, RankLost):  # the next iteration will say so
                if self.store.check([_ASKED]):
                    self.store.set(_HERE, "")
                if time.monotonic() > spoken + often:
                    spoken = time.monotonic()
                    with self._speaking:
                        if not (self.awaited or self.broken or self._over.is_set()):
                            self._broadcast(_STILL_HERE)

    def dismiss(self) -> None:
        """Rank 0: no more iterations, or no more jobs.  A group that is broken, or waits for answers that will not
        come, ends when the connections do.
        """
        if not self.awaited and not self.broken:
            with suppress(RankLost):
                self.say(None)
                self.under_way = False

    def leave(self) -> None:
        """The end of every rank: none closes its connections while another still reads from them.

        The groups are let go here, which waits for their threads: one that still has an answer to let go of when Python
        is ending would abort the process.
        """
        with uninterrupted(), suppress(RuntimeError, RankLost):
            heard(lambda: dist.barrier(self.words, async_op=True))
            dist.destroy_process_group()
        self.words = self.patient = None
        groups.cache_clear()

    def close(self) -> None:
        """Rank 0: the last job is over, however it ended."""
        self._over.set()
        self._staying.join(_SOON)
        if self.under_way:  # stopped before its first iteration
            self.dismiss()
        self.dismiss()
        if not self.awaited and not self.broken:
            self.leave()

    def ends(self, error: BaseException) -> None:
        """Let the others know why this rank will be lost."""
        _soon(lambda: self.store.set(_ended(self.rank), in_one_line(error)), None)

    def why(self, lost: RankLost) -> str:
        """What the lost ranks said of it, where they could; else what was seen of it here."""
        return ", ".join(_soon(self._said, [])) or str(lost)

    def must_tell(self) -> bool:
        """Whether this rank shall say that another is lost: rank 0 where that is here; else the first to ask, unless
        the lost one has said so itself.
        """
        if self.rank:
            return _soon(self._first, True)
        _soon(lambda: self.store.set(_HERE, ""), None)
        return True

    def _said(self) -> list[str]:
        keys = [key for key in map(_ended, range(self.ranks)) if self.store.check([key])]
        return [f"{key} {self.store.get(key).decode()}" for key in keys]

    def _first(self) -> bool:
        self.store.set(_ASKED, "")
        until = time.monotonic() + _SOON / 2
        while time.monotonic() < until:
            if self._said() or self.store.check([_HERE]):
                return False
            time.sleep(_LOOK / 4)
        mine = str(self.rank)
        return bool(self.store.compare_set(_TOLD, "", mine).decode() == mine)


@contextmanager
def in_step() -> Iterator[None]:
    """Rank 0, around what the others wait for: Ctrl-C is heard at its end, else they would wait for ever.  After a loss
    no signal is heard, for torchrun sends SIGTERM to those that are left, and the file must be finished.
    """
    with uninterrupted():
        try:
            yield
        except RankLost:
            stop_listening()
            raise


def in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _ended(rank: int) -> str:
    return f"rank {rank} ended with"


def _soon(ask: Callable[[], T], otherwise: T) -> T:
    """What the store answers; `otherwise` where it cannot be reached: its host may be what was lost."""
    box = [otherwise]

    def put() -> None:
        with suppress(RuntimeError):
            box[0] = ask()

    thread = Thread(target=put, daemon=True)
    thread.start()
    thread.join(_SOON)
    return box[0]


def neighbours() -> int:
    """How many processes of this job there are on this machine, this one too."""
    return number("LOCAL_WORLD_SIZE", number("LOCAL_RANK") + 1)


def check_seats(device: torch.device, neighbours: int, gpus: int) -> None:
    """Raises BadInput where processes would have to share a GPU."""
    if device.type == "cuda" and neighbours > gpus:
        raise BadInput(
            f"{neighbours} processes were started on this machine, which has {gpus} GPU{'s' * (gpus != 1)}; start one "
            f"a GPU (--nproc-per-node {gpus}), or give --device cpu"
        )


def together() -> Together | None:
    """None for a process by itself.  Joins the others the first time it is asked.  Raises RankLost."""
    return None if (joined := job()) is None else _join(joined)


@cache
def _join(joined: Job) -> Together | None:
    if ranks() < 2:
        return None
    rank, local = number("RANK"), number("LOCAL_RANK")
    backend = "gloo"
    if torch.cuda.is_available() and neighbours() <= torch.cuda.device_count():
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    with hearing():
        dist.init_process_group(backend, store=joined.store, rank=rank, world_size=ranks(), timeout=silence())
        words = dist.new_group(backend="gloo", timeout=silence())
        patient = dist.new_group(backend="gloo", timeout=max(silence(), _LOADING))
    return Together(rank, ranks(), f"cuda:{local}", words, patient, joined.store)
