"""The program itself, and how its commands declare their flags."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console

from fifo_diffusion.cli.mistyped import Group
from fifo_diffusion.version import __version__

app = typer.Typer(
    name="fifo",
    cls=Group,
    help="Endless video from a prompt (FIFO-Diffusion, arXiv:2405.11473).\n\n"
    'Begin with: fifo generate "a red balloon drifting right over snowy mountains"',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # the other modes keep the line ends of a docstring
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Heard(Console):
    """For people: where nobody reads any more, its pipe broken or its terminal gone, the work goes on all the same."""

    def __exit__(self, *how: Any) -> None:
        """All that is printed, and every live line, leaves by here."""
        try:
            super().__exit__(*how)
        except OSError as error:  # a full disk is one only for a while
            if error.errno in (errno.EPIPE, errno.EIO):
                self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """What is still to be said goes nowhere; else Python would find it unsaid at the end, and exit with 120."""
        self.quiet = True
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


console = _Heard(stderr=True, highlight=False)  # stdout belongs to frames


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.", metavar="")
    ] = False,
) -> None: ...


def option(says: str, *flags: str, panel: str | None = None) -> Any:
    """An option that has a default only in words; where it says none, it is the model's (`fifo models`)."""
    return typer.Option(*flags, help=says, show_default=False, rich_help_panel=panel)


def flag(says: str, *flags: str, panel: str | None = None) -> Any:
    """An option that takes no value; typer would show it with a <bool> behind it."""
    return typer.Option(*flags, help=says, metavar="", show_default=False, rich_help_panel=panel)


OUTPUT = "name.mp4, .webm, .gif or .webp, a folder/ for PNGs, or - for raw RGB on stdout (default: after the prompt)."
EVERY = "Seconds between checkpoints in VIDEO.run; off for none (default: 30s). mp4, webm and folders only."
KEEP = "Keep several when the video is finished, to fork from; else only the last, to make it longer."
PREVIEW = "Picture of the whole queue, rewritten as it moves: name.png or .jpg."
