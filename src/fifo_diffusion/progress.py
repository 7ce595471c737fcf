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


class Stage:
    """What a run is at, how far, and how fast."""

    def __init__(self, name: str = "loading", done: int = 0) -> None:
        self.name, self.done, self.total = name, done, 0
        self._since, self._first = time.monotonic(), done

    def moved(self, name: str, done: int, total: int) -> Stage:
        """The same, or the one that follows; total: 0 where there is no end."""
        stage = self if name == self.name else Stage(name, done)
        stage.done, stage.total = done, total
        return stage

    @property
    def speed(self) -> float:
        """Steps a second since it began here, which may be in the midst of it."""
        return (self.done - self._first) / max(time.monotonic() - self._since, 1e-9)

    def counts(self, unit: str = "") -> str:
        """Steps, their pace in units a second, and the time left, as far as they are known."""
        parts = [f"{self.done}/{self.total}" if self.total else str(self.done)]
        if speed := self.speed:
            parts.append(f"{speed:.1f}{unit}/s")
            if self.total:
                parts.append(f"{clock((self.total - self.done) / speed)} left")
        return "  ".join(parts)


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
        self._stage = Stage()

    def __call__(self, stage: str, done: int, total: int) -> None:
        before, self._stage = self._stage, self._stage.moved(stage, done, total)
        if self._stage is not before:
            self._bar.remove_task(self._task)  # a task cannot lose the total it once had
            self._task = self._bar.add_task(stage, total=total or None, counts="")
        streams = stage == "streaming"
        if streams:
            self.frames, self._speed = done, self._stage.speed
        counts = self._stage.counts(" frames" if streams else "")
        self._bar.update(self._task, completed=done, counts=f"{counts}  peak {peak_memory() // 2**20} MB")

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
