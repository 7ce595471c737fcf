"""How long until a job of torchrun is over, or goes on, when a rank or the network is lost; and is nothing else lost?

    python benchmarks/loss.py [--ranks 4] [--silence 4] [--only "rank 0 killed" ...] [--retries 5]

Each row makes a video with the model gauss and breaks it once there is a checkpoint.  "over s": from then until
torchrun has ended (of two hosts: each); where it starts the ranks again, until the video is done.  Then one process
goes on with what is left, and all frames are compared with those of a process that nothing happened to.  The hosts are
two network namespaces with a cable between them, which takes root and the command ip.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from fifo_diffusion import api
from report import Row, show
from torchrun import CABLE, FIFO, TORCHRUN, Job, hosts, ip, kill, latest, no_hosts, start, unplug, until, workers

SAID = ["generate", "1", "--model", "gauss", "--size", "16x16", "-n", "2", "--eta", "1", "--batch", "1"]
SAID += ["--halves", "together", "--checkpoint-every", "0.1s", "-o", "a.mp4", "-q"]
MANY, SOME = "20000", "600"  # frames: not done before the loss is seen, and soon done
ENOUGH = 300  # seconds, after which a job hangs


@contextmanager
def started(folder: Path, commands: Sequence[Sequence[str]], **environment: str) -> Iterator[list[Job]]:
    """Jobs that have made a checkpoint; killed at the end with all that they started."""
    jobs = [start(command, folder, environment) for command in commands]
    try:
        until(lambda: latest(folder) > 0, jobs, ENOUGH)
        yield jobs
    finally:
        for job in jobs:
            kill(job)


def over(jobs: Sequence[Job], began: float) -> str:
    """Seconds until each has ended."""
    seconds: dict[int, str] = {}
    while len(seconds) < len(jobs) and time.monotonic() < began + ENOUGH:
        for place, job in enumerate(jobs):
            if place not in seconds and job.poll() is not None:
                seconds[place] = f"{time.monotonic() - began:.1f}"
        time.sleep(0.02)
    return " and ".join(seconds.get(place, f"not after {ENOUGH}") for place in range(len(jobs)))


def signalled(folder: Path, arguments: argparse.Namespace, rank: int, number: signal.Signals, restarts: int) -> str:
    frames = SOME if restarts else MANY
    ranks = ["--standalone", "--max-restarts", str(restarts), "--nproc-per-node", str(arguments.ranks)]
    command = [*TORCHRUN, *ranks, *FIFO, *SAID, "--frames", frames]
    with started(folder, [command], FIFO_SILENCE=f"{arguments.silence:g}") as jobs:
        began = time.monotonic()
        os.kill(workers(jobs[0])[rank], number)
        return over(jobs, began)


def unplugged(folder: Path, arguments: argparse.Namespace, where: Callable[[int], Sequence[str]]) -> str:
    torchrun, said = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1"], [*SAID, "--frames", MANY]
    with hosts() as names:
        for name in names if where(0)[0] == "--rdzv-backend" else ():
            ip("netns", "exec", name, "sysctl", "-qw", f"net.ipv4.tcp_retries2={arguments.retries}")
        commands = [
            ["ip", "netns", "exec", host, *torchrun, *where(node), *FIFO, *said] for node, host in enumerate(names)
        ]
        with started(folder, commands, FIFO_SILENCE=f"{arguments.silence:g}", GLOO_SOCKET_IFNAME=CABLE) as jobs:
            began = time.monotonic()
            unplug(names)
            return over(jobs, began)


def identical(folder: Path) -> tuple[int, str]:
    """How many frames the job left, and whether they and those that follow are those of a quiet run."""
    video = str(folder / "a.mp4")
    made = api.resume(video, frames="+50", checkpoint_every=0, warn=lambda text: None)
    quiet = api.make(
        made.run.model_copy(update={"frames": made.frames_written}), str(folder / "b.mp4"), checkpoint_every=0
    )
    return made.frames_written - 50, "yes" if quiet.frames_sha256 == made.frames_sha256 else "NO"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--silence", type=float, default=4.0, help="FIFO_SILENCE")
    parser.add_argument("--retries", type=int, default=5, help="net.ipv4.tcp_retries2 of the row cable, c10d")
    parser.add_argument("--only", nargs="+", help="names of rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def static(node: int) -> list[str]:
        return ["--master-addr", "10.77.0.1", "--master-port", "29500", "--node-rank", str(node)]

    def c10d(node: int) -> list[str]:
        """is_host: a namespace has the machine's name, but not the address that this name has."""
        more = ["--rdzv-conf", f"is_host={node == 0}", "--local-addr", f"10.77.0.{node + 1}"]
        return ["--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29500", *more]

    last = arguments.ranks - 1
    cases: Mapping[str, Callable[[Path, argparse.Namespace], str]] = {
        "a rank killed": partial(signalled, rank=last, number=signal.SIGKILL, restarts=0),
        "rank 0 killed": partial(signalled, rank=0, number=signal.SIGKILL, restarts=0),
        "a rank killed, --max-restarts 1": partial(signalled, rank=last, number=signal.SIGKILL, restarts=1),
        "rank 0 killed, --max-restarts 1": partial(signalled, rank=0, number=signal.SIGKILL, restarts=1),
        "a rank stopped": partial(signalled, rank=last, number=signal.SIGSTOP, restarts=0),
        "cable": partial(unplugged, where=static),
        "cable, c10d": partial(unplugged, where=c10d),
    }
    rows: list[Row] = []
    for name in arguments.only or cases:
        if name.startswith("cable") and (why := no_hosts()) is not None:
            print(f"{name}: left out, for {why}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            over_s = cases[name](Path(folder), arguments)
            frames, same = identical(Path(folder))
        rows.append({"lost": name, "over s": over_s, "frames kept": frames, "identical": same})
        print(rows[-1], file=sys.stderr, flush=True)
    settings = f"FIFO_SILENCE={arguments.silence:g}, tcp_retries2={arguments.retries}"
    show(f"what is lost, of {arguments.ranks} ranks or 2 hosts; {settings}", rows)
    if any(row["identical"] != "yes" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
