"""Lines over time as SVG, for a page that holds everything itself.  Colours are the page's: classes c0, c1, ..."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from fifo_diffusion.evaluate.series import SHARE

WIDTH, HEIGHT = 420, 180
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 24
COLOURS = 8

Course = Sequence[float | None]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """A course, (frame, value) by (frame, value); band: how far it may be off, point by point."""

    name: str
    colour: int
    frames: Sequence[float]
    values: Course
    band: Course = ()


def plot(lines: Sequence[Line], title: str) -> str:
    """One picture; the first and last 15 % of the longest line, between which drift is told, are shaded.

    Lines without a value are left out; without any the answer is "".
    """
    lines = [line for line in lines if any(value is not None for value in line.values)]
    if not lines:
        return ""
    end = max(frame for line in lines for frame in line.frames) or 1
    low, high = _range(lines)
    ticks = steps(low, high, 4)

    def x(frame: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * frame / end

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    def drawn() -> Iterator[str]:
        yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} over time">'
        for first, last in ((0, SHARE * end), ((1 - SHARE) * end, end)):
            yield (
                f'<rect class="ends" x="{x(first):.1f}" y="{TOP}" width="{x(last) - x(first):.1f}" '
                f'height="{HEIGHT - TOP - BOTTOM}"/>'
            )
        for tick in ticks:
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            yield f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{number(tick)}</text>'
        frames = steps(0, end, 6)
        for tick in frames:
            place = "start" if tick == 0 else "end" if x(tick) > WIDTH - 30 else "middle"
            word = " frames" if tick == frames[-1] and len(frames) > 1 else ""
            at = f'x="{x(tick):.1f}" y="{HEIGHT - 8}" text-anchor="{place}"'
            yield f'<text class="tick" {at}>{tick:,.0f}{word}</text>'
        for line in lines:
            yield from _line(line, x, y)
        yield "</svg>"

    return "".join(drawn())


def _line(line: Line, x: Scale, y: Scale) -> Iterator[str]:
    colour = f"c{line.colour % COLOURS}"
    if line.band:
        held = [(f, v, b or 0.0) for f, v, b in zip(line.frames, line.values, line.band, strict=True) if v is not None]
        above = [f"{x(f):.1f},{y(v + b):.1f}" for f, v, b in held]
        below = [f"{x(f):.1f},{y(v - b):.1f}" for f, v, b in reversed(held)]
        yield f'<polygon class="band {colour}" points="{" ".join(above + below)}"/>'
    points = [(f, v) for f, v in zip(line.frames, line.values, strict=True) if v is not None]
    if len(points) == 1:
        yield f'<circle class="dot {colour}" cx="{x(points[0][0]):.1f}" cy="{y(points[0][1]):.1f}" r="3"/>'
    path = " ".join(f"{x(f):.1f},{y(v):.1f}" for f, v in points)
    yield f'<polyline class="line {colour}" points="{path}"><title>{escape(line.name)}</title></polyline>'


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """With room above and below, and around a value that never changes."""
    ends: list[float] = []
    for line in lines:
        bands = line.band or [0.0] * len(line.values)
        for value, band in zip(line.values, bands, strict=True):
            if value is not None:
                ends += [value - (band or 0.0), value + (band or 0.0)]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) if high > low else max(abs(high) * 0.05, 0.5)
    return (0.0 if 0 <= low < room else low - room), high + room


def steps(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, evenly apart, so many steps at most."""
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10, 20) if size * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float, digits: int = 4) -> str:
    """Short, and as exact as a reader needs."""
    if value == 0:
        return "0"
    behind = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(behind, 4)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def plus_minus(error: float | None) -> str:
    """A standard error, in two digits; nothing where there is none."""
    return "" if error is None else f"±{number(error, 2)}"
