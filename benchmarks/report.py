"""How a benchmark speaks: a table for people, and one JSON line last for machines."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fifo_diffusion.making import machine

Row = Mapping[str, str | float | int]


def show(title: str, rows: Sequence[Row], device: str = "cpu") -> None:
    """Columns are the keys of the first row; device is the one that was measured."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=140).print(table)
    said = {"benchmark": title, "date": date.today().isoformat(), "commit": _commit(), "command": shlex.join(sys.argv)}
    print(json.dumps({**said, "machine": machine(device), "rows": list(rows)}), flush=True)


def _commit() -> str:
    """Of the benchmarks' repository; nothing where git does not know it."""
    asked = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
