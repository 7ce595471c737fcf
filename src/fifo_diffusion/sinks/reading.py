"""A video or a folder read back, frame by frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fifo_diffusion.errors import BadInput
from fifo_diffusion.media import reading, upright
from fifo_diffusion.names import Frame
from fifo_diffusion.sinks.coded import picture_files


def read_frames(path: str | Path) -> Iterator[Frame]:
    """Read a video, or a folder of frame_*.png, one (H, W, 3) uint8 frame at a time, as it is to be seen: upright and
    with square pixels.

    Raises `BadInput` when there is no such file, or it is no video; when it is damaged, after the frames
    before the damage.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise BadInput(f"there is no {path} to read")
    if path.is_dir():
        return _read_folder(path)
    return _read_webp(path) if path.suffix.lower() == ".webp" else _read_video(path)


def _read_folder(path: Path) -> Iterator[Frame]:
    from PIL import Image

    for name in picture_files(path):
        with Image.open(name) as picture:
            yield np.asarray(picture.convert("RGB"))


def _read_webp(path: Path) -> Iterator[Frame]:
    from PIL import Image, ImageSequence  # FFmpeg writes animated webp but cannot read it

    try:
        with Image.open(path) as animation:
            for picture in ImageSequence.Iterator(animation):
                yield np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise BadInput(f"cannot read {path} as a video: {error}") from error


def _read_video(path: Path) -> Iterator[Frame]:
    import av

    try:
        with reading(path) as container:
            for picture in container.decode(video=0):
                yield upright(picture, container.streams.video[0].sample_aspect_ratio)
    except av.FFmpegError as error:
        raise BadInput(f"cannot read {path} as a video: {error.strerror}") from error
