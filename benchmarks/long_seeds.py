"""Several long videos that differ in their seeds alone: does any quantity drift in a direction?

    python benchmarks/long.py --folder DIR -n 1 --guidance 1 --seed 3 >> benchmarks/results.jsonl     (and so each seed)
    python benchmarks/long_seeds.py [--plan "n 1, guidance 1"] [--kept benchmarks/results.jsonl]

Of what `long.py` said of each seed: every quantity's last 15 % minus its first 15 %, with its sign, the mean over seeds
± its standard error; `told apart` says whether that is further from 0 than what Student's t allows at 5 %, for each
quantity by itself.  Then the blocks of 500 frames: means over seeds ± standard errors.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fifo_diffusion.evaluate.means import mean_and_error, student
from report import Row, show
from results import KEPT, lines

Rows = Sequence[Mapping[str, Any]]


def by_seed(kept: Path, plan: str, what: str) -> dict[int, Rows]:
    """The rows of each seed's table; of two of one seed the later counts.  what: "drift" or "blocks of 500 frames"."""
    title = re.compile(rf"a long video, {re.escape(plan)}(, seed (?P<seed>\d+))?: {re.escape(what)}")
    found = [(title.fullmatch(one["benchmark"]), one["rows"]) for one in lines(kept)]
    return {int(match["seed"] or 0): rows for match, rows in found if match is not None}


def drifts(seeds: Mapping[int, Rows]) -> Iterator[Row]:
    """A row a quantity that every seed has."""
    tables = [{row["quantity"]: row for row in rows} for rows in seeds.values()]
    for name in tables[0]:
        if not all(name in table for table in tables):
            continue
        ways = [table[name]["last 15 %"] - table[name]["first 15 %"] for table in tables]
        mean, error = mean_and_error(ways)
        assert mean is not None
        row: dict[str, str | float | int] = {"quantity": name, "last minus first": mean}
        if error is None:
            yield row
            continue
        limit = student(len(ways) - 1)
        row |= {"last minus first ±": error, "told apart": "yes" if abs(mean) > limit * error else "no"}
        yield row | {"of seeds, up": sum(way > 0 for way in ways), "down": sum(way < 0 for way in ways)}


def blocks(seeds: Mapping[int, Rows]) -> Iterator[Row]:
    """A row a block, as far as the shortest video goes; what a seed has no figure of is left out of the mean."""
    for rows in zip(*seeds.values(), strict=False):
        row: dict[str, str | float | int] = {"frames": rows[0]["frames"]}
        for name in rows[0]:
            values = [one[name] for one in rows if isinstance(one.get(name), int | float)]
            mean, error = mean_and_error(values)
            if name != "frames":
                row |= {name: "" if mean is None else mean, f"{name} ±": "" if error is None else error}
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="n 1, guidance 1", help="as long.py's titles have it")
    parser.add_argument("--kept", type=Path, default=KEPT, help="the benchmarks' lines")
    said = parser.parse_args()
    found = by_seed(said.kept, said.plan, "drift")
    if len(found) < 2:
        parser.error(f"{said.kept} has {len(found)} seeds of a long video, {said.plan}; make more with long.py --seed")
    about = f"{said.plan}, seeds {', '.join(map(str, sorted(found)))}"
    show(f"long videos, {about}: last 15 % minus first 15 %", list(drifts(found)))
    show(f"long videos, {about}: blocks", list(blocks(by_seed(said.kept, said.plan, "blocks of 500 frames"))))


if __name__ == "__main__":
    main()
