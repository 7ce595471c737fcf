"""Frames that no file keeps: raw on stdout, or counted and forgotten."""

from __future__ import annotations

import sys

from fifo_diffusion.errors import OutputError
from fifo_diffusion.names import Frame
from fifo_diffusion.sinks.base import FrameSink


class NullSink(FrameSink):
    """Counts frames and forgets them: for measuring."""

    def _put(self, frame: Frame) -> None:
        pass


class RawSink(FrameSink):
    """Raw rgb24 on stdout, each frame at once: what `ffmpeg -f rawvideo -pix_fmt rgb24` reads."""

    def _put(self, frame: Frame) -> None:
        # Past Python's buffer, which would try again at the end of Python what a reader that has gone did not take.
        out = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
        left = memoryview(frame.tobytes())
        try:
            while left:
                taken = out.write(left)
                if taken is None:
                    raise OutputError("cannot write to stdout: it does not wait for its reader; give one that blocks")
                left = left[taken:]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write to stdout: {error.strerror}") from error
