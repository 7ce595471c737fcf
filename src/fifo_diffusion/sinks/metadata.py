"""What a file says of itself: the tags that a sink wrote into it."""

from __future__ import annotations

import os
from pathlib import Path

from fifo_diffusion.errors import BadInput
from fifo_diffusion.media import reading
from fifo_diffusion.sinks.coded import picture_name


def read_metadata(path: Path) -> dict[str, str]:
    """The tags of a video, of a picture, or of a folder's first picture, by lower-case name; gif and webp have none.

    Raises BadInput when there is no such file, it is neither, or the folder holds no pictures of a video.
    """
    if not os.path.exists(path):
        raise BadInput(f"there is no {path} to read")
    if path.is_dir():
        folder, path = path, path / picture_name(0)
        if not os.path.exists(path):
            raise BadInput(f"the folder {folder} holds no frames of a video that fifo made; name the video itself")
    tags = _picture(path) if path.suffix.lower() in (".png", ".webp") else _video(path)
    return {name.lower(): text for name, text in tags.items()}


def _picture(path: Path) -> dict[str, str]:
    from PIL import Image  # which reads animated webp too, as FFmpeg does not

    try:
        with Image.open(path) as picture:
            return {str(name): text for name, text in picture.info.items() if isinstance(text, str)}
    except OSError as error:
        raise BadInput(f"cannot read {path} as a picture: {error.strerror or error}") from error


def _video(path: Path) -> dict[str, str]:
    import av

    try:
        with reading(path) as container:
            return dict(container.metadata)
    except av.FFmpegError as error:
        raise BadInput(f"cannot read {path} as a video: {error.strerror}") from error
