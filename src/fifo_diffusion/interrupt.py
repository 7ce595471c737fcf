"""Steps that Ctrl-C must not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, a service manager's stop, and where there is one the end of the terminal.
STOPS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What comes meanwhile is heard at the end.  For short steps; SIGKILL waits for nobody."""
    if threading.current_thread() is not threading.main_thread():  # only that one hears signals
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    usual = {stop: signal.getsignal(stop) for stop in STOPS}
    ours = {stop: handler for stop, handler in usual.items() if callable(handler)}
    for stop in ours:
        signal.signal(stop, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for stop, handler in ours.items():
            signal.signal(stop, handler)
    for number, frame in came[:1]:
        ours[signal.Signals(number)](number, frame)


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
