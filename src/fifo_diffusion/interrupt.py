"""Steps that Ctrl-C must not cut in two."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, a service manager's stop, and where there is one the end of the terminal.
STOPS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_steps: list[float | None] = []  # those under way, each with when a SIGTERM came meanwhile


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What comes meanwhile is heard at the end.  For short steps; SIGKILL waits for nobody."""
    if threading.current_thread() is not threading.main_thread():  # only that one hears signals
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    usual = {stop: signal.getsignal(stop) for stop in STOPS}
    ours = {stop: handler for stop, handler in usual.items() if callable(handler)}
    step = len(_steps)

    def later(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        if number == signal.SIGTERM:
            _steps[step] = _steps[step] or time.monotonic()

    _steps.append(None)
    for stop in ours:
        signal.signal(stop, later)
    try:
        yield
    finally:
        for stop, handler in ours.items():
            if signal.getsignal(stop) is later:  # else nobody listens any more
                signal.signal(stop, handler)
        del _steps[step:]
    for number, frame in came[:1]:
        ours[signal.Signals(number)](number, frame)


def overdue() -> float:
    """For how many seconds a SIGTERM has waited for the end of such a step; 0 where none does."""
    return max((time.monotonic() - since for since in [*_steps] if since is not None), default=0.0)


def listen(stop: Callable[[int, FrameType | None], None]) -> None:
    """Whatever would stop the program calls `stop`.

    Ctrl-C also where a shell's `&` has it ignored, for then `kill -INT` is meant; the end of the terminal not where
    nohup has it ignored.
    """
    for number in STOPS:
        if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def stop_listening() -> None:
    """From here on the program ends by itself, and what it still does must not be cut."""
    if threading.current_thread() is threading.main_thread():
        for stop in STOPS:
            signal.signal(stop, signal.SIG_IGN)
