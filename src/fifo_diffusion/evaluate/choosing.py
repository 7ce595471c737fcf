"""Which metrics an evaluation has: those that were named, or the usual ones that can be had on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fifo_diffusion.errors import BadInput
from fifo_diffusion.evaluate.known import known
from fifo_diffusion.evaluate.metric import Metric, SetMetric
from fifo_diffusion.evaluate.result import Unmeasured

USUAL, ALL = "usual", "all"  # in place of names


@dataclass(frozen=True)
class Chosen:
    metrics: tuple[Metric, ...]
    set_metrics: tuple[SetMetric, ...]  # only where there is a reference
    without: tuple[Unmeasured, ...]  # what was left out, and why


def choose(named: Sequence[str], against: bool) -> Chosen:
    """named: none is the same as "usual"; "all" is all.  Raises BadInput for one that is unknown, or cannot be had."""
    there = {metric.name: metric for metric in known()}
    for name in set(named) - {USUAL, ALL}:
        if name not in there:
            raise BadInput(f"there is no metric {name!r}; those that there are: {', '.join(there)}; or {USUAL}, {ALL}")
        why = there[name].missing()
        if why is not None:
            raise BadInput(f"metric {name} cannot be had here: {why}")
        if isinstance(there[name], SetMetric) and not against:
            raise BadInput(f"metric {name} is a distance from other videos; name their folder with --against")
    usual, everything = not named or USUAL in named, ALL in named
    metrics: list[Metric] = []
    set_metrics: list[SetMetric] = []
    without: list[Unmeasured] = []
    for metric in there.values():
        if not (metric.name in named or everything or (usual and metric.usual)):
            if usual:
                without.append(
                    Unmeasured(metric=metric.name, why=f"takes long; name it: --metrics {USUAL},{metric.name}")
                )
        elif (why := metric.missing()) is not None:
            without.append(Unmeasured(metric=metric.name, why=why))
        elif isinstance(metric, Metric):
            metrics.append(metric)
        elif against:
            set_metrics.append(metric)
        else:
            without.append(Unmeasured(metric=metric.name, why="a distance from other videos; name them with --against"))
    return Chosen(tuple(metrics), tuple(set_metrics), tuple(without))
