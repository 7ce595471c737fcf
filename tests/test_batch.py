"""A list of videos, made by real processes that are stopped and killed; each video is that of a quiet run."""

import json
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fifo_diffusion import api, checkpoint
from fifo_diffusion.batch.jobs import Job

COMMAND = [sys.executable, "-m", "fifo_diffusion", "batch"]
SMALL = {"model": "gauss", "size": [16, 16], "partitions": 2, "eta": 1.0}
LONG_ENOUGH = 120  # seconds


def write(folder: Path, frames: int, count: int) -> list[dict[str, Any]]:
    """A list of jobs that differ in prompt, seed and name."""
    jobs = [{**SMALL, "output": f"{i}.mp4", "prompt": str(i), "seed": i, "frames": frames} for i in range(1, count + 1)]
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


def await_checkpoints(driver: subprocess.Popen[bytes], out: Path, count: int, beyond: int = 0) -> None:
    """Until so many videos have a checkpoint beyond that frame."""
    until = time.monotonic() + LONG_ENOUGH
    while True:
        folders = [folder for folder in out.glob("*.run") if folder.is_dir()]
        if sum(any(frame > beyond for frame in checkpoint.committed(folder)) for folder in folders) >= count:
            return
        assert driver.poll() is None, driver.communicate()[1].decode()
        assert time.monotonic() < until
        time.sleep(0.05)
