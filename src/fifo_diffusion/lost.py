"""Words and answers of other ranks that do not come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from typing import Any

import torch

from fifo_diffusion.errors import BadInput, RankLost
from fifo_diffusion.interrupt import overdue

_HOW = {
    "timed out": "has been silent for longer than FIFO_SILENCE allows",
    "timeout": "has been silent for longer than FIFO_SILENCE allows",
    "closed": "closed its connection",
    "reset": "closed its connection",
    "refused": "closed its connection",
    "broken pipe": "closed its connection",
}  # what torch.distributed's messages hold, which has no classes for it


GIVEN = 15.0
"""Seconds after a SIGTERM for what others are waited for: torchrun sends one when it sees a rank end, and kills half a
minute later.  Gloo itself may miss that end: a connection that closes while something is sent through it goes unseen
for as long as silence is allowed."""
_LOOK = 0.25  # seconds between two looks at it


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


@contextmanager
def hearing() -> Iterator[None]:
    """Around whatever waits for another rank, and nothing else.  Raises RankLost where it cannot be heard."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        said = str(error) or type(error).__name__
        how = next((how for word, how in _HOW.items() if word in said.lower()), f"is lost ({said.splitlines()[0]})")
        raise RankLost(f"another rank {how}") from error


def heard(begin: Callable[[], Any], device: torch.device | None = None) -> None:
    """Begin something of torch.distributed (async_op=True) and wait for its end; of tensors on another device than the
    CPU that device waits, and not the host.  Raises RankLost.
    """
    with hearing():
        work, done = begin(), Event()
        if device is None or device.type == "cpu":
            work.get_future().then(lambda _: done.set())
            while not done.wait(_LOOK):
                if overdue() > GIVEN:
                    raise RankLost("another rank is lost, and its connection did not say so")
        work.wait()
