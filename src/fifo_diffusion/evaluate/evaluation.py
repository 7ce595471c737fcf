"""An evaluation from its sets to its two files: NAME.json and NAME.html."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fifo_diffusion.evaluate import result
from fifo_diffusion.evaluate.choosing import Chosen
from fifo_diffusion.evaluate.measure import Bench, Watch, about
from fifo_diffusion.evaluate.metric import Metric, SetMetric
from fifo_diffusion.evaluate.page import page
from fifo_diffusion.evaluate.reading import Found
from fifo_diffusion.evaluate.result import Evaluation, SetResult, Unmeasured, VideoResult
from fifo_diffusion.evaluate.vbench import VBench
from fifo_diffusion.letters import writable
from fifo_diffusion.meter import peak_memory
from fifo_diffusion.version import __version__


@dataclass(frozen=True)
class Asked:
    """What an evaluation is asked for."""

    sets: Sequence[Found]
    chosen: Chosen
    reference: Found | None
    device: str
    command: str  # as it can be given again
    machine: Mapping[str, str | int]
    vbench: VBench | None = None  # to say more of the sets


def evaluate(
    asked: Asked,
    name: Path,
    watch: Watch,
    ended: Callable[[VideoResult], None],
) -> Evaluation:
    """Measure everything and write name.json and name.html; after Ctrl-C of what was read by then.

    Raises BadInput for a reference that is broken, ModelError for a network's weights, OutputError.
    """
    began = time.perf_counter()
    bench = Bench(asked.chosen.metrics, asked.chosen.set_metrics, asked.device, watch, ended)
    reference = None if asked.reference is None else bench.refer(asked.reference)
    sets: Sequence[SetResult] = [bench.measure(found) for found in asked.sets]
    if reference is not None:
        try:
            sets = [bench.compare(found, reference) for found in sets]
        except KeyboardInterrupt:  # what was measured is told, without distances
            bench.stopped = True
    if asked.vbench is not None and not bench.stopped:
        sets = [asked.vbench.add(found) for found in sets]
    metrics: list[Metric | SetMetric] = [*asked.chosen.metrics, *asked.chosen.set_metrics]
    quantities = [one for metric in metrics for one in about(metric)]
    found = Evaluation(
        fifo_diffusion=__version__,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=writable(asked.command),
        machine=dict(asked.machine),
        quantities=(*quantities, *(() if asked.vbench is None else asked.vbench.quantities)),
        sets=tuple(sets),
        against=None if asked.reference is None else asked.reference.name,
        stopped=bench.stopped,
        unmeasured=(
            *asked.chosen.without,
            *(() if reference is None or bench.stopped else _without_scores(asked.chosen.set_metrics, sets)),
            *(() if asked.vbench is None else asked.vbench.without),
        ),
        wall_seconds=round(time.perf_counter() - began, 3),
        peak_memory_mb=peak_memory() // 2**20,
    )
    result.write(found, name.with_name(name.name + ".json"))
    result.put(name.with_name(name.name + ".html"), page(found, bench.sheets).encode())
    return found


def _without_scores(metrics: Sequence[SetMetric], sets: Sequence[SetResult]) -> Iterator[Unmeasured]:
    """Distances that were asked for and are not, or not all, told."""
    for metric in metrics:
        own = {quantity.name for quantity in metric.quantities}
        short = [one.name for one in sets if not own <= {distance.quantity for distance in one.distances}]
        if short:
            yield Unmeasured(
                metric=metric.name,
                why=f"the videos of {', '.join(short)}, or the reference's, are too short or too few for all of it",
            )
