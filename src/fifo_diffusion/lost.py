"""Words and answers of other ranks that do not come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from fifo_diffusion.errors import BadInput, RankLost

_HOW = {
    "timed out": "has been silent for longer than FIFO_SILENCE allows",
    "timeout": "has been silent for longer than FIFO_SILENCE allows",
    "closed": "closed its connection",
    "reset": "closed its connection",
    "refused": "closed its connection",
    "broken pipe": "closed its connection",
}  # what torch.distributed's messages hold, which has no classes for it


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
