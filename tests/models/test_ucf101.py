"""The UCF-101 protocol as the command it is, on a tiny Latte and small real files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_parts import scramble, write_autoencoder

import ucf101
from fifo_diffusion.evaluate.frechet import Moments, frechet
from fifo_diffusion.evaluate.networks import obtain
from fifo_diffusion.evaluate.networks.published import PUBLISHED
from fifo_diffusion.models import load
from fifo_diffusion.models.latte_classes import CLASSES, ClassLatte
from fifo_diffusion.sinks import open_sink


def tiny_latte(folder: Path) -> Path:
    """The published layout at 256x256."""
    net = ClassLatte(
        width=64, depth=2, heads=1, patch=8, patches=16, frames=16, channels=4, out=8, classes=101, hidden=64
    )
    folder.mkdir()
    torch.save({"ema": scramble(net, 2).state_dict()}, folder / "ucf101.pt")
    write_autoencoder(folder / "vae")
    return folder


def clip(path: Path, frames: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_sink(str(path), fps=25, size=(64, 48)) as sink:
        for _ in range(frames):
            sink.write(draw.integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.fixture
def networks() -> None:
    torch.manual_seed(0)
    obtain.kept("i3d").parent.mkdir(parents=True, exist_ok=True)
    if not obtain.kept("i3d").exists():
        save_file(PUBLISHED["i3d"].build().state_dict(), obtain.kept("i3d"))


def run(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setattr(sys, "argv", ["ucf101.py", *more])
    ucf101.main()


@pytest.mark.usefixtures("networks")
def test_the_whole_protocol_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "UCF-101"
    for i, frames in enumerate((30, 12, 30, 25)):  # 9 frames, 2 apart, span 17: one is too short
        clip(videos / CLASSES[i] / f"v_{i}.mp4", frames, i)
    said = [
        "--weights",
        str(tiny_latte(tmp_path / "latte")),
        "--videos",
        str(videos),
        "--folder",
        str(tmp_path / "out"),
    ]
    said += ["--length", "9", "--interval", "2", "--partitions", "1", "--device", "cpu"]
    run(monkeypatch, *said, "--clips", "2")
    capsys.readouterr()
    before = (tmp_path / "out" / "made.jsonl").read_text()
    with (tmp_path / "out" / "made.jsonl").open("a") as file:
        file.write('{"class": "cut o')  # by a kill
    run(monkeypatch, *said, "--clips", "3")
    made = (tmp_path / "out" / "made.jsonl").read_text()
    assert made.startswith(before), "what was made is not made again"
    lines = [json.loads(line) for line in made.splitlines()[1:]]
    assert [(line["class"], line["seed"]) for line in lines] == [(CLASSES[i], i) for i in range(3)]
    real = [json.loads(line) for line in (tmp_path / "out" / "real.jsonl").read_text().splitlines()[1:]]
    assert sum("logits" in line for line in real) == 3
    rows = {row["what"].partition(" (")[0]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]}
    assert set(rows) == {"FVD", "KVD", "inception score"}
    both = [Moments(400), Moments(400)]
    for moments, found in zip(both, (lines, real), strict=True):
        moments.add(torch.tensor([line["logits"] for line in found if "logits" in line]))
    assert rows["FVD"]["value"] == pytest.approx(frechet(*both), rel=1e-4)
    assert rows["FVD"]["of"].startswith("3 clips of 9 frames against 3, 256x256 pixels")
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *said, "--clips", "3", "--seed", "9")
    assert "made.jsonl is of" in capsys.readouterr().err


@pytest.mark.usefixtures("networks")
def test_videos_that_are_all_too_short_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "UCF-101" / "Archery" / "v.mp4", 10, 0)
    said = ["--weights", str(tmp_path), "--videos", str(tmp_path / "UCF-101"), "--folder", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *said, "--device", "cpu")
    told = capsys.readouterr().err
    assert "holds 0 videos of 128 frames or more; give a smaller --length or --interval" in told


def test_latte_decodes_with_the_autoencoder_that_its_authors_measure_with(tmp_path: Path) -> None:
    folder = tiny_latte(tmp_path / "latte")
    (folder / "vae").rename(folder / "sd-vae-ft-ema")
    (folder / "vae").mkdir()  # not looked at
    load("latte-ucf101", torch.device("cpu"), torch.float32, str(folder))
