"""The live line says where a run is; an endless one has no end to count to."""

import errno
import os
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from fifo_diffusion.cli.app import _Heard
from fifo_diffusion.progress import Progress, clock


def said(stages: list[tuple[str, int, int]], quiet: bool = False) -> str:
    out = StringIO()
    with Progress(Console(file=out, force_terminal=True, width=120, highlight=False), quiet) as progress:
        for stage in stages:
            progress(*stage)
            progress._bar.refresh()
        progress.tell("[so] it is")
        progress.warn("a [word] is unknown")
    assert not progress._bar.live.is_started
    return out.getvalue()


def test_every_stage_shows() -> None:
    text = said([("loading", 0, 1), ("base clip", 3, 64), ("run-in", 1, 48), ("streaming", 1, 9), ("streaming", 2, 9)])
    for part in ("loading", "base clip", "3/64", "run-in", "streaming", "2/9", "frames/s", "left", "peak"):
        assert part in text
    assert "a [word] is unknown" in text
    assert "[so] it is" in text
    assert "run-in" not in text.split("streaming", 1)[1]  # a stage takes the place of the one before
    assert text.removesuffix("\x1b[?25h").endswith("\x1b[2K")  # and nothing stays of the last


def test_the_pace_is_that_of_the_frames_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is put on by hand; the run goes on from frame 100."""
    now = 0.0
    monkeypatch.setattr("fifo_diffusion.progress.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("fifo_diffusion.progress.peak_memory", lambda: 300 * 2**20)
    progress = Progress(Console(file=StringIO()), quiet=False)
    for at, stage in ((1.0, ("run-in", 1, 48)), (2.0, ("run-in", 40, 48)), (9.0, ("streaming", 100, 200))):
        assert (progress.frames, progress.seconds_until(120)) == (0, None)
        now = at
        progress(*stage)
    now = 13.0
    progress("streaming", 102, 200)
    assert progress.frames == 102
    assert progress.seconds_until(111) == 20  # ten more, 0.5 a second
    assert progress._bar.tasks[-1].fields["counts"] == "102/200  0.5 frames/s  3:16 left  peak 300 MB"


def test_a_log_file_gets_the_lines_and_no_bar() -> None:
    out = StringIO()
    with Progress(Console(file=out), quiet=False) as progress:
        progress("streaming", 1, 9)
        progress.warn("a wale is unknown")
    assert out.getvalue().rstrip("\n") == "warning: a wale is unknown"  # older versions of rich end with a line more


def test_an_endless_run_counts_without_a_goal() -> None:
    text = said([("run-in", 48, 48), ("streaming", 48, 0), ("streaming", 49, 0)])
    last = text.split("streaming")[-1]
    assert "49" in last
    assert "/48" not in last
    assert "left" not in last


def test_quiet_still_warns() -> None:
    text = said([("streaming", 1, 9)], quiet=True)
    assert "streaming" not in text
    assert "so it is" not in text.replace("[", "").replace("]", "")
    assert "is unknown" in text


def test_a_clock() -> None:
    assert [clock(s) for s in (5, 59.6, 65, 3665)] == ["0:05", "1:00", "1:05", "1:01:05"]


@pytest.mark.parametrize(("wrong", "later"), [(errno.ENOSPC, "one\ntwo"), (errno.EPIPE, "")])
def test_a_full_disk_is_not_taken_for_the_end_of_who_reads(wrong: int, later: str, tmp_path: Path) -> None:
    """What is said while it is full is said later."""

    class Full(StringIO):
        full = True

        def fileno(self) -> int:
            return there.fileno()

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(wrong, os.strerror(wrong))
            return super().write(text)

    with open(tmp_path / "log", "w") as there:
        console = _Heard(file=(out := Full()), highlight=False)
        console.print("one")
        out.full = False
        console.print("two")
    assert out.getvalue().strip() == later
