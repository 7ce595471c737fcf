"""A list of videos, made by real processes that are stopped and killed; each video is that of a quiet run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fifo_diffusion import api, checkpoint, sidecar
from fifo_diffusion.batch.driver import Driver, opened
from fifo_diffusion.batch.jobs import Job, read
from fifo_diffusion.batch.local import _STOP, Local, _start
from fifo_diffusion.batch.results import Result, Results, fingerprint
from fifo_diffusion.batch.table import Table
from fifo_diffusion.digest import NOTHING, link
from fifo_diffusion.errors import BadInput, FifoError, OutputError
from fifo_diffusion.names import Watch
from fifo_diffusion.sinks import read_frames

pytestmark = pytest.mark.xdist_group("processes")  # many of them at once, so one such test at a time

COMMAND = [sys.executable, "-m", "fifo_diffusion", "batch"]
SMALL = {"model": "gauss", "size": [16, 16], "partitions": 2, "eta": 1.0, "scale": 1}
LONG_ENOUGH = 240  # seconds


def write(folder: Path, *frames: int) -> list[dict[str, Any]]:
    """A list of jobs of these lengths, that differ in prompt, seed and name."""
    jobs = [{**SMALL, "output": f"{i}.mp4", "prompt": str(i), "seed": i, "frames": n} for i, n in enumerate(frames, 1)]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    return jobs


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out/results.jsonl").read_text().splitlines()]


@cache
def quiet(line: str) -> str:
    """The digest of a job's frames, made here and now."""
    job = Job.of(json.loads(line))
    with TemporaryDirectory() as folder:
        return api.make(job.run, f"{folder}/{job.output}", checkpoint_every=0).frames_sha256


def reached(run: Path) -> int:
    """The frame of a video's latest checkpoint; 0 without one, or before there is a folder for any."""
    return max(checkpoint.committed(run), default=0) if run.is_dir() else 0


def await_checkpoints(driver: subprocess.Popen[bytes], run: Path, beyond: int = 0) -> int:
    """Until a video has a checkpoint beyond that frame; returns which."""
    until = time.monotonic() + LONG_ENOUGH
    while reached(run) <= beyond:
        assert driver.poll() is None, driver.communicate()[1].decode()
        assert time.monotonic() < until
        time.sleep(0.02)
    return reached(run)


def start(folder: Path, *said: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "jobs.jsonl", "--out", "out", "--workers", "2", "--checkpoint-every", "0.1s", *said]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(folder: Path, *said: str) -> tuple[int, str]:
    """The exit code, and what was said."""
    driver = start(folder, *said)
    text = driver.communicate(timeout=LONG_ENOUGH)[1].decode()
    return driver.returncode, text


def drive(
    folder: Path, stopping: Callable[[Local], bool] = lambda pool: False, every: float = 0.1, tries: int = 1
) -> tuple[dict[str, dict[str, Any]], str]:
    """The list by one worker of this process's: the results by name, and what was said.

    stopping: asked again and again whether to stop.
    """
    listed, told = read(folder / "jobs.jsonl"), Console(file=StringIO())
    with opened(folder / "jobs.jsonl", listed, folder / "out") as (kept, left), closing(Local(1)) as pool:
        table = Table(told, listed, kept.lines, left, True)
        Driver(listed, left, folder / "out", pool, kept, table, every, 3, tries, lambda: stopping(pool)).run()
    assert isinstance(told.file, StringIO)
    return {line["name"]: line for line in results(folder)}, told.file.getvalue()


def owner(driver: int, partial: Path) -> int:
    """The worker of a driver that has this file open."""
    children = subprocess.run(["pgrep", "-P", str(driver)], check=True, stdout=subprocess.PIPE, text=True).stdout
    for child in children.split():
        with suppress(OSError):
            if partial in [Path(os.readlink(file)) for file in Path(f"/proc/{child}/fd").iterdir()]:
                return int(child)
    raise AssertionError(f"no worker has {partial} open")


def check_done(folder: Path, jobs: list[dict[str, Any]]) -> None:
    lines = {line["name"]: line for line in results(folder)}
    assert len(results(folder)) == len(lines) == len(jobs)
    for job in jobs:
        line = lines[job["output"]]
        assert (line["state"], line["error"]) == ("done", None)
        assert line["sha256"] == quiet(json.dumps(job))


def check_stopped(folder: Path, *names: str) -> list[int]:
    """How many frames each of these videos holds, each being whole and shorter than it shall be."""
    lines = {line["name"]: line for line in results(folder) if line["state"] == "stopped"}
    held = [len(list(read_frames(folder / "out" / name))) for name in names]
    assert held == [lines[name]["frames"] for name in names]
    assert min(held) > 0
    return held


def test_a_worker_that_has_just_been_started_does_not_hear_ctrl_c() -> None:
    (seat,) = (local := Local(1))._seats
    _start(seat)
    assert seat.process is not None
    assert seat.process.pid is not None
    os.kill(seat.process.pid, signal.SIGINT)  # of a terminal, which sends it to all
    local.close()
    assert seat.process.exitcode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_killed_worker_a_stop_and_a_killed_driver_cost_nothing(tmp_path: Path) -> None:
    jobs, out = write(tmp_path, 400, 60, 60), tmp_path / "out"
    driver = start(tmp_path)
    before = await_checkpoints(driver, out / "1.mp4.run")
    os.kill(owner(driver.pid, out / "1.partial.mp4"), signal.SIGKILL)
    await_checkpoints(driver, out / "1.mp4.run", beyond=before + 10)
    driver.send_signal(signal.SIGTERM)
    said = driver.communicate(timeout=LONG_ENOUGH)[1].decode()
    assert driver.returncode == 130, said
    assert "1.mp4: its worker was killed by SIGKILL; it is tried again from its last checkpoint" in said
    assert said.count("stopping: ") == said.count("run the same command again") == 1
    (held,) = check_stopped(tmp_path, "1.mp4")

    driver = start(tmp_path)
    await_checkpoints(driver, out / "1.mp4.run", beyond=held)
    driver.kill()
    driver.communicate(timeout=LONG_ENOUGH)  # its workers hold the pipe until they have finished their files
    code, said = run(tmp_path)
    assert code == 0, said
    check_done(tmp_path, jobs)
    with opened(tmp_path / "jobs.jsonl", read(tmp_path / "jobs.jsonl"), out) as (_, left):
        assert left == []


def test_the_end_of_the_terminal_stops_a_batch_in_order(tmp_path: Path) -> None:
    write(tmp_path, 4000)
    usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what the driver begins with
    try:
        driver = start(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, usual)
    await_checkpoints(driver, tmp_path / "out" / "1.mp4.run")
    driver.send_signal(signal.SIGHUP)
    said = driver.communicate(timeout=LONG_ENOUGH)[1].decode()
    assert driver.returncode == 130, said
    check_stopped(tmp_path, "1.mp4")


def test_a_job_that_fails_leaves_the_others_be(tmp_path: Path) -> None:
    """One whose worker dies too often, and one whose video was changed."""
    jobs, out = write(tmp_path, 300, 20), tmp_path / "out"
    partial = out / "1.partial.mp4"

    def kill(_: Local) -> bool:
        """In place of asking whether to stop."""
        if not killed and partial.exists() and reached(out / "1.mp4.run"):
            killed.append(owner(os.getpid(), partial))
            os.kill(killed[0], signal.SIGKILL)
        return False

    killed: list[int] = []
    lines, _ = drive(tmp_path, kill)
    assert lines["1.mp4"]["state"] == "failed"
    assert "its worker was killed by SIGKILL, after it was tried once" in lines["1.mp4"]["error"]
    assert lines["2.mp4"]["state"] == "done"
    assert sidecar.read(out / "2.mp4.json").machine["threads"] == 3
    api.make(Job.of({**jobs[1], "seed": 9}).run, str(tmp_path / "other.mp4"))
    (tmp_path / "other.mp4").rename(out / "2.mp4")
    lines, _ = drive(tmp_path, kill)
    assert (lines["1.mp4"]["state"], lines["1.mp4"]["sha256"]) == ("done", quiet(json.dumps(jobs[0])))
    assert lines["2.mp4"]["state"] == "failed"
    assert "2.mp4 is not as the run in" in lines["2.mp4"]["error"]


def test_a_worker_that_stops_unasked_is_one_that_was_lost(tmp_path: Path) -> None:
    jobs, told = write(tmp_path, 300), False

    def tell(pool: Local) -> bool:
        """Of a stop, but only to the worker."""
        nonlocal told
        if not told and reached(tmp_path / "out/1.mp4.run"):
            pool._send(pool._seats[0], _STOP)
            told = True
        return False

    lines, said = drive(tmp_path, tell, tries=2)
    assert "1.mp4: its worker stopped, and nobody had asked it to; it is tried again from its last checkpoint" in said
    assert lines["1.mp4"]["tries"] == 2
    check_done(tmp_path, jobs)


FAULTY = r"""
import re
import torch
from fifo_diffusion.cli import main
from fifo_diffusion.models.gauss import GaussianVideo

usual, broken = GaussianVideo.__call__, False

def call(self, z, t, cond, /):
    global broken
    side = z.shape[-1]
    if len(z) > 1:
        raise torch.OutOfMemoryError
    if side == 22:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 4 GiB")
    if side == 20:
        at = torch.empty(2**26).data_ptr()
        (heap,) = re.findall(r"(\w+)-(\w+) .*\[heap\]", open("/proc/self/maps").read())
        assert int(heap[0], 16) <= at < int(heap[1], 16), "freed memory is given back"
    broken = broken or side == 18
    if broken:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return usual(self, z, t, cond)

GaussianVideo.__call__ = call
if __name__ == "__main__":  # and not in the workers, which read this file too
    main()
"""


def test_a_worker_says_and_survives_what_the_command_does(tmp_path: Path) -> None:
    """Too little memory is a sentence, a batch that does not fit a warning; a device that faulted is left to none."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    sides = {"fits_not.mp4": 16, "illegal.mp4": 18, "after.mp4": 16, "heap.mp4": 20, "memory.mp4": 22}
    jobs = [{**SMALL, "output": name, "prompt": "1", "frames": 2, "size": [n, n]} for name, n in sides.items()]
    jobs = [{**job, "batch": 2 if job["output"] == "fits_not.mp4" else 1} for job in jobs]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    command = [sys.executable, "faulty.py", "batch", "jobs.jsonl", "--out", "out", "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=LONG_ENOUGH)
    said = done.stderr.decode()
    assert done.returncode == 1, said
    lines = {line["name"]: line for line in results(tmp_path)}
    assert {name: line["error"] for name, line in lines.items() if line["state"] != "failed"} == {
        "fits_not.mp4": None,
        "after.mp4": None,
        "heap.mp4": None,
    }, said
    assert lines["illegal.mp4"]["error"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert lines["memory.mp4"]["error"] == (
        "the memory of the GPU does not suffice (2.00 GiB more were asked for); memory low, batch 1, fp8 weights or a "
        "smaller size need less"
    )
    assert {line["tries"] for line in lines.values()} == {1}
    assert said.count("warning: fits_not.mp4: 2 windows at once do not fit") == 1
    assert "UserWarning" not in said
    assert said.count("Traceback") == 1  # of what nobody knows
    assert "warning: illegal.mp4: Traceback" in said


def stop_at(frame: int, aside: tuple[Path, Path] | None = None) -> Watch:
    """Ctrl-C when a frame comes out.  aside: what is copied just before, as a kill would leave it, and where to."""

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == frame:
            if aside is not None:
                shutil.copytree(*aside)
            raise KeyboardInterrupt

    return watch


def test_all_methods_and_pictures_without_checkpoints_are_brought_to_their_end(tmp_path: Path) -> None:
    out, other = tmp_path / "out", {name: value for name, value in ONE.items() if name != "partitions"}
    jobs: list[dict[str, Any]] = [
        {**other, "output": "plain.mp4", "frames": 20, "method": "plain"},
        {**other, "output": "chunked.mp4", "frames": 20, "method": "chunked", "steps": 8, "overlap": 4},
        {**ONE, "output": "stopped", "frames": 20},
        {**ONE, "output": "killed", "frames": 20},
    ]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    out.mkdir()
    stop = stop_at(5, (out / "stopped", out / "killed"))
    with pytest.raises(KeyboardInterrupt):
        api.make(Job.of(jobs[2]).run, str(out / "stopped"), scale=1, checkpoint_every=0, watch=stop)
    assert [(out / name / "fifo.json").exists() for name in ("stopped", "killed")] == [True, False]
    for name in ("stopped", "killed"):
        for changes in ({"seed": 1}, {"scale": 2}):
            with pytest.raises(BadInput, match="made otherwise"):
                check_list(tmp_path, {**jobs[2], "output": name, **changes})
    shutil.copytree(out / "killed", out / "strange")
    (out / "strange" / "frame_000000.png").write_bytes(b"somebody's own")
    with pytest.raises(BadInput, match="already holds"):
        check_list(tmp_path, {**jobs[2], "output": "strange"})
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    drive(tmp_path, every=0)
    check_done(tmp_path, jobs)
    for name in ("stopped", "killed"):
        assert len(list((out / name).glob("frame_*.png"))) == 20
        assert sidecar.read(out / name / "fifo.json").frames_written == 20
        assert not (out / name / "fifo.run").exists()


def test_a_list_that_asks_for_less_than_a_killed_video_has_is_refused(tmp_path: Path) -> None:
    (making := tmp_path / "making").mkdir()
    stop = stop_at(50, (making, tmp_path / "out"))
    with pytest.raises(KeyboardInterrupt):
        api.make(Job.of({**ONE, "frames": 90}).run, str(making / "a.mp4"), scale=1, checkpoint_every=1e-9, watch=stop)
    held = sum(1 for _ in read_frames(tmp_path / "out/a.partial.mp4"))
    assert held > 30
    says = (
        rf"line 1: a.mp4 has {held} frames already, .* says frames 30; give the job {held} or more, or another output"
    )
    with pytest.raises(BadInput, match=says):
        check_list(tmp_path, {**ONE, "frames": 30})
    check_list(tmp_path, {**ONE, "frames": held})


def check_list(folder: Path, *jobs: object) -> None:
    (folder / "jobs.jsonl").write_text("\n".join(job if isinstance(job, str) else json.dumps(job) for job in jobs))
    with opened(folder / "jobs.jsonl", read(folder / "jobs.jsonl"), folder / "out"):
        pass


ONE = {**SMALL, "output": "a.mp4", "prompt": "1"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{'a': 1}", "it is not JSON"),
        ("[1]", "it is no object"),
        ({**ONE, "sed": 1}, "setting 'sed' is unknown; did you mean seed?"),
        ({"prompt": "1"}, "output is missing; every job needs one"),
        ({"output": "b.mp4"}, "prompt is missing"),
        ({**ONE, "output": "b.avi"}, ".avi"),
        ({**ONE, "output": "../b.mp4"}, "the name of a file or folder in DIR"),
        ({**ONE, "output": ".b.mp4"}, "the name of a file or folder in DIR"),
        ({**ONE, "output": "b.partial.mp4"}, "files under way"),
        ({**ONE, "output": "A.mp4"}, "output 'A.mp4' is that of line 1 too"),
        ({**ONE, "output": "b.mp4", "frames": 0}, "a video without end"),
        ({**ONE, "output": "b.mp4", "device": "cuda:1"}, "deals its devices itself"),
        ({**ONE, "output": "b.mp4", "model": "sora"}, "the models are embedded, embedded-df, embedded-large, gauss"),
        ({**ONE, "output": "b.mp4", "crf": 99}, "crf of 99"),
        ({**ONE, "output": "b.gif", "crf": 9}, "no constant rate factor"),
        ({**ONE, "output": "b.mp4", "size": [15, 16], "scale": 1}, "15"),
        ({**ONE, "output": "b.mp4", "solver": "2m"}, "eta is 1 with solver 2m"),
        ({**ONE, "output": "b.mp4", "only_new": True}, "without a clip"),
        ({**ONE, "output": "b.mp4", "script": "none.yaml"}, "none.yaml cannot be read"),
        ({**ONE, "output": "b.mp4", "script": "none.yaml", "cues": []}, "both script and cues"),
        ({**ONE, "output": "b.mp4", "lora": ["none.safetensors"]}, "is not there"),
        ({**ONE, "output": "b.mp4", "script": 5}, "script is 5; give the name of a YAML file"),
        ({**ONE, "output": "b.mp4", "script": "none.yaml", "model": []}, "model is []; it must be a valid string"),
        ({**ONE, "output": "b.mp4", "script": "none.yaml", "model": None}, "model is None"),
        ({**ONE, "output": "b" * 252 + ".mp4"}, "a name of 256 bytes"),
        ({**ONE, "output": "\u00e4" * 126 + ".mp4"}, "a name of 256 bytes"),
        ({**ONE, "output": "b\0.mp4"}, "'output' has a character that no file takes"),
        ({**ONE, "output": "b\ud800.mp4"}, "'output' has a character that no file takes"),
        ({**ONE, "output": "b.mp4", "cues": [{"at": 9, "prompt": "\udfff"}]}, "'cues' has a character that no file"),
        ({**ONE, "output": "b.mp4", "script": "\0"}, "'script' has a character that no file takes"),
        ({**ONE, "output": "b.mp4", "\ud800": 1}, "has a character that no file takes"),
        pytest.param('{"seed": ' + "9" * 5000 + "}", "a number of 5000 digits, 99999999...; no setting", id="digits"),
        pytest.param("[" * 100_000, "nested too deeply", id="a deep line"),
    ],
)
def test_a_bad_line_is_named_before_any_work(line: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(FifoError, match=re.escape(says)) as caught:
        check_list(tmp_path, ONE, "", line)
    assert ", line 3: " in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["jobs.jsonl"]


def test_all_lines_are_checked_and_the_command_says_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text('{"output": "a.mp4"}\n{}\n[]\n')
    code, said = run(tmp_path)
    assert code == 2
    assert said == "error: jobs.jsonl, line 1: prompt is missing; every job needs one (2 more lines are wrong)\n"
    with pytest.raises(BadInput, match="has no jobs"):
        check_list(tmp_path, "")


def test_a_video_that_is_there_is_taken_for_what_it_is_and_no_more(tmp_path: Path) -> None:
    """Finished is what has the settings, the frames and the bytes; a name proves nothing."""
    job = Job.of({**ONE, "frames": 8})
    (out := tmp_path / "out").mkdir()
    (tmp_path / "jobs.jsonl").write_text(json.dumps({**ONE, "frames": 8}))

    def left(**changes: Any) -> list[int]:
        line = {**ONE, "frames": 8, **changes}
        (tmp_path / "jobs.jsonl").write_text(json.dumps(line))
        with opened(tmp_path / "jobs.jsonl", read(tmp_path / "jobs.jsonl"), out) as (_, numbers):
            return numbers

    (out / "a.mp4").write_bytes(b"somebody's own")
    with pytest.raises(BadInput, match="not of this batch"):
        left()
    (out / "a.mp4").unlink()
    made = api.make(job.run, str(out / "a.mp4"), scale=1)
    assert left() == [1]  # it may be finished, which its run can prove
    told = {"name": "a.mp4", "state": "done", "frames": 8, "sha256": made.frames_sha256}
    told["file_sha256"] = fingerprint(out / "a.mp4")
    for changes in ({"state": "stopped"}, {"sha256": fingerprint(out / "a.mp4")}, {"file_sha256": None}):
        Results(out).add(Result.model_validate(told | changes))
        assert left() == [1]
    with open(out / "results.jsonl") as before:
        Results(out).add(Result.model_validate({**told, "error": "with another end of a line\u2028in it"}))
        assert '"file_sha256":null' in before.read()  # another file has taken its name
    assert left() == left(device="cpu") == []
    assert left(frames=9) == [1]  # it can be made longer
    sidecar.write(made.model_copy(update={"run": made.run.model_copy(update={"halves": "apart"})}), out / "a.mp4.json")
    assert left() == []  # where a worker has little memory
    with pytest.raises(BadInput, match="halves 'together' in place of 'apart'"):
        left(halves="together")
    sidecar.write(made, out / "a.mp4.json")
    changed: list[tuple[dict[str, Any], str]] = [
        ({"seed": 1}, "the list now says seed 1 in place of 0"),
        ({"frames": 7}, "frames 7 in place of 8"),
        ({"scale": 2}, "scale 2 in place of 1"),
        ({"cues": [{"at": 3, "prompt": "2"}]}, "cues"),
        ({"dtype": "bfloat16"}, "dtype 'bfloat16' in place of 'float32'"),
        ({"device": "cuda"}, "device 'cuda' in place of 'cpu'"),
    ]
    for changes, says in changed:
        with pytest.raises(BadInput, match=says):
            left(**changes)
    assert (out / ".batch").is_dir()  # which was there before
    with open(out / "a.mp4", "ab") as file:
        file.write(b"!")
    assert left() == [1]
    pictures = api.make(job.run, str(out / "b"), scale=1)
    digests = {"sha256": pictures.frames_sha256, "file_sha256": fingerprint(out / "b")}
    Results(out).add(Result.model_validate({**told, **digests, "name": "b"}))
    assert left(output="b") == []
    (out / "b" / "frame_00000007.png").write_bytes(b"!")
    assert left(output="b") == [1]
    (out / "results.jsonl").write_text("{}\n")
    with pytest.raises(BadInput, match="line 1 is no result"):
        left()


def test_pictures_are_fingerprinted_in_the_order_of_their_frames(tmp_path: Path) -> None:
    (tmp_path / "frame_1000000.png").write_bytes(b"next")
    (tmp_path / "frame_999999.png").write_bytes(b"last")
    assert fingerprint(tmp_path) == link(link(NOTHING, b"last"), b"next")


def test_the_pace_of_a_job_is_that_of_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is put on by hand; loading begins with the job, and streaming here in the midst of the video."""
    now = 100.0
    monkeypatch.setattr("fifo_diffusion.progress.time", SimpleNamespace(monotonic=lambda: now))
    console = Console(file=StringIO(), width=120)
    table = Table(console, {1: Job.of({**SMALL, "output": "a.mp4", "prompt": "1"})}, {}, [1], True)

    def drawn() -> str:
        with console.capture() as shown:
            console.print(table._drawn())
        return shown.get()

    assert "waiting" in drawn()
    table.begun(1, "cpu", "here")
    assert re.search(r"a\.mp4 +loading +cpu on here", drawn())
    now = 102.0
    table.moved(1, "loading", 1, 1)
    assert "1/1  0.5/s  0:00 left" in drawn()
    table.moved(1, "streaming", 100, 200)
    now = 106.0
    table.moved(1, "streaming", 102, 200)
    assert "102/200  0.5/s  3:16 left" in drawn()
    assert "1 jobs: 1 under way, 0.5 frames/s in all" in drawn()


def test_a_job_may_name_a_script_and_files_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.yaml").write_text("- {at: 0, prompt: '1'}\n- {at: 2s, prompt: '2'}\n")
    for name in ("clip.png", "lora.safetensors", "weights"):
        Path(name).touch()
    line = {"output": "a/", "script": "story.yaml", "fps": 4, "negative_prompt": "a line\u2028and another"}
    line |= {"clip": "clip.png", "weights": "weights", "lora": ["lora.safetensors:0.12345678", "lora.safetensors"]}
    Path("jobs.jsonl").write_text(json.dumps(line, ensure_ascii=False))
    (job,) = read(Path("jobs.jsonl")).values()
    assert [(cue.at, cue.prompt) for cue in job.run.cues] == [(0, "1"), (8, "2")]
    assert job.clip == str(tmp_path / "clip.png")
    assert job.weights == str(tmp_path / "weights")
    assert job.lora == tuple(f"{tmp_path / 'lora.safetensors'}:{scale}" for scale in ("0.12345678", "1"))
    assert job.negative_prompt == "a line\u2028and another"
    assert job.output == "a"


def test_two_batches_do_not_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text(json.dumps(ONE))
    with (
        opened(tmp_path / "jobs.jsonl", read(tmp_path / "jobs.jsonl"), tmp_path / "out"),
        pytest.raises(BadInput, match="another batch"),
    ):
        check_list(tmp_path, ONE)


def test_what_a_killed_driver_left_is_taken_away_and_a_folder_that_has_gone_is_no_fault_of_ours(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text(json.dumps(ONE))
    jobs, out = read(tmp_path / "jobs.jsonl"), tmp_path / "out"

    def make() -> None:
        with opened(Path("-"), jobs, out) as (kept, _):
            shutil.rmtree(out)  # by somebody else, while its first batch is at work
            kept.add(Result(name="a.mp4", state="done"))

    with pytest.raises(OutputError, match=r"results\.jsonl cannot be written"):
        make()
    (out / ".batch").mkdir(parents=True)
    (left := out / ".batch" / "seen-0123").touch()
    with opened(Path("-"), jobs, out):
        assert not left.exists()
