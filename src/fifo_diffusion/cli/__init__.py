"""The command `fifo`: thin over config, api and models.  Each command has a module here; `app` holds the program.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.markup import escape

from fifo_diffusion.cli import generate, resume, batch, evaluate, evaluate_fetch, gates, about  # noqa: F401  # isort: skip  (in the order of --help)
from fifo_diffusion.cli.app import app, console
from fifo_diffusion.errors import FifoError


def main() -> None:
    """Run the command; an error of ours is one sentence and exit code 2."""
    try:
        with _among_ranks() as leading:
            if leading:
                app(prog_name="fifo")
    except FifoError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _among_ranks() -> Iterator[bool]:
    """Whether this process runs the command; under torchrun the others compute along, and rank 0 hears the signals."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield True
        return
    from fifo_diffusion.together import together

    group = together()
    if group is None or group.rank == 0:
        clean = False
        try:
            yield True
            clean = True
        except SystemExit as end:  # how a command ends
            clean = not end.code
            raise
        finally:
            if group is not None:
                group.dismiss()
                if clean:  # else the others may be waiting for an answer: they end when the connections do
                    group.leave()
        return
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    from fifo_diffusion.api import follow

    follow(group)
    group.leave()
    yield False
