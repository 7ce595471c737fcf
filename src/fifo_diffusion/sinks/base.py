"""What every sink is: frames in order, checked and enlarged, then put somewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from fifo_diffusion.digest import NOTHING
from fifo_diffusion.errors import BadInput
from fifo_diffusion.interrupt import uninterrupted
from fifo_diffusion.names import Frame


class FrameSink(ABC):
    """Takes frames in order; `close` it, or use it in a `with`: the frames so far are kept either way.

    `frames` counts those of the video so far, `path` is the file or folder (None for stdout and null).  For
    those that can be gone on with (`coded.piece`): `partial` is the file under way, where there is one,
    `digest` that of the frames as they were coded (whole at the end of a piece), and after `close` `dropped`
    tells that what was there before held more frames, and was kept.
    """

    path: Path | None = None
    partial: Path | None = None
    dropped = False

    def __init__(self, size: tuple[int, int], scale: int) -> None:
        self.frames = 0
        self.digest = NOTHING
        self._width, self._height = size
        self._scale = scale
        self._open = True

    @property
    def settled(self) -> int:
        """How many frames a kill could not take any more."""
        return self.frames

    def sync(self) -> None:  # noqa: B027  (most sinks have nothing to wait for)
        """Wait until a power cut could not take the settled frames either.  Raises OutputError."""

    def write(self, frame: Frame) -> None:
        """Take one frame, (H, W, 3) uint8.

        Raises `BadInput` for another shape or kind, `OutputError` when it cannot be written (the frames
        before it are kept), and `BrokenPipeError` when whoever read stdout has gone: the clean end of a pipe.
        """
        wanted = (self._height, self._width, 3)
        if frame.shape != wanted or frame.dtype != np.uint8:
            raise BadInput(f"this sink takes frames of shape {wanted} uint8, not {frame.shape} {frame.dtype}")
        if not self._open:
            raise BadInput("this sink is closed; open another for more frames")
        self._put(_enlarge(frame, self._scale))
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name.  A sink that took no frame leaves nothing behind."""
        if self._open:
            self._open = False
            with uninterrupted():  # or a whole file might keep the name of one under way
                self._end()

    def abandon(self) -> None:
        """What it took is not worth keeping: it ends as if it had taken no frame, as far as that can be."""
        self.frames = 0

    @abstractmethod
    def _put(self, frame: Frame) -> None: ...

    def _end(self) -> None:  # noqa: B027  (most sinks have nothing to finish)
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _enlarge(frame: Frame, scale: int) -> Frame:
    if scale == 1:
        return np.ascontiguousarray(frame)
    from PIL import Image

    height, width, _ = frame.shape
    size = (width * scale, height * scale)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
