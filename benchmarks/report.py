"""How a benchmark speaks: a table for people, and one JSON line last for machines."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table

from fifo_diffusion.making import machine

Row = Mapping[str, str | float | int]


def show(title: str, rows: Sequence[Row], device: str = "cpu") -> None:
    """Columns are the keys of the rows, of which some may lack one; device is the one that was measured."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    columns: dict[str, str | float | int] = {}
    for row in rows:
        columns = {**columns, **{name: value for name, value in row.items() if name not in columns}}
    for name, value in columns.items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        cells = (row.get(name, "") for name in columns)
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in cells))
    Console(width=140).print(table)
    said = {"benchmark": title, "date": date.today().isoformat(), "commit": _commit(), "command": shlex.join(sys.argv)}
    print(json.dumps({**said, "machine": machine(device), "rows": list(rows)}), flush=True)


_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # Paul Tol's bright ones


def bars(title: str, unit: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """An SVG: a bar for each row, its parts one after the other; every row has the same parts, all above 0 or so."""
    width, left, high = 900, 20, 46
    longest = max(sum(parts.values()) for parts in rows.values())
    scale = (width - 2 * left) / longest
    names = list(next(iter(rows.values())))
    out = [f'<text x="{left}" y="26" font-size="16" font-weight="bold">{escape(title)}</text>']
    x = left
    for name, colour in zip(names, _COLOURS, strict=False):
        out.append(f'<rect x="{x}" y="38" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 17}" y="49">{escape(name)}</text>')
        x += 40 + 8 * len(name)
    y = 72
    for label, parts in rows.items():
        out.append(f'<text x="{left}" y="{y + 6}">{escape(label)}</text>')
        at = float(left)
        for value, colour in zip(parts.values(), _COLOURS, strict=False):
            wide = max(value, 0) * scale
            out.append(f'<rect x="{at:.2f}" y="{y + 13}" width="{wide:.2f}" height="18" fill="{colour}"/>')
            at += wide
        y += high
    out.append(f'<text x="{width - left}" y="{y + 4}" text-anchor="end">{longest:.3g} {escape(unit)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 16}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="13">', '<rect width="100%" height="100%" fill="white"/>', *out, "</svg>\n"])


def _commit() -> str:
    """Of the benchmarks' repository; nothing where git does not know it."""
    asked = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
