"""A video in the making, as the commands show it: a live line, how to go on with what was stopped, a summary."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from fifo_diffusion.cli.app import console
from fifo_diffusion.errors import OutOfMemory, OutputError, RankLost
from fifo_diffusion.interrupt import listen, stop_listening
from fifo_diffusion.warned import warned

if TYPE_CHECKING:
    from fifo_diffusion.checkpoint import Description
    from fifo_diffusion.progress import Progress
    from fifo_diffusion.sidecar import Sidecar


def run_watched(quiet: bool, name: str, make: Callable[[Progress], Sidecar]) -> Sidecar:
    """Make a video with a live line; when it is stopped, or cannot be written, say how to go on."""
    from fifo_diffusion.api import left
    from fifo_diffusion.devices import keep_freed_memory
    from fifo_diffusion.memory import no_memory_left
    from fifo_diffusion.progress import Progress

    keep_freed_memory()
    listen(_stop)
    progress = Progress(console, quiet)
    try:
        with progress, warned(progress.warn):
            return make(progress)
    except KeyboardInterrupt:
        console.print(f"stopped; {escape(_kept(name, progress.frames))}", soft_wrap=True)
        raise
    except RankLost as error:
        from fifo_diffusion.job import starts_again
        from fifo_diffusion.together import together

        why = str(error) if (group := together()) is None else group.why(error)
        more = "torchrun starts all ranks again" if starts_again() else _kept(name, progress.frames)
        raise RankLost(f"{why}; {more}") from error
    except OutputError as error:
        raise OutputError(f"{error}{_go_on(left(name))}") from error
    except Exception as error:
        if not isinstance(few := no_memory_left(error), OutOfMemory):
            raise
        raise OutOfMemory(f"{few}; {_kept(name, progress.frames)}") from error


def _kept(name: str, made: int) -> str:
    """What there is of a video that was stopped after it had `made` frames, and how to go on."""
    from fifo_diffusion.api import left

    there = left(name)
    if there is not None:
        name, made = str(there[0]), there[1].whole or 0
    kept = f"{name} is whole and holds {made} frames" if made else "no frame was made"
    if not made and there is not None and there[1].partial and (there[0].parent / there[1].partial).exists():
        kept = f"what there was of it is in {there[1].partial}"
    return kept + _go_on(there)


def _go_on(there: tuple[Path, Description] | None) -> str:
    return "" if there is None else f"; go on with: fifo resume {shlex.quote(str(there[0]))}"


def _stop(number: int, frame: object) -> None:
    """The first signal ends the run; from then on the file is being finished and must not be disturbed."""
    stop_listening()
    raise KeyboardInterrupt


def tell(made: Sidecar, output: str, before: Sidecar | None) -> None:
    from fifo_diffusion.sidecar import path_beside

    frames = f"{made.frames_written} frame{'s' * (made.frames_written != 1)}"
    if made.run.clip is not None:
        frames = f"{made.frames_written} new frames" + (f" after the clip's {n}" if (n := made.clip_frames) else "")
    console.print(
        f"[bold]{escape(output)}[/]  {frames} in {made.wall_seconds:.1f} s with loading and start, "
        f"peak memory {made.peak_memory_mb} MB",
        soft_wrap=True,
    )
    spent = max(sum(made.seconds.values()), 1e-9)
    shares = ", ".join(f"{part} {value / spent:.0%}" for part, value in made.seconds.items())
    beside = path_beside(output)
    settings = "" if beside is None else f"; settings in {escape(str(beside))}"
    console.print(f"[dim]time in {shares}{settings}[/]", soft_wrap=True)
    if before is None or before.run.model_copy(update={"frames": before.frames_written}) != made.run:
        return
    if before.frames_sha256 == made.frames_sha256:
        console.print("[green]identical to the first, bit for bit[/]")
        return
    then, now = ({**m.machine, "weights": m.weights, "version": m.fifo_diffusion} for m in (before, made))
    other = ", ".join(f"{name} was {then.get(name)}, is {now[name]}" for name in now if then.get(name) != now[name])
    console.print(
        f"[yellow]not bit-identical to the first: {escape(other or 'on the same machine')}[/]", soft_wrap=True
    )
