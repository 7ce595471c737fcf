"""A picture of the whole queue, rewritten while a run goes on: clean head to noisy tail.

Two rows.  Above, the latents of the queue as they are, decoded: how noisy each place still is.  Below, what the network
takes each place to become: what will be on the screen, seconds before it is, since the tail shows nothing but noise
above; that follows from the answers that the iteration has anyway (`Engine.expected`), so the network is not asked once
more.  What a picture costs is that sum, decoding and drawing, and it is made only so often that this takes `share` of
the time; the video is the same with and without.

Knows nothing of torch, models or queues.  Letters: P places shown, H W height and width in pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fifo_diffusion.errors import BadInput
from fifo_diffusion.whole import check_writable

if TYPE_CHECKING:
    from PIL import Image

_KINDS = (".png", ".jpg", ".jpeg")
_SIDE, _GAP, _LINE = 96, 4, 14  # of a thumbnail, between them, of a line of text, in pixels
_DARK, _LIGHT = (24, 24, 24), (200, 200, 200)


class Queue(NamedTuple):
    """What is shown of a queue."""

    names: Sequence[str]  # P, what stands under each place
    as_it_is: NDArray[np.uint8]  # (P, H, W, 3)
    expected: NDArray[np.uint8]  # (P, H, W, 3)


def check_preview(path: str) -> None:
    """Raises BadInput for a name that is no picture's, OutputError for one that cannot be written."""
    if Path(path).suffix.lower() not in _KINDS:
        raise BadInput(f"the preview {path} is no picture's name; end it in {', '.join(_KINDS)}")
    check_writable(Path(path))


class Preview:
    """Writes the picture; give it what draws a `Queue` as often as you like.  Raises what `check_preview` raises."""

    def __init__(self, path: str, *, share: float = 0.03, warn: Callable[[str], None] = print) -> None:
        self._path, self._share, self._warn = Path(path), share, warn
        self._next = 0.0  # when the next one is due; never again after a write that failed
        check_preview(path)

    def __call__(self, draw: Callable[[], Queue]) -> None:
        """Draw and write, where it is time to; what fails is warned of once and stops no run."""
        began = time.perf_counter()
        if began < self._next:
            return
        beside = self._path.with_name(f".{self._path.stem}.partial{self._path.suffix}")
        try:
            compose(draw()).save(beside)
            os.replace(beside, self._path)
        except (OSError, RuntimeError) as error:  # the second where the device's memory does not suffice
            self._next = float("inf")
            why = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
            self._warn(f"the preview {self._path} cannot be written ({why}); going on without")
            return
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)  # what an error, or Ctrl-C, left of one
        now = time.perf_counter()
        self._next = now + (now - began) * (1 / self._share - 1)


def compose(queue: Queue) -> Image.Image:
    """The picture: a column for each place."""
    from PIL import Image, ImageDraw

    height, width = queue.as_it_is.shape[1:3]
    wide, high = (max(1, round(side * _SIDE / max(width, height))) for side in (width, height))
    column, row = wide + _GAP, _LINE + high
    sheet = Image.new("RGB", (_GAP + len(queue.names) * column, 2 * row + _LINE + _GAP), _DARK)
    pen = ImageDraw.Draw(sheet)
    rows = (("the queue, clean to noisy", queue.as_it_is), ("what the model takes it to become", queue.expected))
    for j, (title, frames) in enumerate(rows):
        pen.text((_GAP, j * row + 1), title, fill=_LIGHT)
        for i, frame in enumerate(frames):
            small = Image.fromarray(frame).resize((wide, high), Image.Resampling.LANCZOS)
            sheet.paste(small, (_GAP + i * column, j * row + _LINE))
    for i, name in enumerate(queue.names):
        pen.text((_GAP + i * column, 2 * row + 1), name, fill=_LIGHT)
    return sheet
