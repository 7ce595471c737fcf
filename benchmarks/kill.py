"""Is a video that was killed over and over the same as one never stopped?  SIGKILL, 60 times, then bytes compared.

    python benchmarks/kill.py [--kills 60] [--outputs a.mp4 a.webm frames] [--seed 0]

Half of the kills come at a random time, half at a random line of the code that writes: fragments and their copies,
checkpoints, renames.  After each, the run is gone on with in a new process, until it ends; then the next begins.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

from fifo_diffusion import api, checkpoint, sidecar, whole
from fifo_diffusion.config import Run
from fifo_diffusion.errors import FifoError
from fifo_diffusion.runs import Keeper
from fifo_diffusion.sinks import PngSink, VideoSink, video
from report import Row, show

RUN = {"prompt": "-", "model": "gauss", "size": (16, 16), "partitions": 1, "frames": 90, "fps": 6}
EVERY = 1e-9  # seconds: at every place where there can be a checkpoint

# The code that writes; a kill at a random line of one of these.
AIMS: dict[str, Callable[..., Any]] = {
    "checkpoint": checkpoint.commit,
    "file beside": whole.write_whole,
    "description": checkpoint.describe,
    "thinning": checkpoint.drop,
    "keeper": Keeper._commit_settled,
    "muxing": VideoSink._mux,
    "frame": VideoSink._put,
    "copying": VideoSink._copy,
    "taking the name": VideoSink._take_name,
    "ending": VideoSink._end,
    "index": video._index_in_front,
    "picture": PngSink._keep,
}


def go(output: str, resume: bool) -> None:
    if resume:
        api.resume(output, checkpoint_every=EVERY, warn=print)
    else:
        api.make(Run.of(RUN), output, checkpoint_every=EVERY)


def die_at(code: CodeType, lines: int) -> None:
    """Make this process kill itself when it has run so many lines of a function."""

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines -= event == "line"
        if lines < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return line

    sys.settrace(lambda frame, event, argument: line if frame.f_code is code else None)


def attempt(output: str, resume: bool, after: float | None, aim: str | None, lines: int) -> bool:
    """Run in a process of its own; whether it was killed.  Raises RuntimeError when it failed by itself."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if aim is not None:
                die_at(AIMS[aim].__code__, lines)
            go(output, resume)
            status = 0
        except FifoError as error:
            print(error, file=sys.stderr)
        finally:
            sys.settrace(None)
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)  # not yet waited for, so the number is still its own
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{output} could not be gone on with")
    return status != 0


def files(folder: Path) -> dict[str, bytes]:
    """Everything there, but what tells the time and the checkpoints."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix != ".json" and not file.parent.name.endswith(".run")
    }


def wreck(name: str, kills: int, dice: random.Random, seconds: float) -> Row:
    """Kill runs of one output until there were so many kills; compare each with one never stopped."""
    row: dict[str, str | float | int] = {"output": name, "runs": 0, "kills": 0, "by a line of": "", "begun anew": 0}
    aims: dict[str, int] = {}
    equal = True
    with tempfile.TemporaryDirectory() as folder:
        straight = Path(folder) / "straight"
        straight.mkdir()
        go(str(straight / name), resume=False)
        wanted = files(straight)
        digest = sidecar.read(_beside(straight / name)).frames_sha256
        while int(row["kills"]) < kills:
            cut = Path(folder) / f"run {row['runs']}"
            cut.mkdir()
            output = str(cut / name)
            killed, here = True, 0
            while killed:
                run = api.left(output)
                if run is not None and run[1].whole is not None:  # killed when all was done
                    break
                resume = run is not None
                row["begun anew"] = int(row["begun anew"]) + (here > 0 and not resume)
                if here > 0 and not resume:  # killed before it could say what it was
                    for file in cut.glob("*.partial*"):
                        file.unlink()
                after, aim = (dice.uniform(0, seconds), None) if dice.random() < 0.5 else (None, dice.choice([*AIMS]))
                if int(row["kills"]) >= kills:
                    after = aim = None
                killed = attempt(output, resume, after, aim, int(dice.expovariate(1 / 10)))
                row["kills"] = int(row["kills"]) + killed
                here += killed
                if killed and aim is not None:
                    aims[aim] = aims.get(aim, 0) + 1
            row["runs"] = int(row["runs"]) + 1
            equal = equal and files(cut) == wanted and sidecar.read(_beside(Path(output))).frames_sha256 == digest
    row["by a line of"] = ", ".join(f"{aim} {count}" for aim, count in sorted(aims.items()))
    return {**row, "identical": "yes" if equal else "NO"}


def _beside(path: Path) -> Path:
    beside = sidecar.path_beside(str(path))
    assert beside is not None
    return beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--outputs", nargs="+", default=["a.mp4", "a.webm", "frames"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has one
    dice, rows = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        go(str(Path(folder) / "first.mp4"), resume=False)  # what is slow once is not what shall be killed
        began = time.perf_counter()
        go(str(Path(folder) / "second.mp4"), resume=False)
        seconds = time.perf_counter() - began
    for i, name in enumerate(arguments.outputs):
        kills = (arguments.kills + len(arguments.outputs) - 1 - i) // len(arguments.outputs)
        rows.append(wreck(name, kills, dice, seconds))
    show("killed and gone on with", rows)
    if any(row["identical"] != "yes" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
