"""The live line says where a run is; an endless one has no end to count to."""

from io import StringIO

from rich.console import Console

from fifo_diffusion.progress import Progress, clock


def said(stages: list[tuple[str, int, int]], quiet: bool = False) -> str:
    out = StringIO()
    with Progress(Console(file=out, force_terminal=True, width=120, highlight=False), quiet) as progress:
        for stage in stages:
            progress(*stage)
            progress._bar.refresh()
        progress.warn("a [word] is unknown")
    return out.getvalue()


def test_every_stage_shows() -> None:
    text = said([("loading", 0, 1), ("base clip", 3, 64), ("run-in", 1, 48), ("streaming", 1, 9), ("streaming", 2, 9)])
    for part in ("loading", "base clip", "3/64", "run-in", "streaming", "2/9", "frames/s", "left", "peak"):
        assert part in text
    assert "a [word] is unknown" in text


def test_an_endless_run_counts_without_a_goal() -> None:
    text = said([("run-in", 48, 48), ("streaming", 48, 0), ("streaming", 49, 0)])
    last = text.split("streaming")[-1]
    assert "49" in last
    assert "/48" not in last
    assert "left" not in last


def test_quiet_still_warns() -> None:
    text = said([("streaming", 1, 9)], quiet=True)
    assert "streaming" not in text
    assert "is unknown" in text


def testclock() -> None:
    assert [clock(s) for s in (5, 65, 3665)] == ["0:05", "1:05", "1:01:05"]
