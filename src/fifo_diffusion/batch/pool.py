"""What the driver says to workers and hears from them, wherever they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.batch.results import Result
from fifo_diffusion.names import Watch


@dataclass(frozen=True)
class Task:
    """A job, and what its worker needs to know."""

    number: int  # the job's
    job: Job
    folder: str
    every: float  # seconds between checkpoints
    threads: int


@dataclass(frozen=True)
class Begun:
    """A worker took the job up."""

    number: int
    device: str
    worker: str


@dataclass(frozen=True)
class Moved:
    """As `session.Watch` tells it."""

    number: int
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Warned:
    """A sentence for people."""

    number: int
    text: str


@dataclass(frozen=True)
class Ended:
    """The worker brought it to an end."""

    number: int
    result: Result
    broken: bool = False  # an error of no known kind: what is left of its process may fail whatever comes next


@dataclass(frozen=True)
class Lost:
    """The worker died over it, or left it unasked."""

    number: int
    why: str


Event = Begun | Moved | Warned | Ended | Lost

PAUSE = 0.25  # seconds between two Moved of one job


def paced(watch: Watch) -> Watch:
    """It hears every PAUSE seconds, and of both ends of a stage."""
    heard = time.monotonic()

    def often(stage: str, done: int, total: int) -> None:
        nonlocal heard
        if time.monotonic() - heard >= PAUSE or done in (0, total):
            heard = time.monotonic()
            watch(stage, done, total)

    return often


class Pool(Protocol):
    """Workers."""

    def give(self, task: Task) -> None:
        """To be done by the first worker that is free."""

    def hear(self, seconds: float) -> Sequence[Event]:
        """What was said; waits no longer than that for the first word."""

    @property
    def busy(self) -> bool:
        """Whether a job is under way or waits for a worker."""

    def stop(self) -> None:
        """Begin nothing more, and have the videos under way finished as they are."""

    def close(self) -> None:
        """Let the workers go; those that are still at work are killed."""
