"""The Python interface: `stream` yields frames, `generate` writes a video, `resume` goes on with one."""

from __future__ import annotations

import json
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fifo_diffusion import checkpoint as checkpoints
from fifo_diffusion import sidecar
from fifo_diffusion.checkpoint import Description
from fifo_diffusion.config import Decided, Run
from fifo_diffusion.digest import NOTHING, link
from fifo_diffusion.engine import State
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.interrupt import uninterrupted
from fifo_diffusion.meter import peak_memory
from fifo_diffusion.models import card
from fifo_diffusion.runs import Beginning, Keeper, check_fork, check_same, choose, lengthened
from fifo_diffusion.session import Frame, Session, Watch, resolve, unwatched
from fifo_diffusion.sidecar import Sidecar
from fifo_diffusion.sinks import FrameSink, check_output, is_folder, open_sink, piece, read_metadata
from fifo_diffusion.trail import Place
from fifo_diffusion.version import __version__

CHECKPOINT_EVERY = 30.0  # seconds

Warn = Callable[[str], None]


def stream(prompt: str, **settings: Any) -> Iterator[Frame]:
    """Frames (height, width, 3) uint8 as they are made.

    settings: those of `config.Run` (model, seed, frames, guidance, ...); frames=0, the default here, never ends.
    Raises BadInput at once for settings that are not allowed, NotFinite when the network breaks down.
    """
    session = Session(resolve(Run.of({"frames": 0, **settings, "prompt": prompt})))
    tell_unheard(session, partial(warnings.warn, stacklevel=3))
    return session.frames()


def generate(
    prompt: str,
    output: str,
    *,
    scale: int | None = None,
    crf: int | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    keep_checkpoints: bool = False,
    **settings: Any,
) -> Sidecar:
    """Write a video (`sinks.open_sink` tells the outputs) and its JSON sidecar; returns what the sidecar says.

    scale shows each pixel larger (the model's own default), crf is the encoder's quality (lower is better).
    checkpoint_every: seconds between those that `resume` needs; 0 makes none.  keep_checkpoints: not only the last.
    Raises BadInput, OutputError, ModelError or NotFinite; the frames made before an error stay in the file.
    """
    return make(
        Run.of({**settings, "prompt": prompt}),
        output,
        scale=scale,
        crf=crf,
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
        warn=partial(warnings.warn, stacklevel=5),
    )


def resume(video: str | Path, **changes: Any) -> Sidecar:
    """Go on with a video that was stopped or killed, make a finished one longer, or fork one; see `carry_on`."""
    return carry_on(str(video), **{"warn": partial(warnings.warn, stacklevel=4), **changes})


def make(
    run: Run,
    output: str,
    *,
    scale: int | None = None,
    crf: int | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    keep_checkpoints: bool = False,
    watch: Watch = unwatched,
    warn: Warn = warnings.warn,
) -> Sidecar:
    """`generate` for a run that is already described.  Ctrl-C finishes the file, then goes on up."""
    full = resolve(run)
    scale = card(full.model).scale if scale is None else scale
    check_output(output, fps=full.fps, size=full.size, scale=scale, crf=crf)
    folder = _folder(output)
    making = _Making(full, output, scale, crf, watch, warn)
    return making.write(folder, checkpoint_every, keep_checkpoints)


def carry_on(
    video: str,
    *,
    frames: int | str | None = None,
    seconds: float | str | None = None,
    prompt: str | None = None,
    at_frame: int | None = None,
    output: str | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    keep_checkpoints: bool = False,
    watch: Watch = unwatched,
    warn: Warn = warnings.warn,
) -> Sidecar:
    """Go on with a video from its latest checkpoint; or, with `output`, make another that begins like it.

    video: the video, the file under way that a kill left, or the .run folder.  frames, seconds: how long it shall
    be in all, or "+500" for so much more than there is; as was asked for at first where neither is said.  prompt:
    what is heard from here on.  at_frame: the other video begins at the latest checkpoint that is not after it.

    Without changes the video comes out as if it had never been stopped, bit for bit on the same machine.
    Raises BadInput when there is nothing to go on with, or it is of another version, model, weights or settings;
    and what `generate` raises.
    """
    folder = checkpoints.find(video)
    if output is None and at_frame is not None:
        raise BadInput(f"--at-frame {at_frame} makes another video; name it with -o, for this one is left as it is")
    with checkpoints.locked(folder) if output is None else nullcontext():
        said = checkpoints.description(folder)
        home = folder.parent / said.output
        if output is not None:
            check_fork(home, output)
        target, own = (str(home), True) if output is None else (output, False)
        check_output(target, fps=said.run.fps, size=said.run.size, scale=said.scale, crf=said.crf, own=own)
        into = folder if output is None else _folder(output)
        before = choose(folder, said, at_frame, warn)
        run = lengthened(said, before, _text(frames), _text(seconds), prompt, fork=not own)
        making = _Making(resolve(run), target, said.scale, said.crf, watch, warn)
        check_same(said, making.session.model.weights, machine(making.session.run.device), warn)
        return making.write(into, checkpoint_every, keep_checkpoints, before, said if own else None)


def _text(number: float | str | None) -> str | None:
    return None if number is None else str(number)


def _folder(output: str) -> Path | None:
    """Where a new run keeps its checkpoints; None where there can be none.  Raises BadInput if it is in use."""
    if piece(output, 1) is None:
        return None
    folder = checkpoints.folder_beside(output, is_folder(output))
    if checkpoints.under_way(folder):
        raise BadInput(
            f"{output} was not finished, or is still being made; `fifo resume {output}` goes on with it, or delete "
            f"{folder} to begin anew"
        )
    return folder


class _Making:
    """Frames on their way from a session to a file, and what is written beside it."""

    def __init__(self, run: Decided, output: str, scale: int, crf: int | None, watch: Watch, warn: Warn) -> None:
        self._began = time.perf_counter()
        self._output, self._scale, self._crf = output, scale, crf
        self._watch, self._warn = watch, warn
        self._keeper: Keeper | None = None
        self._digest, self._written = NOTHING, 0
        self.session = Session(run, self._look)
        tell_unheard(self.session, warn)

    def write(
        self,
        folder: Path | None,
        every: float,
        keep: bool,
        before: Beginning | None = None,
        said: Description | None = None,
    ) -> Sidecar:
        """folder: for checkpoints.  before: what there is already.  said: of the same video, where it goes on."""
        session, start, place = self.session, None if before is None else before.checkpoint, None
        if start is not None:
            self._digest, self._written = start.frames_sha256, start.frame
            state = State.from_tensors({name: t.to(session.model.device) for name, t in start.tensors.items()})
            place = Place(state, start.skip, start.frame)
        if folder is not None and (every or said is not None):
            self._keeper = self._keep(folder, every, keep, said)
        with self._keeper or nullcontext():  # which says that the video is whole when all else is done
            try:
                with self._open(before, said) as sink:
                    self._stream(sink, place)
            except OutputError:
                raise  # the file is not whole: a video that had the name keeps its sidecar
            except BaseException:
                if not sink.dropped:
                    with suppress(OutputError):  # what went wrong first is what must be told
                        self._record()
                raise
            if self._keeper is None and folder is not None:  # what is there is of the video that this one replaced
                shutil.rmtree(folder, ignore_errors=True)
            return self._record()

    def _stream(self, sink: FrameSink, place: Place[State] | None) -> None:
        if self._keeper is not None:
            self._keeper.begin(sink)
        try:
            for frame in self.session.frames(place):
                self._take(sink, frame)
        except BrokenPipeError:
            pass  # whoever read the frames has seen enough
        finally:
            if self._keeper is not None and sink.frames == 0:
                self._keeper.forget()

    def _take(self, sink: FrameSink, frame: Frame) -> None:
        """Ctrl-C waits meanwhile, so that the file and what is said of it agree."""
        with uninterrupted():
            with self.session.meter.time("write"):
                sink.write(frame)
            self._digest, self._written = link(self._digest, frame.data), self._written + 1
            if self._keeper is not None:
                self._keeper.after(self._written, self._digest)

    def _look(self, stage: str, done: int, total: int) -> None:
        if stage == "run-in" and self._keeper is not None:
            with uninterrupted():
                self._keeper.hidden(self._digest)
        self._watch(stage, done, total)

    def _open(self, before: Beginning | None, said: Description | None) -> FrameSink:
        run = self.session.run
        return open_sink(
            self._output,
            fps=run.fps,
            size=run.size,
            scale=self._scale,
            crf=self._crf,
            metadata={"title": run.prompt, "comment": run.model_dump_json(exclude_none=True)},
            begun=None if before is None else before.begun,
            partial=None if said is None or said.partial is None else Path(self._output).parent / said.partial,
        )

    def _keep(self, folder: Path, every: float, keep: bool, said: Description | None) -> Keeper:
        session, run = self.session, self.session.run
        frames = piece(self._output, run.fps)
        assert frames is not None
        description = Description(
            fifo_diffusion=__version__,
            run=run,
            output="." if is_folder(self._output) else Path(self._output).name,
            scale=self._scale,
            crf=self._crf,
            machine=machine(run.device),
            weights=session.model.weights,
            whole=None if said is None else said.whole,
            coded_sha256=None if said is None else said.coded_sha256,
        )
        return Keeper(
            folder, description, said, frames, every, keep, session.trail.place, session.described, self._warn
        )

    def _record(self) -> Sidecar:
        session = self.session
        made = Sidecar(
            fifo_diffusion=__version__,
            run=session.described(),
            scale=self._scale,
            crf=self._crf,
            machine=machine(session.run.device),
            weights=session.model.weights,
            frames_written=self._written,
            frames_sha256=self._digest,
            seconds={part: round(spent, 3) for part, spent in session.meter.parts().items()},
            wall_seconds=round(time.perf_counter() - self._began, 3),
            peak_memory_mb=peak_memory() // 2**20,
        )
        beside = sidecar.path_beside(self._output)
        if beside is not None and self._written:
            sidecar.write(made, beside)
        return made


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

    Raises BadInput when it tells none.
    """
    try:
        said = json.loads(read_metadata(Path(video)).get("comment", ""))
    except json.JSONDecodeError:
        said = None
    if isinstance(said, dict) and "prompt" in said:
        return {"from": "the video's own metadata", **said}
    beside = sidecar.path_beside(video)
    if beside is None or not beside.exists():
        raise BadInput(f"{video} tells no settings: fifo did not make it, or (gif, webp) its .json is not beside it")
    made = sidecar.read(beside)
    more = {"frames written": made.frames_written, "version": made.fifo_diffusion}
    return {"from": str(beside), **made.run.model_dump(exclude_none=True), **more}


def tell_unheard(session: Session, warn: Warn) -> None:
    """Say what of the prompts the model cannot hear."""
    for prompt in (session.run.prompt, session.run.negative_prompt):
        for remark in session.model.remarks(prompt):
            warn(remark)


def machine(device: str) -> dict[str, str | int]:
    """What the pixels may depend on besides the settings."""
    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "device": name,
        "threads": torch.get_num_threads(),
    }
