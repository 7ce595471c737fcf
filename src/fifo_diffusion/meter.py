"""How long a run spends on what, and how much memory it took: the program measures itself."""

from __future__ import annotations

import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
T = TypeVar("T")


class Meter:
    """Seconds by part; a part that runs inside another is counted in both, and told apart in `parts`.  Parts that run
    beside each other, on threads of their own, add up to more than has passed.

    On CUDA, where calls return before they are done, the device tells how long it took, once it is done: nothing waits
    for the clock.  On other GPUs time shows where it was waited for.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._running: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()  # on the device

    @property
    def seconds(self) -> dict[str, float]:
        """By part, of what is done."""
        while self._running and self._running[0][2].query():  # type: ignore[no-untyped-call]
            part, began, ended = self._running.popleft()
            self._seconds[part] += began.elapsed_time(ended) / 1000
        return self._seconds

    @contextmanager
    def time(self, part: str, device: torch.device | None = None) -> Iterator[None]:
        """device: where the part is done; only its stream's own time counts, where it is CUDA."""
        if device is not None and device.type == "cuda":
            import torch

            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            began.record(torch.cuda.current_stream(device))
            try:
                yield
            finally:
                ended.record(torch.cuda.current_stream(device))
                self._running.append((part, began, ended))
                _ = self.seconds  # no more events are kept than are under way
            return
        began_at = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - began_at

    def around(self, part: str, call: Callable[P, T], device: torch.device | None = None) -> Callable[P, T]:
        """The same function, its time counted."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.time(part, device):
                return call(*args, **kwargs)

        return timed

    def each(self, part: str, items: Iterator[T], device: torch.device | None = None) -> Iterator[T]:
        """The same items, the time that each takes to come counted."""
        while True:
            with self.time(part, device):
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
            "decode": s["pixels"] - s["latents"] + s["preview"],
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
