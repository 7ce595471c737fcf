"""The loop: state in, frames and state out."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import SETTINGS, SMALLEST, ids
from fifo_diffusion.engine import Engine, State, check_finite
from fifo_diffusion.errors import BadInput, NotFinite
from fifo_diffusion.execute import Serial
from fifo_diffusion.models.gauss import GaussianVideo
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import Cond
from fifo_diffusion.schedule import rectified_flow
from fifo_diffusion.windows import Keep, Plan

Make = Callable[..., Engine]
Clip = Callable[..., Tensor]


def start(e: Engine, clip: Clip, cold: bool, streams: int = 1) -> State:
    x = clip(e.plan.window, streams)
    return e.cold_start(x[:, :, 0]) if cold else e.warm_start(x)


def take(e: Engine, state: State, n: int) -> tuple[Tensor, State]:
    """n frames (or k n) and the state after them."""
    out = list(itertools.islice(e.stream(state), n))
    return torch.cat([frames for frames, _ in out], dim=2), out[-1][1]


# --- one stream, whatever happens to it ---


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 14), setting=st.sampled_from(SETTINGS), cold=st.booleans())
def test_a_stream_saved_anywhere_goes_on_bit_for_bit(
    engine: Make, clip: Clip, tmp_path: Path, cut: int, setting: dict[str, Any], cold: bool
) -> None:
    """Cut after any iteration: in the ramp, in the run-in, or in the stream."""
    e = engine(**setting)
    states, frames = [start(e, clip, cold)], []
    for _ in range(cut + 4):
        out, after = e.advance(states[-1])
        frames.append(out)
        states.append(after)
    save_file(states[cut].tensors(), tmp_path / "state.safetensors")

    again = engine(**setting)  # nothing but the file is carried over
    state = State.from_tensors(load_file(tmp_path / "state.safetensors"))
    assert (state.iteration, state.ramp) == (states[cut].iteration, states[cut].ramp)
    for want, after in zip(frames[cut:], states[cut + 1 :], strict=True):
        got, state = again.advance(state)
        assert torch.equal(got, want)
        assert torch.equal(state.queue, after.queue)


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize("setting", SETTINGS, ids=ids)
def test_streams_in_a_batch_do_not_touch_each_other(
    engine: Make, clip: Clip, setting: dict[str, Any], cold: bool
) -> None:
    e = engine(**setting, seeds=(3, 4))
    state = start(e, clip, cold, streams=2)
    _, state = e.advance(state)  # at eta 1 the first step from pure noise forgets what it started from
    want, _ = take(e, state, 4)
    disturbed = dataclasses.replace(state, queue=state.queue.clone())
    disturbed.queue[0] += 1
    got, _ = take(e, disturbed, 4)
    assert torch.equal(got[1], want[1])
    assert not torch.equal(got[0], want[0])

    alone = engine(**setting, seeds=4)
    past = None if state.past is None else state.past[1:]
    second = dataclasses.replace(state, queue=state.queue[1:], past=past)
    torch.testing.assert_close(take(alone, second, 4)[0], want[1:], rtol=0, atol=1e-12)


def test_calls_and_settle_are_usable_apart(engine: Make, clip: Clip) -> None:
    """A server answers two streams' calls, at different iterations, in one go."""
    e = engine(eta=1.0)
    one = start(e, clip, cold=False)
    _, other = take(e, start(e, clip, cold=True), 3)
    want = [e.advance(one), e.advance(other)]
    asked = [e.calls(one), e.calls(other)]
    answers = e.execute([*asked[0], *asked[1]])
    got = [e.settle(one, answers[: len(asked[0])]), e.settle(other, answers[len(asked[0]) :])]
    for (frames, state), (frames_apart, state_apart) in zip(want, got, strict=True):
        assert torch.equal(frames, frames_apart)
        assert torch.equal(state.queue, state_apart.queue)


def test_all_that_a_state_may_hold_is_saved(tmp_path: Path) -> None:
    parts = {name: torch.randn(1, 2, 3, 2, 2) for name in ("queue", "past", "given", "seen")}
    state = State(iteration=-3, ramp=2, **parts)
    save_file(state.tensors(), tmp_path / "state.safetensors")
    again = State.from_tensors(load_file(tmp_path / "state.safetensors"))
    assert {f.name for f in dataclasses.fields(State)} == {"iteration", "ramp", *parts}
    assert (again.iteration, again.ramp) == (-3, 2)
    assert all(torch.equal(getattr(again, name), value) for name, value in parts.items())


def test_an_endless_stream_keeps_no_graph_of_what_it_did(engine: Make, clip: Clip) -> None:
    """Of a network whose weights could be trained: it would hold on to every iteration."""
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    e = dataclasses.replace(engine(), execute=Serial(lambda z, t, cond: weight * z))
    frames, state = next(e.stream(start(e, clip, cold=False)))
    assert not frames.requires_grad
    assert not state.queue.requires_grad


def test_a_state_is_not_changed_by_advancing_it(engine: Make, clip: Clip) -> None:
    e = engine(solver="2m")
    _, state = take(e, start(e, clip, cold=False), 2)
    kept = {name: x.clone() for name, x in state.tensors().items()}
    first, _ = e.advance(state)
    assert all(torch.equal(x, kept[name]) for name, x in state.tensors().items())
    assert torch.equal(e.advance(state)[0], first)  # so a stream can be forked


# --- where frames and noise are ---


@pytest.mark.parametrize(("window", "partitions", "k"), [(4, 3, 1), (4, 3, 2), (5, 2, 2), (3, 1, 1)])
def test_a_warm_start_is_the_clip_noised_along_the_diagonal(clip: Clip, window: int, partitions: int, k: int) -> None:
    plan = Plan(window, partitions, "last", k)
    table, noise = rectified_flow(plan.levels), SeededNoise(7)
    e = Engine(plan=plan, schedule=table, execute=Serial(GaussianVideo(table)), condition=lambda f: {}, noise=noise)
    x = clip(window)
    state = e.warm_start(x)
    assert state.iteration == -math.ceil((window * partitions - window) / k)
    first = state.iteration * k - plan.context
    for p, level in enumerate(plan.level.tolist()):
        source = max(0, p - (plan.length - window))  # the clip's frames at the back, its first before them
        eps = noise(first + p, level, x[:, :, 0])
        want = table.alpha[level] * x[:, :, source] + table.sigma[level] * eps
        torch.testing.assert_close(state.queue[:, :, p], want, rtol=0, atol=1e-12)
    frames, after = next(e.stream(state))
    assert (frames.shape, after.iteration) == ((1, 2, k, 3, 3), 1)  # the run-in is left out


@pytest.mark.parametrize("begin", ["warm", "cold", "continued"])
@pytest.mark.parametrize("setting", [*SETTINGS, SMALLEST], ids=ids)
def test_a_name_of_noise_is_used_once(engine: Make, clip: Clip, setting: dict[str, Any], begin: str) -> None:
    drawn: list[tuple[int, int]] = []

    def noise(frame: int, level: int, like: Tensor) -> Tensor:
        drawn.append((frame, level))
        return SeededNoise(0)(frame, level, like)

    e = dataclasses.replace(engine(**setting), noise=noise)
    continued = begin == "continued"
    take(e, e.continue_from(clip(e.plan.window)) if continued else start(e, clip, begin == "cold"), 12)
    assert len(drawn) == len(set(drawn))


def test_fresh_noise_is_named_for_its_frame_and_the_level_it_makes(engine: Make, clip: Clip) -> None:
    """Seen from outside: change one name's noise, and the queue changes where that frame is, when it gets
    there.
    """

    def noise(frame: int, level: int, like: Tensor) -> Tensor:
        out = SeededNoise(0)(frame, level, like)
        return out + 1 if (frame, level) == (4, 3) else out

    plain = engine("all", 4, 2, eta=1.0)
    changed = dataclasses.replace(plain, noise=noise)
    a = b = start(plain, clip, cold=True)
    seen = []
    for _ in range(20):
        (_, a), (_, b) = plain.advance(a), changed.advance(b)
        if not torch.equal(a.queue, b.queue):
            differ = (a.queue != b.queue).any(dim=-1).any(dim=-1).any(dim=1)[0].nonzero().flatten()
            seen.append((a.iteration, a.ramp, differ.tolist()))
    # In the ramp: frame 4 is at place 4 and its own level is 5, so it stops there; it comes to level 3,
    # two places on, in iteration 2, and only it is changed then.
    assert seen[0] == (2, 0, [2])


def test_every_window_hears_its_own_frame_numbers(engine: Make, clip: Clip) -> None:
    """A network that answers with nothing but what it hears, frame by frame, paints each frame with its
    own number.
    """
    plan = Plan(4, 2, "middle", 2)
    table = rectified_flow(plan.levels)

    def paint(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        x0 = cond["number"].view(1, 1, -1, 1, 1).expand_as(z)
        sigma = (t / 1000).view(1, 1, -1, 1, 1)
        return torch.where(sigma > 0, (z - x0) / sigma.clamp(min=1e-9), 0)  # the flow that leads to x0

    def number(frames: range) -> Cond:
        return {"number": torch.tensor(list(frames), dtype=torch.float64)}

    e = Engine(plan=plan, schedule=table, execute=Serial(paint), condition=number, noise=SeededNoise(0))
    for state in (e.warm_start(clip(4)), e.cold_start(clip(1)[:, :, 0])):
        frames, _ = take(e, state, 6)
        want = torch.arange(12, dtype=torch.float64).view(1, 1, -1, 1, 1).expand_as(frames)
        torch.testing.assert_close(frames, want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize("k", [1, 2])
def test_2m_remembers_of_each_frame_what_was_last_expected_of_it(engine: Make, clip: Clip, k: int, cold: bool) -> None:
    e = engine("last", 4, 2, k, solver="2m")
    state, last = start(e, clip, cold), dict[int, Tensor]()
    for _ in range(e.plan.levels + 4):
        answers = e.execute(e.calls(state))
        expected, first = e.expected(state, answers), e.entered(state) - e.plan.length
        for p, level in enumerate(e.plan.level.tolist()):
            if level < state.ramp if state.ramp else level:  # those that move
                last[first + p] = expected[:, :, p]
        _, state = e.settle(state, answers)
        first = e.entered(state) - e.plan.length
        assert state.past is not None
        for p in range(e.plan.length):
            if first + p in last:
                assert torch.equal(state.past[:, :, p], last[first + p])


# --- the start without a clip ---


@pytest.mark.parametrize("setting", SETTINGS, ids=ids)
def test_the_ramp_takes_every_place_to_its_level(engine: Make, clip: Clip, setting: dict[str, Any]) -> None:
    e = engine(**setting)
    plan = e.plan
    state = start(e, clip, cold=True)
    told, hidden = torch.full((plan.length,), plan.levels), e.hidden(state)
    iterations = 0
    while state.ramp:
        heard = torch.full((plan.length,), -1.0, dtype=torch.float64)
        for call, w in zip(e.calls(state), plan.windows, strict=False):
            heard[w.read] = call.t[0]
        read = heard >= 0
        assert torch.equal(heard[read], e.schedule.time[told][read])
        frames, state = e.advance(state)
        told = torch.maximum(plan.level, told - 1)
        iterations += 1
        assert frames.shape[2] == 0
        assert state.iteration == 0
    assert torch.equal(told, plan.level)
    assert iterations == hidden == plan.levels - (plan.context == 0)
    frames, state = e.advance(state)
    assert (frames.shape[2], state.iteration) == (plan.frames_per_level, 1)


def test_the_ramp_is_plain_sampling_that_stops_on_the_way(clip: Clip) -> None:
    """One window over everything, frame by frame with the flow's own equation, no engine."""
    plan = Plan(6, 1, "all")
    table = rectified_flow(plan.levels, shift=3.0)  # each step is another one
    net = GaussianVideo(table)
    e = Engine(plan=plan, schedule=table, execute=Serial(net), condition=lambda f: {}, noise=SeededNoise(1))
    like = clip(1)[:, :, 0]
    state = e.cold_start(like)
    z = torch.stack([SeededNoise(1)(i, plan.levels, like) for i in range(6)], dim=2)
    for ramp in (6, 5, 4, 3, 2):
        level = torch.tensor([max(ramp, p + 1) for p in range(6)])
        flow = net(z, table.time[level][None], {})
        for p in range(ramp - 1):  # those still above their own level
            z[:, :, p] += (table.sigma[ramp - 1] - table.sigma[ramp]) * flow[:, :, p]
        _, state = e.advance(state)
    assert state.ramp == 0
    torch.testing.assert_close(state.queue, z, rtol=0, atol=1e-12)


def test_a_ramp_asks_only_what_it_uses(engine: Make, clip: Clip) -> None:
    e = engine("last", 4, 3)
    state, asked = start(e, clip, cold=True), []
    while state.ramp:
        asked.append(len(e.calls(state)))
        _, state = e.advance(state)
    assert asked == [6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 1]  # ramp 12 .. 1 moves 13 .. 2 places
    assert len(e.calls(state)) == 6


@pytest.mark.parametrize("keep", ["all", "last", "middle"])
def test_no_call_of_the_run_in_is_for_nothing(engine: Make, clip: Clip, keep: Keep) -> None:
    """Whichever window is answered otherwise in its first iteration, the first frame that is seen is another."""
    e = engine(keep, 4, 3, kind="flow")

    def first_seen(changed: int | None) -> torch.Tensor:
        answers = [a + (i == changed) for i, a in enumerate(e.execute(e.calls(state)))]
        _, after = e.settle(state, answers)
        return next(e.stream(after))[0]

    state = start(e, clip, cold=False)
    right = first_seen(None)
    assert not any(torch.equal(first_seen(i), right) for i in range(len(e.plan.windows)))


# --- what can go wrong ---


def test_a_network_that_breaks_loses_no_frame_made_before(engine: Make, clip: Clip) -> None:
    e = engine("last", 4, 2, kind="flow")
    good, _ = take(e, start(e, clip, cold=False), 6)
    inner, count = e.execute, itertools.count()

    def breaks(calls: Any) -> Any:
        answers = inner(calls)
        if next(count) == 7:  # iteration 3: iterations -4 .. -1 are the run-in
            answers[0][0, 0, 2, 0, 0] = math.nan  # one number of the place that is about to leave
        return answers

    broken = dataclasses.replace(e, execute=breaks).stream(start(e, clip, cold=False))
    got = [frames for frames, _ in itertools.islice(broken, 3)]
    assert torch.equal(torch.cat(got, dim=2), good[:, :, :3])
    with pytest.raises(NotFinite, match=r"in frame 3;"):
        next(broken)
    for number, where in ((0, r"in frame 0, 1;"), (-2, "in the run-in")):
        with pytest.raises(NotFinite, match=where):
            check_finite(torch.full((1, 1, 2, 1, 1), math.nan), number)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": rectified_flow(9)}, "must agree"),
        ({"eta": 1.5}, r"lie in \[0, 1\]"),
        ({"eta": math.nan}, r"lie in \[0, 1\]"),
        ({"solver": "euler"}, 'must be "ddim" or "2m"'),
        ({"solver": "2m", "eta": 0.5}, "draws no noise"),
    ],
)
def test_what_does_not_fit_together_is_refused(engine: Make, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        dataclasses.replace(engine(), **change)


def test_what_is_no_clip_state_or_answer_is_refused(engine: Make, clip: Clip) -> None:
    e = engine("last", 4, 2)
    with pytest.raises(BadInput, match=r"\(1, 2, 5, 3, 3\); wanted .* 4 frames"):
        e.warm_start(clip(5))
    with pytest.raises(BadInput, match="wanted"):
        e.cold_start(clip(4))
    with pytest.raises(BadInput, match="this plan's is"):
        e.calls(engine("last", 4, 3).warm_start(clip(4)))
    with pytest.raises(BadInput, match="queue and position"):
        State.from_tensors({"queue": torch.zeros(1)})
    state = e.warm_start(clip(4))
    short = [c.z[:, :, :3] for c in e.calls(state)]
    with pytest.raises(BadInput, match="shape of its window"):
        e.settle(state, short)
