"""The methods that FIFO is compared with, against theory, with a network that is exact; and what they refuse."""

import dataclasses
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fifo_diffusion as fifo
from fifo_diffusion import api, sidecar
from fifo_diffusion.baseclip import descend, sample_clip
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.errors import BadInput, NotFinite
from fifo_diffusion.execute import Batched
from fifo_diffusion.methods import METHODS
from fifo_diffusion.methods.chunked import chunked
from fifo_diffusion.methods.freelong import SpectralBlend, low_pass
from fifo_diffusion.methods.freenoise import Rescheduled, freenoise
from fifo_diffusion.methods.genlvideo import genlvideo
from fifo_diffusion.methods.overlapping import Windowed, even, fused, pyramid, windows
from fifo_diffusion.methods.plain import plain
from fifo_diffusion.methods.riflex import slower
from fifo_diffusion.methods.setting import Setting
from fifo_diffusion.models.gauss import GaussianVideo
from fifo_diffusion.noise import SeededNoise, draw
from fifo_diffusion.protocols import Cond
from fifo_diffusion.schedule import rectified_flow

RHO, F = 0.9, 8
GAUSS: dict[str, Any] = {"model": "gauss", "size": (8, 8), "frames": 20}


def setting(levels: int = 64, side: int = 16, eta: float = 0.0, window: int = F) -> Setting:
    schedule = rectified_flow(levels)
    return Setting(
        execute=Batched(GaussianVideo(schedule, RHO), 64),
        schedule=schedule,
        condition=lambda frames: {},
        noise=SeededNoise((0, 1, 2, 3)),
        like=torch.zeros(4, 4, window, side, side, dtype=torch.float64),
        eta=eta,
    )


def rows(chunks: Any) -> Tensor:
    """Chunks (B, C, k, H, W) -> (frames, pixels of all streams), which are independent."""
    return torch.cat(list(chunks), dim=2).transpose(0, 2).flatten(1)


def correlation(video: Tensor, one: int, other: int) -> float:
    return float(torch.corrcoef(video[[one, other]])[0, 1])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_long_window_has_the_whole_covariance(eta: float) -> None:
    """4,096 pixels: the standard error of a covariance is at most 1.4 / 64; averaged over a lag it is less."""
    length = 24
    video = rows(plain(setting(levels=200, eta=eta), length))
    assert len(video) == length
    got = video @ video.T / video.shape[1]
    place = torch.arange(length)
    true = RHO ** (place[:, None] - place).abs().double()
    assert float((got - true).abs().max()) < 5 * 1.4 / 64
    for lag in range(length):
        assert float(got.diagonal(lag).mean()) == pytest.approx(RHO**lag, abs=0.04)


def test_of_one_window_all_methods_are_plain_sampling() -> None:
    s = setting(levels=16, side=3, eta=0.5)
    *_, clip = sample_clip(GaussianVideo(s.schedule, RHO), s.schedule, s.condition, s.noise, s.like, 0.5)
    for made in (plain(s, F), genlvideo(s, F, 2), freenoise(s, F, 2, seed=0), itertools.islice(chunked(s, 4), 1)):
        assert torch.equal(torch.cat(list(made), dim=2), clip)


def test_a_base_clip_asks_for_its_frames_and_levels_by_name_and_keeps_no_graph() -> None:
    s = setting(levels=4, side=3, eta=0.5)
    heard, drawn, exact = list[tuple[object, bool]](), list[tuple[int, int]](), GaussianVideo(s.schedule, RHO)

    def condition(frames: range) -> Cond:
        heard.append((frames, torch.is_grad_enabled()))
        return {}

    def denoise(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        heard.append(("call", torch.is_grad_enabled()))
        return exact(z, t, cond)

    def noise(frame: int, level: int, like: Tensor) -> Tensor:
        drawn.append((frame, level))
        return s.noise(frame, level, like)

    assert len(list(sample_clip(denoise, s.schedule, condition, noise, s.like, 0.5))) == 4
    assert heard == [(range(F), False), *[("call", False)] * 4]
    assert drawn == [(frame, level) for level in (4, 3, 2, 1, 0) for frame in range(F)]


def test_a_clip_that_is_noised_a_part_of_the_way_goes_down_from_there() -> None:
    s = setting(levels=4, side=3, eta=0.5)
    asked: list[tuple[float, ...]] = []

    def answer(z: Tensor, level: Tensor) -> Tensor:
        asked.append(tuple(level.tolist()))
        return torch.zeros_like(z)

    assert len(list(descend(answer, s.schedule, s.noise, s.like, 0.5, begin=3))) == 3
    assert asked == [(level,) * F for level in (3, 2, 1)]


def test_a_base_clip_of_a_network_that_breaks_down_is_refused() -> None:
    s = setting(levels=4, side=3)

    def breaks(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return z.index_fill(2, torch.tensor(1), torch.inf)

    with pytest.raises(NotFinite, match="clip holds NaN or infinity"):
        list(sample_clip(breaks, s.schedule, s.condition, s.noise, s.like))


def test_clips_that_do_not_overlap_do_not_know_each_other() -> None:
    """Inside a clip neighbours correlate by .9; across a seam by 0, give or take 1 / 64."""
    for video in (
        rows(genlvideo(setting(), 3 * F, stride=F)),
        rows(itertools.islice(chunked(setting(), overlap=0), 3)),
    ):
        assert correlation(video, F - 2, F - 1) == pytest.approx(RHO, abs=0.02)
        for seam in (F, 2 * F):
            assert abs(correlation(video, seam - 1, seam)) < 5 / 64


def test_clips_that_overlap_hold_together() -> None:
    """Not as a true video does (.9): the mean blurs, and replacement is no exact conditioning, as its authors say."""
    together = rows(genlvideo(setting(), 3 * F, stride=F // 4))
    held = rows(itertools.islice(chunked(setting(), overlap=F // 2), 5))
    assert held.shape[0] == F + 4 * F // 2
    for video, least in ((together, 0.6), (held, 0.35)):
        assert all(correlation(video, i, i + 1) > least for i in range(len(video) - 1))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_clip_that_goes_on_is_held_to_the_last(eta: float) -> None:
    """What is known of its first frames comes out of it unchanged, so they are not given again."""
    from fifo_diffusion.methods.chunked import _next

    s = setting(levels=8, side=3, eta=eta)
    first = _next(s, s.like[:, :, :0], 0, 0)
    second = _next(s, first[:, :, 5:], F, 5)
    torch.testing.assert_close(second[:, :, :3], first[:, :, 5:], rtol=0, atol=1e-9)
    assert (second[:, :, 3:] != first[:, :, :5]).all()


def test_windows_cover_every_frame_and_none_is_past_the_end() -> None:
    for frames, window, stride in itertools.product((3, 8, 9, 20, 31), (4, 8), (1, 3, 4)):
        where = windows(frames, window, stride)
        assert where[-1].stop == frames
        assert set().union(*(range(at.start, at.stop) for at in where)) == set(range(frames))
        assert all(at.stop - at.start == min(window, frames) for at in where)
        assert len(set(map(str, where))) == len(where)


def test_where_windows_overlap_the_mean_is_weighted() -> None:
    assert pyramid(4).tolist() == [1, 2, 2, 1]
    assert pyramid(5).tolist() == [1, 2, 3, 2, 1]
    where = windows(6, 4, 2)
    parts = [torch.full((1, 4, 2), 1.0), torch.full((1, 4, 2), 4.0)]
    assert fused(parts, where, even, dim=1)[0, :, 0].tolist() == [1, 1, 2.5, 2.5, 4, 4]
    assert fused(parts, where, pyramid, dim=1)[0, :, 0].tolist() == [1, 1, 2, 3, 4, 4]


def test_attention_is_fused_by_the_pyramid() -> None:
    got = Windowed(4, 2)(lambda part: torch.full((1, 4, 2), float(part.start)), 6)
    assert got[0, :, 0].tolist() == pytest.approx([0, 0, 2 / 3, 4 / 3, 2, 2])


def test_co_denoising_takes_the_plain_mean_of_what_the_clips_say() -> None:
    """A network that takes every frame of a clip for the clip's first, as it is now; one step to what is meant."""
    s = setting(levels=1, side=2, window=4)

    def first(calls: Any) -> list[Tensor]:
        return [call.z - call.z[:, :, :1] for call in calls]  # the flow, noise less what is clean, all being noise

    z = draw(s.noise, 0, 1, s.like[:, :, [0] * 6])
    video = torch.cat(list(genlvideo(dataclasses.replace(s, execute=first), 6, stride=2)), dim=2)
    own, other = z[:, :, 0], z[:, :, 2]
    want = torch.stack([own, own, (own + other) / 2, (own + other) / 2, other, other], dim=2)
    torch.testing.assert_close(video, want)


@pytest.mark.parametrize("sample", [plain, partial(genlvideo, stride=2), partial(freenoise, stride=2, seed=0)])
def test_a_video_shorter_than_a_window_is_the_beginning_of_one(sample: Any) -> None:
    short, whole = (torch.cat(list(sample(setting(levels=4, side=2), n)), dim=2) for n in (3, F))
    assert torch.equal(short, whole[:, :, :3])


def test_noise_is_used_again_shuffled_within_blocks() -> None:
    base = SeededNoise(5)
    noise = Rescheduled(base, seed=5, levels=64, window=16, stride=4)
    source = [noise.source(i) for i in range(16 * 9)]
    assert source[:16] == list(range(16))
    for start in range(16, len(source), 4):
        block = start % 16
        assert sorted(source[start : start + 4]) == list(range(block, block + 4))
    orders = {tuple(source[i : i + 16]) for i in range(16, len(source), 16)}
    assert len(orders) == 8  # shuffled anew each time
    like = torch.zeros(1, 2, 3, 3)
    assert torch.equal(noise(21, 64, like), base(source[21], 64, like))
    assert torch.equal(noise(21, 63, like), base(21, 63, like))  # fresh noise is its own
    assert [Rescheduled(base, 6, 64, 16, 4).source(i) for i in range(16, 32)] != source[16:32]
    uneven = Rescheduled(base, 5, 64, window=10, stride=4)
    assert sorted(uneven.source(i) for i in range(10, 20)) == list(range(10))


def test_slow_frequencies_come_from_all_frames_and_quick_ones_from_windows() -> None:
    """Where all frames together say a slow wave and each window a quick one, both come out, the other's parts left."""
    frames, place = 64, torch.arange(64).double()
    slow, quick = (torch.cos(torch.pi * f * place)[None, :, None] for f in (2 / 64, 60 / 64))

    def attend(part: slice) -> Tensor:
        return (slow - quick)[:, part] if part == slice(0, frames) else (quick - slow)[:, part]

    out = SpectralBlend(Windowed(16, 4))(attend, frames)
    torch.testing.assert_close(out, slow + quick, rtol=0, atol=0.03)
    assert torch.equal(SpectralBlend(Windowed(64, 4))(attend, frames), slow - quick)


def test_a_low_pass_leaves_what_never_changes_and_takes_what_always_does() -> None:
    still, restless = torch.full((1, 31, 2), 3.0), torch.tensor([1.0, -1.0]).repeat(15)[None, :, None]
    torch.testing.assert_close(low_pass(still), still)
    assert float(low_pass(restless).abs().max()) < 0.01


@pytest.mark.parametrize(
    ("base", "pairs", "window", "repeats", "component", "period"),
    [(256, 8, 33, 48, 3, 50.3), (10_000, 8, 13, 20, 1, 19.9)],
    ids=["HunyuanVideo", "CogVideoX"],
)
def test_the_component_that_makes_a_network_repeat_itself(
    base: float, pairs: int, window: int, repeats: int, component: int, period: float
) -> None:
    """The published k (from 1 there) and N_k of the networks that its authors ran; slowed only where it comes round."""
    rates = [base ** (-k / pairs) for k in range(pairs)]
    assert slower(rates, repeats, window, window) is None
    assert slower(rates, repeats, window, int(period)) is None
    for length in (int(period) + 1, 2 * window + 20):
        turn = slower(rates, repeats, window, length)
        assert turn is not None
        assert turn.component == component
        assert 2 * np.pi / turn.rate == pytest.approx(length / 0.9)
        assert turn.rate < rates[component]
    assert slower(rates, 1, window, window) is None  # a short period does not change what was trained
    assert slower(rates, 1, window, window + 1) is not None


# --- through the door ---


@pytest.mark.parametrize("method", ["plain", "chunked", "genlvideo"])
def test_the_same_seed_is_the_same_video_and_the_sidecar_makes_it_again(tmp_path: Path, method: str) -> None:
    made = fifo.generate("-", str(tmp_path / "a.mp4"), method=method, **GAUSS, eta=0.5)
    assert (made.frames_written, made.run.method, made.run.steps, made.run.partitions) == (20, method, 64, None)
    told = sidecar.read(tmp_path / "a.mp4.json")
    again = Run.of(sidecar.again(told, {}))
    assert api.make(again, "null").frames_sha256 == made.frames_sha256
    assert fifo.generate("-", "null", method=method, **GAUSS, eta=0.5, seed=1).frames_sha256 != made.frames_sha256
    assert fifo.generate("-", "null", method=method, **GAUSS, eta=0.5, batch=1).frames_sha256 == made.frames_sha256
    other = sidecar.again(told, {"model": "embedded"})
    assert not {"steps", "stride", "overlap", "repeats"} & {name for name in other if other[name] is not None}
    as_fifo = Run.of(sidecar.again(told, {"method": "fifo"}))
    assert (as_fifo.method, as_fifo.steps, as_fifo.frames) == ("fifo", None, 20)
    with pytest.raises(BadInput, match=f"made by method {method}, which keeps nothing"):
        fifo.resume(tmp_path / "a.mp4", frames="+5")
    assert not (tmp_path / "a.mp4.run").exists()


def make(method: str, frames: int, **more: Any) -> np.ndarray[Any, Any]:
    usual: dict[str, Any] = {"steps": 2, "guidance": 1.0, "eta": 0.0}
    return np.stack(list(fifo.stream("a red balloon", method=method, frames=frames, **usual, **more)))


@pytest.mark.parametrize("method", ["freenoise", "freelong"])
def test_windowed_attention_in_a_trained_network(method: str) -> None:
    """Up to one window it is plain sampling; beyond, something else, that depends on the windows."""
    assert np.array_equal(make(method, 16), make("plain", 16))
    long = make(method, 24)
    assert len(long) == 24
    assert not np.array_equal(long, make("plain", 24))
    assert not np.array_equal(long, make(method, 24, stride=2))


def test_slower_positions_in_a_trained_network() -> None:
    """Up to a window, and on to the period of the component that is meant, it is plain sampling to the bit."""
    for frames in (5, 16, 24):
        assert np.array_equal(make("riflex", frames), make("plain", frames))
    assert np.array_equal(make("riflex", 16, repeats=1), make("plain", 16))
    long = make("riflex", 40)
    assert len(long) == 40
    assert not np.array_equal(long, make("plain", 40))
    assert np.array_equal(make("riflex", 40, repeats=44), make("plain", 40))
    assert not np.array_equal(long, make("riflex", 40, repeats=13))


def test_an_endless_method_begins_like_its_shorter_one() -> None:
    short = list(fifo.stream("-", method="chunked", **GAUSS))
    endless = list(itertools.islice(fifo.stream("-", method="chunked", **{**GAUSS, "frames": 0}), 30))
    assert np.array_equal(np.stack(short), np.stack(endless[:20]))


@pytest.mark.parametrize("method", ["plain", "chunked", "genlvideo"])
def test_each_frame_hears_its_own_prompt(method: str) -> None:
    """A prompt of the exact model is its video's mean: 0, and from frame 30 on 2 of the 3 deviations that are shown."""
    cues = [{"at": 0, "prompt": "0"}, {"at": 30, "prompt": "2"}]
    video = np.stack(list(fifo.stream("0", method=method, **{**GAUSS, "frames": 60}, cues=cues)))
    assert abs(video[:20].mean() - 127.5) < 25
    assert video[40:].mean() > 127.5 + 40


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"method": "plain", "frames": 0}, "never ends .fifo, chunked"),
        ({"method": "genlvideo", "frames": 0}, "never ends"),
        ({"method": "plain", "partitions": 2}, "partitions means nothing to method plain"),
        ({"method": "plain", "lookahead": "off"}, "lookahead means nothing"),
        ({"method": "chunked", "start": "noise"}, "start means nothing"),
        ({"method": "chunked", "solver": "2m"}, "solver means nothing"),
        ({"method": "plain", "stride": 4}, "stride means nothing to method plain"),
        ({"method": "genlvideo", "overlap": 4}, "overlap means nothing to method genlvideo"),
        ({"steps": 8}, "steps means nothing to method fifo"),
        ({"method": "chunked", "overlap": 16}, "at most 15"),
        ({"method": "genlvideo", "stride": 17}, "at most 16"),
        ({"method": "freenoise"}, "windowed in gauss.*use one of embedded"),
        (
            {"method": "riflex"},
            "in time of gauss are not rotary, .* riflex needs; use one of embedded, .*, wan-1.3b, wan-14b$",
        ),
        ({"method": "plain", "repeats": 4}, "repeats means nothing to method plain"),
        (
            {"method": "plain", "model": "wan-1.3b", "size": (832, 480), "frames": 4094},
            "frames is 4094, more than the 4093 that wan-1.3b has positions for",
        ),
        ({"method": "plain", "model": "latte", "size": (512, 512)}, "no windows longer than 16"),
        ({"method": "plain", "clip": "a.mp4"}, "cannot go on from a.mp4"),
        ({"method": "freenose"}, "method is 'freenose'"),
        ({"method": "plain", "model": "embedded", "size": (64, 64), "steps": 1000}, "noise levels are more"),
    ],
)
def test_what_a_method_has_no_use_for_is_refused(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(BadInput, match=error) as refused:
        resolve(Run.of({"prompt": "-", **GAUSS, **settings}))
    assert "\n" not in str(refused.value)


def test_a_preview_shows_a_queue_and_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="method plain has none"):
        fifo.generate("-", str(tmp_path / "a.mp4"), method="plain", preview=str(tmp_path / "a.png"), **GAUSS)
    assert list(tmp_path.iterdir()) == []


def test_the_settings_name_the_methods_there_are() -> None:
    for name in METHODS:
        assert Run.of({"prompt": "-", "method": name}).method == name
