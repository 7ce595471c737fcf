"""Which metrics an evaluation has: those that were named, or all that can be had on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fifo_diffusion.errors import BadInput
from fifo_diffusion.evaluate.known import known
from fifo_diffusion.evaluate.metric import Metric, SetMetric
from fifo_diffusion.evaluate.result import Unmeasured


@dataclass(frozen=True)
class Chosen:
    metrics: tuple[Metric, ...]
    set_metrics: tuple[SetMetric, ...]  # only where there is a reference
    without: tuple[Unmeasured, ...]  # what was left out, and why


def choose(named: Sequence[str], against: bool) -> Chosen:
    """named: none for all.  Raises BadInput for one that is unknown, or was named and cannot be had."""
    there = {metric.name: metric for metric in known()}
    for name in named:
        if name not in there:
            raise BadInput(f"there is no metric {name!r}; those that there are: {', '.join(there)}")
        why = there[name].missing()
        if why is not None:
            raise BadInput(f"metric {name} cannot be had here: {why}")
        if isinstance(there[name], SetMetric) and not against:
            raise BadInput(f"metric {name} is a distance from other videos; name their folder with --against")
    metrics: list[Metric] = []
    set_metrics: list[SetMetric] = []
    without: list[Unmeasured] = []
    for metric in there.values():
        if named and metric.name not in named:
            continue
        why = metric.missing()
        if why is not None:
            without.append(Unmeasured(metric=metric.name, why=why))
        elif isinstance(metric, Metric):
            metrics.append(metric)
        elif against:
            set_metrics.append(metric)
        else:
            without.append(Unmeasured(metric=metric.name, why="a distance from other videos; name them with --against"))
    return Chosen(tuple(metrics), tuple(set_metrics), tuple(without))
