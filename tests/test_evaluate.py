"""`fifo evaluate`: known motion gives known flow, noise its flicker, a broken video a row; and no frame is kept."""

import gc
import inspect
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.cli import main
from fifo_diffusion.cli.evaluate import videos
from fifo_diffusion.cli.generate import generate
from fifo_diffusion.errors import BadInput
from fifo_diffusion.evaluate import evaluation
from fifo_diffusion.evaluate import world as worlds
from fifo_diffusion.evaluate.choosing import Chosen, choose
from fifo_diffusion.evaluate.cuts import Cuts
from fifo_diffusion.evaluate.evaluation import _without_scores
from fifo_diffusion.evaluate.flow import Motion
from fifo_diffusion.evaluate.gates import judge_file
from fifo_diffusion.evaluate.judge import JUDGED, LOOK, Judge
from fifo_diffusion.evaluate.known import known
from fifo_diffusion.evaluate.means import mean_and_error, student
from fifo_diffusion.evaluate.measure import Bench, names_of
from fifo_diffusion.evaluate.metric import Gather, Meter, Metric, Quantity, Reading, Score, SetMetric, Video
from fifo_diffusion.evaluate.page import _best
from fifo_diffusion.evaluate.picture import Picture
from fifo_diffusion.evaluate.plots import Line, number, plot, steps
from fifo_diffusion.evaluate.reading import FILES, Found, find, open_video, shrink
from fifo_diffusion.evaluate.result import About, Distance, Evaluation, Mean, SetResult, read
from fifo_diffusion.evaluate.seeds import listed
from fifo_diffusion.evaluate.series import Series
from fifo_diffusion.evaluate.sheets import ACROSS, SLITS, Watching
from fifo_diffusion.evaluate.temporal import Flicker, Standing
from fifo_diffusion.evaluate.vbench import VBench
from fifo_diffusion.evaluate.world import STEADY, Looking
from fifo_diffusion.sinks import open_sink
from fifo_diffusion.world.art import Art
from fifo_diffusion.world.captions import plain, say, understood
from fifo_diffusion.world.clips import World
from fifo_diffusion.world.kinds import KINDS, LARGE, Kind
from prompt_change import first_shown

Clip = NDArray[np.uint8]  # (T, H, W, 3)


def texture(side: int, seed: int = 0) -> Clip:
    """Smooth random colours that repeat at the edges, (side, side, 3)."""
    waves = np.random.default_rng(seed).normal(size=(side, side, 3))
    at = np.fft.fftfreq(side)
    soft = np.exp(-((at[:, None] ** 2 + at[None] ** 2) / (2 * 0.05**2)))[..., None]
    smooth = np.fft.ifft2(np.fft.fft2(waves, axes=(0, 1)) * soft, axes=(0, 1)).real
    low, high = smooth.min(), smooth.max()
    out: Clip = (255 * (smooth - low) / (high - low)).astype(np.uint8)
    return out


def moving(right: Iterable[int], down: Iterable[int], side: int = 128) -> Clip:
    """The texture at these places."""
    still = texture(side)
    return np.stack([np.roll(still, (y, x), axis=(0, 1)) for x, y in zip(right, down, strict=True)])


def noise(frames: int, side: int = 32, seed: int = 0) -> Clip:
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)


def tensor(clip: Clip) -> Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()


def readings(metric: Metric, clip: Clip, block: int = 16, **more: Any) -> tuple[dict[str, dict[int, float]], Any]:
    """By quantity and frame, and the facts."""
    meter = metric.begin(Video("clip", (clip.shape[2], clip.shape[1]), **more))
    return heard(meter, clip, block), meter.facts()


def heard(meter: Meter, clip: Clip, block: int = 16) -> dict[str, dict[int, float]]:
    out: dict[str, dict[int, float]] = {}

    def take(some: Iterable[Reading]) -> None:
        for name, frame, value in some:
            assert frame not in out.setdefault(name, {}), "told twice"
            out[name][frame] = value

    x = tensor(clip)
    for first in range(0, len(x), block):
        take(meter.push(x[first : first + block], first))
    take(meter.close())
    return out


def mean(values: dict[int, float]) -> float:
    return float(np.mean(list(values.values())))


def write(path: Path, clip: Clip, scale: int = 1, comment: str | None = None) -> Path:
    size = clip.shape[2], clip.shape[1]
    tags = {} if comment is None else {"comment": comment}
    with open_sink(str(path), fps=10, size=size, scale=scale, metadata=tags) as sink:
        for frame in clip:
            sink.write(frame)
    return path


# --- metrics -------------------------------------------------------------------------------------------------------


def test_known_motion_gives_known_flow() -> None:
    said, facts = readings(Motion(), moving(range(0, 60, 3), range(20)))
    assert sorted(said["motion (DIS)"]) == list(range(1, 20))
    assert mean(said["motion (DIS)"]) == pytest.approx(100 * np.hypot(3, 1) / 128, rel=0.05)
    assert facts["mean motion (DIS)"]["right %"] == pytest.approx(100 * 3 / 128, rel=0.05)
    assert facts["mean motion (DIS)"]["down %"] == pytest.approx(100 * 1 / 128, rel=0.05)
    assert facts["motion histogram (DIS)"]["share of frames"] == [0, 0, 0, 1, 0, 0]  # all from 2 to 4 %
    assert mean(said["motion smoothness (DIS)"]) > 95
    assert mean(said["warping error (DIS)"]) < 2
    assert set(said["dynamic degree (DIS)"].values()) == {100}  # 3.2 pixels of 128 is above 6 of 256


def test_slow_motion_is_not_dynamic_and_motion_to_and_fro_is_not_smooth() -> None:
    slow, _ = readings(Motion(), moving([0, 1] * 8, [0] * 16))
    assert set(slow["dynamic degree (DIS)"].values()) == {0}
    assert mean(slow["motion smoothness (DIS)"]) < 10
    still, _ = readings(Motion(), moving([0] * 5, [0] * 5))
    assert mean(still["motion (DIS)"]) == 0
    assert "motion smoothness (DIS)" not in still


def test_the_flow_takes_motion_out_and_leaves_flicker() -> None:
    steady = moving(range(0, 48, 3), [0] * 16)
    bright = (steady * np.where(np.arange(16) % 2, 0.8, 1.0)[:, None, None, None]).astype(np.uint8)
    before, after = (mean(readings(Motion(), clip)[0]["warping error (DIS)"]) for clip in (steady, bright))
    assert before < 2
    assert after == pytest.approx(0.2 * steady.mean(), rel=0.25)


def test_flicker_is_what_vbench_says_and_jitter_tells_noise_from_steady_change() -> None:
    clip = noise(20)
    said, _ = readings(Flicker(), clip)
    by_hand = [100 * (255 - np.abs(b.astype(float) - a).mean()) / 255 for a, b in pairwise(clip)]
    assert list(said["temporal flickering"].values()) == pytest.approx(by_hand)
    assert mean(said["jitter"]) == pytest.approx(3**0.5, rel=0.03)
    ramp = np.stack([np.full((8, 8, 3), 5 * t, np.uint8) for t in range(20)])
    assert mean(readings(Flicker(), ramp)[0]["jitter"]) == 0
    strobe = np.stack([np.full((8, 8, 3), 100 * (t % 2), np.uint8) for t in range(20)])
    assert mean(readings(Flicker(), strobe)[0]["jitter"]) == 2
    still = np.stack([clip[0]] * 5)
    said, _ = readings(Flicker(), still)
    assert mean(said["temporal flickering"]) == 100
    assert "jitter" not in said


def test_frozen_stretches_and_loops_are_found_where_they_are() -> None:
    run = moving(range(0, 90, 3), [0] * 30, side=64)
    clip = np.concatenate([run, np.repeat(run[-1:], 10, axis=0), run[:5]])
    said, facts = readings(Standing(), clip)
    assert facts["frozen stretches"] == [{"first": 30, "last": 39}]
    assert mean(said["frozen"]) == pytest.approx(100 * 10 / 44)
    assert facts["loops"] == []
    period = moving(range(0, 64, 4), [0] * 16, side=64)[:12]
    said, facts = readings(Standing(), np.concatenate([noise(7, 64), period, period, period, noise(5, 64, seed=1)]))
    assert facts["loops"] == [{"period": 12, "first": 7 + 23, "last": 7 + 35}]
    assert sum(said["looped"].values()) == 100 * 13


def test_a_slow_drift_is_neither_frozen_nor_a_loop() -> None:
    clip = np.stack([np.clip(texture(64).astype(int) + t // 2, 0, 255).astype(np.uint8) for t in range(60)])
    clip[:, 20:40, 20:40] += np.arange(60, dtype=np.uint8)[:, None, None, None] % 3  # and something small moves
    said, facts = readings(Standing(), clip)
    assert facts == {"frozen stretches": [], "loops": []}
    assert mean(said["looped"]) == 0


def test_cuts_are_found_and_fast_motion_is_none() -> None:
    one, other = moving(range(0, 40, 2), [0] * 20), moving([0] * 20, range(20)) // 4
    said, facts = readings(Cuts(), np.concatenate([one, other]))
    assert facts["cuts"] == [20]
    assert sorted(said["cuts"]) == list(range(40))
    assert mean(said["cuts"]) == pytest.approx(1000 / 40)
    assert readings(Cuts(), moving(range(0, 240, 6), [0] * 40))[1]["cuts"] == []


def test_pictures_are_measured_by_their_formulas() -> None:
    red = np.zeros((1, 6, 6, 3), np.uint8)
    red[..., 0] = 255
    said, _ = readings(Picture(), red)
    assert {name: values[0] for name, values in said.items()} == pytest.approx(
        {"sharpness": 0, "brightness": 0.299 * 255, "contrast": 0, "saturation": 100}, abs=1e-3
    )
    dot = np.zeros((1, 5, 5, 3), np.uint8)
    dot[0, 2, 2] = 100
    said, _ = readings(Picture(), dot)
    edges = np.array([[0, 100, 0], [100, -400, 100], [0, 100, 0]])
    assert said["sharpness"][0] == pytest.approx(edges.var(), rel=1e-5)
    assert said["saturation"][0] == 0
    assert said["contrast"][0] == pytest.approx(100 * (1 / 25 * 24 / 25) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("metric", [m for m in known() if isinstance(m, Metric)], ids=lambda metric: metric.name)
def test_readings_do_not_depend_on_the_blocks(metric: Metric) -> None:
    clip = np.concatenate([moving(range(0, 45, 3), [0] * 15, side=64), noise(6, 64), noise(1, 64).repeat(6, axis=0)])
    if (why := metric.missing()) is not None:
        pytest.skip(why)
    told = {"prompt": "a red balloon moving right", "cues": ((0, "a red balloon moving right"),)}
    whole, facts = readings(metric, clip, 27, **told)
    quantities = {quantity.name for quantity in metric.quantities}
    assert set(whole) <= quantities if metric.name == "world" else set(whole) == quantities  # only what a prompt says
    assert facts == readings(metric, clip, 1, **told)[1]
    for block in (1, 5):
        for name, values in readings(metric, clip, block, **told)[0].items():
            assert values == pytest.approx(whole[name], rel=1e-4, abs=1e-4), name


def test_quantities_have_names_of_their_own() -> None:
    names = [quantity.name for metric in known() for quantity in metric.quantities]
    assert len(names) == len(set(names))
    assert len({metric.name for metric in known()}) == len(list(known()))


# --- the embedded world --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_caption_is_understood_as_it_was_meant(kind: Kind) -> None:
    world, rng = World(Art({}), kind=kind), np.random.default_rng(0)
    for _ in range(600):
        caption = world.draw_caption(rng)
        meant = {name: getattr(caption, name) for name in JUDGED if name != "speed" or caption.motion != "still"}
        meant = {name: value for name, value in meant.items() if value or name == "speed"}  # some come in no colour
        assert understood(plain(caption), kind) == understood(say(caption, rng, 0, kind), kind) == meant


def test_what_is_said_of_the_scene_is_not_said_of_the_subject() -> None:
    assert understood("a penguin over a farm in falling snow", LARGE) == {"subject": "penguin", "scene": "farm"}
    assert understood("a bee over a green forest", LARGE) == {"subject": "bee", "scene": "forest"}
    assert understood("a red car over the blue sea") == {"subject": "car", "colour": "red", "scene": "ocean"}
    assert understood("a cloud is falling in falling snow", LARGE)["motion"] == "down"


def test_a_way_by_itself_is_a_motion_where_no_caption_tells_one() -> None:
    assert understood("a bee flies left over a farm", LARGE)["motion"] == "left"
    assert understood("on the left a bee moving right over a farm", LARGE)["motion"] == "right"


def test_other_words_are_not_understood() -> None:
    assert understood("a cat on a mat") == {}
    assert understood("A crab over a desert") == {"subject": "crab", "scene": "desert"}


def test_the_judge_is_held_to_what_was_told_at_each_frame() -> None:
    torch.manual_seed(0)
    judge, clip = Judge(), noise(30, 16)
    judge(torch.zeros(2, LOOK, 3, 16, 16))
    judge.eval()
    seen = [judge.verdict(clip[i : i + LOOK]) for i in range(27)]
    cues = ((0, "a red balloon moving right over a forest"), (10, f"a {seen[15]['colour']} balloon moving right"))
    said = heard(Looking(judge, Video("clip", (16, 16), prompt=cues[0][1], cues=cues)), clip, 7)
    assert sorted(said["colour as told"]) == list(range(LOOK - 1, 30))
    for i, verdict in enumerate(seen):
        told = understood(cues[i >= 10][1])
        assert {name: said[f"{name} as told"][i + LOOK - 1] for name in told} == {
            name: 100.0 * (verdict[name] == value) for name, value in told.items()
        }
    assert "scene as told" in said
    assert max(said["scene as told"]) == 9 + LOOK - 1  # the second prompt names none


def test_each_world_has_its_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the size; of a world whose judge was not trained nothing is judged."""
    monkeypatch.setattr(worlds, "folder", lambda: tmp_path)
    metric, large = worlds.World(), Video("v", (128, 128), prompt="a penguin over candy land")
    assert "judge-64" in str(metric.missing())
    judge = Judge(LARGE)
    judge(torch.zeros(2, LOOK, 3, 128, 128))
    save_file(judge.state_dict(), judge_file(tmp_path, kind=LARGE))
    assert metric.missing() is None
    assert metric.suits(large)
    assert not metric.suits(Video("v", (128, 128), prompt="a cat on a mat"))
    assert not metric.suits(Video("v", (64, 64), prompt="a red balloon over the ocean"))
    assert set(heard(metric.begin(large), noise(LOOK, 128))) == {"subject as told", "scene as told"}


def test_a_change_shows_from_the_first_of_some_looks_in_a_row() -> None:
    for seed in range(20):
        seen = [str(value) for value in np.random.default_rng(seed).integers(0, 2, 40)]
        runs = [i for i in range(len(seen)) if seen[i : i + STEADY] == ["1"] * STEADY]
        assert first_shown("1", seen) == (runs[0] if runs else None)
    assert first_shown("1", []) is None


def test_a_change_of_the_prompt_is_timed_from_its_frame() -> None:
    torch.manual_seed(0)
    judge, clip = Judge(), noise(30, 16)
    judge(torch.zeros(2, LOOK, 3, 16, 16))
    judge.eval()
    seen = [judge.verdict(clip[i : i + LOOK])["colour"] for i in range(27)]
    at, new = len(seen) - STEADY, seen[-STEADY]  # just enough looks are left to see it
    looking = Looking(judge, Video("clip", (16, 16), cues=((0, "a balloon"), (at, f"a {new} balloon"))))
    heard(looking, clip)
    facts = looking.facts()
    assert facts["prompt changes"] == [
        {"at frame": at, "prompt": f"a {new} balloon", "shows after": {"colour": first_shown(new, seen[at:])}}
    ]
    assert first_shown(new, seen[at:]) == 0  # of these weights
    assert facts["seen"][0]["frames"] == "0–29"


# --- a quantity over time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 20, 1000, 1024, 1025, 5000, 70_000])
def test_a_series_of_any_length_is_told_by_its_bins(frames: int) -> None:
    values = np.random.default_rng(0).normal(size=frames) + np.linspace(0, 9, frames)
    series = Series()
    for frame, value in enumerate(values):
        series.add(frame, float(value))
    part = max(1, round(0.15 * frames))
    drift = abs(values[:part].mean() - values[-part:].mean())
    assert series.count == frames
    assert series.mean == pytest.approx(values.mean())
    assert series.spread == pytest.approx(values.std())
    assert series.drift(frames) == pytest.approx(drift, abs=1e-9 if frames <= 1024 else 0.02)
    width, course = series.course(256)
    assert len(course) <= 256
    assert len(course) * width >= frames > (len(course) - 1) * width
    assert course[0] == pytest.approx(values[:width].mean())


def test_a_series_may_have_gaps_and_no_end() -> None:
    series = Series()
    for frame in (5, 6, 7):
        series.add(frame, 2.0)
    assert series.drift(100) is None  # nothing in the last 15 %
    assert series.course(256) == (1, [None] * 5 + [2.0] * 3)
    with pytest.raises(ValueError, match="frame 8 is nan"):
        series.add(8, float("nan"))


def test_sheets_are_spread_over_the_whole_of_any_video() -> None:
    for frames in (1, 5, 100, 3000):
        watching = Watching()
        for first in range(0, frames, 7):
            count = min(7, frames - first)
            watching.push(torch.full((count, 3, 4, 6), 9, dtype=torch.uint8), first)
        sheet = watching.sheet()
        assert sheet is not None
        assert len(sheet.frames) == min(ACROSS, frames)
        assert sheet.frames[0] == 0
        assert sheet.frames[-1] >= 0.85 * (frames - 1)
        gaps = np.diff(sheet.frames)
        assert len(gaps) == 0 or gaps.max() <= 2 * gaps.min()
        assert len(watching._slits.kept) <= SLITS
    assert Watching().sheet() is None


def held_bytes() -> int:
    """What tensors and Python hold."""
    gc.collect()
    tensors = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if is_tensor(t)}
    return int(sum(tensors.values())) + tracemalloc.get_traced_memory()[0]


def is_tensor(thing: object) -> bool:
    return type(thing) is Tensor


def test_nothing_is_kept_of_the_frames_that_went_by() -> None:
    video = Video("endless", (32, 32), prompt="a red balloon")
    meters = [metric.begin(video) for metric in (Motion(), Flicker(), Standing(), Cuts(), Picture())]
    watching, series = Watching(), Series()
    clip = tensor(np.concatenate([moving(range(0, 48, 3), [0] * 16, 32), noise(16)]))

    def push(blocks: range) -> int:
        for block in blocks:
            watching.push(clip.clone(), 32 * block)
            for meter in meters:
                for _, frame, value in meter.push(clip.clone(), 32 * block):
                    series.add(frame, value)
        return held_bytes()

    tracemalloc.start()
    try:
        early = push(range(15))
        late = push(range(15, 60))
    finally:
        tracemalloc.stop()
    frame = 32 * 32 * 3
    assert late - early < 100 * frame  # of 1,440: some rows of the slit scan may come, frames may not


# --- what is read --------------------------------------------------------------------------------------------------


def test_folders_are_sets_and_files_are_one_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = noise(3, 16)
    for name in ("a/10.mp4", "a/9.mp4", "a/deep/x.webm", "b/one.mp4", "loose.mp4", "a/y.partial.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, clip) if "partial" not in name else (tmp_path / name).write_bytes(b"")
    write(tmp_path / "b/pictures", clip)
    (tmp_path / "a/9.mp4.run").mkdir()
    sets = find([tmp_path / "a", tmp_path / "loose.mp4", tmp_path / "b", tmp_path / "b/pictures"])
    assert {found.name: [str(p.relative_to(tmp_path)) for p in found.videos] for found in sets} == {
        FILES: ["loose.mp4", "b/pictures"],
        "a": ["a/9.mp4", "a/10.mp4", "a/deep/x.webm"],
        "b": ["b/one.mp4", "b/pictures"],
    }
    (tmp_path / "c/a").mkdir(parents=True)
    write(tmp_path / "c/a/z.mp4", clip)
    assert [found.name for found in find([tmp_path / "a", tmp_path / "c/a"])] == [
        str(tmp_path / "a"),
        str(tmp_path / "c/a"),
    ]
    write(tmp_path / "a" / "preview", clip)
    (tmp_path / "a/preview/frame_000000.png").rename(tmp_path / "a/preview.png")  # a picture beside videos is no frame
    assert find([tmp_path / "a"])[0].videos[0] == tmp_path / "a/9.mp4"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").rename("files")
    names = [found.name for found in find([Path("files"), Path("loose.mp4"), Path("c"), Path("c/a"), Path("c")])]
    assert names == [FILES, "files/", "c", "a"]
    assert list(names_of([Path("u/a/1.mp4"), Path("u/b/1.mp4")]).values()) == ["a/1.mp4", "b/1.mp4"]


@pytest.mark.parametrize(("name", "why"), [("none.mp4", "there is no"), ("empty", "no video"), ("a.txt", "no video")])
def test_what_is_no_video_is_refused(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(BadInput, match=why):
        find([tmp_path / name])


def test_what_was_shown_larger_is_measured_as_it_was_made(tmp_path: Path) -> None:
    clip = moving(range(6), [0] * 6, 32)
    run = {
        "prompt": "a whale",
        "size": [32, 32],
        "cues": [{"at": 0, "prompt": "a whale"}, {"at": 4, "prompt": "a crab"}],
    }
    path = write(tmp_path / "large.mp4", clip, 4, json.dumps(run))
    opened = open_video(path, "large", "cpu")
    assert (opened.video.size, opened.video.scale, opened.video.fps, opened.promised) == ((32, 32), 4, 10, 6)
    assert opened.video.cues == ((0, "a whale"), (4, "a crab"))
    (block,) = opened.blocks()
    assert block.shape == (6, 3, 32, 32)
    assert (block.float() - tensor(clip).float()).abs().mean() < 4
    assert open_video(write(tmp_path / "plain.mp4", clip, 4), "plain", "cpu").video.size == (128, 128)
    assert shrink(np.full((12, 8, 3), 7, np.uint8), 4).tolist() == np.full((3, 2, 3), 7).tolist()


def test_pictures_are_exact_and_must_be_of_one_size(tmp_path: Path) -> None:
    clip = noise(40, 16)
    write(tmp_path / "exact", clip)
    opened = open_video(tmp_path / "exact", "exact", "cpu")
    blocks = list(opened.blocks())
    assert [len(block) for block in blocks] == [32, 8]
    assert torch.equal(torch.cat(blocks), tensor(clip))
    write(tmp_path / "other", noise(1, 20))
    (tmp_path / "other/frame_000000.png").rename(tmp_path / "exact/frame_000040.png")
    with pytest.raises(BadInput, match="is 20x20, and its first was 16x16"):
        list(opened.blocks())


# --- the whole -----------------------------------------------------------------------------------------------------


class Grey(SetMetric):
    """A distance as simple as can be: of mean brightness."""

    name = "grey"
    quantities = (Quantity("grey distance", "", "difference of mean brightness", "lower"),)

    def gather(self) -> "Sum":
        return Sum()

    def compare(self, ours: Gather, reference: Gather) -> Iterator[Score]:
        assert isinstance(ours, Sum)
        assert isinstance(reference, Sum)
        yield Score(self.quantities[0], abs(ours.mean - reference.mean), f"{ours.videos} videos")


class Sum(Gather):
    def __init__(self) -> None:
        self.videos, self._sum, self._count = 0, 0.0, 0

    def begin(self, video: Video) -> None:
        self.videos += 1

    def push(self, frames: Tensor, first: int) -> None:
        self._sum += float(frames.double().sum())
        self._count += frames.numel()

    @property
    def mean(self) -> float:
        return self._sum / self._count


def test_sets_are_averaged_and_compared_and_a_broken_video_is_a_row(tmp_path: Path) -> None:
    for name, shade in (("ours/a", 10), ("ours/b", 30), ("real/c", 50)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, np.full((8, 16, 16, 3), shade, np.uint8))
    (tmp_path / "ours/c.mp4").write_bytes(b"no video at all")
    ended: list[str] = []
    bench = Bench([Picture()], [Grey()], "cpu", lambda *_: None, lambda video: ended.append(video.name))
    ours, real = find([tmp_path / "ours", tmp_path / "real"])
    reference = bench.refer(real)
    result = bench.compare(bench.measure(ours), reference)
    assert ended == ["a", "b", "c.mp4"]
    assert [video.error is None for video in result.videos] == [True, True, False]
    assert result.means["brightness"].mean == pytest.approx(20, abs=1e-3)
    assert result.means["brightness"].error == pytest.approx(10, abs=1e-3)
    assert result.means["brightness"].videos == 2
    assert result.distances[0].value == pytest.approx(30)
    assert result.distances[0].of == "2 videos"
    (tmp_path / "ours/c.mp4").rename(tmp_path / "broken.mp4")
    write(tmp_path / "ours/d", np.full((40, 16, 16, 3), 50, np.uint8))
    write(tmp_path / "other", np.full((1, 24, 24, 3), 50, np.uint8))
    (tmp_path / "other/frame_000000.png").rename(tmp_path / "ours/d/frame_000036.png")
    bench = Bench([Picture()], [Grey()], "cpu", lambda *_: None, lambda video: None)
    (ours,) = find([tmp_path / "ours"])
    (told,) = bench.compare(bench.measure(ours), reference).distances
    assert told.of.endswith("of 1 broken video what could be read")
    with pytest.raises(BadInput, match="reference"):
        bench.refer(Found("broken", (tmp_path / "broken.mp4",)))


def test_a_distance_of_which_nothing_is_told_is_named() -> None:
    distance = Distance(quantity="grey distance", value=1, of="2 videos", floor=None, error=None)
    told = SetResult(name="ours", videos=(), means={}, distances=(distance,))
    assert list(_without_scores([Grey()], [told])) == []
    (one,) = _without_scores([Grey()], [told, told.model_copy(update={"name": "theirs", "distances": ()})])
    assert one.metric == "grey"
    assert "videos of theirs, or the reference's, are too short or too few for all of it" in one.why


def test_what_was_measured_before_ctrl_c_is_told(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / name, noise(40, 16))

    def watch(name: str, done: int, total: int) -> None:
        if (name, done) == ("b", 32):  # of its 40 frames
            raise KeyboardInterrupt

    (found,) = find([tmp_path / name for name in "abc"])
    bench = Bench([Picture()], [], "cpu", watch, lambda _: None)
    result = bench.measure(found)
    assert bench.stopped
    assert [video.error for video in result.videos] == [None, "stopped by Ctrl-C", "stopped by Ctrl-C"]
    assert [video.frames for video in result.videos] == [40, 32, 0]
    assert result.videos[1].measured["brightness"].readings == 32
    assert result.means["brightness"].videos == 1


def test_ctrl_c_while_distances_are_computed_leaves_what_was_measured(tmp_path: Path) -> None:
    class Slow(Grey):
        def compare(self, ours: Gather, reference: Gather) -> Iterator[Score]:
            raise KeyboardInterrupt

    write(tmp_path / "a", noise(8, 16))
    (found,) = find([tmp_path / "a"])
    asked = evaluation.Asked([found], Chosen((Picture(),), (Slow(),), ()), found, "cpu", "fifo evaluate a", {})
    try:
        told = evaluation.evaluate(asked, tmp_path / "told", lambda *_: None, lambda _: None)
    except KeyboardInterrupt:  # which would end pytest
        pytest.fail("the report was lost")
    assert told.stopped
    assert told.sets[0].means["brightness"].videos == 1
    assert told.sets[0].distances == ()
    assert (tmp_path / "told.json").exists()
    assert (tmp_path / "told.html").exists()


@pytest.mark.parametrize(
    "comment",
    [
        '{"prompt": {"3": {"inputs": {}}}}',  # of other programs
        '{"prompt": "a cat", "size": "512x512"}',
        '{"prompt": "a cat", "size": 512}',
        '{"prompt": "a cat", "size": [0, 0]}',
        '{"prompt": "a cat", "cues": [3], "fps": "fast"}',
        '{"prompt": ',
    ],
)
def test_what_other_programs_write_into_their_files_is_no_setting(tmp_path: Path, comment: str) -> None:
    video = open_video(write(tmp_path / "clip.mp4", noise(2, 16), comment=comment), "clip.mp4", "cpu").video
    assert (video.prompt, video.size, video.fps, video.cues) == (None, (16, 16), 10, ())


def test_a_video_that_breaks_a_metric_is_a_failed_row(tmp_path: Path) -> None:
    class Broken(Picture):
        def begin(self, video: Video) -> Meter:
            if video.name == "a":
                raise MemoryError
            return super().begin(video)

    for name in "ab":
        write(tmp_path / name, noise(4, 16))
    (found,) = find([tmp_path / name for name in "ab"])
    failed, whole = Bench([Broken()], [], "cpu", lambda *_: None, lambda _: None).measure(found).videos
    assert failed.error == "MemoryError: no more is known"
    assert whole.error is None


def test_a_very_wide_video_has_a_slit_scan_too() -> None:
    looks = Watching()
    looks.push(torch.zeros(2, 3, 4, 16_400, dtype=torch.uint8), 0)
    sheet = looks.sheet()
    assert sheet is not None
    with Image.open(BytesIO(sheet.slit)) as slit:
        assert slit.size == (2, 2050)


def test_a_name_that_is_no_text_is_told_as_far_as_it_can(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", noise(2, 16))
    try:
        os.rename(tmp_path / "a.mp4", os.path.join(os.fsencode(tmp_path), b"caf\xe9.mp4"))
    except OSError:  # some file systems have no such names
        pytest.skip("names are text here")
    (found,) = find([tmp_path])
    (video,) = Bench([Picture()], [], "cpu", lambda *_: None, lambda _: None).measure(found).videos
    assert video.name == "caf\ufffd.mp4"
    assert video.frames == 2
    assert video.model_dump_json()


def test_a_video_counts_once_by_whatever_links_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    write(tmp_path / "runs" / "one" / "a.mp4", noise(2, 16))
    write(tmp_path / "runs" / "one" / "b.mp4", noise(2, 16))
    (tmp_path / "runs" / "latest").symlink_to("one")
    (tmp_path / "runs" / "self").symlink_to(".")
    (tmp_path / "runs" / "one" / "c.mp4").symlink_to("a.mp4")
    (found,) = find([tmp_path / "runs"])
    assert len(found.videos) == 2


def test_errors_over_videos() -> None:
    assert mean_and_error([]) == (None, None)
    assert mean_and_error([3.0]) == (3.0, None)
    assert mean_and_error([1.0, 3.0]) == (2.0, 1.0)


def test_students_t_of_few_and_of_many() -> None:
    """From printed tables."""
    wanted = {1: 12.706, 2: 4.303, 10: 2.228, 11: 2.201, 31: 2.040, 100: 1.984, 10_000: 1.960}
    assert {degrees: round(student(degrees), 3) for degrees in wanted} == pytest.approx(wanted, abs=2e-3)


def test_metrics_are_chosen_by_name() -> None:
    assert [metric.name for metric in choose(["flicker", "picture"], False).metrics] == ["flicker", "picture"]
    with pytest.raises(BadInput, match="there is no metric 'flikker'; those that there are: motion, "):
        choose(["flikker"], False)
    usual, everything = choose([], False), choose(["all"], False)
    for chosen in (usual, everything):
        names = {metric.name for metric in chosen.metrics} | {one.metric for one in chosen.without}
        assert names == {metric.name for metric in known()}  # what is not measured is told
    assert all(metric.usual for metric in usual.metrics)
    assert choose(["usual", "flicker"], False) == usual


def test_prompts_and_seeds_become_jobs(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text('# two\na whale\n\n{"prompt": "a crab", "seed": 7, "frames": 3}\n')
    jobs = listed(tmp_path / "p.txt", 2, {"frames": 5, "model": "gauss"}, png=False)
    assert [(job["output"], job["prompt"], job["seed"], job["frames"]) for job in jobs] == [
        ("002-a-whale-seed0.mp4", "a whale", 0, 5),
        ("002-a-whale-seed1.mp4", "a whale", 1, 5),
        ("004-a-crab-seed7.mp4", "a crab", 7, 3),
        ("004-a-crab-seed8.mp4", "a crab", 8, 3),
    ]
    assert listed(tmp_path / "p.txt", 1, {}, png=True)[0]["output"] == "002-a-whale-seed0"
    (tmp_path / "none.txt").write_text("# nothing\n")
    for name, seeds, why in (("none.txt", 1, "hold none"), ("gone.txt", 1, "cannot be read"), ("p.txt", 0, "--seeds")):
        with pytest.raises(BadInput, match=why):
            listed(tmp_path / name, seeds, {}, png=False)


STAND_IN = """
import json, os
class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.out = output_path
        os.makedirs(output_path, exist_ok=True)
    def evaluate(self, videos_path, name, prompt_list=[], dimension_list=None, local=False, read_frame=False, mode=""):
        (dimension,) = dimension_list
        assert mode == "custom_input"
        if dimension == "aesthetic_quality":
            raise OSError("no hub in reach")
        files = sorted(os.listdir(videos_path))
        per = [{"video_path": os.path.join(videos_path, f), "video_results": 50.0 if "imaging" in dimension else i / 2}
               for i, f in enumerate(files)]
        with open(os.path.join(self.out, name + "_eval_results.json"), "w") as file:
            json.dump({dimension: [0.25, per]}, file)
"""


def test_what_vbench_writes_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its networks are out of reach here: a stand-in writes what its documents say it writes."""
    (tmp_path / "lib/vbench").mkdir(parents=True)
    (tmp_path / "lib/vbench/__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    write(tmp_path / "a.mp4", noise(3, 16))
    write(tmp_path / "b.mp4", noise(3, 16))
    write(tmp_path / "c", noise(3, 16))
    (found,) = find([tmp_path / name for name in ("a.mp4", "b.mp4", "c")])
    measured = Bench([Flicker()], [], "cpu", lambda *_: None, lambda _: None).measure(found)
    bench = VBench("cpu", [])
    result = bench.add(measured)
    assert [video.measured.get("VBench subject consistency") and video.measured["VBench subject consistency"].mean
            for video in result.videos] == [0, 50, None]  # fmt: skip
    assert result.means["VBench imaging quality"].mean == 50
    assert result.means["temporal flickering"] == measured.means["temporal flickering"]
    assert "VBench aesthetic quality" not in result.means
    assert [one.why for one in bench.without] == ["1 of files are no whole mp4 or gif files",
                                                  "aesthetic_quality: OSError: no hub in reach"]  # fmt: skip


def test_plots_have_round_numbers_and_only_what_there_is() -> None:
    assert steps(0, 10, 4) == [0, 2.5, 5, 7.5, 10]
    assert steps(93.2, 97.9, 4) == [94, 96]
    assert [number(x) for x in (0, 1234.5678, 98765.4, 0.012345, 100.0, -3.14159)] == [
        "0", "1,235", "98,765", "0.0123", "100", "-3.142",
    ]  # fmt: skip
    drawn = plot([Line("a", 0, [0, 1, 2], [1.0, None, 3.0]), Line("b", 1, [0], [None])], "t<")
    assert drawn.count("<polyline") == 1
    assert "t&lt;" in drawn
    assert plot([Line("b", 1, [0], [None])], "t") == ""


def test_only_what_is_surely_better_is_set_in_bold() -> None:
    about = About(name="q", metric="m", unit="", says="", better="lower")

    def found(*means: tuple[float, float | None]) -> Evaluation:
        sets = tuple(
            SetResult(
                name=str(i),
                videos=(),
                means={"q": Mean(mean=mean, error=error, drift=None, drift_error=None, videos=3)},
            )
            for i, (mean, error) in enumerate(means)
        )
        return Evaluation(
            fifo_diffusion="0", date="", command="", machine={}, quantities=(about,), sets=sets, wall_seconds=0,
            peak_memory_mb=0,
        )  # fmt: skip

    sure, unsure, alone = found((5, 1), (2, 0.5)), found((5, 1), (3, 0.5)), found((5, None), (2, None))
    assert _best(sure, about) is sure.sets[1].means["q"]
    assert _best(unsure, about) is None
    assert _best(alone, about) is None
    assert _best(sure, about.model_copy(update={"better": "higher"})) is sure.sets[0].means["q"]
    assert _best(sure, about.model_copy(update={"better": "neither"})) is None


def evaluate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fifo_diffusion", "evaluate", *arguments]
    more = {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, env={**os.environ, **more})


def test_the_command_measures_files_and_folders_into_one_page(tmp_path: Path) -> None:
    (tmp_path / "steady").mkdir()
    write(tmp_path / "steady/one.mp4", moving(range(0, 60, 3), [0] * 20, 64))
    write(tmp_path / "steady/two.mp4", moving(range(20), range(20), 64))
    write(tmp_path / "still.webm", np.repeat(noise(1, 64), 20, axis=0))
    whole = (tmp_path / "steady/one.mp4").read_bytes()
    (tmp_path / "steady/cut & broken.mp4").write_bytes(whole[: len(whole) // 3])
    done = evaluate("still.webm", "steady", "-o", "found.html", cwd=tmp_path)
    assert done.returncode == 1, done.stderr  # one failed
    assert "failed" in done.stderr
    assert "motion (DIS)" in done.stdout
    found = read(tmp_path / "found.json")
    assert found.version == 1
    assert [one.name for one in found.sets] == [FILES, "steady"]
    still, steady = found.sets
    assert still.means["motion (DIS)"].mean == 0
    assert still.means["frozen"].mean == 100
    assert steady.means["motion (DIS)"].mean == pytest.approx(100 * (3 + 2**0.5) / 2 / 64, rel=0.1)
    assert [video.error is None for video in steady.videos] == [False, True, True]
    assert found.failed == 1
    html = (tmp_path / "found.html").read_text()
    assert not re.search(r"https?:|<link|@import|url\(|<script src", html)
    assert re.findall(r'src="(?!data:image/webp;base64,)', html) == []
    assert html.count("<svg") >= 8
    assert re.search(r"At all times of all: [^<]*cuts 0", html)
    assert html.count("<img") >= 3 * (ACROSS + 1)
    assert "cut &amp; broken.mp4" in html


def test_the_command_makes_the_videos_and_makes_none_twice(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a whale\n")
    said = ["--prompts", "p.txt", "--seeds", "2", "--model", "gauss", "--size", "16x16", "--frames", "6", "-n", "1"]
    said += ["--metrics", "flicker,picture", "-o", "made", "-q", "--device", "cpu:0"]
    assert evaluate(*said, cwd=tmp_path).returncode == 0
    first = read(tmp_path / "made.json")
    (one,) = first.sets
    assert [(video.frames, video.prompt) for video in one.videos] == [(6, "a whale")] * 2
    assert {quantity.metric for quantity in first.quantities} == {"flicker", "picture"}
    at = (tmp_path / "made.videos/001-a-whale-seed1.mp4").stat().st_mtime_ns
    assert evaluate(*said, cwd=tmp_path).returncode == 0
    assert (tmp_path / "made.videos/001-a-whale-seed1.mp4").stat().st_mtime_ns == at
    assert read(tmp_path / "made.json").sets[0].means == one.means


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([], "nothing was given"),
        (["gone"], "there is no gone"),
        (["x", "--frames", "3"], "--prompts FILE"),
        ([".", "-o", "no/where"], "a folder that exists"),
        ([".", "-o", ""], "a folder that exists"),
        ([".", "--clip", "gone"], "which is no folder"),
        (["gates.mp4", "--metrics", "sharp"], "there is no gates.mp4"),
    ],
)
def test_wrong_words_are_one_sentence(
    said: list[str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fifo", "evaluate", *said])
    with pytest.raises(SystemExit) as end:
        main()
    spoken = capsys.readouterr()
    assert (end.value.code, spoken.out) == (2, "")
    assert why in spoken.err
    assert len(spoken.err.splitlines()) == 1


def test_every_flag_that_makes_a_video_what_it_is_can_be_said() -> None:
    flags = set(inspect.signature(generate).parameters) & set(Job.model_fields)
    assert flags - set(inspect.signature(videos).parameters) == {"prompt", "split", "only_new"}  # a batch has none


def test_the_metrics_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fifo", "evaluate", "metrics"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    listing = capsys.readouterr().out
    assert all(quantity.name in listing for metric in known() for quantity in metric.quantities)
    assert "\nflicker  ready\n" in listing  # and needs nothing
    for metric in known():
        if metric.name in ("motion", "world"):
            state = "ready  uses" if metric.missing() is None else "not ready  needs"
            assert f"{metric.name}  {state} {metric.needs}\n" in listing
