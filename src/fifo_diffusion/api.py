"""The Python interface: `stream` yields frames and takes new prompts, `generate` writes a video with its sidecar."""

from __future__ import annotations

import hashlib
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from fifo_diffusion import sidecar
from fifo_diffusion.config import Decided, Run
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.meter import peak_memory
from fifo_diffusion.models import card
from fifo_diffusion.preview import Preview
from fifo_diffusion.session import Frame, Session, Watch, resolve, unwatched
from fifo_diffusion.sidecar import Sidecar
from fifo_diffusion.sinks import check_output, open_sink
from fifo_diffusion.version import __version__

Warn = Callable[[str], None]


def untold(text: str) -> None:
    """Nobody listens."""


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
                warnings.warn(remark, stacklevel=2)
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
    tell_unheard(session, partial(warnings.warn, stacklevel=3))
    return Stream(session)


def generate(
    prompt: str,
    output: str,
    *,
    scale: int | None = None,
    crf: int | None = None,
    only_new: bool = False,
    preview: str | None = None,
    **settings: Any,
) -> Sidecar:
    """Write a video (`sinks.open_sink` tells the outputs) and its JSON sidecar; returns what the sidecar says.

    scale shows each pixel larger (the model's own default), crf is the encoder's quality (lower is better).
    With `clip` the file holds the clip, matched to the model, and then `frames` new ones: who extends a clip wants a
    longer clip.  only_new leaves the clip's own out.  preview: a picture of the queue, rewritten as it moves.
    Raises BadInput, OutputError, ModelError or NotFinite; the frames made before an error stay in the file.
    """
    warn = partial(warnings.warn, stacklevel=4)
    run = Run.of({**settings, "prompt": prompt})
    return make(run, output, scale=scale, crf=crf, only_new=only_new, preview=preview, warn=warn)


def make(
    run: Run,
    output: str,
    *,
    scale: int | None = None,
    crf: int | None = None,
    only_new: bool = False,
    preview: str | None = None,
    watch: Watch = unwatched,
    warn: Warn = warnings.warn,
    tell: Warn = untold,
    ready: Callable[[Session], None] | None = None,
) -> Sidecar:
    """`generate` for a run that is already described.  Ctrl-C finishes the file, then goes on up.

    tell hears what was made of a clip, in one sentence.  ready: given the session before its first frame, so that
    another thread may say prompts to it.
    """
    began = time.perf_counter()
    full = resolve(run)
    scale = card(full.model).scale if scale is None else scale
    check_output(output, fps=full.fps, size=full.size, scale=scale, crf=crf)
    for kind, path in (("output", output), ("preview", preview)):
        if path is not None and full.clip is not None and os.path.realpath(path) == os.path.realpath(full.clip):
            raise BadInput(f"the {kind} {path} is the clip itself, which would be lost; name another")
    session = Session(full, watch, preview=None if preview is None else Preview(preview, warn=warn))
    tell_unheard(session, warn)
    if session.clip is not None:
        tell(session.clip.told(card(full.model).frames))
    metadata = {"title": full.prompt, "comment": full.model_dump_json(exclude_none=True)}
    digest, written, clip_frames = hashlib.sha256(), 0, 0

    def record() -> Sidecar:
        made = Sidecar(
            fifo_diffusion=__version__,
            run=session.described(),
            scale=scale,
            crf=crf,
            machine=machine(full.device),
            weights=session.model.weights,
            clip_frames=clip_frames,
            frames_written=written,
            frames_sha256=digest.hexdigest(),
            seconds={part: round(spent, 3) for part, spent in session.meter.parts().items()},
            wall_seconds=round(time.perf_counter() - began, 3),
            peak_memory_mb=peak_memory() // 2**20,
        )
        beside = sidecar.path_beside(output)
        if beside is not None and written:
            sidecar.write(made, beside)
        return made

    if ready is not None:
        ready(session)
    try:
        with open_sink(output, fps=full.fps, size=full.size, scale=scale, crf=crf, metadata=metadata) as sink:
            try:
                for frame in session.frames():
                    with session.meter.time("write"):
                        if session.clip is not None and not written and not only_new:
                            for before in session.clip.frames():  # only now, so that a start that fails leaves no file
                                sink.write(before)
                                clip_frames += 1
                        sink.write(frame)
                    digest.update(frame.data)
                    written += 1
            except BrokenPipeError:
                pass  # whoever read the frames has seen enough
    except OutputError:
        raise  # the file is not whole: a video that had the name keeps its sidecar
    except BaseException:
        with suppress(OutputError):  # what went wrong first is what must be told
            record()
        raise
    return record()


def tell_unheard(session: Session, warn: Warn) -> None:
    """Say what of the prompts the model cannot hear, and which come too late."""
    run = session.run
    said = [run.prompt, run.negative_prompt, *(text for c in run.cues for text in (c.prompt, c.negative_prompt or ""))]
    for remark in dict.fromkeys(remark for prompt in dict.fromkeys(said) for remark in session.model.remarks(prompt)):
        warn(remark)
    for cue in run.cues:
        if 0 < run.frames <= cue.at:
            warn(f"the video ends at frame {run.frames}, before {cue.prompt!r} at frame {cue.at} is seen")


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
