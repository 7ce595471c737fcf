"""Jobs of torchrun to be broken, for loss.py and the tests: started, watched and killed; and two hosts with a cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fifo_diffusion import checkpoint

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
FIFO = ["-m", "fifo_diffusion"]
CABLE = "eth-fifo"  # the name of both its ends
NOTHING: Mapping[str, str] = {}
Job = subprocess.Popen[bytes]


def start(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] = NOTHING, said: int = subprocess.DEVNULL
) -> Job:
    """environment: beside what there is.  said: where its input comes from, and what it says goes to."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=said,
        stdout=said,
        stderr=said,
        start_new_session=True,
        bufsize=0,  # what is read here is not more than was asked for
    )


def workers(job: Job) -> list[int]:
    """The processes that torchrun started, rank 0 first."""
    children = subprocess.run(["pgrep", "-P", str(job.pid)], stdout=subprocess.PIPE, text=True).stdout
    return sorted(map(int, children.split()))


def kill(job: Job) -> None:
    """With all that it started; torchrun gives each a process group of its own."""
    for pid in workers(job) if job.poll() is None else ():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if job.poll() is None:
        job.kill()
        job.wait()


def latest(folder: Path) -> int:
    """The frame of the last checkpoint of a.mp4; -1 where there is none."""
    run = folder / "a.mp4.run"
    return max(checkpoint.committed(run), default=-1) if run.is_dir() else -1


def until(true: Callable[[], object], jobs: Sequence[Job], patience: float) -> None:
    """Raises RuntimeError where a job ends before, or it takes more than so many seconds."""
    late = time.monotonic() + patience
    while not true():
        for job in jobs:
            if job.poll() is not None:
                raise RuntimeError(f"the job ended: {(job.stderr.read() if job.stderr else b'').decode()}")
        if time.monotonic() > late:
            raise RuntimeError(f"the job hangs: nothing for {patience:g} s")
        time.sleep(0.02)


def no_hosts() -> str | None:
    """Why there can be none here."""
    if os.geteuid() or shutil.which("ip") is None:
        return "it takes root and the command ip to make network namespaces"
    name = f"fifo{os.getpid() % 100000}"
    if subprocess.run(["ip", "netns", "add", name], stderr=subprocess.DEVNULL).returncode:
        return "this machine allows no network namespaces"
    ip("netns", "del", name)
    return None


@contextmanager
def hosts() -> Iterator[list[str]]:
    """The names of two network namespaces with a cable between them, 10.77.0.1 and 10.77.0.2."""
    names = [f"fifo{os.getpid() % 100000}{end}" for end in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", CABLE, "netns", names[0], "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", CABLE)
            for device in (CABLE, "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def unplug(names: Sequence[str]) -> None:
    ip("-n", names[1], "link", "set", CABLE, "down")


def ip(*what: str) -> None:
    subprocess.run(["ip", *what], check=True)
