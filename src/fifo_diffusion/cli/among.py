"""A command among the processes of torchrun: rank 0 runs it, the others compute along, and a loss is told once."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fifo_diffusion.errors import BadInput, RankLost
from fifo_diffusion.interrupt import STOPS

if TYPE_CHECKING:
    from fifo_diffusion.together import Together


_FOLLOWS = 2  # seconds: by how much a rank that lost another says it failed after that one, see `_in_summary`


@contextmanager
def among_ranks() -> Iterator[bool]:
    """Whether this process runs the command; under torchrun the others compute along, and rank 0 hears the signals.

    A loss that another rank tells of ends this one without a word.
    """
    if "RANK" not in os.environ:  # not of torchrun, which may have started a single one
        yield True
        return
    from fifo_diffusion.job import ranks, take_part

    take_part()
    if ranks() < 2:
        yield True
        return
    from fifo_diffusion.api import follow  # before the others wait for this rank
    from fifo_diffusion.together import together

    try:
        group = together()
    except BadInput as error:  # in the environment, so all ranks find it
        raise (error if from_rank() == "" else SystemExit(2)) from None
    if group is None:  # not of torchrun, whatever the environment says
        yield True
        return
    with _told_once(group):
        if group.rank == 0:
            with closing(group):
                yield True
            return
        for stop in STOPS:
            signal.signal(stop, signal.SIG_IGN)
        follow(group)
        group.leave()
        yield False


@contextmanager
def at_once() -> Iterator[None]:
    """Around the whole command: a rank that could not leave the others, for one is lost or this one has failed, ends by
    `os._exit`.  In Python's own shutdown a thread of its process groups would abort it, or wait for the lost rank.
    """
    code: object = 0
    try:
        yield
    except BaseException as end:
        if not _joined():
            raise
        code = end.code if isinstance(end, SystemExit) else 1
        if not isinstance(end, SystemExit):
            sys.excepthook(type(end), end, end.__traceback__)
    if _joined():
        for file in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, broken, or none
                file.flush()
        os._exit(code if isinstance(code, int) else code is not None)


def _joined() -> bool:
    """Whether this process is among others that it has not left."""
    if "fifo_diffusion.together" not in sys.modules:
        return False
    import torch.distributed as dist

    return dist.is_initialized()


@contextmanager
def _told_once(group: Together) -> Iterator[None]:
    """An error of this rank's own is told to the others and to torchrun, whose summary repeats it."""
    from fifo_diffusion.job import starts_again
    from fifo_diffusion.memory import no_memory_left
    from fifo_diffusion.together import in_one_line

    try:
        yield
    except RankLost as error:
        _in_summary(in_one_line(error), later=_FOLLOWS)
        if not group.must_tell():
            raise SystemExit(2) from error
        if group.rank == 0:
            raise
        more = "" if starts_again() else "; what was made is kept: go on with fifo resume and the video's name"
        raise RankLost(f"{group.why(error)}{more}") from error
    except Exception as error:
        said = no_memory_left(error)
        group.ends(said)
        _in_summary(in_one_line(said))
        if said is error:
            raise
        raise said from error


def _in_summary(text: str, later: int = 0) -> None:
    """Write an error where torchrun looks for it, in the format of torch.distributed.elastic.multiprocessing.errors.

    later: seconds to add to the time of the failure.  torchrun's summary names the earliest failure as the root cause,
    by whole seconds, and of two in the same second that of the lower rank; and it may notice a rank that only lost
    another before that other.
    """
    if (file := os.environ.get("TORCHELASTIC_ERROR_FILE")) is not None:
        said = {"message": text, "extraInfo": {"timestamp": str(int(time.time()) + later)}}
        Path(file).write_text(json.dumps({"message": said}))


def from_rank() -> str:
    """Before an error of a rank that does not run the command."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else f"rank {rank}: "
