"""One job brought to its end, from wherever it stands: made, gone on with, or found finished."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

import torch

from fifo_diffusion import api, sidecar
from fifo_diffusion import checkpoint as checkpoints
from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.batch.pool import Task
from fifo_diffusion.batch.results import Result, fingerprint
from fifo_diffusion.checkpoint import Description
from fifo_diffusion.config import Decided
from fifo_diffusion.decide import PLACE, resolve
from fifo_diffusion.errors import BadInput, FifoError
from fifo_diffusion.models import card
from fifo_diffusion.runs import Warn, choose
from fifo_diffusion.session import Watch
from fifo_diffusion.sidecar import Sidecar
from fifo_diffusion.sinks import check_output

_PLACE = PLACE | {"device", "dtype"}  # unless the job says them

LET_GO = 60.0  # seconds for a worker that was given up to let go of its video


def check(job: Job, folder: Path, before: Result | None) -> bool:
    """Whether the job is finished: a video of these settings with the frames and the bytes that `before` tells.

    Raises BadInput or OutputError for a job that cannot be done, or whose file in the folder is of other settings.
    """
    output = folder / job.output
    run = resolve(job.run.model_copy(update={"device": "cpu"}))  # whatever the workers have
    if job.only_new and run.clip is None:
        raise BadInput("only_new was given without a clip, so all frames are new; leave it out")
    there = _told(output) if output.exists() else None
    if there is not None:
        _same(job, run, there)
        if before is not None and _proves(before, there, run) and before.file_sha256 == fingerprint(output):
            return True
    found = described(output)
    if found is not None:
        _same(job, run, found[1])
    elif there is None and output.is_file():
        raise BadInput(f"{output} is there and not of this batch; give the job another output, or move that away")
    scale = card(run.model).scale if job.scale is None else job.scale
    check_output(str(output), fps=run.fps, size=run.size, scale=scale, crf=job.crf, own=found is not None)
    return False


def _proves(before: Result, there: Sidecar, run: Decided) -> bool:
    return before.state == "done" and there.frames_written == run.frames and before.sha256 == there.frames_sha256


def described(output: Path) -> tuple[Path, Description] | None:
    """The run beside a video; None where there is none.  Raises BadInput for one of another version."""
    try:
        folder = checkpoints.find(str(output))
    except BadInput:
        return None
    return folder, checkpoints.description(folder)


def work(task: Task, watch: Watch, warn: Warn) -> Result:
    """Bring a job to its end and tell what came of it; `watch` raises KeyboardInterrupt to have the video finished
    as it is.
    """
    job, output = task.job, Path(task.folder) / task.job.output
    torch.set_num_threads(task.threads)  # other numbers of threads round differently
    began = time.perf_counter()
    made, error = None, None
    try:
        made = _make(task, output, watch, warn)
        state = "done"
    except KeyboardInterrupt:
        state = "stopped"
    except FifoError as wrong:
        state, error = "failed", str(wrong)
    except Exception as wrong:  # a device out of memory, or a fault of ours: the other jobs go on
        warn(traceback.format_exc())
        state, error = "failed", f"{type(wrong).__name__}: {str(wrong).strip() or 'no more is known'}".splitlines()[0]
    made = made or _told(output)
    kept: dict[str, Any] = {} if made is None else {"frames": made.frames_written, "sha256": made.frames_sha256}
    if state == "done":
        kept["file_sha256"] = fingerprint(output)
    spent = round(time.perf_counter() - began, 3)
    return Result.model_validate({"name": job.output, "state": state, "seconds": spent, "error": error, **kept})


def _make(task: Task, output: Path, watch: Watch, warn: Warn) -> Sidecar:
    job = task.job
    run = resolve(job.run)
    how: dict[str, Any] = {"checkpoint_every": task.every, "watch": watch, "warn": warn}
    found = described(output)
    if found is None:
        return api.make(run, str(output), scale=job.scale, crf=job.crf, only_new=job.only_new, **how)
    folder, said = found
    _same(job, run, said)
    _await(folder, watch)
    if said.partial is None and said.whole == run.frames + said.clip_frames:
        choose(folder, said, None, warn)  # which refuses a video that was changed
        made = _told(output)
        if made is None:
            raise BadInput(
                f"{output} is finished, but its .json is gone; put that back, or move both away to begin anew"
            )
        return made
    return api.carry_on(str(output), frames=run.frames, **how)


def _await(folder: Path, watch: Watch) -> None:
    """A worker that was given up may still be ending.  Raises BadInput when it does not."""
    until = time.monotonic() + LET_GO
    while True:
        try:
            with checkpoints.locked(folder):
                return
        except BadInput:
            if time.monotonic() > until:
                raise
        watch("waiting", 0, 0)
        time.sleep(0.2)


def _told(output: Path) -> Sidecar | None:
    """The sidecar beside a video, where there is one that can be read."""
    beside = sidecar.path_beside(str(output))
    try:
        return None if beside is None else sidecar.read(beside)
    except BadInput:
        return None


def _same(job: Job, run: Decided, made: Sidecar | Description) -> None:
    """Raises BadInput when the video that is there is of other settings.  More frames than it has may be asked for."""
    then, scale = made.run, card(run.model).scale if job.scale is None else job.scale
    names = {name for name in Decided.model_fields if name not in {"frames", *_PLACE}}
    names |= {name for name in _PLACE - {"device"} if getattr(job, name) not in (None, "auto")}
    pairs = {name: (getattr(run, name), getattr(then, name)) for name in Decided.model_fields if name in names}
    pairs |= {"scale": (scale, made.scale), "crf": (job.crf, made.crf)}
    if job.device != "auto" and not then.device.startswith(job.device):
        pairs["device"] = (job.device, then.device)
    if run.clip is not None:
        pairs["only_new"] = (job.only_new, made.clip_frames == 0)
    if isinstance(made, Sidecar) and run.frames < made.frames_written:
        pairs["frames"] = (run.frames, made.frames_written)
    other = ", ".join(
        f"{name} {now!r} in place of {before!r}" for name, (now, before) in pairs.items() if now != before
    )
    if other:
        raise BadInput(
            f"{job.output} is there already and was made otherwise: the list now says {other}; give the job another "
            f"output, or move that video and what stands beside it away to make it anew"
        )
