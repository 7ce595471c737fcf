"""Workers on this machine: a process for each CUDA device, or one on the CPU, or as many as are asked for.

Processes of their own and no executor of the standard library: there the death of one breaks the pool.
"""

from __future__ import annotations

import os
import platform
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Lock

from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.batch.pool import Begun, Ended, Event, Lost, Moved, Task, Warned, paced
from fifo_diffusion.interrupt import STOPS

_STOP = None  # in place of a task


@dataclass(eq=False)
class _Seat:
    """A device, and the process that has it."""

    device: str
    visible: str | None  # what of CUDA the process shall see; None: as it is
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    task: Task | None = None


class Local:
    """See `pool.Pool`."""

    def __init__(self, workers: int | None) -> None:
        """workers: how many, dealt over the devices; None: one for each."""
        devices = _devices()
        self._seats = [_Seat(*devices[i % len(devices)]) for i in range(workers or len(devices))]
        self._waiting: deque[Task] = deque()
        self._stopping = False

    @property
    def workers(self) -> int:
        return len(self._seats)

    def check(self, jobs: Iterable[Job]) -> None:
        """Raises DeviceError for a job that insists on a device that is not here."""
        from fifo_diffusion.devices import choose_device

        for name in {job.device for job in jobs}:
            choose_device(name)

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or any(seat.task for seat in self._seats)

    def give(self, task: Task) -> None:
        self._waiting.append(task)
        self._deal()

    def hear(self, seconds: float) -> Sequence[Event]:
        pipes = {seat.pipe: seat for seat in self._seats if seat.task is not None and seat.pipe is not None}
        events: list[Event] = []
        for pipe in wait(list(pipes), seconds):
            assert isinstance(pipe, Connection)
            events += self._read(pipes[pipe], pipe)
        self._deal()
        return events

    def stop(self) -> None:
        self._stopping = True
        self._waiting.clear()
        for seat in self._seats:
            if seat.task is not None:
                self._send(seat, _STOP)

    def close(self) -> None:
        for seat in self._seats:
            if seat.process is not None and seat.pipe is not None:
                if seat.task is not None:
                    seat.process.kill()
                seat.pipe.close()  # an idle worker ends with it
                seat.process.join()

    def _deal(self) -> None:
        for seat in self._seats:
            if seat.task is None and self._waiting and not self._stopping:
                if seat.process is None or not seat.process.is_alive():
                    _start(seat)
                seat.task = self._waiting.popleft()
                self._send(seat, seat.task)

    def _send(self, seat: _Seat, what: Task | None) -> None:
        assert seat.pipe is not None
        with suppress(OSError):  # where it has died `hear` will read the end of its pipe
            seat.pipe.send(what)

    def _read(self, seat: _Seat, pipe: Connection) -> list[Event]:
        events: list[Event] = []
        try:
            while seat.task is not None and pipe.poll():
                event: Event = pipe.recv()
                events.append(event)
                if isinstance(event, Ended):
                    seat.task = None
                    if event.broken:
                        _vacate(seat)
        except (EOFError, OSError):
            assert seat.task is not None
            assert seat.process is not None
            seat.process.join()
            events.append(Lost(seat.task.number, _death(seat.process.exitcode)))
            pipe.close()
            seat.process = seat.pipe = seat.task = None
        return events


def _devices() -> list[tuple[str, str | None]]:
    """Each device's name, and what of CUDA its process shall see: one device, which is cuda:0 there, so that a job can
    go on on another.
    """
    import torch

    count = torch.cuda.device_count()
    if not count:
        return [("mps" if torch.backends.mps.is_available() else "cpu", None)]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = named.split(",") if named else [str(i) for i in range(count)]
    return [(f"cuda:{i}", seen[i].strip()) for i in range(count)]


def _vacate(seat: _Seat) -> None:
    """End a process that has said all it had to say, at once, for its device may never answer; the next job finds the
    seat free.
    """
    assert seat.process is not None
    assert seat.pipe is not None
    seat.process.kill()
    seat.process.join()
    seat.pipe.close()
    seat.process = seat.pipe = None


def _start(seat: _Seat) -> None:
    context = get_context("spawn")  # a fork would take CUDA's state and torch's threads with it
    seat.pipe, theirs = context.Pipe()
    seat.process = context.Process(target=_serve, args=(theirs, seat.device, seat.visible))
    resource_tracker.ensure_running()  # which start() would do itself, and let signals through again
    with _deaf():  # a worker takes that over, until it ignores them
        seat.process.start()
    theirs.close()  # so that its pipe ends when it does


@contextmanager
def _deaf() -> Iterator[None]:
    """Stop signals wait meanwhile; not on Windows, which has none that could."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its worker was killed by {signal.Signals(-code).name}"
    return f"its worker ended with exit code {code}"


def _serve(pipe: Connection, device: str, visible: str | None) -> None:
    """A worker: tasks until the pipe ends, which it also does when the driver is killed."""
    for stop in STOPS:  # the driver hears those, and says so through the pipe
        signal.signal(stop, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    while True:
        try:
            task: Task | None = pipe.recv()
        except (EOFError, OSError):
            return
        if task is not _STOP:
            os.environ["OMP_NUM_THREADS"] = str(task.threads)  # before torch is loaded
            _do(task, pipe, device)


def _do(task: Task, pipe: Connection, device: str) -> None:
    from fifo_diffusion.batch.work import work

    one_at_a_time = Lock()  # a thread that writes frames may warn meanwhile

    def say(event: Event) -> None:
        with one_at_a_time, suppress(OSError):  # where the driver has gone `watch` sees it
            pipe.send(event)

    moved = paced(lambda stage, done, total: say(Moved(task.number, stage, done, total)))

    def watch(stage: str, done: int, total: int) -> None:
        if pipe.poll():  # the driver stops, or has gone
            raise KeyboardInterrupt
        moved(stage, done, total)

    say(Begun(task.number, "cpu" if task.job.device == "cpu" else device, platform.node()))
    say(work(task, watch, lambda text: say(Warned(task.number, text))))
