"""The live line: stage, frames, frames a second, time left, peak memory."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from fifo_diffusion.meter import peak_memory


class Progress:
    """Called as `watch(stage, done, total)`."""

    def __init__(self, console: Console, quiet: bool) -> None:
        columns = (
            TextColumn("[bold]{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
        )
        hidden = quiet or not console.is_terminal  # a log file would only get an empty line
        self._bar = Bar(*columns, console=console, disable=hidden, refresh_per_second=4, transient=True)
        self._console, self._quiet = console, quiet
        self.frames = 0  # that have come out so far
        self._speed = 0.0  # frames a second
        self._task = self._bar.add_task("loading", total=None, counts="")
        self._stage, self._since, self._first = "loading", time.monotonic(), 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._since, self._first = stage, now, done
            self._bar.remove_task(self._task)  # a task cannot lose the total it once had
            self._task = self._bar.add_task(stage, total=total or None, counts="")
        speed = (done - self._first) / max(now - self._since, 1e-9)
        if stage == "streaming":
            self.frames, self._speed = done, speed
        parts = [f"{done}/{total}" if total else str(done)]
        if speed:
            parts.append(f"{speed:.1f} frames/s" if stage == "streaming" else f"{speed:.1f}/s")
            if total:
                parts.append(f"{clock((total - done) / speed)} left")
        parts.append(f"peak {peak_memory() // 2**20} MB")
        self._bar.update(self._task, completed=done, counts="  ".join(parts))

    def seconds_until(self, frame: int) -> float | None:
        """About when this frame comes out; None while the pace is not known."""
        return (frame + 1 - self.frames) / self._speed if self._speed else None

    def tell(self, text: str) -> None:
        """A line above the bar, left out when quiet."""
        if not self._quiet:
            self._console.print(escape(text), style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line above the bar; said even when quiet."""
        self.note(f"[yellow]warning:[/] {escape(text)}")

    def note(self, markup: str) -> None:
        """A line above the bar."""
        self._console.print(markup, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
