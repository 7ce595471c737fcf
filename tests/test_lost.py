"""Under torchrun nothing hangs and nothing is lost: ranks are killed, fall silent, lose the network, are stopped."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import termios
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer
from typing import IO

import pytest
import torch
from typer.main import get_command

import fifo_diffusion as fifo
from fifo_diffusion import api, checkpoint
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.errors import BadInput
from fifo_diffusion.job import Job as Start
from fifo_diffusion.job import _join as joining
from fifo_diffusion.sinks import read_frames
from fifo_diffusion.together import check_seats
from test_together import COMMAND, LONG_ENOUGH, SAID, straight
from torchrun import CABLE, FIFO, TORCHRUN, Job, hosts, kill, latest, no_hosts, start, unplug, until, workers

pytestmark = pytest.mark.xdist_group("processes")  # many of them at once, so one such test at a time

SILENCE = "10"  # seconds, more than a loaded machine leaves a process waiting
OFTEN = ["--checkpoint-every", "0.1s"]


@contextmanager
def torchrun(*command: str, folder: Path, **environment: str) -> Iterator[Job]:
    """Killed at the end, with all that it started, where it has not ended by itself; and when it hangs."""
    job = start([*TORCHRUN, *command], folder, environment, subprocess.PIPE)
    hangs = Timer(2 * LONG_ENOUGH, kill, [job])
    hangs.start()
    try:
        yield job
    finally:
        hangs.cancel()
        kill(job)


def end(job: Job) -> str:
    """What it said, once it has ended by itself."""
    return job.communicate(timeout=LONG_ENOUGH)[1].decode()


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def goes_on_identically(video: Path) -> None:
    """One process goes on with it, and all its frames are those of one that makes it from the start."""
    made = api.resume(str(video), frames="+3")
    whole = made.run.model_copy(update={"frames": made.frames_written})
    assert made.frames_sha256 == api.make(whole, str(video.with_name("again.mp4"))).frames_sha256


def test_what_torchrun_starts_again_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """One of four ranks is killed; then, while the video is made longer, rank 0, whose changes come only once."""
    ranks = ["--master-port", free_port(), "--max-restarts", "1", "--nproc-per-node"]
    with torchrun(
        *ranks, "4", *FIFO, "generate", *SAID, *OFTEN, "--frames", "240", "-o", "a.mp4", folder=tmp_path
    ) as job:
        until(lambda: latest(tmp_path) > 0, [job], LONG_ENOUGH)
        os.kill(workers(job)[2], signal.SIGKILL)
        said = end(job)
    assert job.returncode == 0, said
    assert "240 frames" in said
    assert (tmp_path / "a.mp4").read_bytes() == straight(240, tmp_path)

    quiet = tmp_path / "quiet"
    quiet.mkdir()
    shutil.copy(tmp_path / "a.mp4", quiet)
    shutil.copytree(tmp_path / "a.mp4.run", quiet / "a.mp4.run")
    more = ["--frames", "+160", "--prompt", "3"]
    with torchrun(*ranks, "2", *FIFO, "resume", "a.mp4", *OFTEN, *more, folder=tmp_path) as job:
        until(lambda: latest(tmp_path) > 260, [job], LONG_ENOUGH)
        os.kill(workers(job)[0], signal.SIGKILL)
        said = end(job)
    assert job.returncode == 0, said
    api.resume(str(quiet / "a.mp4"), frames="+160", prompt="3")
    assert (tmp_path / "a.mp4").read_bytes() == (quiet / "a.mp4").read_bytes()


def test_fewer_ranks_that_come_back_go_on_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start chose by the number of ranks or by free memory is no other video; what was said is."""

    def starts(number: int) -> None:
        for module in ("api", "making"):
            monkeypatch.setattr(f"fifo_diffusion.{module}.job", lambda: Start("name", str(number), None))

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("streaming", 5):
            raise KeyboardInterrupt

    run = Run.of({"prompt": "0", "model": "gauss", "frames": 9, "guidance": 2.0, "partitions": 1, "size": (8, 8)})
    begun, batches = resolve(run), {}
    here = begun.model_copy(update={"halves": "apart", "batch": begun.batch + 5})
    for name, asked in (("open", run), ("said", run.model_copy(update={"batch": here.batch}))):
        starts(1)
        with pytest.raises(KeyboardInterrupt):
            api.make(begun, video := str(tmp_path / f"{name}.mp4"), watch=stop)
        starts(2)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(
                api, "resolve", lambda run, asked=asked, **how: here if run is asked else resolve(run, **how)
            )
            batches[name] = api.make(asked, video).run.batch
    assert batches == {"open": begun.batch, "said": here.batch}


def test_more_processes_than_gpus_are_refused_in_a_sentence() -> None:
    with pytest.raises(BadInput, match="8 processes were started on this machine, which has 1 GPU; start one a GPU"):
        check_seats(torch.device("cuda:0"), 8, 1)
    check_seats(torch.device("cuda:0"), 1, 1)
    check_seats(torch.device("cpu"), 8, 1)


def test_what_another_launcher_left_in_the_environment_is_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert joining.__wrapped__() is None


def test_a_program_of_the_users_own_under_torchrun_is_none_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ranks may each make another video, or none: nobody waits for them."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fifo_diffusion.job._join", lambda: pytest.fail("it waits for the others"))
    assert len(list(fifo.stream("0", model="gauss", size=(8, 8), partitions=1, frames=2))) == 2


def test_a_rank_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """Woken again it finds the others gone and ends too; asleep it would be killed by torchrun after 30 s."""
    said = ["--standalone", "--nproc-per-node", "2", *FIFO, "generate", *SAID, *OFTEN]
    with torchrun(*said, "--frames", "4000", "-o", "a.mp4", folder=tmp_path, FIFO_SILENCE=SILENCE) as job:
        until(lambda: latest(tmp_path) > 0, [job], LONG_ENOUGH)
        silent = workers(job)[1]
        os.kill(silent, signal.SIGSTOP)
        assert job.stderr is not None
        told = next((line for line in iter(job.stderr.readline, b"") if b"error: " in line), b"").decode()
        os.kill(silent, signal.SIGCONT)
        more = end(job)
    assert job.returncode != 0
    assert re.search(r"another rank has been silent .*; a.mp4 is whole and holds \d+ frames; go on with", told), told
    assert "error: " not in more, more
    assert "gloo" not in told + more
    goes_on_identically(tmp_path / "a.mp4")


def test_a_lost_network_ends_both_hosts(tmp_path: Path) -> None:
    if (why := no_hosts()) is not None:
        pytest.skip(why)
    command = [*FIFO, "generate", *SAID, *OFTEN, "--frames", "4000", "-o", "a.mp4"]
    where = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "10.77.0.1", "--master-port", "29500"]
    with hosts() as names, ExitStack() as at_the_end:
        jobs = []
        for rank, name in enumerate(names):
            said = ["ip", "netns", "exec", name, *TORCHRUN, *where, "--node-rank", str(rank), *command]
            lost = {"FIFO_SILENCE": SILENCE, "GLOO_SOCKET_IFNAME": CABLE}
            jobs.append(start(said, tmp_path, lost, subprocess.PIPE))
            at_the_end.callback(kill, jobs[-1])
        until(lambda: latest(tmp_path) > 0, jobs, LONG_ENOUGH)
        unplug(names)
        told = [end(job) for job in jobs]
    assert all(job.returncode for job in jobs)
    silent = "error: {}another rank has been silent for longer than FIFO_SILENCE allows; {}"
    assert silent.format("", "a.mp4 is whole") in told[0], told[0]
    assert silent.format("rank 1: ", "what was made is kept") in told[1], told[1]
    goes_on_identically(tmp_path / "a.mp4")


def test_what_is_said_saved_and_stopped_on_one_rank_holds_for_all(tmp_path: Path) -> None:
    """A prompt said live, a checkpoint of what was said, and Ctrl-C to torchrun itself."""
    (tmp_path / "command.py").write_text(COMMAND)
    ranks = ["--standalone", "--nproc-per-node", "2", "command.py", "generate", "1", *SAID[3:]]
    with torchrun(*ranks, *OFTEN, "--live", "--begin", "noise", "-o", "a.mp4", folder=tmp_path) as job:
        until(lambda: latest(tmp_path) > 0, [job], LONG_ENOUGH)
        assert job.stdin is not None
        job.stdin.write(b"2\n")
        job.stdin.flush()
        until(lambda: len(checkpoint.description(tmp_path / "a.mp4.run").run.cues) == 2, [job], LONG_ENOUGH)
        heard = checkpoint.description(tmp_path / "a.mp4.run").run.cues[-1]
        until(lambda: latest(tmp_path) > heard.at, [job], LONG_ENOUGH)
        job.send_signal(signal.SIGINT)
        told = end(job)
    assert heard.prompt == "2"
    assert "gloo" not in told, told
    stopped = re.search(r"stopped; a.mp4 is whole and holds (\d+) frames; go on with: fifo resume a.mp4", told)
    assert stopped is not None, told
    assert len(list(read_frames(tmp_path / "a.mp4"))) == int(stopped[1]) > heard.at
    assert checkpoint.description(tmp_path / "a.mp4.run").run.start == "noise"
    goes_on_identically(tmp_path / "a.mp4")


def test_a_pause_is_no_silence(tmp_path: Path) -> None:
    """Nobody takes frames for longer than a silent rank is given; rank 0 waits for that, and the others for it."""
    ranks = ["--standalone", "--nproc-per-node", "2", *FIFO, "generate", *SAID]
    with torchrun(*ranks, "--frames", "60", "-o", "-", "-q", folder=tmp_path, FIFO_SILENCE=SILENCE) as job:
        pipe = job.stdout
        assert pipe is not None
        until(lambda: waiting(pipe) + 64 * 64 * 3 > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ), [job], LONG_ENOUGH)
        time.sleep(1.5 * float(SILENCE))
        frames, told = job.communicate(timeout=LONG_ENOUGH)
    assert job.returncode == 0, told.decode()
    assert len(frames) == 60 * 64 * 64 * 3


def waiting(pipe: IO[bytes]) -> int:
    """Bytes that nobody has taken yet."""
    count = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def test_torchrun_takes_no_flag_of_ours_for_its_own() -> None:
    """It reads the whole line, and completes what begins one of its own flags; --start has another name for that."""
    from torch.distributed.run import get_args_parser

    from fifo_diffusion.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name in ("generate", "extend", "resume"):
        for option in commands[name].params:
            names = [flag for flag in option.opts if flag.startswith("--")]
            assert not names or any(not _completed(get_args_parser(), flag) for flag in names), (name, names)


def _completed(parser: object, flag: str) -> bool:
    try:
        left = parser.parse_args(["-m", "fifo_diffusion", "generate", flag, "x"]).training_script_args  # type: ignore[attr-defined]
    except SystemExit:
        return True
    return bool(left != ["generate", flag, "x"])
