"""Write docs/results.md: every figure that was kept, with its command, day, commit and machine.

    python benchmarks/exact_ideas.py >> benchmarks/results.jsonl     (and so with the others; other lines are skipped)
    python benchmarks/results.py > docs/results.md

A benchmark's last line holds all that; of two with the same title the later one counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

KEPT = Path(__file__).with_name("results.jsonl")


def page(kept: Path) -> Iterator[str]:
    said = [json.loads(line) for line in kept.read_text().splitlines() if line.startswith('{"benchmark"')]
    yield "# Results\n\nWritten by `python benchmarks/results.py > docs/results.md` from what the benchmarks said."
    for one in {s["benchmark"]: s for s in said}.values():
        machine = ", ".join(f"{name} {value}" for name, value in one["machine"].items())
        made = f"`python {one['command']}`, {one['date']}, commit {one['commit']}, {machine}"
        yield f"\n## {one['benchmark']}\n\n{made}\n"
        yield from _table(one["rows"])


def _table(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    """A column with ± behind it is written into the one before."""
    names = [name for name in rows[0] if not name.endswith("±")]
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield f"| {' | '.join(_cell(row.get(name, '')) + _spread(row, name) for name in names)} |"


def _spread(row: Mapping[str, Any], name: str) -> str:
    spread = row.get(f"{name} ±", "")
    return "" if spread == "" else f"±{_cell(spread)}"


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kept", nargs="?", type=Path, default=KEPT, help="the benchmarks' lines")
    print("\n".join(page(parser.parse_args().kept)))


if __name__ == "__main__":
    main()
