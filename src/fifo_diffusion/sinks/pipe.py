"""Frames that no file keeps: raw on stdout, or counted and forgotten."""

from __future__ import annotations

import sys

from fifo_diffusion.errors import OutputError
from fifo_diffusion.sinks.base import Frame, FrameSink


class NullSink(FrameSink):
    """Counts frames and forgets them: for measuring."""

    def _put(self, frame: Frame) -> None:
        pass


class RawSink(FrameSink):
    """Raw rgb24 on stdout, each frame flushed: what `ffmpeg -f rawvideo -pix_fmt rgb24` reads."""

    def _put(self, frame: Frame) -> None:
        out = sys.stdout.buffer
        try:
            out.write(frame.tobytes())
            out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write to stdout: {error.strerror}") from error
