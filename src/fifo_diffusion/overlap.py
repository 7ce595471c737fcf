"""One thing made while the next is under way: decoding and encoding beside the network.

`beside(work, items)` gives what `work(items)` gives, with the work on a thread of its own.  Whoever takes what comes of
it makes the items too, on the thread that they are on anyway: there Ctrl-C is heard, compiled networks and process
groups live, and all is done in the same order as without.  How far the items run ahead depends on numbers alone, never
on which thread was faster.

On CUDA the work has a stream of its own, which waits for each item where that was made: the device does both, and the
host waits only for what is to be taken.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from itertools import count
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fifo_diffusion.errors import RankLost
from fifo_diffusion.interrupt import uninterrupted

PATIENCE = 10.0
"""Seconds for anything more of the work after a rank was lost: torchrun kills half a minute after its SIGTERM."""

A = TypeVar("A")
B = TypeVar("B")


class _Word(Enum):
    ASKS = "all that comes of one more item has come"
    ENDED = "no more items, or nothing more comes"
    STOP = "no more items, and of their end nothing is to be made"


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class _Stopped(BaseException):
    """Ends the work where it asks for another item."""


def beside(
    work: Callable[[Iterator[A]], Iterator[B]],
    items: Iterable[A],
    *,
    ahead: int = 1,
    last: int | None = None,
    device: torch.device | None = None,
    alone: bool = True,
) -> Generator[B, None, None]:
    """What work(items) gives, in order, the work on a thread of its own.

    What comes of an item is given once `ahead` more are made, so no more than that, and one, are held.  last: from this
    item on (the first is 1) none is made ahead, for it may not be needed.  device: where the items' tensors are; what
    comes out of the work must be on the host.

    An error of the work is raised here, after all that came before it.  Where the items break off with an error, what
    comes of those there are is given first; where that is a lost rank, as long as it comes: the device may wait for
    that rank for ever.  When this is closed, or interrupted, the work does what it was given; where other ranks take
    part in the items (not alone) and it is interrupted, as long as it comes, for what interrupts may be torchrun, which
    saw one end.
    """
    given: SimpleQueue[tuple[A, Any] | _Word] = SimpleQueue()
    made: SimpleQueue[tuple[B] | _Failed | _Word] = SimpleQueue()
    lane = _Lane(device)

    def feed() -> Iterator[A]:
        while not isinstance(word := given.get(), _Word):
            item, ready = word
            lane.enter(item, ready)
            yield item
            del word, item  # not held while the next one is waited for
            made.put(_Word.ASKS)
        if word is _Word.STOP:
            raise _Stopped

    def run() -> None:
        end: _Failed | _Word = _Word.ENDED
        try:
            with torch.no_grad(), lane.open():
                for out in work(feed()):
                    made.put((out,))
        except _Stopped:
            pass
        except BaseException as error:
            end = _Failed(error)
        made.put(end)

    source, waiting, running = iter(items), 0, True
    broke: BaseException | None = None
    patience: float | None = None

    def cut(error: BaseException) -> float | None:
        """How long what is under way may take, once this has broken it off."""
        return PATIENCE if isinstance(error, RankLost) or (isinstance(error, KeyboardInterrupt) and not alone) else None

    def out(left: int) -> Iterator[B]:
        """What comes until only so many items are under way; below 0: all."""
        nonlocal waiting, running
        while running and waiting > left:
            try:
                one_more = made.get(timeout=patience)
            except Empty:
                return
            match one_more:
                case _Word.ASKS:
                    waiting -= 1
                case _Word():
                    running = False
                case _Failed(wrong):
                    raise wrong
                case (one,):
                    yield one

    # One that nobody closes must not keep the program from ending.
    thread = Thread(target=run, name="beside", daemon=True)
    thread.start()
    try:
        for number in count(1):
            try:
                item = next(source)
            except StopIteration:
                given.put(_Word.ENDED)
                break
            except BaseException as error:
                broke, patience = error, cut(error)
                given.put(_Word.STOP)
                break
            given.put((item, lane.ready()))
            del item
            waiting += 1
            yield from out(ahead if last is None or number < last else 0)
            if not running:  # it wants no more
                return
        yield from out(-1)
        if broke is not None:
            raise broke
    except KeyboardInterrupt as error:
        patience = cut(error)
        raise
    finally:
        given.put(_Word.STOP)
        with uninterrupted():
            thread.join(patience)


@dataclass(frozen=True)
class _Lane:
    """A stream of the device for the work; nothing where there are none."""

    device: torch.device | None

    @property
    def _cuda(self) -> bool:
        return self.device is not None and self.device.type == "cuda"

    def open(self) -> AbstractContextManager[Any]:
        """The thread's own from here on.  First among the device's streams: the items wait for what is made of them."""
        if not self._cuda:
            return nullcontext()
        return torch.cuda.stream(torch.cuda.Stream(self.device, priority=-1))  # type: ignore[no-untyped-call]

    def ready(self) -> torch.cuda.Event | None:
        """When all that the calling thread asked for so far is done."""
        return torch.cuda.current_stream(self.device).record_event() if self._cuda else None

    def enter(self, item: object, ready: torch.cuda.Event | None) -> None:
        """On the work's thread: it waits for the item on the device, whose memory is not used again before."""
        if ready is None:
            return
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(ready)
        for tensor in tree_leaves(item):
            if isinstance(tensor, Tensor):
                tensor.record_stream(stream)
