"""The command `fifo`: thin over config, api and models.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from fifo_diffusion.errors import BadInput, FifoError
from fifo_diffusion.version import __version__

if TYPE_CHECKING:
    from fifo_diffusion.sidecar import Sidecar

app = typer.Typer(
    name="fifo",
    help="Endless video from a prompt (FIFO-Diffusion, arXiv:2405.11473).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(stderr=True)  # stdout belongs to frames


def main() -> None:
    """Run the command; an error of ours is one sentence and exit code 2."""
    try:
        app(prog_name="fifo")
    except FifoError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def _option(says: str, *flags: str, panel: str | None = None) -> Any:
    """An option whose default is said in words, because it depends on the model."""
    return typer.Option(*flags, help=says, show_default=False, rich_help_panel=panel)


_video, _method, _machine = (partial(_option, panel=name) for name in ("Video", "Method", "Machine"))
_OUTPUT = "name.mp4, .webm, .gif or .webp, a folder/ for PNGs, or - for raw RGB on stdout (default: after the prompt)."
_LOOKAHEAD = "off, last (the paper's lookahead) or middle (keeps each window's middle)."


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What the video shows.", show_default=False)] = None,
    output: Annotated[str | None, _option(_OUTPUT, "--output", "-o")] = None,
    model: Annotated[str | None, _option("One of `fifo models` (default: embedded).", "--model", "-m")] = None,
    sidecar: Annotated[
        Path | None, _option("Make the video of this .json again; other flags change it.", "--from")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress line.")] = False,
    frames: Annotated[int | None, _video("How many; 0 goes on until Ctrl-C (default: 10 seconds).")] = None,
    seconds: Annotated[float | None, _video("How long, instead of --frames.")] = None,
    seed: Annotated[int | None, _video("The same seed is the same video (default: 0).")] = None,
    negative_prompt: Annotated[str | None, _video("What it should not show.")] = None,
    size: Annotated[str | None, _video("WIDTHxHEIGHT in pixels, where the model allows it.")] = None,
    fps: Annotated[float | None, _video("Frames a second of the file.")] = None,
    scale: Annotated[int | None, _video("Show each pixel this many times larger.")] = None,
    crf: Annotated[int | None, _video("Encoder quality of mp4 and webm; lower is better and larger.")] = None,
    partitions: Annotated[
        int | None, _method("Windows the queue is cut into: more is slower and finer.", "--partitions", "-n")
    ] = None,
    lookahead: Annotated[str | None, _method(_LOOKAHEAD)] = None,
    guidance: Annotated[float | None, _method("Guidance scale; 1 is off and twice as fast.")] = None,
    eta: Annotated[float | None, _method("Fresh noise while denoising, from 0 (none) to 1.")] = None,
    solver: Annotated[str | None, _method("ddim, or 2m: second order, eta 0 (default: ddim).")] = None,
    levels: Annotated[str | None, _method("even, or paper: the authors' table (default: even).")] = None,
    start: Annotated[str | None, _method("From a base clip or from noise (default: clip).")] = None,
    device: Annotated[str | None, _machine("auto, cpu, cuda, cuda:1, mps (default: auto).")] = None,
    dtype: Annotated[str | None, _machine("auto, float32, bfloat16, float16 (default: auto).")] = None,
    batch: Annotated[int | None, _machine("Most windows computed at once; fewer take less memory.")] = None,
) -> None:
    """Make a video from a prompt, of any length, in constant memory.

    fifo generate "a red balloon drifting right over snowy mountains" -o balloon.mp4
    """
    from fifo_diffusion.sidecar import read

    said: dict[str, Any] = {
        "prompt": prompt, "negative_prompt": negative_prompt, "model": model, "frames": frames, "seed": seed,
        "size": None if size is None else _size(size), "fps": fps, "partitions": partitions, "lookahead": lookahead,
        "guidance": guidance, "eta": eta, "solver": solver, "levels": levels, "start": start, "device": device,
        "dtype": dtype, "batch": batch,
    }  # fmt: skip
    said = {name: value for name, value in said.items() if value is not None}
    before = None if sidecar is None else read(sidecar)
    if before is not None:
        said = {**before.run.model_dump(), **said}
        scale, crf = scale or before.scale, before.crf if crf is None else crf
    if "prompt" not in said:
        raise BadInput(
            "no prompt was given; say what the video shows in quotes after `fifo generate`, or give --from a sidecar"
        )

    from fifo_diffusion.config import Run
    from fifo_diffusion.models import card

    run = Run.of(said)
    if seconds is not None:
        if frames is not None:
            raise BadInput(f"both --frames {frames} and --seconds {seconds} were given; give one of them")
        if not seconds > 0:
            raise BadInput(f"--seconds is {seconds}; it must be above 0")
        run = Run.of({**run.model_dump(), "frames": max(1, round(seconds * (run.fps or card(run.model).fps)))})
    output = output or _free_name(run.prompt)

    from fifo_diffusion import api
    from fifo_diffusion.progress import Progress

    # A service manager's SIGTERM is an interrupt like any other: the file is finished.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Progress(console, quiet) as progress:
            made = api.make(run, output, scale=scale, crf=crf, watch=progress, warn=progress.warn)
    except KeyboardInterrupt:
        console.print(f"stopped; {escape(output)} is whole and holds the frames made so far", soft_wrap=True)
        raise
    if not quiet:
        _tell(made, output, before)


@app.command()
def models() -> None:
    """List the models and what they need."""
    from rich.table import Table

    from fifo_diffusion.models import MODELS

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "what it is", "size", "fps", "window", "needs"):
        table.add_column(title, overflow="fold")
    for card in MODELS.values():
        size = f"{card.size[0]}x{card.size[1]}" + (" or any" if card.any_size else "")
        table.add_row(card.name, card.summary, size, f"{card.fps:g}", str(card.window), card.needs)
    Console().print(table)


@app.command()
def doctor() -> None:
    """Say what this machine has, and what is missing for what."""
    from fifo_diffusion.doctor import examine

    out, ill = Console(), False
    for finding in examine():
        ill = ill or finding.state == "missing"
        colour = {"ok": "green", "note": "yellow", "missing": "red"}[finding.state]
        out.print(
            f"[{colour}]{finding.state:>8}[/]  [bold]{escape(finding.what)}[/]: {escape(finding.detail)}",
            soft_wrap=True,
        )
    if ill:
        raise typer.Exit(2)


def _tell(made: Sidecar, output: str, before: Sidecar | None) -> None:
    spent = sum(made.seconds.values())
    console.print(
        f"[bold]{escape(output)}[/]  {made.frames_written} frames in {spent:.1f} s with the start, "
        f"peak memory {made.peak_memory_mb} MB",
        soft_wrap=True,
    )
    shares = ", ".join(f"{part} {value / max(spent, 1e-9):.0%}" for part, value in made.seconds.items())
    console.print(f"[dim]time in {shares}; settings in {escape(output)}.json[/]", soft_wrap=True)
    again = before is not None and before.run == made.run and before.frames_written == made.frames_written
    if before is not None and again:
        if before.frames_sha256 == made.frames_sha256:
            console.print("[green]identical to the first, bit for bit[/]")
        else:
            console.print("[yellow]not bit-identical to the first; was that another machine or version?[/]")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise BadInput(f"--size is {text!r}; give WIDTHxHEIGHT in pixels, such as 64x64")
    return int(match[1]), int(match[2])


def _free_name(prompt: str) -> str:
    """A file name from the prompt that nothing has yet."""
    stem = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].rstrip("-") or "video"
    names = (f"{stem}{'' if i == 1 else f'-{i}'}.mp4" for i in range(1, 10_000))
    return next(name for name in names if not Path(name).exists())
