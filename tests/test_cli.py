"""The command as a person runs it: real processes, real files, exit codes and one-sentence errors."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.main import get_command
from typer.testing import CliRunner

from fifo_diffusion.cli.app import app
from fifo_diffusion.cli.generate import _free_name
from fifo_diffusion.cli.values import seconds_of
from fifo_diffusion.errors import BadInput
from fifo_diffusion.evaluate import experiment
from fifo_diffusion.models.embedded.model import WEIGHTS
from fifo_diffusion.sinks import open_sink, read_frames
from fifo_diffusion.world.art import Art
from fifo_diffusion.world.kinds import KINDS

PROGRAM = [sys.executable, "-m", "fifo_diffusion"]
COMMANDS = "generate, extend, resume, batch, info, models, doctor, evaluate"
SMALL = ["--model", "gauss", "--size", "16x16", "-n", "1"]


def fifo(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    there = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run([*PROGRAM, *arguments], cwd=cwd, capture_output=True, timeout=240, env=there)


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
        "--crf",
        "30",
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
    assert fifo("generate", "--from", "a.mp4.json", cwd=tmp_path).returncode == 0  # named after its prompt
    (named,) = (file for file in tmp_path.glob("*.mp4") if len(file.stem) > 1)
    assert named.read_bytes() == (tmp_path / "a.mp4").read_bytes()


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
        (["generate", "a", "--model", "sora"], "the models are embedded, embedded-df, embedded-large, gauss"),
        (["generate", "a", "-n", "0"], "partitions is 0"),
        (["generate", "a", "--size", "63x64"], "makes 64x64"),
        (["generate", "a", "--size", "wide"], "WIDTHxHEIGHT"),
        (["generate", "a", "--device", "cuda:9"], "is not here"),
        (["generate", "a", "--device", "gpu"], "did you mean cuda?"),
        (["generate", "a", "--model", "wan"], "did you mean wan-1.3b or wan-14b?"),
        (["generate", "a", "-o", ".mp4"], ".mp4 is an extension without a name before it; give one, such as video.mp4"),
        (["generate", "a", "--model", "wan-1.3b", "--weights", "./nothere"], "there are no weights at ./nothere"),
        (["generate", "a", "-o", "no/such/folder/a.mp4"], "no/such"),
        (["generate", "a", "-o", "a.avi"], ".mp4"),
        (["generate", "a", "--frames", "3", "--seconds", "1"], "give one of them"),
        (["generate", "a", "--seconds", "inf"], "--frames 0"),
        (["generate", "a", "--scale", "0"], "scale 0"),
        (["generate", "a", "--eta", "0.5", "--solver", "2m"], "2m"),
        (["generate", "--prompt", "9: b"], "the first must be at 0"),
        (["generate", "a", "--prompt", "9: b", "--prompt", "8: c"], "'c' is at frame 8 and comes after 'b'"),
        (["generate", "a", "--script", "none.yaml", "--prompt", "9: b"], "both --prompt and --script"),
        (["generate", "a", "--blend", "slow", "--live"], "--blend 'slow' is no time"),
        (["generate", "a", "-o", ""], "no output was named"),
        (["generate", "a", "--prompt", "2s: b", "--fps", "nan"], "fps is nan"),
        (["generate", "a", "--model", "gauss", "--fp8", "weights"], "gauss has no network"),
        (["evaluate", "gates", "--model", "gauss"], "has no gates"),
        (["evaluate", "gates", "--streams", "1", "--frames", "9"], "of 16 frames or more"),
        (["evaluate", "gates", "--streams", "1", "-n", "0"], "partitions is 0"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = fifo(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["generate", "a", "--sed", "3"],
            "fifo generate has no flag '--sed', the nearest is --seed; see fifo generate -h",
        ),
        (["generate", "a", "--seed", "x"], "--seed is 'x'; give a whole number; see fifo generate -h"),
        (["generate", "a", "--fps", "fast"], "--fps is 'fast'; give a number; see fifo generate -h"),
        (["generate", "a", "--seed"], "--seed needs a value, and none follows it; see fifo generate -h"),
        (["generate", "a", "--quiet=3"], "--quiet takes no value; see fifo generate -h"),
        (
            ["generate", "a", "red", "balloon"],
            "fifo generate has no place for 'red balloon'; put what has spaces in it into quotes; see fifo generate -h",
        ),
        (["evaluate", "--seeds"], "--seeds needs a value, and none follows it; see fifo evaluate -h"),
        (["info"], "fifo info needs VIDEO: a video, a picture, or a folder of them, that fifo made; see fifo info -h"),
        (["batch", "a"], "fifo batch needs --out: the folder for the videos and for results.jsonl; see fifo batch -h"),
        (
            ["generat", "a"],
            f"fifo has no command 'generat', the nearest is generate; the commands are {COMMANDS}; see fifo -h",
        ),
        (["--[red]x"], "fifo has no flag '--[red]x'; see fifo -h"),
        (["--version=3"], "--version takes no value; see fifo -h"),
    ],
)
def test_a_mistyped_line_is_told_as_our_own_errors_are(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = fifo(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", f"error: {says}\n")


def test_times_between_checkpoints_are_read_in_their_units() -> None:
    assert [seconds_of(text) for text in ("30s", "1.5m", "2", "off")] == [30, 90, 2, 0]
    for text in ("soon", "-1s", "1h", ""):
        with pytest.raises(BadInput, match=f"^--checkpoint-every is '{text}'; give seconds"):
            seconds_of(text)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        named = path if name == "-" else (*path, name)
        yield from commands(command, named) if hasattr(command, "commands") else [named]


@pytest.mark.parametrize("path", list(commands(get_command(app))), ids=" ".join)
def test_every_command_tells_a_flag_that_it_does_not_have(path: tuple[str, ...]) -> None:
    with pytest.raises(
        BadInput, match=f"^fifo {' '.join(path)} has no flag '--no-such'; see fifo {' '.join(path)} -h$"
    ):
        app([*path, "--no-such"], prog_name="fifo")


def test_evaluate_without_a_name_has_no_gap_in_its_usage(tmp_path: Path) -> None:
    assert b"Usage: fifo evaluate [OPTIONS]" in fifo("evaluate", "-h", cwd=tmp_path).stdout
    assert b"see fifo evaluate -h" in fifo("evaluate", "--no-such-flag", cwd=tmp_path).stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_a_whole_video(tmp_path: Path, how: signal.Signals) -> None:
    with endless(tmp_path, {how: signal.SIG_DFL}) as running:
        running.send_signal(how)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert b"Traceback" not in said
    written = json.loads((tmp_path / "a.mp4.json").read_text())["frames_written"]
    assert len(list(read_frames(tmp_path / "a.mp4"))) == written > 10


def test_nohup_keeps_the_end_of_the_terminal_off(tmp_path: Path) -> None:
    """And a shell that starts it in the background, where Ctrl-C is ignored, keeps no `kill -INT` off."""
    with endless(tmp_path, {signal.SIGHUP: signal.SIG_IGN, signal.SIGINT: signal.SIG_IGN}) as running:
        running.send_signal(signal.SIGHUP)
        before = (tmp_path / "a.partial.mp4").stat().st_size
        until(lambda: (tmp_path / "a.partial.mp4").stat().st_size > before + 20_000)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130


@contextmanager
def endless(folder: Path, signals: dict[signal.Signals, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A video without end that has some frames; signals: how whoever starts it has them set."""
    command = [*PROGRAM, "generate", "-", *SMALL, "--frames", "0", "-o", "a.mp4"]

    def set_signals() -> None:
        for number, handler in signals.items():
            signal.signal(number, handler)

    running = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, preexec_fn=set_signals)
    partial = folder / "a.partial.mp4"
    try:
        until(lambda: partial.exists() and partial.stat().st_size > 20_000)
        yield running
    finally:
        running.kill()
        running.communicate()


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_terminal_that_has_gone_does_not_end_the_video(tmp_path: Path) -> None:
    """Its pipe is broken when the warning of a word that the model does not know is said."""
    command = [*PROGRAM, "generate", "a zebra over a forest", "-n", "1", "--begin", "noise", "--guidance", "1"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    running = subprocess.Popen(
        [*command, "--frames", "2", "-o", "a.mp4"], cwd=tmp_path, stderr=subprocess.PIPE, env=buffered
    )
    assert running.stderr is not None
    running.stderr.close()
    assert running.wait(timeout=240) == 0
    assert len(list(read_frames(tmp_path / "a.mp4"))) == 2


def test_a_terminal_that_goes_while_its_line_is_live_does_not_end_the_video(tmp_path: Path) -> None:
    """Its other end is closed once the line is there: to write to it is then an error of another kind."""
    ours, theirs = os.openpty()
    command = [*PROGRAM, "generate", "-", *SMALL, "--frames", "20", "-o", "a.mp4"]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen = b""
    while b"loading" not in seen:
        seen += os.read(ours, 1000)
    os.close(ours)
    assert running.wait(timeout=240) == 0
    assert len(list(read_frames(tmp_path / "a.mp4"))) == 20


def test_other_programs_tags_are_told_as_they_are(tmp_path: Path) -> None:
    tags = {"prompt": "a bee", "size": 3, "cues": [1, {"at": 2}], "guidance": 0}
    with open_sink(str(tmp_path / "a.mp4"), fps=4, size=(16, 16), metadata={"comment": json.dumps(tags)}) as sink:
        sink.write(np.zeros((16, 16, 3), np.uint8))
    told = fifo("info", "a.mp4", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert b"a bee" in told.stdout
    assert b"{'at': 2}" in told.stdout
    tags["cues"] = [{"at": 2, "prompt": "a bus", "guidance": 0, "blend": 0}]
    with open_sink(str(tmp_path / "b.mp4"), fps=4, size=(16, 16), metadata={"comment": json.dumps(tags)}) as sink:
        sink.write(np.zeros((16, 16, 3), np.uint8))
    assert b"2: a bus (guidance 0)" in fifo("info", "b.mp4", cwd=tmp_path).stdout


def test_a_prompt_is_told_in_any_code(tmp_path: Path) -> None:
    fifo("generate", "-", *SMALL, "--frames", "2", "--negative-prompt", "\u9be8", "-o", "a.mp4", cwd=tmp_path)
    told = fifo("info", "a.mp4", cwd=tmp_path, PYTHONIOENCODING="cp1252")
    assert told.returncode == 0, told.stderr
    assert b"\\u9be8" in told.stdout


def test_a_name_that_another_run_is_making_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that run keeps nothing to go on with; else its name is refused, in words."""
    monkeypatch.chdir(tmp_path)
    assert _free_name("A red balloon!") == "a-red-balloon.mp4"
    (tmp_path / "a-red-balloon.partial.mp4").touch()
    assert _free_name("A red balloon!") == "a-red-balloon-2.mp4"
    (tmp_path / "a-red-balloon.mp4.run").mkdir()
    assert _free_name("A red balloon!") == "a-red-balloon.mp4"


HOW = rb"cpu, float32, (one window|\d windows) at .*, not compiled \(--device, .*--memory\)"


def test_how_it_is_computed_is_told_at_the_start_and_when_it_goes_on(tmp_path: Path) -> None:
    said = [
        fifo("generate", "-", *SMALL, "--frames", "2", "-o", "a.mp4", cwd=tmp_path),
        fifo("resume", "a.mp4", "--frames", "+2", cwd=tmp_path),
        fifo("resume", "a.mp4", "--frames", "+2", "-q", cwd=tmp_path),
    ]
    assert [len(re.findall(HOW, done.stderr)) for done in said] == [1, 1, 0], said


def brightness(frames: Iterable[NDArray[np.uint8]]) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def test_a_story_from_a_script_or_from_flags_is_the_same_video(tmp_path: Path) -> None:
    """The exact model hears a number, the mean of what it shows, so the frame that a prompt reaches can be seen."""
    (tmp_path / "story.yaml").write_text("- {at: 0, prompt: '-2'}\n- {at: 1s, prompt: '2'}\n- {at: 15, prompt: '-2'}\n")
    common = [*SMALL, "--frames", "20", "--blend", "0"]
    one = fifo("generate", "--script", "story.yaml", *common, "-o", "a.mp4", cwd=tmp_path)
    assert one.returncode == 0, one.stderr.decode()
    # a prompt that begins with a minus would be taken for a flag
    flags = ["--prompt", "0: -2", "--prompt", "10: 2", "--prompt", "1.5s: -2"]
    two = fifo("generate", *flags, *common, "-o", "b.mp4", cwd=tmp_path)
    assert two.returncode == 0, two.stderr.decode()
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.mp4.json", "b.mp4.json"))
    assert first["run"] == second["run"]
    assert first["frames_sha256"] == second["frames_sha256"]
    shown = brightness(read_frames(tmp_path / "a.mp4"))
    assert [value > 128 for value in shown] == [False] * 10 + [True] * 5 + [False] * 5


def said_live(folder: Path, *arguments: str, typed: bytes) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """What was heard and the frame that it reaches, and the last change of the prompt that a.mp4's sidecar has."""
    done = subprocess.run(
        [*PROGRAM, *arguments, "--live"],
        cwd=folder,
        input=typed,
        capture_output=True,
        timeout=240,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr.decode()
    reached = re.findall(r"^(.+) reaches the screen at frame (\d+)", done.stderr.decode(), re.MULTILINE)
    return reached, json.loads((folder / "a.mp4.json").read_text())["run"]["cues"][-1]


def test_live_prompts_come_from_stdin_and_the_video_goes_on_without_it(tmp_path: Path) -> None:
    typed = b"\xef\xbb\xbf2\n\n  \nnothing like it\n"  # PowerShell marks what it pipes
    reached, cue = said_live(tmp_path, "generate", "-", *SMALL, "--frames", "400", "-o", "a.mp4", typed=typed)
    assert [prompt for prompt, _ in reached] == ["2", "nothing like it"]
    assert str(cue["at"]) == reached[-1][1]
    again = fifo("generate", "--from", "a.mp4.json", "-o", "b.mp4", cwd=tmp_path)
    assert b"identical to the first, bit for bit" in again.stderr


def test_a_prompt_that_comes_too_soon_after_another_says_that_it_takes_its_place(tmp_path: Path) -> None:
    """Here before there is a frame, while the base clip is sampled."""
    said = ["generate", "a red balloon", "-n", "1", "--guidance", "1", "--frames", "2", "-o", "a.mp4", "--live"]
    done = subprocess.run(
        [*PROGRAM, *said], cwd=tmp_path, input=b"a blue whale\na green car\n", capture_output=True, timeout=240,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert b"at frame 0, in place of 'a red balloon'" in b" ".join(done.stderr.split()), done.stderr
    assert b"in place of 'a blue whale'" in done.stderr


def test_a_stdin_that_cannot_be_read_is_said_and_the_video_goes_on(tmp_path: Path) -> None:
    command = [*PROGRAM, "generate", "-", *SMALL, "--frames", "9", "-o", "a.mp4", "--live"]
    with open(os.devnull, "wb") as written:
        done = subprocess.run(command, cwd=tmp_path, stdin=written, capture_output=True, timeout=240)
    assert done.returncode == 0
    assert b"prompts are heard no more: stdin cannot be read (Bad file descriptor)" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_closed_stdout_takes_no_frames(tmp_path: Path) -> None:
    command = [*PROGRAM, "generate", "-", *SMALL, "--frames", "3", "-o", "-"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], cwd=tmp_path, capture_output=True, timeout=240)
    assert done.returncode == 2
    assert b"error: stdout is closed, so it takes no frames" in done.stderr


def test_a_video_that_is_gone_on_with_hears_prompts_too(tmp_path: Path) -> None:
    assert fifo("generate", "-", *SMALL, "--frames", "20", "-o", "a.mp4", cwd=tmp_path).returncode == 0
    ((_, frame),), cue = said_live(tmp_path, "resume", "a.mp4", "--frames", "+400", "--blend", "1s", typed=b"2\n")
    assert (cue["prompt"], str(cue["at"]), cue["blend"]) == ("2", frame, 10)
    assert int(frame) > 20
    alone = fifo("resume", "a.mp4", "--frames", "+9", "--blend", "3", cwd=tmp_path)
    assert alone.returncode == 2
    assert b"give --live with it" in alone.stderr


def test_models_and_doctor(tmp_path: Path) -> None:
    listed = fifo("models", cwd=tmp_path)
    assert b"embedded" in listed.stdout
    assert b"gauss" in listed.stdout
    assert re.search(rb"scores +\d+ plans were measured: fifo models embedded\n", listed.stdout)
    one = fifo("models", "embedded", cwd=tmp_path)
    assert b"gauss" not in one.stdout
    plans = re.findall(rb"^ +-n .* told .*", one.stdout, re.MULTILINE)
    assert len(plans) > 1
    assert len({plan.index(b" told ") for plan in plans}) == 1  # in columns
    assert fifo("models", "sora", cwd=tmp_path).returncode == 2
    checked = fifo("doctor", cwd=tmp_path)
    assert checked.returncode == 0
    assert b"libx264" in checked.stdout
    assert b"its weights are whole" in checked.stdout


SHORT_OF_MEMORY = """
import torch
from fifo_diffusion.cli import main
from fifo_diffusion.models.gauss import GaussianVideo

usual = GaussianVideo.__call__

def call(self, z, t, cond, /):
    if len(z) > 1:
        raise torch.OutOfMemoryError
    return usual(self, z, t, cond)

GaussianVideo.__call__ = call
main()
"""


def test_a_batch_that_does_not_fit_is_one_line_and_the_video_goes_on(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(SHORT_OF_MEMORY)
    said = [
        "generate",
        "1",
        "--model",
        "gauss",
        "--size",
        "16x16",
        "-n",
        "2",
        "--batch",
        "2",
        "--frames",
        "2",
        "-o",
        "a.mp4",
    ]
    done = subprocess.run([sys.executable, "short.py", *said], cwd=tmp_path, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.count(b"warning: 2 windows at once do not fit") == 1
    assert b"UserWarning" not in done.stderr
    assert len(list(read_frames(tmp_path / "a.mp4"))) == 2


def test_another_model_shows_its_pixels_as_large_as_it_is_used_to(tmp_path: Path) -> None:
    assert fifo("generate", "0", *SMALL, "--frames", "1", "--scale", "3", "-o", "a.mp4", cwd=tmp_path).returncode == 0
    other = ["--model", "embedded", "-n", "1", "--guidance", "1", "--frames", "1", "-o", "b.mp4"]
    assert fifo("generate", "--from", "a.mp4.json", *other, cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "b.mp4.json").read_text())["scale"] == 4


def test_a_prompt_for_all_that_is_to_come_has_no_time(tmp_path: Path) -> None:
    for said in ("120: a whale", "4.5 s: a whale", ".5s : a whale"):
        refused = CliRunner().invoke(app, ["resume", str(tmp_path / "a.mp4"), "--prompt", said])
        assert isinstance(refused.exception, BadInput)
        assert "with a time" in str(refused.exception)


@pytest.mark.parametrize(("weights", "model"), [([], "embedded-df"), (["--weights", str(WEIGHTS)], "embedded")])
def test_the_streams_of_the_gates_are_of_the_model_that_is_judged(
    weights: list[str], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without art, a judge and hours: what would make the streams is asked what it was told."""
    told: dict[str, Any] = {}

    def streams(*_: object, settings: dict[str, Any], **__: object) -> Iterator[object]:
        told.update(settings)
        return iter(())

    small = replace(KINDS["small"], fetch=lambda _: tmp_path, load=lambda *_: Art({}))
    monkeypatch.setattr(experiment, "KINDS", {"small": small})
    monkeypatch.setattr(experiment, "streams", streams)
    for name in ("measure", "trained_judge", "stream_gates", "real_jitter"):
        monkeypatch.setattr(experiment, name, lambda *_, **__: ())
    asked = ["evaluate", "gates", "--model", "embedded-df", "--folder", str(tmp_path), "--streams", "1", *weights]
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert told["model"] == model
