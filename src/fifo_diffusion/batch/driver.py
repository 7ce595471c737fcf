"""The list, dealt to workers until all of it is done, failed or stopped."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fifo_diffusion import checkpoint as checkpoints
from fifo_diffusion.batch import jobs as lists
from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.batch.pool import Begun, Ended, Event, Lost, Moved, Pool, Task, Warned
from fifo_diffusion.batch.results import OWN, SEEN, Result, Results
from fifo_diffusion.batch.table import Table
from fifo_diffusion.batch.work import check
from fifo_diffusion.errors import BadInput, FifoError, OutputError


@contextmanager
def opened(path: Path, jobs: Mapping[int, Job], folder: Path) -> Iterator[tuple[Results, list[int]]]:
    """The results so far and the jobs that are left, every line checked; no other batch is in the folder meanwhile.

    Raises BadInput or OutputError before any work.
    """
    made = not folder.exists()
    try:
        (folder / OWN).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}); name another with --out") from error
    with _alone(folder):
        try:
            for token in (folder / OWN).glob(f"{SEEN}*"):  # which a killed driver left
                token.unlink(missing_ok=True)
            results = Results(folder)
            yield results, _checked(path, jobs, folder, results)
        except FifoError:
            if made:  # and nothing was put into it
                shutil.rmtree(folder / OWN, ignore_errors=True)  # somebody may have taken it away meanwhile
                with suppress(OSError):
                    folder.rmdir()
            raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with ExitStack() as lock:
        try:
            lock.enter_context(checkpoints.locked(folder / OWN))
        except BadInput:
            raise BadInput(f"another batch is at work in {folder}; wait for it, or name another folder") from None
        yield


def _checked(path: Path, jobs: Mapping[int, Job], folder: Path, results: Results) -> list[int]:
    left, wrong = [], []
    for number, job in jobs.items():
        try:
            if not check(job, folder, results.lines.get(job.output)):
                left.append(number)
        except FifoError as error:
            wrong.append(f"{path}, line {number}: {error}")
    lists.refuse(wrong)
    return left


@dataclass
class Driver:
    """Deals the jobs, hears the workers, writes the results."""

    jobs: Mapping[int, Job]
    left: list[int]
    folder: Path
    pool: Pool
    results: Results
    table: Table
    every: float  # seconds between checkpoints
    threads: int
    tries: int
    stopping: Callable[[], bool]
    _began: dict[int, float] = field(default_factory=dict)
    _where: dict[int, Begun] = field(default_factory=dict)
    _tries: Counter[int] = field(default_factory=Counter)

    def run(self) -> None:
        """Until nothing is left, or those under way were finished after `stopping`."""
        for number in self.left:
            self._give(number)
        stopped = False
        while self.pool.busy:
            if self.stopping() and not stopped:
                stopped = True
                self.pool.stop()
                self.table.stopping()
            for event in self.pool.hear(0.2):
                self._hear(event)
            self.table.refresh()

    def _give(self, number: int) -> None:
        self._tries[number] += 1
        self.pool.give(Task(number, self.jobs[number], str(self.folder), self.every, self.threads))

    def _hear(self, event: Event) -> None:
        number = event.number
        match event:
            case Begun():
                self._began.setdefault(number, time.monotonic())
                self._where[number] = event
                self.table.begun(number, event.device, event.worker)
            case Moved(_, stage, done, total):
                self.table.moved(number, stage, done, total)
            case Warned(_, text):
                self.table.warned(number, text)
            case Ended(_, result) if result.state == "stopped" and not self.stopping():
                self._lost(number, "its worker stopped, and nobody had asked it to")
            case Ended(_, result) if result.state == "stopped" and not result.frames:
                self.table.waits(number)  # it has not begun
            case Ended(_, result):
                self._end(number, result)
            case Lost(_, why):
                self._lost(number, why)

    def _lost(self, number: int, why: str) -> None:
        if self.stopping():  # the next batch goes on with it
            self.table.waits(number)
        elif self._tries[number] < self.tries:
            self.table.warned(number, f"{why}; it is tried again from its last checkpoint")
            self.table.waits(number)
            self._give(number)
        else:
            times = "once" if self.tries == 1 else f"{self.tries} times"
            error = f"{why}, after it was tried {times}; see to that, and run the same command again to go on"
            self._end(number, Result(name=self.jobs[number].output, state="failed", error=error))

    def _end(self, number: int, result: Result) -> None:
        at, began = self._where.get(number), self._began.get(number)
        more = {
            "tries": self._tries[number],
            "seconds": 0.0 if began is None else round(time.monotonic() - began, 3),
            "device": None if at is None else at.device,
            "worker": None if at is None else at.worker,
        }
        result = result.model_copy(update=more)
        self.results.add(result)
        self.table.ended(number, result)
