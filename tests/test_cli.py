"""The command as a person runs it: real processes, real files, exit codes and one-sentence errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fifo_diffusion.sinks import read_frames

SMALL = ["--model", "gauss", "--size", "16x16", "-n", "1"]


def fifo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "fifo_diffusion", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, timeout=240, env={**os.environ, "COLUMNS": "200"})


def test_a_prompt_becomes_a_video_and_its_sidecar_makes_it_again(tmp_path: Path) -> None:
    first = fifo(
        "generate",
        "a red baloon moving left",
        "--frames",
        "2",
        "-n",
        "1",
        "--guidance",
        "1",
        "-o",
        "a.mp4",
        cwd=tmp_path,
    )
    assert first.returncode == 0, first.stderr.decode()
    assert b"does not know the word 'baloon'" in first.stderr
    assert b"balloon" in first.stderr
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert [f.shape for f in frames] == [(256, 256, 3)] * 2
    again = fifo("generate", "--from", "a.mp4.json", "-o", "b.webm", cwd=tmp_path)
    assert b"identical to the first, bit for bit" in again.stderr
    other = fifo("generate", "--from", "a.mp4.json", "--seed", "5", "-o", "c.mp4", cwd=tmp_path)
    assert b"identical" not in other.stderr


def test_raw_frames_go_to_stdout_and_nothing_else_does(tmp_path: Path) -> None:
    done = fifo("generate", "-", *SMALL, "--frames", "3", "--scale", "1", "-o", "-", cwd=tmp_path)
    assert len(done.stdout) == 3 * 16 * 16 * 3
    assert list(tmp_path.iterdir()) == []


def test_seconds_and_a_name_from_the_prompt(tmp_path: Path) -> None:
    for _ in range(2):
        assert (
            fifo("generate", "Grey, noise!", *SMALL, "--seconds", "0.5", "--fps", "8", "-q", cwd=tmp_path).returncode
            == 0
        )
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["grey-noise-2.mp4", "grey-noise.mp4"]
    assert len(list(read_frames(tmp_path / "grey-noise.mp4"))) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", ""], "it is empty"),
        (["generate"], "no prompt was given"),
        (["generate", "a", "--model", "sora"], "the models are embedded, gauss"),
        (["generate", "a", "-n", "0"], "partitions is 0"),
        (["generate", "a", "--size", "63x64"], "makes 64x64"),
        (["generate", "a", "--size", "wide"], "WIDTHxHEIGHT"),
        (["generate", "a", "--device", "cuda:9"], "is not here"),
        (["generate", "a", "-o", "no/such/folder/a.mp4"], "no/such"),
        (["generate", "a", "-o", "a.avi"], ".mp4"),
        (["generate", "a", "--frames", "3", "--seconds", "1"], "give one of them"),
        (["generate", "a", "--seconds", "inf"], "--frames 0"),
        (["generate", "a", "--scale", "0"], "Scale 0"),
        (["generate", "a", "--eta", "0.5", "--solver", "2m"], "2m"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = fifo(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_whole_video(tmp_path: Path, how: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "fifo_diffusion",
        "generate",
        "-",
        *SMALL,
        "--frames",
        "0",
        "-o",
        "a.mp4",
    ]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    partial = tmp_path / "a.partial.mp4"
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 20_000) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(how)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert b"Traceback" not in said
    written = json.loads((tmp_path / "a.mp4.json").read_text())["frames_written"]
    assert len(list(read_frames(tmp_path / "a.mp4"))) == written > 10


def test_models_and_doctor(tmp_path: Path) -> None:
    listed = fifo("models", cwd=tmp_path)
    assert b"embedded" in listed.stdout
    assert b"gauss" in listed.stdout
    checked = fifo("doctor", cwd=tmp_path)
    assert checked.returncode == 0
    assert b"libx264" in checked.stdout
    assert b"its weights are whole" in checked.stdout
