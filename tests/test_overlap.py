"""Work beside the network: the same things in the same order, whatever goes wrong on either side."""

import signal
import threading
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from weakref import ref

import pytest
import torch

from fifo_diffusion import overlap
from fifo_diffusion.errors import RankLost
from fifo_diffusion.overlap import beside


def doubled(items: Iterator[int]) -> Iterator[int]:
    """Two things of each item, and one of their end."""
    last = -1
    for last in items:
        yield last
        yield 10 * last
    yield -last


def held(items: Iterator[int]) -> Iterator[list[int]]:
    """Pairs: nothing comes of every other item."""
    before = None
    for item in items:
        if before is None:
            before = item
        else:
            yield [before, item]
            before = None
    if before is not None:
        yield [before]


@pytest.mark.parametrize("work", [doubled, held])
@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_the_same_in_the_same_order(work, ahead: int, number: int) -> None:  # type: ignore[no-untyped-def]
    for last in (None, 1, 3):
        got = list(beside(work, iter(range(number)), ahead=ahead, last=last))
        assert got == list(work(iter(range(number))))


@pytest.mark.parametrize(
    ("ahead", "last", "made"), [(0, None, [1, 2, 3, 4]), (1, None, [2, 3, 4, 5]), (1, 3, [2, 3, 3, 4])]
)
def test_how_far_it_runs_ahead_is_a_matter_of_numbers(ahead: int, last: int | None, made: list[int]) -> None:
    began = 0

    def items() -> Iterator[int]:
        nonlocal began
        while True:
            began += 1
            yield began

    stream = beside(iter, items(), ahead=ahead, last=last)
    assert [(one, began) for one in islice(stream, 4)] == list(zip([1, 2, 3, 4], made, strict=True))
    stream.close()
    assert began == made[-1]


def test_the_work_has_a_thread_of_its_own_and_the_items_that_of_the_taker() -> None:
    def where(items: Iterator[object]) -> Iterator[tuple[object, threading.Thread]]:
        for item in items:
            yield item, threading.current_thread()

    (made, worked), *_ = beside(where, (threading.current_thread() for _ in range(3)))
    assert made is threading.current_thread()
    assert worked is not made
    assert worked.daemon  # so that one that nobody closes does not keep the program
    assert worked not in threading.enumerate()  # and it has ended
    grads = beside(lambda items: (torch.is_grad_enabled() for _ in items), [0])
    assert not any(grads)  # which a thread has on until it says otherwise


def test_an_item_is_not_held_when_it_has_been_worked_on() -> None:
    """A frame's latents, or its picture: memory that the next one needs."""
    made: list[ref[set[int]]] = []
    held: list[int] = []

    def items() -> Iterator[set[int]]:
        for _ in range(3):
            held.append(sum(one() is not None for one in made))
            item = set[int]()
            made.append(ref(item))
            yield item
            del item

    assert len(list(beside(partial(map, id), items(), ahead=0))) == 3
    assert held == [0, 0, 0]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_an_error_of_the_work_comes_after_what_came_before_it(error: type[BaseException]) -> None:
    def breaks(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            if item == 3:
                raise error("three")
            yield item

    got: list[int] = []
    with pytest.raises(error, match="three"):
        got.extend(beside(breaks, count(), ahead=2))
    assert got == [0, 1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_where_the_items_break_off_what_there_is_is_given_and_their_end_is_not_worked_on(
    error: type[BaseException],
) -> None:
    """Ctrl-C lands where the items are made.  Of a held-back half chunk the work must not make a whole."""

    def items() -> Iterator[int]:
        yield from range(5)
        raise error

    got: list[list[int]] = []
    with pytest.raises(error):
        got.extend(beside(held, items(), ahead=3))
    assert got == [[0, 1], [2, 3]]


def test_after_a_lost_rank_nothing_is_waited_for_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sent last may never come, and the device waits for it: the file is to be finished all the same."""
    monkeypatch.setattr(overlap, "PATIENCE", 0.2)
    never = threading.Event()

    def waits(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            if item == 2:
                never.wait()
            yield item

    def items() -> Iterator[int]:
        yield from range(4)
        raise RankLost("rank 1 is lost")

    got: list[int] = []
    with pytest.raises(RankLost, match="rank 1"):
        got.extend(beside(waits, items(), ahead=9))
    assert got == [0, 1]
    never.set()


def test_what_was_given_is_worked_on_when_it_is_closed() -> None:
    """So a frame that was handed over is written, and the file agrees with what is said of it."""
    seen = []

    def writes(items: Iterator[int]) -> Iterator[None]:
        for item in items:
            seen.append(item)
            yield

    stream = beside(writes, count(), ahead=4)
    next(stream)
    stream.close()
    assert seen == [0, 1, 2, 3, 4]


def test_an_interrupt_while_it_is_closed_comes_when_what_was_given_is_done() -> None:
    seen, closing, main = [], threading.Event(), threading.main_thread().ident
    assert main is not None

    def writes(items: Iterator[int]) -> Iterator[None]:
        for item in items:
            if item == 1:
                closing.wait()
                for _ in range(10**6):  # until it waits, where signals are put off
                    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                        break
                signal.pthread_kill(main, signal.SIGINT)
                sum(range(10**6))  # time to hear it in
            seen.append(item)
            yield

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    try:
        stream = beside(writes, count(), ahead=4)
        next(stream)
        closing.set()
        with pytest.raises(KeyboardInterrupt):
            stream.close()
        assert seen == [0, 1, 2, 3, 4]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_work_that_wants_no_more_ends_it() -> None:
    assert list(beside(lambda items: islice(items, 2), count())) == [0, 1]
