"""One set of videos against others, paired by prompt and seed, from a report of `fifo evaluate`; and their motion.

    fifo evaluate videos/fifo videos/freenoise ... --against real -o REPORT
    python benchmarks/paired.py REPORT.json [--first fifo] [--svg motion.svg] [--about "n 1"]

Videos of the same name are a pair: they had the same prompt and seed.  A difference is the mean over pairs of first
minus other; ± is its standard error.  `told apart` says whether it is larger than what Student's t allows at 5 %, for
each quantity by itself: of twenty that do not differ one is told apart.  `way` is the last 15 % of a video minus its
first 15 %, with its sign, the mean over a set's videos: what drifts in no direction has 0 here, within its error.
Distances are of whole sets, so they have no pairs; the kernel distance's ± is its own.  The histograms are shares of
frames by the mean length of DIS flow, over all videos of a set; --svg draws them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean

from fifo_diffusion.evaluate.means import mean_and_error, student
from fifo_diffusion.evaluate.result import Evaluation, SetResult, read
from report import Row, bars, show

HISTOGRAM = "motion histogram (DIS)"


def by_set(found: Evaluation, tell: Callable[[SetResult, str], tuple[float | None, float | None]]) -> Iterator[Row]:
    """A row a quantity; of each set what it is told of it, and the error."""
    for about in found.quantities:
        told = {one.name: tell(one, about.name) for one in found.sets}
        if any(value is not None for value, _ in told.values()):
            yield {"quantity": about.name} | {
                f"{name}{sign}": "" if value is None else value
                for name, pair in told.items()
                for sign, value in zip(("", " ±"), pair, strict=True)
            }


def mean(one: SetResult, quantity: str) -> tuple[float | None, float | None]:
    """Over the set's videos."""
    return (said.mean, said.error) if (said := one.means.get(quantity)) is not None else (None, None)


def way(one: SetResult, quantity: str) -> tuple[float | None, float | None]:
    """How far it has come at a video's end, with its sign: the mean over the set's videos."""
    said = [video.measured[quantity] for video in one.videos if video.error is None and quantity in video.measured]
    return mean_and_error([m.last - m.first for m in said if m.last is not None and m.first is not None])


def good(one: SetResult) -> Mapping[str, Mapping[str, float]]:
    """By video, its quantities' means."""
    return {
        video.name: {name: said.mean for name, said in video.measured.items() if said.mean is not None}
        for video in one.videos
        if video.error is None
    }


def differences(found: Evaluation, first: str) -> Iterator[Row]:
    """Of the set called first, which is there."""
    ours = good(next(one for one in found.sets if one.name == first))
    for about in found.quantities:
        row: dict[str, str | float | int] = {"quantity": about.name}
        for other in (one for one in found.sets if one.name != first):
            theirs = good(other)
            pairs = [
                ours[video][about.name] - theirs[video][about.name]
                for video in ours
                if video in theirs and about.name in ours[video] and about.name in theirs[video]
            ]
            if len(pairs) < 2:
                continue
            apart, error = mean_and_error(pairs)
            assert apart is not None
            assert error is not None
            limit = student(len(pairs) - 1)
            row |= {f"- {other.name}": apart, f"- {other.name} ±": error}
            row[f"told apart from {other.name}"] = "yes" if abs(apart) > limit * error else "no"
        if len(row) > 1:
            yield row


def distances(found: Evaluation) -> Iterator[Row]:
    for one in found.sets:
        for said in one.distances:
            row: dict[str, str | float | int] = {"set": one.name, "distance": said.quantity, "value": said.value}
            row["value ±"] = "" if said.error is None else said.error
            yield {**row, "real against real": "" if said.floor is None else said.floor, "of": said.of}


def histograms(found: Evaluation) -> dict[str, dict[str, float]]:
    """By set, the mean share of frames by pace."""
    out: dict[str, dict[str, float]] = {}
    for one in found.sets:
        said = [video.facts[HISTOGRAM] for video in one.videos if HISTOGRAM in video.facts]
        if said:
            paces = [f"from {pace:g} %" for pace in said[0]["from %"]]
            shares = zip(*(each["share of frames"] for each in said), strict=True)
            out[one.name] = {pace: fmean(share) for pace, share in zip(paces, shares, strict=True)}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="the JSON of fifo evaluate")
    parser.add_argument("--first", default="fifo", help="the set that the others are taken from")
    parser.add_argument("--svg", type=Path, help="write the histograms of motion here")
    parser.add_argument("--about", default="", help="written behind each title: how the videos were made")
    said = parser.parse_args()
    about = f", {said.about}" if said.about else ""
    found = read(said.report)
    if said.first not in (names := [one.name for one in found.sets]):
        parser.error(f"{said.report} has no set {said.first}; it has {', '.join(names)}")
    if means := list(by_set(found, mean)):  # none where only distances were measured
        show(f"methods: means{about}", means)
        show(f"methods: way from the first 15 % to the last{about}", list(by_set(found, way)))
    if paired := list(differences(found, said.first)):
        show(f"methods: {said.first} minus the others, paired by seed{about}", paired)
    if far := list(distances(found)):
        show(f"methods: distances from real renders{about}", far)
    if shares := histograms(found):
        title = f"methods: share of frames by motion (DIS), % of the short side{about}"
        show(title, [{"set": name, **share} for name, share in shares.items()])
        if said.svg is not None:
            said.svg.write_text(bars("Share of frames by motion (DIS), % of the short side a frame", "in all", shares))


if __name__ == "__main__":
    main()
