"""The command `fifo`: thin over config, api and models.  Each command has a module here; `app` holds the program.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

from rich.markup import escape

from fifo_diffusion.cli import generate, resume, batch, evaluate, evaluate_fetch, gates, about  # noqa: F401  # isort: skip  (in the order of --help)
from fifo_diffusion.cli.among import among_ranks, at_once, from_rank
from fifo_diffusion.cli.app import app, console
from fifo_diffusion.errors import FifoError


def main() -> None:
    """Run the command; an error of ours is one sentence and exit code 2."""
    if isinstance(sys.stdout, TextIOWrapper):  # a file or a pipe may be in a code that does not hold every prompt
        sys.stdout.reconfigure(errors="backslashreplace")
    with at_once():
        try:
            with among_ranks() as leading:
                if leading:
                    app(prog_name="fifo")
        except FifoError as error:
            console.print(f"[bold red]error:[/] {escape(from_rank() + str(error))}", soft_wrap=True)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)
