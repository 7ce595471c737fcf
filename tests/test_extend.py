"""A user's clip goes on: the README's own picture, continued by the shipped model."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fifo_diffusion as fifo
from fifo_diffusion import api, sidecar
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.names import Frame
from fifo_diffusion.sinks import read_frames
from fifo_diffusion.sources import Clip

BALLOON = Path(__file__).parent / "data" / "balloon.webp"  # 60 frames, 10 a second, 192x192
PROMPT = "a red balloon drifting right over snowy mountains"
SMALL = {"partitions": 1, "guidance": 1.0, "frames": 3}


def test_the_file_holds_the_clip_and_then_what_follows_it(tmp_path: Path) -> None:
    made = fifo.generate(PROMPT, str(tmp_path / "longer"), clip=str(BALLOON), scale=1, **SMALL)  # type: ignore[arg-type]
    frames = list(read_frames(tmp_path / "longer"))
    clip = list(Clip(BALLOON, (64, 64), 10).frames())
    assert (len(clip), made.clip_frames, made.frames_written) == (60, 60, 3)
    assert np.array_equal(frames[:60], clip)
    new = np.stack(frames[60:]).astype(int)
    apart = [np.abs(new[0] - frame).mean() for frame in clip]
    assert min(apart[-3:]) <= sorted(apart)[5]  # it follows the last ones; the scenery comes round, so others are near

    settings = sidecar.again(sidecar.read(tmp_path / "longer" / "fifo.json"), {})
    again = fifo.generate(**settings, output=str(tmp_path / "b.gif"), scale=1, only_new=True)
    assert again.frames_sha256 == made.frames_sha256
    assert again.clip_frames == 0
    assert len(list(read_frames(tmp_path / "b.gif"))) == 3


def test_the_command_says_what_it_made_of_a_picture_and_refuses_another_one(tmp_path: Path) -> None:
    from PIL import Image

    with Image.open(BALLOON) as animation:
        animation.convert("RGB").crop((0, 20, 192, 150)).save(tmp_path / "still.png")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "fifo_diffusion", *arguments]
        return subprocess.run(whole, cwd=tmp_path, capture_output=True, text=True, timeout=240)

    small = ("-n", "1", "--guidance", "1", "--frames", "2", "--scale", "1")
    done = command("extend", "still.png", PROMPT, *small, "--preview", "q.png")
    assert done.returncode == 0, done.stderr
    assert "still.png: a picture of 192x130, shown to the model as 64x64 (centre crop), held still" in done.stderr
    assert "2 new frames after the clip's 1" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "still.png",
        "q.png",
        "still-extended.mp4",
        "still-extended.mp4.json",
        "still-extended.mp4.run",
    }
    assert len(list(read_frames(tmp_path / "still-extended.mp4"))) == 3

    shutil.copy(tmp_path / "q.png", tmp_path / "still.png")
    refused = command("generate", "--from", "still-extended.mp4.json")
    assert refused.returncode == 2
    assert "still.png is not the clip that this run went on from" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "--only-new" in command("generate", PROMPT, "--only-new").stderr


def test_what_cannot_be_gone_on_from_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a red balloon")
    for settings, says in (
        ({"clip": str(BALLOON), "model": "gauss"}, "gauss has no encoder.*embedded"),
        ({"clip": str(BALLOON), "start": "noise"}, "leave one out"),
        ({"clip": str(tmp_path / "none.mp4")}, "there is no clip"),
        ({"clip": ""}, "clip: it is empty"),
        ({"clip": str(tmp_path / "notes.txt")}, "cannot be read as a video or a picture"),
        ({"clip": str(BALLOON), "clip_sha256": "ab" * 32}, "is not the clip"),
    ):
        with pytest.raises(BadInput, match=says):
            resolve(Run.of({"prompt": PROMPT, **settings}))


def test_the_clip_itself_is_never_written_over(tmp_path: Path) -> None:
    clip = shutil.copy(BALLOON, tmp_path / "a.webp")
    still = Path(shutil.copy(BALLOON, tmp_path / "b.png"))
    with pytest.raises(BadInput, match=r"the output .* is the clip itself"):
        fifo.generate(PROMPT, str(tmp_path / "." / "a.webp"), clip=str(clip))
    with pytest.raises(BadInput, match=r"the preview .* is the clip itself"):
        fifo.generate(PROMPT, str(tmp_path / "c.mp4"), clip=str(still), preview=str(still))
    os.link(clip, tmp_path / "other.webp")  # two names of one file, as A.webp and a.webp are on many disks
    with pytest.raises(BadInput, match=r"the output .* is the clip itself"):
        fifo.generate(PROMPT, tmp_path / "other.webp", clip=clip)
    assert still.read_bytes() == BALLOON.read_bytes()
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.parametrize("fault", ["damaged", "stopped"])
def test_a_clip_that_cannot_be_copied_costs_no_video(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is copied once the first new frame is there, over a finished video's name; that one stays, and goes on."""
    video, frames = tmp_path / "longer.mp4", Clip.frames
    fifo.generate(PROMPT, video, **SMALL)  # type: ignore[arg-type]
    before = video.read_bytes()

    def read(clip: Clip, skip: int = 0) -> Iterator[Frame]:
        for number, frame in enumerate(frames(clip, skip)):
            if skip == 0 and number == 5:  # the copy, not the look at the end
                raise BadInput("it is damaged") if fault == "damaged" else KeyboardInterrupt
            yield frame

    monkeypatch.setattr(Clip, "frames", read)
    with pytest.raises(BadInput if fault == "damaged" else KeyboardInterrupt):
        fifo.generate(PROMPT, video, clip=BALLOON, **SMALL)  # type: ignore[arg-type]
    assert video.read_bytes() == before
    assert not list(tmp_path.glob("*partial*"))
    assert fifo.resume(video, frames="+1").frames_written == 4


def test_a_clip_that_cannot_be_copied_into_a_folder_leaves_it_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = Clip.frames

    def read(clip: Clip, skip: int = 0) -> Iterator[Frame]:
        for number, frame in enumerate(frames(clip, skip)):
            if skip == 0 and number == 5:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(Clip, "frames", read)
    with pytest.raises(KeyboardInterrupt):
        fifo.generate(PROMPT, tmp_path / "longer", clip=BALLOON, **SMALL)  # type: ignore[arg-type]
    assert not list(tmp_path.rglob("*"))


def test_what_a_full_disk_left_of_a_clip_is_where_the_message_says(tmp_path: Path) -> None:
    usual, blocked = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(stage: str, done: int, total: int) -> None:
        if stage == "streaming":
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, usual[1]))

    run = Run.of({"prompt": PROMPT, "clip": str(BALLOON), **SMALL})
    try:
        with pytest.raises(OutputError, match="cannot go on writing") as full:
            api.make(run, str(tmp_path / "longer.mp4"), watch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, blocked)
    (left,) = re.findall(r"what was written is in (\S+\.mp4)", str(full.value))
    assert Path(left).exists()


def test_ctrl_c_is_heard_while_a_reader_lets_the_clip_wait(tmp_path: Path) -> None:
    whole = [sys.executable, "-m", "fifo_diffusion", "extend", str(BALLOON), PROMPT, "-n", "1", "--guidance", "1"]
    running = subprocess.Popen(
        [*whole, "--frames", "2", "-o", "-"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    os.read(running.stdout.fileno(), 1)  # the clip is coming, more of it than a pipe holds
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=120) == 130


def test_another_clip_may_take_the_place_of_the_one_in_a_sidecar(tmp_path: Path) -> None:
    run = resolve(Run.of({"prompt": PROMPT, "clip": str(BALLOON)}))
    assert run.clip_sha256 == Clip(BALLOON, run.size, run.fps).sha256
    kept = {"fifo_diffusion": "1", "run": run.model_dump(), "scale": 1, "crf": None, "machine": {}, "weights": ""}
    ends = {"frames_written": 5, "frames_sha256": "", "seconds": {}, "wall_seconds": 1.0, "peak_memory_mb": 1}
    (tmp_path / "a.json").write_text(json.dumps({**kept, **ends}))
    before = sidecar.read(tmp_path / "a.json")
    assert sidecar.again(before, {})["clip_sha256"] == run.clip_sha256
    assert "clip_sha256" not in sidecar.again(before, {"clip": "other.mp4"})
