"""Every plan covers the queue exactly once, and the paper's is the paper's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fifo_diffusion.errors import BadInput
from fifo_diffusion.windows import Keep, Plan


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    f, n = draw(st.integers(1, 20)), draw(st.integers(1, 6))
    lo = draw(st.integers(0, f - 1))
    pair = (lo, draw(st.integers(lo + 1, f)))
    keep: Keep = draw(st.sampled_from(["all", "last", "middle", pair]))
    return Plan(f, n, keep, draw(st.sampled_from([k for k in range(1, f * n + 1) if f * n % k == 0])))


@settings(max_examples=300)
@given(plans())
def test_every_noisy_place_is_written_once_by_a_window_that_reads_it(p: Plan) -> None:
    written = [i for w in p.windows for i in range(w.write.start, w.write.stop)]
    assert written == list(range(p.context, p.length))
    lo, hi = p.kept
    for w in p.windows:
        assert (w.read.stop - w.read.start, w.read.start >= 0, w.read.stop <= p.length) == (
            p.window,
            True,
            True,
        )
        assert w.read.start <= w.write.start < w.write.stop <= w.read.stop
        assert (w.kept.start, w.kept.stop) == (w.write.start - w.read.start, w.write.stop - w.read.start)
        assert w.kept.start >= lo
        assert w.kept.stop <= hi or w.read.stop == p.length  # only the last windows keep their tail
    most = {"all": p.partitions, "last": 2 * p.partitions, "middle": 2 * p.partitions}
    noisy = p.window * p.partitions
    assert len(p.windows) <= (most[p.keep] if isinstance(p.keep, str) else -(-noisy // (hi - lo)))


@settings(max_examples=100)
@given(plans())
def test_levels_go_up_one_at_a_time_frames_per_level_together(p: Plan) -> None:
    level = p.level.tolist()
    assert level[: p.context] == [0] * p.context
    assert level[p.context :] == [1 + i // p.frames_per_level for i in range(p.window * p.partitions)]
    assert level[-1] == p.levels
    assert len(level) == p.length


@pytest.mark.parametrize("keep", ["all", "last", "middle"])
@pytest.mark.parametrize(("window", "partitions"), [(17, 8), (56, 4)])
def test_a_frame_takes_every_step_on_its_way_to_the_front(window: int, partitions: int, keep: Keep) -> None:
    """Open-Sora Plan's windows, an odd and an even one: followed place by place, a frame is denoised at every level
    from K to 1.  (In the authors' script, of the even one, it skips one level in 56.)
    """
    p = Plan(window, partitions, keep)
    written = {place for w in p.windows for place in range(w.write.start, w.write.stop)}
    taken = [int(p.level[place]) for place in range(p.length - 1, -1, -1) if place in written]
    assert taken == list(range(window * partitions, 0, -1))


def spans(p: Plan) -> list[tuple[int, int, int, int]]:
    return [(w.read.start, w.read.stop, w.write.start, w.write.stop) for w in p.windows]


def test_the_papers_lookahead() -> None:
    """Read f, keep the later half: windows r = 0 .. 2n - 1 at r f / 2 (the authors' code, even f)."""
    p = Plan(4, 2)
    assert p.context == 2
    assert spans(p) == [(0, 4, 2, 4), (2, 6, 4, 6), (4, 8, 6, 8), (6, 10, 8, 10)]
    assert spans(Plan(4, 2, (2, 4))) == spans(p)


def test_an_odd_window_keeps_halves_in_turn() -> None:
    """As the authors' Open-Sora variant does: read from 0, 2, 5, 7 and keep 3, 2, 3, 2 (f = 5, n = 2)."""
    assert spans(Plan(5, 2)) == [(0, 5, 2, 5), (2, 7, 5, 7), (5, 10, 7, 10), (7, 12, 10, 12)]


def test_without_lookahead_windows_lie_side_by_side() -> None:
    assert spans(Plan(4, 2, "all")) == [(0, 4, 0, 4), (4, 8, 4, 8)]


def test_the_middle_half_sees_both_sides() -> None:
    p = Plan(8, 2, "middle")
    assert p.context == 2
    assert spans(p) == [(0, 8, 2, 6), (4, 12, 6, 10), (8, 16, 10, 14), (10, 18, 14, 18)]


@pytest.mark.parametrize("keep", ["last", "middle"])
def test_a_window_of_one_frame_has_nothing_to_look_at(keep: Keep) -> None:
    assert spans(Plan(1, 3, keep)) == spans(Plan(1, 3, "all"))


@pytest.mark.parametrize("f", [4, 6, 8, 16])
def test_the_middle_costs_what_the_last_half_costs(f: int) -> None:
    assert [len(Plan(f, 4, keep).windows) for keep in ("all", "last", "middle")] == [4, 8, 8]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ((0, 1), "window is 0"),
        ((4, 0), "partitions is 0"),
        ((4, 1, "last", 0), "frames_per_level is 0"),
        ((4, 2, "last", 3), "must divide 8"),
        ((4, 2, "first"), "must be"),
        ((4, 2, (2, 2)), "can be kept"),
        ((4, 2, (-1, 2)), "can be kept"),
        ((4, 2, (0, 5)), "can be kept"),
    ],
)
def test_what_is_no_plan_is_refused(plan: tuple[int, int, Keep, int], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Plan(*plan)
