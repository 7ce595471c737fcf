"""The Python interface: `stream` yields frames, `generate` writes a video with its sidecar."""

from __future__ import annotations

import hashlib
import platform
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from fifo_diffusion import sidecar
from fifo_diffusion.config import Run
from fifo_diffusion.meter import peak_memory
from fifo_diffusion.models import card
from fifo_diffusion.session import Frame, Session, Watch, resolve
from fifo_diffusion.sidecar import Sidecar
from fifo_diffusion.sinks import check_output, open_sink
from fifo_diffusion.version import __version__

Warn = Callable[[str], None]


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def stream(prompt: str, **settings: Any) -> Iterator[Frame]:
    """Frames (height, width, 3) uint8 as they are made.

    settings: those of `config.Run` (model, seed, frames, guidance, ...); frames=0 never ends.
    Raises BadInput at once for settings that are not allowed, NotFinite when the network breaks down.
    """
    session = Session(resolve(Run.of({"frames": 0, **settings, "prompt": prompt})))
    tell_unknown_words(session, _warn)
    return session.frames()


def generate(prompt: str, output: str, *, scale: int | None = None, crf: int | None = None, **settings: Any) -> Sidecar:
    """Write a video (`sinks.open_sink` tells the outputs) and its JSON sidecar; returns what the sidecar says.

    scale shows each pixel larger (the model's own default), crf is the encoder's quality (lower is better).
    Raises BadInput, OutputError, ModelError or NotFinite; the frames made before an error stay in the file.
    """
    return make(Run.of({**settings, "prompt": prompt}), output, scale=scale, crf=crf)


def make(
    run: Run,
    output: str,
    *,
    scale: int | None = None,
    crf: int | None = None,
    watch: Watch | None = None,
    warn: Warn = _warn,
) -> Sidecar:
    """`generate` for a run that is already described.  Ctrl-C finishes the file, then goes on up."""
    full = resolve(run)
    scale = scale or card(full.model).scale
    check_output(output, fps=full.fps, size=full.size, scale=scale, crf=crf)
    session = Session(full) if watch is None else replace(Session(full), watch=watch)
    tell_unknown_words(session, warn)
    metadata = {"title": full.prompt, "comment": full.model_dump_json(exclude_none=True)}
    digest, written = hashlib.sha256(), 0
    sink = open_sink(output, fps=full.fps, size=full.size, scale=scale, crf=crf, metadata=metadata)
    try:
        with sink:
            try:
                for frame in session.frames():
                    with session.meter.time("write"):
                        sink.write(frame)
                    digest.update(frame.data)
                    written += 1
            except BrokenPipeError:
                pass  # whoever read the frames has seen enough
    finally:
        made = Sidecar(
            fifo_diffusion=__version__,
            run=full,
            scale=scale,
            crf=crf,
            machine=machine(full.device),
            frames_written=written,
            frames_sha256=digest.hexdigest(),
            seconds={part: round(spent, 3) for part, spent in session.meter.parts().items()},
            peak_memory_mb=peak_memory() // 2**20,
        )
        beside = sidecar.path_beside(output)
        if beside is not None and written:
            sidecar.write(made, beside)
    return made


def tell_unknown_words(session: Session, warn: Warn) -> None:
    """Say which words of the prompts the model cannot know, with the closest it does."""
    for prompt in (session.run.prompt, session.run.negative_prompt):
        for word, close in session.model.unknown_words(prompt).items():
            nearest = f"; the closest words it knows: {', '.join(close)}" if close else ""
            warn(f"the {session.run.model} model does not know the word {word!r} and leaves it out{nearest}")


def machine(device: str) -> dict[str, str | int]:
    """What the pixels may depend on besides the settings."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "device": name,
        "threads": torch.get_num_threads(),
    }
