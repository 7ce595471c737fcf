"""One job brought to its end, from wherever it stands: made, gone on with, or found finished."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fifo_diffusion import api, sidecar
from fifo_diffusion import checkpoint as checkpoints
from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.batch.pool import Ended, Task
from fifo_diffusion.batch.results import Result, fingerprint
from fifo_diffusion.checkpoint import Description
from fifo_diffusion.config import Decided
from fifo_diffusion.decide import PLACE, resolve
from fifo_diffusion.devices import keep_freed_memory
from fifo_diffusion.errors import BadInput, FifoError, OutOfMemory, OutputError, in_short
from fifo_diffusion.memory import no_memory_left
from fifo_diffusion.models import card
from fifo_diffusion.names import Warn, Watch
from fifo_diffusion.runs import choose
from fifo_diffusion.sidecar import Sidecar
from fifo_diffusion.sinks import check_output, picture_number, read_frames, read_metadata
from fifo_diffusion.warned import warned

_PLACE = PLACE | {"device", "dtype"}  # unless the job says them

LET_GO = 180.0  # seconds for a worker that was given up to let go of its video; NFSv4 keeps a dead node's locks for 90


def check(job: Job, folder: Path, before: Result | None) -> bool:
    """Whether the job is finished: a video of these settings with the frames and the bytes that `before` tells.

    Raises BadInput or OutputError for a job that cannot be done, or whose file in the folder is of other settings.
    """
    output = folder / job.output
    run = resolve(job.run.model_copy(update={"device": "cpu"}))  # whatever the workers have
    api.check_only_new(run, job.only_new)
    there = _sidecar(output) if os.path.exists(output) else None
    if there is not None:
        _same(job, run, there)
        if before is not None and _proves(before, there, run) and before.file_sha256 == fingerprint(output):
            return True
    found = described(output)
    if found is not None:
        _same(job, run, found[1])
        _check_held(job, run, *found)
    elif there is None and os.path.isfile(output):
        raise BadInput(f"{output} is there and not of this batch; give the job another output, or move that away")
    own = found is not None or there is not None or _pictured(job, run, output)
    check_output(str(output), fps=run.fps, size=run.size, scale=_scale(job, run), crf=job.crf, own=own)
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


def work(task: Task, watch: Watch, warn: Warn) -> Ended:
    """Bring a job to its end and tell what came of it; `watch` raises KeyboardInterrupt to have the video finished
    as it is.
    """
    job, output = task.job, Path(task.folder) / task.job.output
    keep_freed_memory()
    torch.set_num_threads(task.threads)  # other numbers of threads round differently
    began = time.perf_counter()
    made, error, broken = None, None, False
    try:
        with warned(warn):  # nobody reads a worker's stderr
            made = _make(task, output, watch, warn)
        state = "done"
    except KeyboardInterrupt:
        state = "stopped"
    except FifoError as wrong:
        state, error = "failed", str(wrong)
    except Exception as wrong:  # a device out of memory, or a fault of ours: the other jobs go on
        state, error, broken = "failed", _in_a_sentence(wrong, warn), True
    made = made or _sidecar(output)
    kept: dict[str, Any] = {} if made is None else {"frames": made.frames_written, "sha256": made.frames_sha256}
    if state == "done":
        kept["file_sha256"] = fingerprint(output)
    spent = round(time.perf_counter() - began, 3)
    result = Result.model_validate({"name": job.output, "state": state, "seconds": spent, "error": error, **kept})
    return Ended(task.number, result, broken)


def _in_a_sentence(wrong: Exception, warn: Warn) -> str:
    """In one sentence; of a fault that is not known all of it is a warning."""
    if isinstance(few := no_memory_left(wrong), OutOfMemory):
        return str(few).replace("--", "")  # a list has settings where the command has flags
    warn(traceback.format_exc())
    return in_short(wrong)


def _make(task: Task, output: Path, watch: Watch, warn: Warn) -> Sidecar:
    job = task.job
    run = resolve(job.run)
    how: dict[str, Any] = {"checkpoint_every": task.every, "watch": watch, "warn": warn}
    found = described(output)
    if found is None:
        if os.path.isdir(output):
            _clear(job, run, output)
        return api.make(run, str(output), scale=job.scale, crf=job.crf, only_new=job.only_new, **how)
    folder, said = found
    _same(job, run, said)
    _await(folder, watch)
    if said.partial is None and said.whole == run.frames + said.clip_frames:
        choose(folder, said, None, warn)  # which refuses a video that was changed
        made = _sidecar(output)
        if made is None:
            raise BadInput(
                f"{output} is finished, but its .json is gone; put that back, or move both away to begin anew"
            )
        return made
    return api.resume(str(output), frames=run.frames, **how)


def _clear(job: Job, run: Decided, output: Path) -> None:
    """Take this job's own pictures away, where nothing is there to go on with: they are made anew.

    Raises BadInput for those of other settings, OutputError for what cannot be taken away.
    """
    there = _sidecar(output)
    if there is not None:
        _same(job, run, there)
    elif not _pictured(job, run, output):
        return  # none, or somebody's own, which are refused
    try:
        for file in output.iterdir():
            if picture_number(file.name) is not None or file.name == "fifo.json":
                file.unlink()
    except OSError as error:
        raise OutputError(f"{output} cannot be begun anew: {error.strerror}") from error


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


def _sidecar(output: Path) -> Sidecar | None:
    """The sidecar beside a video, where there is one that can be read."""
    beside = sidecar.path_beside(str(output))
    try:
        return None if beside is None else sidecar.read(beside)
    except BadInput:
        return None


def _pictured(job: Job, run: Decided, output: Path) -> bool:
    """Whether the pictures of a folder say themselves that they are this job's: where there are no checkpoints, a kill
    leaves nothing beside them that could.  Raises BadInput for those of other settings.
    """
    try:
        then = Decided.of(json.loads(read_metadata(output)["comment"]))
        width = next(read_frames(output)).shape[1]
    except (ValueError, KeyError, TypeError, StopIteration, OSError):
        return False
    _refuse(job, _settings(job, run, then) | {"scale": (_scale(job, run), width // then.size[0])})
    return True


def _check_held(job: Job, run: Decided, folder: Path, said: Description) -> None:
    """Raises BadInput for a list that asks for fewer frames than a video that was killed has already."""
    if said.partial is None:
        return  # it is finished: see `_same`
    whole, clip = said.whole or 0, said.clip_frames
    try:
        held = choose(folder, said, None, lambda text: None).begun.held
    except BadInput:  # which is told of this job alone, when it is gone on with
        return
    least = max(held, whole + 1) - clip
    if run.frames < least:
        raise BadInput(
            f"{job.output} has {max(held, whole) - clip} frames already, and was to have more; the list now says "
            f"frames {run.frames}; give the job {least} or more, or another output, or move that video and what stands "
            f"beside it away to make it anew"
        )


def _same(job: Job, run: Decided, made: Sidecar | Description) -> None:
    """Raises BadInput when the video that is there is of other settings.  More frames than it has may be asked for."""
    pairs = _settings(job, run, made.run) | {"scale": (_scale(job, run), made.scale), "crf": (job.crf, made.crf)}
    if run.clip is not None:
        pairs["only_new"] = (job.only_new, made.clip_frames == 0)
    there = made.frames_written if isinstance(made, Sidecar) else 0 if made.partial else _own_frames(made)
    if run.frames < there:
        pairs["frames"] = (run.frames, there)
    _refuse(job, pairs)


def _own_frames(said: Description) -> int:
    """Of a finished video."""
    return (said.whole or 0) - said.clip_frames


def _settings(job: Job, run: Decided, then: Decided) -> dict[str, tuple[object, object]]:
    """What the list says now and what was said then, by name."""
    names = {name for name in Decided.model_fields if name not in {"frames", *_PLACE}}
    names |= {name for name in _PLACE - {"device"} if getattr(job, name) not in (None, "auto")}
    pairs = {name: (getattr(run, name), getattr(then, name)) for name in Decided.model_fields if name in names}
    if job.device != "auto" and not then.device.startswith(job.device):
        pairs["device"] = (job.device, then.device)
    return pairs


def _scale(job: Job, run: Decided) -> int:
    return card(run.model).scale if job.scale is None else job.scale


def _refuse(job: Job, pairs: Mapping[str, tuple[object, object]]) -> None:
    """Raises BadInput for what is not now as it was then."""
    other = ", ".join(
        f"{name} {now!r} in place of {before!r}" for name, (now, before) in pairs.items() if now != before
    )
    if other:
        raise BadInput(
            f"{job.output} is there already and was made otherwise: the list now says {other}; give the job another "
            f"output, or move that video and what stands beside it away to make it anew"
        )
