"""Write docs/results.md: every figure that was kept, with its command, day, commit and machine.

    python benchmarks/exact_ideas.py >> benchmarks/results.jsonl     (and so with the others; other lines are skipped)
    python benchmarks/results.py > docs/results.md
    python benchmarks/results.py --scores > src/fifo_diffusion/models/scores.json

A benchmark's last line holds all that; of two with the same title the later one counts.  --scores: what plans of the
embedded model reached, as `fifo models` lists it: every setting of `fidelity.py` that flags of fifo generate can say,
with the flags; of one that was measured twice the later counts.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

KEPT = Path(__file__).with_name("results.jsonl")


def lines(kept: Path) -> list[Any]:
    """What the benchmarks said, as `report.show` prints it last; other lines are skipped."""
    return [json.loads(line) for line in kept.read_text().splitlines() if line.startswith('{"benchmark"')]


def page(kept: Path) -> Iterator[str]:
    yield "# Results\n\nWritten by `python benchmarks/results.py > docs/results.md` from what the benchmarks said."
    for one in {s["benchmark"]: s for s in lines(kept)}.values():
        machine = ", ".join(f"{name} {value}" for name, value in one["machine"].items())
        made = f"`python {one['command']}`, {one['date']}, commit {one['commit']}, {machine}"
        yield f"\n## {one['benchmark']}\n\n{made}\n"
        yield from _table(one["rows"])


# fidelity.py's names of settings; those with more words cannot be said by flags
PLAN = re.compile(
    r"(?P<guided>guided )?n (?P<n>\d+) (?P<kept>[\w-]+)(?P<eta> eta 0)?(?P<solver> 2m)?(, (?P<k>\d+) a level)?"
    r"(, levels (?P<levels>\d+-\d+))?"
)
SIZE = (64, 64)  # of the embedded model when they were measured


def flags(setting: str) -> str | None:
    """Of fifo generate, for the embedded model; None where they cannot say it."""
    if (said := PLAN.fullmatch(setting)) is None:
        return None
    parts = {
        f"-n {said['n']} --lookahead {said['kept']}": True,
        "--solver 2m --eta 0": said["solver"],
        "--eta 0": said["eta"] and not said["solver"],
        f"--frames-per-level {said['k']}": said["k"],
        f"--guidance-levels {said['levels']}": said["levels"],
        "--guidance 1": not said["guided"],
    }
    return " ".join(part for part, there in parts.items() if there)


def scores(kept: Path) -> dict[str, Any]:
    """By model; see `fifo_diffusion.models.scores`."""
    said = lines(kept)
    of: dict[str, dict[str, Any]] = {}
    for kind in ("latents", "pictures"):
        for one in said:
            if re.fullmatch(rf"fidelity: {kind}(, beside .*)?", one["benchmark"]):
                about = {"date": one["date"], "commit": one["commit"]}
                if kind == "pictures":
                    about["real_flicker"] = next(r["flicker"] for r in one["rows"] if r["setting"] == "real renders")
                for row in one["rows"]:
                    of[row["setting"]] = of.get(row["setting"], {}) | row | about
    plans = [
        {
            "flags": words,
            "told": 25 * sum(row[name] for name in ("subject", "colour", "scene", "motion")),
            "distance": 1000 * row["distance"],
            "distance_error": 1000 * row["distance ±"],
            "flicker": row["flicker"],
            "flicker_error": row["flicker ±"],
            **{name: row[name] for name in ("real_flicker", "streams", "date", "commit")},
        }
        for setting, row in of.items()
        if (words := flags(setting)) is not None
    ]
    plans.sort(key=lambda plan: "--guidance 1" in plan["flags"])  # the default guidance first
    plans = [{name: round(x, 4) if isinstance(x, float) else x for name, x in plan.items()} for plan in plans]
    return {"embedded": {"size": SIZE, "plans": plans}}


def _table(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    """A column with ± behind it is written into the one before."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if not name.endswith("±")]
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
    parser.add_argument("--scores", action="store_true", help="what fifo models lists, as JSON")
    said = parser.parse_args()
    print(json.dumps(scores(said.kept), indent=1) if said.scores else "\n".join(page(said.kept)))


if __name__ == "__main__":
    main()
