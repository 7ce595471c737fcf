"""Frames on their way from a session to a file, and what is written beside it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import partial
from pathlib import Path

import torch

from fifo_diffusion import checkpoint as checkpoints
from fifo_diffusion import sidecar
from fifo_diffusion.checkpoint import Description
from fifo_diffusion.config import Decided
from fifo_diffusion.digest import NOTHING, link
from fifo_diffusion.engine import State
from fifo_diffusion.errors import OutputError
from fifo_diffusion.interrupt import uninterrupted
from fifo_diffusion.job import job
from fifo_diffusion.meter import peak_memory
from fifo_diffusion.names import Frame, Warn, Watch
from fifo_diffusion.overlap import beside
from fifo_diffusion.preview import Preview
from fifo_diffusion.runs import At, Beginning, Keeper
from fifo_diffusion.session import Session
from fifo_diffusion.sidecar import Sidecar
from fifo_diffusion.sinks import FrameSink, is_folder, open_sink, piece
from fifo_diffusion.trail import Place
from fifo_diffusion.version import __version__

AHEAD = 4
"""Frames that may wait to be written, while the next are made."""


class Making:
    """Frames on their way from a session to a file, and what is written beside it."""

    def __init__(
        self,
        run: Decided,
        output: str,
        scale: int,
        crf: int | None,
        watch: Watch,
        warn: Warn,
        preview: str | None = None,
        ready: Callable[[Session], None] | None = None,
    ) -> None:
        """ready: given the session before its first frame, so that another thread may say prompts to it."""
        self._began = time.perf_counter()
        self._output, self._scale, self._crf = output, scale, crf
        self._watch, self._warn, self._ready = watch, warn, ready
        self._keeper: Keeper | None = None
        self._digest, self._written, self._clip_written = NOTHING, 0, 0
        self.session = Session(run, self._look, preview=None if preview is None else Preview(preview, warn=warn))
        tell_unheard(self.session, warn)

    def write(
        self,
        folder: Path | None,
        every: float,
        keep: bool,
        clip_frames: int,
        before: Beginning | None = None,
        said: Description | None = None,
        prompt: str | None = None,
    ) -> Sidecar:
        """folder: for checkpoints.  clip_frames: of the clip that the run goes on from, to stand before its own.
        before: what there is already.  said: of the same video, where it goes on.  prompt: for the frames that have
        not entered the queue yet.
        """
        session, start, place = self.session, None if before is None else before.checkpoint, None
        if start is not None:
            self._digest, self._clip_written = start.frames_sha256, start.clip_frames
            self._written = start.frame - start.clip_frames
            state = State.from_tensors({name: t.to(session.model.device) for name, t in start.tensors.items()})
            place = Place(state, start.skip, self._written)
            session.prompts.begin(session.engine.entered(state))
        if prompt is not None:
            self._hear(prompt)
        if self._ready is not None:
            self._ready(session)
        if folder is not None and (every or said is not None):
            self._keeper = self._keep(folder, every, keep, clip_frames, said)
        with self._keeper or nullcontext():  # which says that the video is whole when all else is done
            sink: FrameSink | None = None
            try:
                with self._open(before, said) as sink:
                    self._stream(sink, clip_frames, place)
            except OutputError:
                raise  # the file is not whole: a video that had the name keeps its sidecar
            except BaseException:
                if sink is not None and not sink.dropped:  # Ctrl-C may come while what there is is copied
                    with suppress(OutputError):  # what went wrong first is what must be told
                        self._done(folder)
                raise
            return self._done(folder)

    def _done(self, folder: Path | None) -> Sidecar:
        """The file has its name, if it has frames."""
        if self._keeper is None and folder is not None and self._written:
            checkpoints.forsake(folder)  # it is of the video that this one replaced
        return self._record()

    def _hear(self, prompt: str) -> None:
        """A prompt for all frames that are not in the queue yet, in place of what they were to hear."""
        session, run = self.session, self.session.run
        reaches = session.prompts.say(prompt, last=True)
        for remark in session.model.remarks(prompt):
            self._warn(remark)
        if 0 < run.frames <= reaches:
            self._warn(_unseen(run.frames, prompt, reaches))

    def _stream(self, sink: FrameSink, clip_frames: int, place: Place[State] | None) -> None:
        try:
            if self._keeper is not None:
                self._keeper.begin(sink)
            with closing(self.session.frames(place)) as made:
                frames = ((frame, self._now()) for frame in made)
                taken = partial(self._take, sink, clip_frames)
                for _ in beside(taken, frames, ahead=AHEAD) if self.writes_aside else taken(frames):
                    pass
        except BrokenPipeError:
            if self._output != "-":  # then it is somebody else's pipe, such as of who watches
                raise  # else: whoever read the frames has seen enough
        finally:
            if self._keeper is not None and sink.frames == 0:
                self._keeper.forget()

    @property
    def writes_aside(self) -> bool:
        """Whether frames are encoded, and checkpoints committed, beside the network."""
        if self._output == "-":  # to write is to copy, and to wait for a reader is to be stopped by Ctrl-C
            return False
        # Apple's MPS takes work from one thread at a time: two abort the process.
        return self.session.model.device.type == "cuda"

    def _take(
        self, sink: FrameSink, clip_frames: int, frames: Iterator[tuple[Frame, Place[State] | None]]
    ) -> Iterator[None]:
        """Each frame comes with where the stream was.  Ctrl-C waits meanwhile, so that the file and what is said of it
        agree.
        """
        for frame, place in frames:
            self._put_clip(sink, clip_frames)
            with self._whole():
                self._put(sink, frame, place)
            yield

    def _whole(self) -> AbstractContextManager[None]:
        """A step that Ctrl-C must not cut; it may where a reader could let it wait for ever."""
        return nullcontext() if self._output == "-" else uninterrupted()

    def _put_clip(self, sink: FrameSink, clip_frames: int) -> None:
        """The clip's own frames, once, and only when the first new one is there: a start that fails leaves no file, nor
        do Ctrl-C meanwhile and a clip that is damaged in its midst.
        """
        if self._clip_written >= clip_frames or self.session.clip is None:
            return
        try:
            with self.session.meter.time("write"):
                for before in self.session.clip.frames():
                    with self._whole():
                        sink.write(before)
                    self._clip_written += 1
        except OutputError:  # says where what was written is
            raise
        except BaseException:
            self._clip_written = 0
            sink.abandon()
            raise

    def _put(self, sink: FrameSink, frame: Frame, place: Place[State] | None) -> None:
        with self.session.meter.time("write"):
            sink.write(frame)
        self._digest, self._written = link(self._digest, frame.data), self._written + 1
        if self._keeper is not None and place is not None:
            self._keeper.after(At(place, self._clip_written, self._digest))

    def _now(self) -> Place[State] | None:
        """Where the stream is, for a checkpoint; other methods than FIFO keep none."""
        return None if self._keeper is None else self.session.trail.place()

    def _look(self, stage: str, done: int, total: int) -> None:
        if stage == "run-in" and self._keeper is not None:
            with uninterrupted():
                self._keeper.hidden(At(self.session.trail.place(), self._clip_written, self._digest))
        self._watch(stage, done, total)

    def _open(self, before: Beginning | None, said: Description | None) -> FrameSink:
        run = self.session.described()
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

    def _keep(self, folder: Path, every: float, keep: bool, clip_frames: int, said: Description | None) -> Keeper:
        session, run = self.session, self.session.run
        frames = piece(self._output, run.fps)
        assert frames is not None
        description = Description(
            fifo_diffusion=__version__,
            run=session.described(),
            output="." if is_folder(self._output) else Path(self._output).name,
            scale=self._scale,
            crf=self._crf,
            machine=machine(run.device),
            weights=session.model.weights,
            clip_frames=clip_frames,
            whole=None if said is None else said.whole,
            coded_sha256=None if said is None else said.coded_sha256,
            job=None if (here := job()) is None else here.mark,
        )
        return Keeper(
            folder,
            description,
            said,
            frames,
            every,
            keep,
            session.described,
            self._warn,
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
            clip_frames=self._clip_written,
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


def tell_unheard(session: Session, warn: Warn) -> None:
    """Say what of the prompts the model cannot hear, and which come too late."""
    run = session.run
    said = [run.prompt, run.negative_prompt, *(text for c in run.cues for text in (c.prompt, c.negative_prompt or ""))]
    for remark in dict.fromkeys(remark for prompt in dict.fromkeys(said) for remark in session.model.remarks(prompt)):
        warn(remark)
    for cue in run.cues:
        if 0 < run.frames <= cue.at:
            warn(_unseen(run.frames, cue.prompt, cue.at))


def _unseen(frames: int, prompt: str, at: int) -> str:
    return f"the video ends at frame {frames}, before {prompt!r} at frame {at} is seen"


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
