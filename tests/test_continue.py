"""A queue that goes on from a clip: the clip stays what it is, and the new frames know it."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import SETTINGS, SMALLEST, ids
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Serial
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import Call

Make = Callable[..., Engine]
Clip = Callable[..., Tensor]

each_setting = pytest.mark.parametrize("setting", [*SETTINGS, SMALLEST], ids=ids)


def run_in(e: Engine, state: State) -> tuple[list[Tensor], State]:
    """What comes off before the first new frame, and the state then."""
    out = []
    while state.iteration < 0:
        frames, state = e.advance(state)
        out.append(frames)
    return out, state


def new(e: Engine, state: State, count: int) -> Tensor:
    return torch.cat([frames for frames, _ in itertools.islice(e.stream(state), count)], dim=2)


@each_setting
def test_the_clip_comes_off_unchanged_and_then_the_first_new_frame(
    engine: Make, clip: Clip, setting: dict[str, Any]
) -> None:
    e = engine(**setting)
    plan, x = e.plan, clip(e.plan.window)
    state = e.continue_from(x)
    assert e.hidden(state) == plan.levels - 1
    came, state = run_in(e, state)
    if came:
        shown = torch.cat(came, dim=2)[:, :, -plan.window :]
        torch.testing.assert_close(shown, x[:, :, -shown.shape[2] :], rtol=0, atol=1e-9)
    if plan.context:  # what the new frames look back on
        torch.testing.assert_close(state.queue[:, :, : plan.context], x[:, :, -plan.context :], rtol=0, atol=1e-9)
    assert state.given is not None  # a decoder that begins here must see it
    frames, after = next(e.stream(e.continue_from(x)))
    assert after.given is None
    assert (frames.shape[2], after.iteration) == (plan.frames_per_level, 1)


@pytest.mark.parametrize("setting", [{"eta": 1.0}, {"eta": 0.0}, {"solver": "2m"}], ids=str)
def test_what_is_known_is_not_kept_within_the_limit_of_guesses(
    engine: Make, clip: Clip, setting: dict[str, Any]
) -> None:
    """Open-Sora Plan's own table keeps x0 within 1; a clip that goes on was once dimmed by it."""
    e = engine(kind="vp", **setting)
    e, x = dataclasses.replace(e, schedule=dataclasses.replace(e.schedule, limit=0.5)), 3 * clip(e.plan.window)
    came, state = run_in(e, e.continue_from(x))
    torch.testing.assert_close(torch.cat(came, dim=2)[:, :, -e.plan.window :], x, rtol=0, atol=1e-9)
    frames, _ = next(e.stream(state))
    assert frames.abs().max() <= 0.5 + 1e-9


@pytest.mark.parametrize("kind", ["flow", "vp"])
def test_in_half_precision_too_it_comes_off_to_the_bit(engine: Make, clip: Clip, kind: str) -> None:
    """What is said of its frames was once rounded as the network's answers are."""
    e, x = dataclasses.replace(engine(kind=kind), execute=Serial(lambda z, t, cond: z)), clip(4).bfloat16()
    came, _ = run_in(e, e.continue_from(x))
    assert torch.equal(torch.cat(came, dim=2)[:, :, -4:], x)


@pytest.mark.parametrize("together", [1, 2])
def test_the_clip_is_at_every_level_what_noising_makes_of_it(engine: Make, clip: Clip, together: int) -> None:
    """With eta 0 a frame keeps the noise that it was given at first, so where it must stand is known at every level.
    The first new frames are nothing but noise, though at the last level of this table a little of a frame is left.
    """
    e, x = engine(partitions=3, frames_per_level=together, kind="vp"), clip(4)
    state = e.continue_from(x)
    for frame in range(together):
        assert torch.equal(state.queue[:, :, frame - together], SeededNoise(0)(frame, e.plan.levels, x[:, :, 0]))
    noise = {place - e.plan.length + together: int(k) for place, k in enumerate(e.plan.level)}  # a frame's first level
    for _ in range(e.plan.levels - 2):
        _, state = e.advance(state)
        first = state.iteration * together - e.plan.context
        for frame in range(-4, 0):
            place = frame - first
            if not 0 <= place < e.plan.length:
                continue
            k = int(e.plan.level[place])
            eps = SeededNoise(0)(frame, noise[frame], x[:, :, 0])
            wanted = e.schedule.alpha[k] * x[:, :, frame] + e.schedule.sigma[k] * eps
            torch.testing.assert_close(state.queue[:, :, place], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_first_new_frame_holds_on_to_the_clip(engine: Make, clip: Clip, eta: float) -> None:
    """True neighbours correlate by 0.9.  The method loses some of it; a clip that is noised to the tail and made anew,
    as `warm_start` does, loses nearly all.
    """
    e, x = engine(window=8, partitions=2, eta=eta), clip(8, side=24)
    last = x[:, :, -1]

    def held(frame: Tensor) -> float:
        return float((frame * last).mean() / last.square().mean())

    assert held(new(e, e.continue_from(x), 1)[:, :, 0]) > 0.6
    assert held(new(e, e.warm_start(x), 9)[:, :, 8]) < 0.35


@each_setting
def test_what_came_before_the_window_is_of_no_account(engine: Make, clip: Clip, setting: dict[str, Any]) -> None:
    e = engine(**setting)
    x = clip(e.plan.window)
    state = e.continue_from(x)
    older = e.plan.length - e.plan.window - e.plan.frames_per_level + 1
    queue = state.queue.clone()
    queue[:, :, : max(0, older)] += 100
    assert torch.equal(new(e, state, 3), new(e, dataclasses.replace(state, queue=queue), 3))


def test_windows_without_new_frames_are_not_asked(engine: Make, clip: Clip) -> None:
    e = engine(partitions=4)
    state, asked = e.continue_from(clip(4)), []
    while state.iteration <= 0:
        calls = e.calls(state)
        asked.append(len(calls))
        _, state = e.settle(state, e.execute(calls))
    assert asked[0] == 1
    assert asked == sorted(asked)
    assert asked[-1] == len(e.plan.windows)
    assert sum(asked) < 0.6 * len(asked) * len(e.plan.windows)


@each_setting
@pytest.mark.parametrize("cut", [0, 1, 4, 9])
def test_a_continued_stream_saved_anywhere_goes_on_bit_for_bit(
    engine: Make, clip: Clip, tmp_path: Path, setting: dict[str, Any], cut: int
) -> None:
    e = engine(**setting)
    state = e.continue_from(clip(e.plan.window))
    for _ in range(cut):
        _, state = e.advance(state)
    save_file(state.tensors(), tmp_path / "state.safetensors")
    again = State.from_tensors(load_file(tmp_path / "state.safetensors"))
    assert (state.given is None) is (again.given is None) is (state.iteration > 0)
    assert torch.equal(new(e, state, 6), new(e, again, 6))


@pytest.mark.parametrize("start", ["warm", "cold", "continued"])
def test_what_is_expected_of_the_queue(engine: Make, clip: Clip, start: str) -> None:
    """Looking changes nothing; of the clip's frames the truth is expected, of new ones what a step leads to."""
    e, x = engine(partitions=2), clip(4)
    state = {"warm": e.warm_start, "cold": lambda x: e.cold_start(x[:, :, 0]), "continued": e.continue_from}[start](x)
    seen: list[Tensor] = []

    def look(state: State, answers: Sequence[Tensor]) -> None:
        seen.append(e.expected(state, answers))

    looked = [frames for frames, _ in itertools.islice(e.iterations(state, look), 12)]
    plain = [frames for frames, _ in itertools.islice(e.iterations(state), 12)]
    assert all(torch.equal(a, b) for a, b in zip(looked, plain, strict=True))
    assert {one.shape for one in seen} == {state.queue.shape}
    if start == "continued":
        torch.testing.assert_close(seen[0][:, :, -5:-1], x, rtol=0, atol=1e-9)
    # Level 1 goes to level 0 as the network expects it to: the frame that came off is the one expected there.
    torch.testing.assert_close(seen[11][:, :, e.plan.context], looked[11][:, :, 0], rtol=0, atol=1e-9)


def test_another_length_is_refused_and_answers_of_another_shape_too(engine: Make, clip: Clip) -> None:
    e = engine()
    with pytest.raises(BadInput, match="4 frames"):
        e.continue_from(clip(5))
    state = e.continue_from(clip(4))
    calls: list[Call] = e.calls(state)
    with pytest.raises(BadInput, match="to the 1 frames"):
        e.settle(state, [call.z[..., :2] for call in calls])
