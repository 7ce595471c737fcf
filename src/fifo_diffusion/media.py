"""Video files by PyAV."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer


def reading(path: Path) -> InputContainer:
    """To be used in a `with`.  Raises av.FFmpegError."""
    import av

    return av.open(_named(path))


def writing(path: Path, form: str, options: Mapping[str, str]) -> OutputContainer:
    """form: the muxer, FFmpeg's name for it.  Raises av.FFmpegError."""
    import av

    return av.open(_named(path), "w", format=form, options=dict(options))


def _named(path: Path) -> str:
    """From the root on: FFmpeg takes `take:1.mp4` for an address, of the protocol `take`."""
    return os.path.abspath(path)
