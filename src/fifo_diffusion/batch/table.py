"""All jobs of a batch in one live table; what ends, fails or warns is said in a line above it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.batch.results import Result
from fifo_diffusion.progress import Stage

_ORDER = ("under way", "failed", "waiting", "stopped", "done")  # from the top; what does not fit is counted below
_COLOUR = {"under way": "cyan", "failed": "red", "waiting": "dim", "stopped": "yellow", "done": "green"}


@dataclass
class _Row:
    name: str
    state: str = "waiting"
    where: str = ""
    stage: Stage = field(default_factory=Stage)  # while it is under way
    frames: int = 0


class Table:
    """What the driver hears, as people see it."""

    def __init__(
        self, console: Console, jobs: Mapping[int, Job], before: Mapping[str, Result], left: list[int], quiet: bool
    ) -> None:
        """before: what came of jobs in batches before.  Those that are not left are done."""
        self._console, self._quiet = console, quiet
        self._rows = {number: _Row(job.output) for number, job in jobs.items()}
        for number in self._rows.keys() - left:
            row = self._rows[number]
            row.state, row.frames = "done", before[row.name].frames
        self._stopping, self._drew = False, 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def begun(self, number: int, device: str, worker: str) -> None:
        row = self._rows[number]
        row.state, row.where, row.stage = "under way", f"{device} on {worker}", Stage()

    def waits(self, number: int) -> None:
        row = self._rows[number]
        row.state, row.where = "waiting", ""

    def moved(self, number: int, stage: str, done: int, total: int) -> None:
        row = self._rows[number]
        row.stage = row.stage.moved(stage, done, total)
        if stage == "streaming":
            row.frames = done

    def ended(self, number: int, result: Result) -> None:
        row = self._rows[number]
        row.state, row.frames = result.state, result.frames
        name, said = f"[bold]{escape(row.name)}[/]", f"{result.frames} frames in {result.seconds:.1f} s"
        if result.state == "failed":
            self._console.print(f"[red]failed[/]  {name}  {escape(result.error or '')}", soft_wrap=True)
        elif not self._quiet:
            colour = _COLOUR[result.state]
            where = f" [dim]({escape(row.where)})[/]" if row.where else ""
            self._console.print(f"[{colour}]{result.state}[/]  {name}  {said}{where}", soft_wrap=True)

    def warned(self, number: int, text: str) -> None:
        self._console.print(
            f"[yellow]warning:[/] [bold]{escape(self._rows[number].name)}[/]: {escape(text)}", soft_wrap=True
        )

    def stopping(self) -> None:
        self._stopping = True
        self._console.print(
            "stopping: the videos under way are being finished; Ctrl-C once more to leave them unfinished",
            soft_wrap=True,
        )

    def count(self, state: str) -> int:
        return sum(row.state == state for row in self._rows.values())

    def refresh(self) -> None:
        now = time.monotonic()
        if self._live.is_started and now - self._drew > 0.1:
            self._drew = now
            self._live.update(self._drawn(), refresh=True)

    def _drawn(self) -> Group:
        grid = Grid(box=None, pad_edge=False, header_style="bold")
        for title in ("video", "state", "", "", "on"):
            grid.add_column(title, no_wrap=True, overflow="ellipsis")
        rows = sorted(self._rows.values(), key=lambda row: _ORDER.index(row.state))
        room = max(1, self._console.height - 5)
        for row in rows[:room]:
            stage, frames = row.stage, f"{row.frames} frames" if row.frames else ""
            shown: tuple[RenderableType, ...] = (Text(row.state, _COLOUR[row.state]), "", frames)
            if row.state == "under way":
                bar = (ProgressBar(stage.total, stage.done, width=20), stage.counts()) if stage.total else ("", "")
                shown = (Text(stage.name, _COLOUR[row.state]), *bar)
            grid.add_row(row.name, *shown, row.where)
        hidden = len(rows) - room
        more = [Text(f"and {hidden} more", "dim")] if hidden > 0 else []
        return Group(grid, *more, Text(self._summary(), "bold"))

    def _summary(self) -> str:
        counted = [
            f"{n} {state}"
            for state in ("done", "failed", "stopped", "under way", "waiting")
            if (n := self.count(state))
        ]
        under_way = [row.stage for row in self._rows.values() if row.state == "under way"]
        speed = sum(stage.speed for stage in under_way if stage.name == "streaming")
        pace = f", {speed:.1f} frames/s in all" if speed else ""
        return f"{len(self._rows)} jobs: {', '.join(counted)}{pace}{', stopping' if self._stopping else ''}"

    def __enter__(self) -> Self:
        if not self._quiet and (done := self.count("done")):
            self._console.print(f"{done} of {len(self._rows)} jobs are done already", soft_wrap=True)
        if not self._quiet and self._console.is_terminal:  # a log file would only get pictures of the table
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if not self._quiet:
            self._console.print(self._summary(), style="bold", soft_wrap=True)
