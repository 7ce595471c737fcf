"""What is faster and not the same: guidance at a part of the noise levels, several frames a level."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fifo_diffusion as fifo
from conftest import make_clip, make_engine
from fifo_diffusion import api
from fifo_diffusion.config import Run
from fifo_diffusion.decide import plan_of, resolve
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Batched
from fifo_diffusion.guidance import Guided, GuidedLevels
from fifo_diffusion.protocols import Call, Cond, Denoiser

SCALE, F, N = 3.0, 4, 4
HEARD = {"mean": torch.tensor([1.0]), "negative_mean": torch.tensor([-1.0])}
GAUSS: dict[str, Any] = {"model": "gauss", "size": (8, 8), "eta": 1.0, "guidance": 2.0, "negative_prompt": "-1"}


@dataclass
class Counted:
    """A network that counts the windows it is shown."""

    denoise: Denoiser
    rows: list[int] = field(default_factory=list)

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        self.rows.append(len(z))
        return self.denoise(z, t, cond)


def guided(
    levels: tuple[int, int] | None, limit: int = 1, heard: Callable[[range], Cond] = lambda _: HEARD
) -> tuple[Engine, Counted]:
    """f 4, n 4, lookahead: 8 windows that keep 2 levels each, guided at these."""
    nets: list[Counted] = []

    def execute(network: Denoiser) -> Batched:
        nets.append(Counted(network))
        return Batched(Guided(nets[0], SCALE), limit)

    engine = make_engine("last", F, N, eta=1.0, execute=execute)
    if levels is not None:
        engine = replace(engine, execute=GuidedLevels(engine.execute, SCALE, *levels))
    return replace(engine, condition=heard), nets[0]


def asked(engine: Engine, state: State) -> list[Tensor]:
    """What the kept frames of each window are said to be."""
    calls = engine.calls(state)
    return [answer[:, :, call.kept] for call, answer in zip(calls, engine.execute(calls), strict=True)]


def warm(engine: Engine) -> State:
    return engine.warm_start(make_clip(F))


@pytest.mark.parametrize("limit", [1, 3, 8])
@pytest.mark.parametrize("cue", [{}, {"guidance": torch.tensor([[SCALE]])}])
def test_a_frame_is_guided_at_its_levels_only_and_windows_outside_are_asked_once(limit: int, cue: Cond) -> None:
    """Windows keep levels 1-2, 3-4, ... 15-16: of levels 4-10 the first is outside, the second half inside."""
    engine, net = guided((4, 10), limit, lambda _: {**HEARD, **cue})
    got = asked(engine, warm(engine))
    assert sum(net.rows) == 4 * 2 + 4  # levels 3-4, 5-6, 7-8, 9-10 twice, the other four once
    everywhere, _ = guided(None)
    with_, alone = asked(everywhere, warm(everywhere)), _alone()
    for i in (2, 3, 4):
        torch.testing.assert_close(got[i], with_[i], rtol=0, atol=1e-12)
    for i in (0, 5, 6, 7):
        torch.testing.assert_close(got[i], alone[i], rtol=0, atol=1e-12)
        assert float((got[i] - with_[i]).abs().max()) > 0.1
    torch.testing.assert_close(got[1][:, :, :1], alone[1][:, :, :1], rtol=0, atol=1e-12)
    torch.testing.assert_close(got[1][:, :, 1:], with_[1][:, :, 1:], rtol=0, atol=1e-12)


def _alone() -> list[Tensor]:
    engine, _ = guided(None, heard=lambda _: {"mean": HEARD["mean"], "guidance": torch.ones(1, 1)})
    return asked(engine, warm(engine))


def test_all_levels_are_what_no_levels_are_bit_for_bit() -> None:
    def frames(levels: tuple[int, int] | None) -> Tensor:
        engine, _ = guided(levels)
        return torch.cat([f for f, _ in islice(engine.stream(warm(engine)), 5)], dim=2)

    assert torch.equal(frames((1, F * N)), frames(None))
    assert not torch.allclose(frames((1, F * N - 2)), frames(None))


def test_a_ramp_is_guided_by_the_level_it_is_at() -> None:
    """From noise the whole queue is at the highest level first, and that is outside."""
    engine, net = guided((1, 14))
    state = engine.cold_start(torch.zeros(1, 2, 3, 3, dtype=torch.float64))
    counts = []
    for _ in range(4):
        net.rows.clear()
        _, state = engine.advance(state)
        counts.append((sum(net.rows), len(net.rows)))
    assert counts == [(8, 8), (7, 7), (14, 7), (12, 6)]  # rows and windows at levels 16, 15, 14, 13


def test_a_call_s_own_scale_goes_before_the_run_s() -> None:
    """A cue that changes guidance is heard inside the levels, and outside there is none whatever it says."""
    seen: list[Call] = []

    def keep(calls: Any) -> list[Tensor]:
        seen.extend(calls)
        return [call.z for call in calls]

    cond = {**HEARD, "guidance": torch.tensor([[5.0]])}
    call = Call(torch.zeros(1, 1, 4, 1, 1), torch.zeros(1, 4), cond, slice(2, 4), torch.tensor([5, 6, 7, 8]))
    GuidedLevels(keep, SCALE, 1, 7)([call, call._replace(kept=slice(0, 2)), call._replace(kept=slice(3, 4))])
    assert seen[0].cond["guidance"].tolist() == [[5, 5, 5, 1]]
    assert seen[1] == call._replace(kept=slice(0, 2))
    assert set(seen[2].cond) == {"mean", "guidance"}
    assert seen[2].cond["guidance"].tolist() == [[1]]


# --- as settings of a run ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frames_per_level": 3}, "must divide 64"),
        ({"frames_per_level": 0}, "frames_per_level is 0"),
        ({"guidance_levels": "9-65"}, "queue has 64 levels"),
        ({"guidance_levels": "9-33", "frames_per_level": 2}, "queue has 32 levels"),
        ({"guidance_levels": "9"}, "FIRST-LAST"),
        ({"guidance_levels": "0-9"}, "FIRST-LAST"),
        ({"guidance_levels": "9-8"}, "FIRST-LAST"),
        ({"guidance_levels": "1-8", "method": "plain"}, "means nothing to method plain"),
        ({"frames_per_level": 2, "method": "chunked"}, "means nothing to method chunked"),
    ],
)
def test_what_a_queue_cannot_do_is_refused_in_a_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        resolve(Run.of({"prompt": "-", **settings}))


def test_both_settings_reach_the_pixels_and_one_frame_a_level_at_all_levels_is_as_ever() -> None:
    def made(**settings: Any) -> np.ndarray[Any, Any]:
        return np.stack(list(fifo.stream("1", frames=7, partitions=2, **GAUSS, **settings)))

    usual = made()
    assert np.array_equal(made(frames_per_level=1, guidance_levels="1-32"), usual)
    assert not np.array_equal(made(frames_per_level=2), usual)
    assert not np.array_equal(made(guidance_levels="1-20"), usual)


@pytest.mark.parametrize("start", ["clip", "noise"])
def test_frames_come_two_or_four_at_a_time_and_are_numbered_on(start: str) -> None:
    """The queue keeps its length, a prompt said now is heard by the first frame that is not in it yet."""
    run = resolve(Run.of({"prompt": "-2", "partitions": 2, "frames_per_level": 4, "start": start, **GAUSS}))
    assert (plan_of(run).levels, plan_of(run).length) == (8, 40)
    stream = fifo.stream("-2", partitions=2, frames_per_level=4, start=start, **GAUSS)
    before = [next(stream) for _ in range(6)]  # of the two iterations' 8; the second read frames 4 .. 35
    first = stream.say("2")
    assert first == 36
    after = [next(stream) for _ in range(first + 8)]
    means = np.stack(before + after).mean(axis=(1, 2, 3))
    assert means[: first - 16].max() < 110  # dark; nearer ones may see the lighter ones to come
    assert means[first:].min() > 150
    scripted = list(fifo.stream(**{**stream.described().model_dump(), "frames": len(means)}))
    assert np.array_equal(np.stack(scripted), np.stack(before + after))


@pytest.mark.parametrize("cut", [1, 10, 13])
def test_a_video_cut_between_frames_that_left_together_goes_on_as_if_it_had_not_been(cut: int, tmp_path: Path) -> None:
    said = {"prompt": "1", "partitions": 2, "frames_per_level": 4, "guidance_levels": "3-7", **GAUSS}
    straight = api.make(Run.of({**said, "frames": 21}), str(tmp_path / "a.mp4"), checkpoint_every=0)
    api.make(Run.of({**said, "frames": cut}), str(tmp_path / "b.mp4"))
    resumed = api.resume(str(tmp_path / "b.mp4"), frames=21)
    assert resumed.frames_sha256 == straight.frames_sha256
    assert (resumed.run.frames_per_level, resumed.run.guidance_levels) == (4, "3-7")
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


@pytest.mark.xdist_group("processes")
def test_two_ranks_make_the_frames_of_one(tmp_path: Path) -> None:
    said = {"prompt": "1", "partitions": 2, "frames_per_level": 2, "guidance_levels": "3-9", "batch": 1, **GAUSS}
    alone = api.make(Run.of({**said, "frames": 9}), str(tmp_path / "a.mp4"), checkpoint_every=0)
    flags = (
        "1 --model gauss --size 8x8 --eta 1 --guidance 2 --negative-prompt -1 -n 2 --frames-per-level 2 "
        "--guidance-levels 3-9 --batch 1 --frames 9 -o b.mp4 -q"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, "-m", "fifo_diffusion", "generate", *flags.split()], check=True, cwd=tmp_path)
    assert alone.frames_written == 9
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()
