"""Frames as they were coded: counted, fingerprinted and copied, never decoded.  What going on with a file rests on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from fifo_diffusion.digest import NOTHING, link
from fifo_diffusion.letters import is_folder
from fifo_diffusion.media import reading
from fifo_diffusion.sinks.kinds import KINDS, rate

if TYPE_CHECKING:
    import av


@dataclass(frozen=True)
class Begun:
    """A video that goes on: the file or folder that holds its beginning."""

    source: Path
    frames: int  # the first so many are kept; a multiple of `piece`
    digest: str  # theirs, as coded
    held: int = 0  # frames there are in all: a video that ends earlier than that leaves the source as it is


def piece(path: str, fps: Fraction | float) -> int | None:
    """Frames after which nothing depends on those before, so that a video may be gone on with from there.

    mp4 and webm: the frames of a second, as many as from one key frame to the next.  A folder: 1, for each
    picture stands by itself.  None for what cannot be gone on with: gif and webp (FFmpeg cannot read its own
    animated webp), stdout and null.
    """
    if path in ("-", "null"):
        return None
    if is_folder(path):
        return 1
    kind = KINDS.get(Path(path).suffix.lower())
    return None if kind is None or kind.crf is None else max(1, math.floor(rate(fps)))


def held(path: Path) -> Iterator[str]:
    """The digest of the first frame as coded, of the first two, ...: as far as the file or folder can be read."""
    digest = NOTHING
    for item in _pictures(path) if path.is_dir() else _packets(path):
        digest = link(digest, item)
        yield digest


def picture_name(number: int) -> str:
    """The file of one frame in a folder."""
    return f"frame_{number:06d}.png"


def picture_number(name: str) -> int | None:
    """Of such a file's frame; None of another file."""
    match = re.fullmatch(r"frame_(\d+)\.png", name)
    return None if match is None else int(match[1])


def picture_files(folder: Path) -> list[Path]:
    """By number: the millionth has a longer name."""
    return sorted(folder.glob("frame_*.png"), key=lambda file: (len(file.name), file.name))


def _pictures(folder: Path) -> Iterator[bytes]:
    number = 0
    while (file := folder / picture_name(number)).is_file():
        yield file.read_bytes()
        number += 1


def _packets(path: Path) -> Iterator[bytes]:
    import av

    with suppress(av.FFmpegError, OSError), reading(path) as container:
        yield from (bytes(packet) for packet in packets(container))


def packets(container: av.container.InputContainer) -> Iterator[av.Packet[av.VideoStream]]:
    """The coded frames of a video, in order.  Raises av.FFmpegError where it is damaged."""
    for packet in container.demux(video=0):
        if packet.dts is not None:  # the last, empty packet only says that there are no more
            yield packet
