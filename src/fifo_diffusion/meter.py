"""How long a run spends on what, and how much memory it took: the program measures itself."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Meter:
    """Seconds by part; a part that runs inside another is counted in both, and told apart in `parts`.

    On a GPU, where calls return before they are done, time shows where it was waited for.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - began

    def around(self, part: str, call: Callable[P, T]) -> Callable[P, T]:
        """The same function, its time counted."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.time(part):
                return call(*args, **kwargs)

        return timed

    def each(self, part: str, items: Iterator[T]) -> Iterator[T]:
        """The same items, the time that each takes to come counted."""
        while True:
            with self.time(part):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def parts(self) -> dict[str, float]:
        """Seconds of network, exchange (of answers between ranks, where there are several: waiting for the others, and
        their bytes), step (the rest of an iteration), decode and write; no overlaps.
        """
        s = self.seconds
        return {
            "network": s["network"],
            **({"exchange": s["exchange"]} if "exchange" in s else {}),
            "step": s["base clip"] + s["iteration"] - s["network"] - s.get("exchange", 0) - s["preview"],
            "decode": s["pixels"] - s["iteration"] + s["preview"],
            "write": s["write"],
        }


def peak_memory() -> int:
    """The most bytes of main memory this process has held; 0 on a system that does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
