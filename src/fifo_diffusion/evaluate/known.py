"""Every metric there is: a module a line, each with METRICS, a tuple of `Metric` and `SetMetric` objects.

The modules load no network and no package beyond torch and numpy before a metric begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from fifo_diffusion.evaluate.metric import Metric, SetMetric

MODULES: tuple[str, ...] = (
    "flow", "raft_motion", "temporal", "cuts", "picture", "perceptual", "consistency", "alignment", "world",
    "distances",
)  # fmt: skip


def known() -> Iterator[Metric | SetMetric]:
    """All of them, whether they can be had here or not."""
    for module in MODULES:
        yield from import_module(f"fifo_diffusion.evaluate.{module}").METRICS
