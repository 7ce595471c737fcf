"""Video files by PyAV."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fractions import Fraction

    from av import VideoFrame
    from av.container import InputContainer, OutputContainer


def reading(path: Path) -> InputContainer:
    """To be used in a `with`.  Raises av.FFmpegError."""
    import av

    return av.open(_named(path), metadata_errors="replace")  # old files' titles are in any encoding


def writing(path: Path, form: str, options: Mapping[str, str]) -> OutputContainer:
    """form: the muxer, FFmpeg's name for it.  Raises av.FFmpegError."""
    import av

    return av.open(_named(path), "w", format=form, options=dict(options))


def upright(shown: VideoFrame, stretch: Fraction | None) -> NDArray[np.uint8]:
    """A decoded frame as it is to be seen, (H, W, 3): turned, and with square pixels.

    stretch: how much wider than high its pixels are, as the stream says; None: it does not.
    """
    frame: NDArray[np.uint8] = shown.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    if not shown.rotation and (stretch or 1) == 1:
        return frame
    from PIL import Image

    picture = Image.fromarray(frame)
    if stretch and stretch != 1:
        picture = picture.resize((max(1, round(picture.width * stretch)), picture.height))
    return np.asarray(picture.rotate(shown.rotation, expand=True))


def _named(path: Path) -> str:
    """From the root on: FFmpeg takes `take:1.mp4` for an address, of the protocol `take`."""
    return os.path.abspath(path)
