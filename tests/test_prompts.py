"""Which frame hears what: by its number, and whenever it was said."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from sys import getswitchinterval, setswitchinterval
from threading import Thread
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import fifo_diffusion as fifo
from fifo_diffusion import api, making, prompts, sidecar
from fifo_diffusion.config import Cue, Decided, Run
from fifo_diffusion.dealing import _Leading
from fifo_diffusion.decide import resolve
from fifo_diffusion.engine import Engine, Solver, State
from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Batched
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models.gauss import GaussianVideo
from fifo_diffusion.names import Frame
from fifo_diffusion.prompts import KEPT, Table, mix
from fifo_diffusion.protocols import Cond
from fifo_diffusion.session import Session
from fifo_diffusion.together import Together
from fifo_diffusion.windows import Keep
from prompt_change import WholeQueue


def embed(prompts: Sequence[str]) -> Cond:
    return {"mean": torch.tensor([float(p or 0) for p in prompts], dtype=torch.float64)}


def table(*cues: Cue, per_frame: bool = True, guidance: float = 1.0, frames_per_latent: int = 1) -> Table:
    return Table(cues, embed, embed, per_frame=per_frame, guidance=guidance, frames_per_latent=frames_per_latent)


def cue(at: int, prompt: float, blend: int = 0, **more: float) -> Cue:
    return Cue.of({"at": at, "prompt": f"{prompt:g}", "blend": blend, **more})


def mean(cues: Sequence[Cue], frame: int) -> float:
    """What a frame hears, the plain way: from the first cue on, each takes its share of what was before."""
    value = float(cues[0].prompt)
    for c in cues[1:]:
        if frame >= c.at:
            value += min(1.0, (frame - c.at + 1) / (c.blend + 1)) * (float(c.prompt) - value)
    return value


# --- looking up ---


def test_a_window_whose_frames_hear_the_same_has_no_frame_axis() -> None:
    t = table(cue(0, 1), cue(10, 2), cue(20, 2))
    assert t(range(-5, 10))["mean"].tolist() == [1]
    assert t(range(12, 30))["mean"].tolist() == [2]  # two cues, one text
    assert t(range(8, 12))["mean"].tolist() == [[1, 1, 2, 2]]
    assert set(t(range(8, 12))) == {"mean", "negative_mean"}
    assert t(range(8, 12))["negative_mean"].shape == (1, 4)


def test_a_blend_goes_in_even_steps_and_takes_over_another_midway() -> None:
    t = table(cue(0, 0), cue(10, 4, blend=3), cue(12, 8, blend=1))
    torch.testing.assert_close(
        t(range(8, 15))["mean"], torch.tensor([[0, 0, 1, 2, (3 + 8) / 2, 8, 8]], dtype=torch.float64)
    )
    first = table(cue(0, 2, blend=99), cue(10, 4, blend=1))  # before the first there is none to blend with
    assert first(range(9, 12))["mean"].tolist() == [[2, 3, 4]]


def test_a_network_with_one_text_a_window_hears_that_of_most_frames() -> None:
    t = table(cue(0, 1), cue(10, 2), per_frame=False)
    assert [t(range(n, n + 5))["mean"].tolist() for n in (6, 7, 8, 9)] == [[1], [1], [2], [2]]


def test_guidance_is_given_where_it_is_not_the_runs() -> None:
    t = table(cue(0, 1), cue(10, 1, guidance=7, blend=1), cue(20, 1), guidance=3)
    assert "guidance" not in t(range(10))
    assert t(range(9, 13))["guidance"].tolist() == [[3, 5, 7, 7]]
    assert t(range(12, 16))["guidance"].tolist() == [[7]]
    assert "guidance" not in t(range(20, 30))
    shares = table(cue(0, 1), cue(10, 1, blend=3), cue(12, 1, blend=8), guidance=3)  # at 12 .9999999999999999 in all
    assert "guidance" not in shares(range(12, 13))


def test_frames_of_the_video_where_a_latent_is_several_of_them() -> None:
    """Latents of a causal decoder, 4 frames each after the first: 0 | 1-4 | 5-8 | 9-12."""
    t = table(cue(0, 1), cue(6, 2), frames_per_latent=4)
    assert t(range(4))["mean"].tolist() == [[1, 1, 2, 2]]
    assert t.say("3") == 13
    assert t(range(3, 5))["mean"].tolist() == [[2, 3]]


def test_frames_of_the_video_where_a_latent_is_several_of_them_and_a_clip_was_before() -> None:
    """Latents that follow others, 4 frames each: 0-3 | 4-7 | 8-11."""
    t = replace(table(cue(0, 1), cue(4, 2), cue(11, 3), frames_per_latent=4), first=4)
    assert t.first_free == 0
    assert t(range(-1, 3))["mean"].tolist() == [[1, 1, 2, 3]]
    assert t.say("4") == 12


def test_each_text_is_encoded_once_on_each_side_of_guidance() -> None:
    asked: list[str] = []

    def counted(side: str) -> Callable[[Sequence[str]], Cond]:
        def noted(prompts: Sequence[str]) -> Cond:
            asked.extend(side + prompt for prompt in prompts)
            return embed(prompts)

        return noted

    t = Table((cue(0, 1), cue(4, 2, blend=2)), counted("+"), counted("-"), per_frame=True, negative_prompt="5")
    for n in range(-4, 10):
        t(range(n, n + 4))
    t.say("3", negative_prompt="2")  # encoded at once: the stream need not wait for it
    assert sorted(asked) == ["+1", "+2", "+3", "-2", "-5"]


def test_a_stream_that_is_closed_leaves_its_model_at_once() -> None:
    """Not when the collector of cycles comes by: a model may fill the memory that the next one needs."""
    stream = fifo.stream("0", model="gauss", size=(8, 8), frames=3)
    next(stream)
    model = ref(stream._session.model)
    gc.collect()
    gc.disable()
    try:
        stream.close()
        del stream
        assert model() is None
    finally:
        gc.enable()


def test_texts_of_long_ago_are_not_kept() -> None:
    """A stream that is spoken to for days."""
    t = table(cue(0, 1))
    first = [ref(tensor) for tensor in t(range(4)).values()]
    for n in range(KEPT + 1):
        t.say(f"{n + 2}", negative_prompt=f"{n + 2}")
        t(range(n + 4, n + 5))
    assert [tensor() for tensor in first] == [None, None]


def test_of_large_texts_fewer_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie on the device, beside networks that fill it."""
    monkeypatch.setattr(prompts, "ROOM", 2 * sum(t.nbytes for t in embed(["1"]).values()))
    asked: list[str] = []

    def noted(said: Sequence[str]) -> Cond:
        asked.extend(said)
        return embed(said)

    t = Table((cue(0, 1),), noted, embed, per_frame=True)
    for text in ("2", "3", "2", "4", "2", "3"):
        t.say(text)
    assert asked == ["2", "3", "4", "3"]


def test_a_mixture_weighs_numbers_and_joins_masks() -> None:
    def one(value: float, heard: list[bool]) -> Cond:
        return {"words": torch.tensor([[value, value]]), "heard": torch.tensor([heard]), "fps": torch.tensor([8])}

    mixed = mix([(one(1.0, [True, False]), 0.25), (one(3.0, [True, True]), 0.75)])
    assert mixed["words"].tolist() == [[2.5, 2.5]]
    assert mixed["heard"].tolist() == [[True, True]]
    assert mixed["fps"].tolist() == [8]


# --- saying ---


def test_a_cue_comes_at_the_first_frame_that_nothing_has_heard() -> None:
    t = table(cue(0, 1))
    assert t.say("2") == 0  # nothing was asked yet
    t(range(-4, 12))
    t(range(-8, 4))
    assert t.say("3", blend=2) == 12
    assert t.say("4") == 12  # said again: the last one counts
    assert t.say("5", at=12) == 12
    assert t.say("4", at=12) == 12
    assert t.say("5", at=20) == 20
    assert [(c.at, c.prompt) for c in t.cues] == [(0, "2"), (12, "4"), (20, "5")]
    with pytest.raises(BadInput, match=r"frame 11 is already being made.*frame 12"):
        t.say("6", at=11)
    for wrong in ({"prompt": " "}, {"prompt": "1", "blend": -1}, {"prompt": "1", "guidance": 99.0}):
        with pytest.raises(BadInput):
            t.say(**wrong)
    assert len(t.cues) == 3
    t.begin(9)  # what has been heard stays so
    assert t.say("7", last=True) == 12
    assert [(c.at, c.prompt) for c in t.cues] == [(0, "2"), (12, "7")]


def test_what_a_frame_has_heard_is_what_the_table_says_whoever_spoke_meanwhile() -> None:
    t, heard, usual = table(cue(0, 0)), list[float](), getswitchinterval()
    speakers = [Thread(target=lambda: [t.say(f"{i % 7}") for i in range(1000)]) for _ in range(2)]
    setswitchinterval(1e-6)  # so that threads come between each other's steps
    try:
        for speaker in speakers:
            speaker.start()
        while any(speaker.is_alive() for speaker in speakers):
            n = len(heard)
            heard += t(range(n, n + 1))["mean"].tolist()
        for speaker in speakers:
            speaker.join()
    finally:
        setswitchinterval(usual)
    assert heard == [mean(t.cues, n) for n in range(len(heard))]


PLANS = st.tuples(
    st.sampled_from(["all", "last", "middle"]),
    st.sampled_from([(4, 2, 1), (6, 2, 2), (5, 1, 1)]),
    st.sampled_from([("ddim", 0.0), ("ddim", 1.0), ("2m", 0.0)]),
    st.booleans(),
)
Plans = tuple[Keep, tuple[int, int, int], tuple[Solver, float], bool]
Engines = Callable[..., Engine]
Clips = Callable[..., Tensor]
with_fixtures = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.sampled_from([-3.0, 0.0, 2.0, 5.0])


def build(make: Engines, plan: Plans, condition: Table) -> Engine:
    keep, (window, partitions, together), (solver, eta), _ = plan
    engine = make(keep, window, partitions, together, eta=eta, solver=solver, execute=lambda d: Batched(d, 3))
    return replace(engine, condition=condition)


def begin(engine: Engine, clip: Clips, plan: Plans) -> State:
    if not plan[-1]:
        return engine.cold_start(clip(1)[:, :, 0])
    means = engine.condition(range(engine.plan.window))["mean"]  # asked once, as a base clip does
    return engine.warm_start(clip(engine.plan.window) + means.view(1, 1, -1, 1, 1))


@with_fixtures
@given(PLANS, st.lists(st.tuples(st.integers(1, 30), TEXTS, st.integers(0, 6)), max_size=3, unique_by=lambda c: c[0]))
def test_every_frame_shows_its_own_prompt_and_nothing_of_another(
    engine: Engines, clip: Clips, plan: Plans, changes: list[tuple[int, float, int]]
) -> None:
    """The exact network's video is its mean plus what is there without one: what reaches the screen is known."""
    cues = [cue(0, 1), *sorted((cue(*c) for c in changes), key=lambda c: c.at)]

    def frames(condition: Table) -> Tensor:
        e = build(engine, plan, condition)
        return torch.cat([f for f, _ in islice(e.stream(begin(e, clip, plan)), 30)], dim=2)

    shown = frames(table(*cues)) - frames(table(cue(0, 0)))
    want = torch.tensor([mean(cues, n) for n in range(shown.shape[2])], dtype=torch.float64)
    torch.testing.assert_close(shown, want.view(1, 1, -1, 1, 1).expand_as(shown), rtol=0, atol=1e-9)


@with_fixtures
@given(
    PLANS,
    st.lists(
        st.tuples(
            st.integers(0, 12), TEXTS, st.integers(0, 6), st.none() | st.integers(0, 9), st.none() | st.just(2.5)
        ),
        max_size=4,
    ),
)
def test_said_live_is_scripted_from_the_start(
    engine: Engines, clip: Clips, plan: Plans, said: list[tuple[int, float, int, int | None, float | None]]
) -> None:
    live = table(cue(0, 1))
    e = build(engine, plan, live)
    e = replace(e, execute=Batched(Guided(GaussianVideo(e.schedule), 1.0), 3))
    state, frames = begin(e, clip, plan), []
    for i in range(20):
        for when, text, blend, later, guidance in said:
            if when == i:
                at = None if later is None else live.first_free + later
                live.say(f"{text:g}", at=at, blend=blend, guidance=guidance)
        out, state = e.advance(state)
        frames.append(out)
    scripted = replace(e, condition=table(*live.cues))
    state = begin(scripted, clip, plan)
    for out in frames:
        again, state = scripted.advance(state)
        assert torch.equal(out, again)


# --- a running stream ---

SMALL: dict[str, Any] = {"model": "gauss", "size": (6, 6), "partitions": 1}


@pytest.mark.filterwarnings("ignore:the video ends at")
@settings(max_examples=8)
@given(
    st.sampled_from(["clip", "noise"]),
    st.lists(st.tuples(st.integers(0, 30), TEXTS, st.integers(0, 9)), min_size=1, max_size=4),
)
def test_a_stream_that_was_spoken_to_is_the_video_of_its_description(
    start: str, said: list[tuple[int, float, int]]
) -> None:
    live = fifo.stream("1", frames=40, start=start, **SMALL)
    frames: list[Frame] = []
    for i in range(41):
        for when, text, blend in said:
            if when == i:
                assert live.say(f"{text:g}", blend=blend) >= i
        frames += islice(live, 1)
    assert live.frame == len(frames) == 40
    run = live.described()
    again = list(fifo.stream(**run.model_dump()))
    assert np.array_equal(np.stack(frames), np.stack(again))
    assert all(a.at < b.at for a, b in pairwise(run.table))


def test_another_thread_may_speak_at_any_time() -> None:
    live = fifo.stream("0", frames=120, **SMALL)
    reached: list[int] = []

    def speak() -> None:
        reached.extend(live.say(str(i % 5)) for i in range(200))

    speaker = Thread(target=speak)
    frames = [next(live)]
    speaker.start()
    frames += live
    speaker.join()
    assert reached == sorted(reached)
    again = list(fifo.stream(**live.described().model_dump()))
    assert np.array_equal(np.stack(frames), np.stack(again))


def test_the_embedded_model_too() -> None:
    live = fifo.stream("a red balloon over the ocean", frames=19, partitions=1, lookahead="off", guidance=1)
    frames = [next(live)]
    assert live.say("a green car moving left over a city at night", blend=2, guidance=2) == 16  # the queue's length
    frames += live
    again = list(fifo.stream(**live.described().model_dump()))
    assert np.array_equal(np.stack(frames), np.stack(again))


def test_a_stream_can_be_closed_and_says_what_it_cannot_hear() -> None:
    live = fifo.stream("a red balloon", partitions=1, guidance=1)
    with pytest.warns(UserWarning, match="'wale'"):
        live.say("a blue wale")
    live.close()
    assert list(live) == []


def test_a_warning_points_at_the_users_own_line(tmp_path: Path) -> None:
    """Not into the package, however deep in it the word was missed."""
    video, usual = tmp_path / "a.mp4", dict[str, Any](partitions=1, guidance=1)
    live = fifo.stream("a whale", **usual)
    for speak in (
        lambda: live.say("a green wale"),
        lambda: fifo.stream("a blue wale", **usual),
        lambda: fifo.generate("a red wale", video, frames=1, **usual),
        lambda: fifo.resume(video, frames="+1", prompt="a yellow wale"),
    ):
        with pytest.warns(UserWarning, match="'wale'") as said:
            speak()
        assert {warning.filename for warning in said} == {__file__}


def test_only_new_frames_of_no_clip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(fifo.BadInput, match="without a clip"):
        fifo.generate("0", tmp_path / "a.mp4", only_new=True, frames=1, **SMALL)


def test_a_state_that_is_taken_up_again_hears_nothing_late() -> None:
    """A session that goes on from a saved state may only be told what its queue has not heard."""
    run = resolve(Run.of({"prompt": "0", **SMALL, "frames": 0}))
    first = Session(run)
    *_, (_, state) = islice(first.engine.iterations(first.start()), 7)
    heard = first.prompts.first_free
    second = Session(run)
    second.latents(state)
    assert second.prompts.say("1") >= heard


def test_what_is_said_while_ranks_load_is_not_for_the_base_clip_they_are_to_make(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They know the prompts of before, so rank 0 would have answered for another text than they."""

    class Loading(Together):
        def __post_init__(self) -> None: ...

        def say(self, what: Any, *, awaited: bool = False) -> None:
            self.told: Decided = what[1]

        def loaded(self) -> None:
            assert session.prompts.say("2") == 16

    monkeypatch.setattr(Session, "_made_by_all", True)
    run = resolve(Run.of({"prompt": "0", **SMALL, "frames": 0}))
    group = Loading(rank=0, ranks=2, device="cpu", words=None, patient=None, store=None)
    session = Session(run, group=group)
    state, alone = session._first(), Session(group.told)
    assert torch.equal(state.queue, alone.start().queue)
    assert alone.prompts.first_free == 16  # nor for its frames where one process makes it


def test_a_video_made_live_is_made_again_by_its_sidecar(tmp_path: Path) -> None:
    def ready(session: Session) -> None:
        session.prompts.say("2", at=5, blend=3)

    run = Run.of({"prompt": "-1", **SMALL, "frames": 12})
    made = api.make(run, str(tmp_path / "a.mp4"), ready=ready)
    assert [c.prompt for c in made.run.cues] == ["-1", "2"]
    read = sidecar.read(tmp_path / "a.mp4.json")
    again = api.make(Run.of(sidecar.again(read, {})), str(tmp_path / "b.mp4"))
    assert again.frames_sha256 == made.frames_sha256
    assert api.make(run, str(tmp_path / "c.mp4")).frames_sha256 != made.frames_sha256
    assert Run.of(sidecar.again(read, {"prompt": "3"})).cues == ()


def test_every_prompt_of_a_table_is_checked_and_one_past_the_end_is_told() -> None:
    said: list[str] = []
    cues = [{"at": 5, "prompt": "a blue wale"}, {"at": 90, "prompt": "a blue whale", "negative_prompt": "a trane"}]
    making.tell_unheard(Session(resolve(Run.of({"prompt": "a red baloon", "cues": cues, "frames": 50}))), said.append)
    assert [word for word in ("'baloon'", "'wale'", "'trane'", "frame 90") if any(word in s for s in said)] == [
        "'baloon'", "'wale'", "'trane'", "frame 90",
    ]  # fmt: skip
    assert len(said) == 4


def test_the_default_length_is_ten_seconds_after_the_last_prompt() -> None:
    run = {"prompt": "0", "model": "gauss"}
    assert resolve(Run.of(run)).frames == 100
    assert resolve(Run.of({**run, "cues": [{"at": 90, "prompt": "1"}]})).frames == 190


def test_other_ranks_are_told_prompts_only_when_there_are_new_ones() -> None:
    """After days there are thousands, and an iteration may take a tenth of a second."""

    class Told:
        def __init__(self) -> None:
            self.words: list[Any] = []

        def say(self, what: Any, *, awaited: bool) -> None:
            self.words.append(what)

    group, spoken = Told(), table(cue(0, 1))
    leading = _Leading(group, spoken, lambda calls, /: [])  # type: ignore[arg-type]
    leading([])
    leading([])
    before = spoken.cues
    spoken.say("2")
    leading([])
    assert group.words == [before, (), spoken.cues]


def test_the_whole_queue_at_once_hears_one_frame() -> None:
    whole = WholeQueue(table(cue(0, 1), cue(10, 2)))
    assert whole(range(16))["mean"].tolist() == [1]
    whole.frame = 10
    assert whole(range(16))["mean"].tolist() == whole(range(40, 56))["mean"].tolist() == [2]
