"""The Python interface: `stream` yields frames, `generate` writes a video, `resume` goes on with one."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from fifo_diffusion import checkpoint as checkpoints
from fifo_diffusion import sidecar
from fifo_diffusion.checkpoint import Description
from fifo_diffusion.config import Decided, Run
from fifo_diffusion.decide import left_open, resolve
from fifo_diffusion.decide import told as told_how
from fifo_diffusion.devices import still_here
from fifo_diffusion.engine import State
from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.job import job
from fifo_diffusion.making import Making, machine, tell_unheard
from fifo_diffusion.models import card
from fifo_diffusion.names import Frame, Warn, Watch
from fifo_diffusion.preview import check_preview
from fifo_diffusion.runs import check_fork, check_free, check_same, choose, lengthened, same_file
from fifo_diffusion.session import Session, unwatched, versions
from fifo_diffusion.sidecar import Sidecar
from fifo_diffusion.sinks import check_output, is_folder, piece, read_metadata
from fifo_diffusion.together import Together

CHECKPOINT_EVERY = 30.0  # seconds


def untold(text: str) -> None:
    """Nobody listens."""


def warn_caller(text: str) -> None:
    """A warning that points at the line of the user's that called this package, however deep in it this is."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


class Stream(Iterator[Frame]):
    """Frames (height, width, 3) uint8 as they are made.  `frame` is the number made so far."""

    def __init__(self, session: Session) -> None:
        self._session, self._frames = session, session.frames()
        self._prompts = session.prompts
        self.frame = 0

    def __next__(self) -> Frame:
        frame = next(self._frames)
        self.frame += 1
        return frame

    def say(
        self,
        prompt: str,
        *,
        at: int | None = None,
        negative_prompt: str | None = None,
        guidance: float | None = None,
        blend: int = 0,
    ) -> int:
        """Change the prompt, from any thread; returns the number of the frame that the new one reaches the screen at.

        That is `at`, or the first frame that nothing of the old prompt has gone into yet: the queue's length ahead.
        Raises BadInput for an earlier `at`, naming the first possible one.  See `config.Cue` for the rest.
        """
        reaches = self._prompts.say(prompt, at=at, negative_prompt=negative_prompt, guidance=guidance, blend=blend)
        for text in (prompt, negative_prompt or ""):
            for remark in self._session.model.remarks(text):
                warn_caller(remark)
        return reaches

    def described(self) -> Decided:
        """The run with all that was said so far; `stream(**run.model_dump())` gives the same frames again."""
        return self._session.described()

    def close(self) -> None:
        """No more frames.  Call it from the thread that takes them."""
        self._frames.close()


def stream(prompt: str, **settings: Any) -> Stream:
    """Frames (height, width, 3) uint8 as they are made; `say` on what is returned changes the prompt meanwhile.

    With `clip` those that follow it, without its own.
    settings: those of `config.Run` (model, seed, frames, guidance, cues, ...); frames=0, the default here, never ends.
    Raises BadInput at once for settings that are not allowed, NotFinite when the network breaks down.
    """
    session = Session(resolve(Run.of({"frames": 0, **settings, "prompt": prompt})))
    tell_unheard(session, warn_caller)
    return Stream(session)


def generate(
    prompt: str,
    output: str | Path,
    *,
    scale: int | None = None,
    crf: int | None = None,
    only_new: bool = False,
    preview: str | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    keep_checkpoints: bool = False,
    **settings: Any,
) -> Sidecar:
    """Write a video (`sinks.open_sink` tells the outputs) and its JSON sidecar; returns what the sidecar says.

    scale shows each pixel larger (the model's own default), crf is the encoder's quality (lower is better).
    With `clip` the file holds the clip, matched to the model, and then `frames` new ones: who extends a clip wants a
    longer clip.  only_new leaves the clip's own out.  preview: a picture of the queue, rewritten as it moves.
    checkpoint_every: seconds between those that `resume` needs (0 makes none);
    keep_checkpoints: not only the last.
    Raises BadInput, OutputError, ModelError or NotFinite; the frames made before an error stay in the file.
    """
    return make(
        Run.of({**settings, "prompt": prompt}),
        output,
        scale=scale,
        crf=crf,
        only_new=only_new,
        preview=preview,
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
    )


def make(
    run: Run,
    output: str | Path,
    *,
    scale: int | None = None,
    crf: int | None = None,
    only_new: bool = False,
    preview: str | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    keep_checkpoints: bool = False,
    watch: Watch = unwatched,
    warn: Warn = warn_caller,
    tell: Warn = untold,
    ready: Callable[[Session], None] | None = None,
) -> Sidecar:
    """`generate` for a run that is already described.  Ctrl-C finishes the file, then goes on up.

    tell hears how it is computed and what was made of a clip, a line each.  ready: see `Making`.  Where torchrun
    started this job's processes anew, the video that they had begun is gone on with.
    """
    output, preview = os.fspath(output), None if preview is None else os.fspath(preview)
    check_only_new(run, only_new)
    full = resolve(run)
    scale = card(full.model).scale if scale is None else scale
    # As many ranks need not have come back, nor as much memory be free: what follows from that stays as it was begun.
    if (begun := began(output)) is not None and checkpoints.differences(begun.run, full).keys() <= left_open(run):
        return resume(
            output,
            preview=preview,
            checkpoint_every=checkpoint_every,
            keep_checkpoints=keep_checkpoints,
            watch=watch,
            warn=warn,
            tell=tell,
            ready=ready,
        )
    _check_written(full, output, preview, scale, crf)
    folder = _folder(output)
    if full.method != "fifo":
        checkpoint_every = 0  # there is no state to go on from
    tell(told_how(full))
    making = Making(full, output, scale, crf, watch, warn, preview, ready)
    clip = making.session.clip
    if clip is not None:
        tell(clip.told(card(full.model).frames))
    return making.write(folder, checkpoint_every, keep_checkpoints, 0 if clip is None or only_new else len(clip))


def resume(
    video: str | Path,
    *,
    frames: int | str | None = None,
    seconds: float | str | None = None,
    prompt: str | None = None,
    at_frame: int | None = None,
    output: str | Path | None = None,
    preview: str | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    keep_checkpoints: bool = False,
    watch: Watch = unwatched,
    warn: Warn = warn_caller,
    tell: Warn = untold,
    ready: Callable[[Session], None] | None = None,
) -> Sidecar:
    """Go on with a video from its latest checkpoint; or, with `output`, make another that begins like it.

    video: the video, the file under way that a kill left, or the .run folder.  frames, seconds: how long it shall
    be in all, or "+500" for so much more than there is; as was asked for at first where neither is said.  prompt:
    what the frames hear that are not in the queue yet.  at_frame: the other video begins at the latest checkpoint
    that is not after it.  tell hears how it is computed, in a line.  ready: see `Making`.  Where torchrun started this
    job's processes anew, what they had begun is gone on with, and the changes are part of that already.

    Without changes the video comes out as if it had never been stopped, bit for bit on the same machine.
    Raises BadInput when there is nothing to go on with, or it is of another version, model, weights or settings;
    and what `generate` raises.
    """
    video = os.fspath(video)
    output, preview = (None if path is None else os.fspath(path) for path in (output, preview))
    folder = _find(video)
    if output is None and at_frame is not None:
        raise BadInput(f"--at-frame {at_frame} makes another video; name it with -o, for this one is left as it is")
    target = video if output is None else output
    if (begun := began(target)) is not None:
        folder, frames, seconds, prompt, at_frame, output = _find(target), None, None, None, None, None
        beside = sidecar.path_beside(str(folder.parent / begun.output))
        if beside is not None and 0 < begun.run.frames <= (begun.whole or 0) - begun.clip_frames:
            return sidecar.read(beside)  # only the end of the job was missing
    with checkpoints.locked(folder) if output is None else nullcontext():
        said = checkpoints.description(folder)
        home = folder.parent / said.output
        if output is not None:
            check_fork(home, output)
        target, own = (str(home), True) if output is None else (output, False)
        crf = None if is_folder(target) else said.crf  # where it says nothing, and was once taken
        _check_written(said.run, target, preview, said.scale, crf, own)
        into = folder if output is None else _folder(output)
        before = choose(folder, said, at_frame, warn)
        run = lengthened(said, before, _text(frames), _text(seconds), fork=not own)
        if not own:  # nothing of the other video's is lost if this one stays shorter
            before = replace(before, begun=replace(before.begun, held=0))
        run = run.model_copy(update={"device": still_here(run.device)})
        entered = before.checkpoint is not None and before.checkpoint.frame > 0  # the clip is needed no more
        full = resolve(run, clip_too=not entered)
        tell(told_how(full))
        making = Making(full, target, said.scale, crf, watch, warn, preview, ready)
        check_same(said, making.session.model.weights, machine(making.session.run.device), warn)
        same = said if own else None
        return making.write(into, checkpoint_every, keep_checkpoints, said.clip_frames, before, same, prompt)


def follow(group: Together) -> None:
    """On a rank other than 0: compute along with whatever rank 0 makes, until it has nothing more to make."""
    while (task := group.hear()) is not None:
        of, run, weights, tensors = task
        if of != versions():
            raise ModelError(f"here is {versions()}, and on rank 0 {of}; install the same on all hosts")
        here = {"device": group.device} if run.device.startswith("cuda") else {}
        session = Session(run.model_copy(update=here))
        device = session.model.device
        if session.model.weights != weights:
            raise ModelError(
                f"the weights of {run.model} are {session.model.weights[:12]} here and {weights[:12]} on rank 0; "
                "give all hosts the same files"
            )
        group.loaded()
        first = None if tensors is None else State.from_tensors({name: t.to(device) for name, t in tensors.items()})
        session.follow(first)


def check_only_new(run: Run, only_new: bool) -> None:
    """Raises BadInput where there is no clip to leave out."""
    if only_new and run.clip is None:
        raise BadInput("--only-new was given without a clip, so all frames are new; leave it out")


def _check_written(
    run: Decided, output: str, preview: str | None, scale: int, crf: int | None, own: bool = False
) -> None:
    """Raises BadInput or OutputError where the file, or the picture of the queue, cannot be written, or where the clip
    that the run goes on from would be written over.  own: see `check_output`.
    """
    check_output(output, fps=run.fps, size=run.size, scale=scale, crf=crf, own=own)
    if preview is not None:
        if run.method != "fifo":
            raise BadInput(f"--preview shows FIFO's queue, and method {run.method} has none; leave it out")
        check_preview(preview)
    for kind, path in (("output", output), ("preview", preview)):
        if path is not None and run.clip is not None and same_file(path, run.clip):
            raise BadInput(f"the {kind} {path} is the clip itself, which would be lost; name another")


def _find(video: str) -> Path:
    """The folder to go on from.  Raises BadInput, which tells of a method that keeps none."""
    try:
        return checkpoints.find(video)
    except BadInput:
        beside = sidecar.path_beside(video)
        method = "fifo" if beside is None or not os.path.exists(beside) else sidecar.read(beside).run.method
        if method == "fifo":
            raise
    raise BadInput(
        f"{video} was made by method {method}, which keeps nothing to go on from; make it anew with "
        f"`fifo generate --from {beside}`, or use method fifo"
    )


def _text(number: float | str | None) -> str | None:
    return None if number is None else str(number)


def _folder(output: str) -> Path | None:
    """Where a new run keeps its checkpoints; None where there can be none.  Raises BadInput if it is in use."""
    if piece(output, 1) is None:
        return None
    folder = checkpoints.folder_beside(output, is_folder(output))
    check_free(folder, output)
    return folder


def began(video: str) -> Description | None:
    """What this torchrun job had begun there before it started its processes anew; None where that is nothing."""
    there = left(video) if (here := job()) is not None else None
    return there[1] if there is not None and here is not None and here.began(there[1].job) else None


def left(video: str) -> tuple[Path, Description] | None:
    """The video, and what there is to go on with; None where that is nothing."""
    try:
        folder = checkpoints.find(video)
        said = checkpoints.description(folder)
    except BadInput:
        return None
    return folder.parent / said.output, said


def told(video: str) -> dict[str, Any]:
    """The settings that a video was made with: its own tags (mp4, webm, PNG), or the sidecar beside it (gif, webp).

    The tags are written when a video begins.  Where it was made longer since, or prompts were said live, the sidecar
    knows more, and is what tells.  Or of a sidecar, or a .run folder, themselves.  Raises BadInput when there is
    nothing that does.
    """
    if (path := Path(video)).suffix == ".json":
        return _of_sidecar(path)
    if path.name.endswith(".run") and path.is_dir():
        return {"from": str(path), **checkpoints.description(path).run.model_dump(exclude_none=True)}
    try:
        said = json.loads(read_metadata(Path(video)).get("comment", ""))
    except json.JSONDecodeError:
        said = None
    beside = sidecar.path_beside(video)
    if beside is not None and not beside.exists():
        beside = None
    if isinstance(said, dict) and "prompt" in said and (beside is None or not _knows_more(beside, said)):
        return {"from": "the video's own metadata", **said}
    if beside is None:
        raise BadInput(f"{video} tells no settings: fifo did not make it, or (gif, webp) its .json is not beside it")
    return _of_sidecar(beside)


def _of_sidecar(file: Path) -> dict[str, Any]:
    made = sidecar.read(file)
    more = {"frames written": made.frames_written, "version": made.fifo_diffusion}
    return {"from": str(file), **made.run.model_dump(exclude_none=True), **more}


def _knows_more(beside: Path, tags: dict[str, Any]) -> bool:
    """Whether a sidecar is of the video that has these tags, and knows of more frames or prompts."""
    try:
        run = json.loads(sidecar.read(beside).run.model_dump_json(exclude_none=True))
    except BadInput:
        return False
    other = {name for name in {*run, *tags} if run.get(name) != tags.get(name)}
    return bool(other) and other <= {"frames", "cues"}
