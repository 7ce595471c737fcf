"""The benchmarks of the paper's tables: what they say of videos that are known is so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import long
import paired
import repeats
from fifo_diffusion.config import Run
from fifo_diffusion.evaluate.choosing import choose
from fifo_diffusion.evaluate.evaluation import Asked, evaluate
from fifo_diffusion.evaluate.reading import find
from fifo_diffusion.evaluate.result import Evaluation

SIDE = 64


def write(folder: Path, speed: float, noise: float, frames: int = 8, seed: int = 0) -> None:
    """A smooth texture that moves to the right, and white noise over it, as a folder of pictures."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    phases = rng.uniform(0, 6, 3)
    for number in range(frames):
        at = x - speed * number
        waves = [np.sin(at / 5 + phase + c) * np.cos(y / 6 + phase) for c, phase in enumerate(phases)]
        picture = 127 + 80 * np.stack(waves, axis=2) + noise * rng.standard_normal((SIDE, SIDE, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06}.png")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("sets")
    for seed in range(3):
        write(folder / "quick" / str(seed), speed=3 + seed, noise=2, seed=seed)
        write(folder / "slow" / str(seed), speed=1 + seed, noise=2, seed=seed)
    asked = Asked(find([folder / "quick", folder / "slow"]), choose(["motion", "flicker"], False), None, "cpu", "", {})
    return evaluate(asked, folder / "both", lambda name, done, total: None, lambda video: None)


def test_differences_are_paired(report: Evaluation) -> None:
    """Speeds differ by 2 pixels in each pair, and by as much between pairs: only pairing tells them apart."""
    rows = {row["quantity"]: row for row in paired.differences(report, "quick")}
    motion = rows["motion (DIS)"]
    assert motion["- slow"] == pytest.approx(100 * 2 / SIDE, rel=0.15)
    assert motion["told apart from slow"] == "yes"
    back = {row["quantity"]: row for row in paired.differences(report, "slow")}
    assert back["motion (DIS)"]["- quick"] == pytest.approx(-float(motion["- slow"]))
    means = {row["set"]: row for row in paired.means(report)}
    apart = float(means["quick"]["motion (DIS)"]) - float(means["slow"]["motion (DIS)"])
    assert apart == pytest.approx(float(motion["- slow"]))
    assert float(means["quick"]["motion (DIS) ±"]) > 5 * float(motion["- slow ±"])


def test_what_lies_within_errors_is_not_told_apart(report: Evaluation) -> None:
    ours, theirs = report.sets
    shuffled = [video.model_copy(update={"name": str((int(video.name) + 1) % 3)}) for video in theirs.videos]
    other = report.model_copy(update={"sets": (ours, theirs.model_copy(update={"videos": tuple(shuffled)}))})
    rows = {row["quantity"]: row for row in paired.differences(other, "quick")}
    assert rows["motion (DIS)"]["told apart from slow"] == "no"


def test_histograms_hold_every_frame_once(report: Evaluation) -> None:
    shares = paired.histograms(report)
    for of in shares.values():
        assert sum(of.values()) == pytest.approx(1, abs=1e-3)
    assert shares["quick"]["from 4 %"] == pytest.approx(1, abs=0.05)  # 3 pixels of 64 are 4.7 %
    assert shares["slow"]["from 1 %"] == pytest.approx(1 / 3, abs=0.05)


def test_a_long_video_is_told_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long, "BLOCK", 8)
    asked = {"prompt": "-", "model": "gauss", "size": (16, 16), "partitions": 2, "device": "cpu"}
    long.make(tmp_path, Run.of({**asked, "frames": 24}))
    lines = [json.loads(line) for line in (tmp_path / "blocks.jsonl").read_text().splitlines()]
    assert [line["block"] for line in lines] == [1, 2]  # the first has no reading at its start
    assert all(line["ms"] > 0 and line["MB"] > 50 for line in lines)
    found = long.measured(tmp_path, "-")
    rows = list(long.blocks(found, tmp_path))
    assert [row["frames"] for row in rows] == ["0-7", "8-15", "16-23"]
    assert rows[0]["MB"] == ""
    assert rows[1]["MB"] == lines[0]["MB"]


def test_drift_is_told_beside_chance(tmp_path: Path) -> None:
    """Noise that grows all the way is drift; white noise that stays is not."""
    steady, growing = np.random.default_rng(0).standard_normal((2, 1000))
    rows = {row["quantity"]: row for row in long.drifts({"steady": steady, "growing": growing + np.arange(1000) / 100})}
    assert rows["growing"]["drift"] == pytest.approx(8.5, abs=0.5)
    assert float(rows["growing"]["drift"]) > 2 * float(rows["steady"]["by chance"])
    assert float(rows["steady"]["drift"]) < 4 * float(rows["steady"]["by chance"])


def test_a_video_that_comes_round_is_like_itself_a_period_later() -> None:
    """What never changes in it does not count, and frames that have nothing to do with each other are not alike."""
    draw = torch.Generator().manual_seed(0)
    once, still = torch.randn(12, 500, generator=draw), 9 * torch.ones(500)
    curve = repeats.alike(once.repeat(4, 1) + still)
    assert curve[[0, 12, 24]].tolist() == pytest.approx([1, 1, 1])
    assert float(curve[1:12].abs().max()) < 0.3
    assert float(repeats.alike(torch.randn(48, 500, generator=draw) + still)[1:40].abs().max()) < 0.2
