"""An output by its name, checked before any work is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.letters import can_be_written, is_folder
from fifo_diffusion.sinks.base import FrameSink
from fifo_diffusion.sinks.coded import Begun, picture_name
from fifo_diffusion.sinks.folder import PngSink
from fifo_diffusion.sinks.kinds import KINDS, Kind, rate
from fifo_diffusion.sinks.pipe import NullSink, RawSink
from fifo_diffusion.sinks.video import VideoSink
from fifo_diffusion.whole import check_writable

_ALLOWED = ".mp4, .webm, .gif, .webp, a folder (no extension, or a final /) for PNGs, - for stdout, or null"


def open_sink(
    path: str,
    *,
    fps: Fraction | float,
    size: tuple[int, int],
    scale: int = 1,
    crf: int | None = None,
    metadata: Mapping[str, str] | None = None,
    begun: Begun | None = None,
    partial: Path | None = None,
) -> FrameSink:
    """Open what `path` names, by its extension, and check that it can be written before any work is done.

    - `.mp4`, `.webm`, `.gif`, `.webp`: a video file;
    - an existing folder, a name without an extension, or one ending in `/`: PNGs in a folder;
    - `-`: raw frames on stdout; `null`: nowhere.

    `fps` is frames a second: a fraction is kept exactly, a float is read as the nearest simple fraction (mp4
    keeps it; webm and webp round each time to 1/1000 s, gif to 1/100 s).  `size` is (width, height) of the
    frames in pixels; `scale` enlarges them by a whole number (Lanczos).  `crf`, the constant rate factor of
    mp4 and webm, is lower for better.  `metadata`: mp4 keeps `title` and `comment`, webm and PNG keep any
    key, gif and webp none.

    `begun`: what there is of this video; it is copied as it was coded (a folder's own pictures stay), and the
    first frame to write is the one after.  `partial`: the file under way that this one replaces as soon as it
    holds more.  Only for an output that has a `piece`.

    Raises `BadInput` for a value that is not allowed and `OutputError` for what cannot be written.
    """
    own = begun is not None and is_folder(path) and begun.source == Path(path)
    check_output(path, fps=fps, size=size, scale=scale, crf=crf, own=own)
    scale = int(scale)  # 2.0 is 2
    if path == "-":
        return RawSink(size, scale)
    if path == "null":
        return NullSink(size, scale)
    if is_folder(path):
        return PngSink(Path(path), size, scale, metadata or {}, begun)
    return VideoSink(Path(path), size, scale, rate(fps), crf, metadata or {}, begun, partial)


def check_output(
    path: str,
    *,
    fps: Fraction | float = 24,
    size: tuple[int, int] = (64, 64),
    scale: int = 1,
    crf: int | None = None,
    own: bool = False,
) -> None:
    """Refuse what `open_sink` would refuse; nothing is made that stays.

    own: the pictures that are in the folder are this video's beginning.
    """
    if scale < 1 or scale != int(scale):
        raise BadInput(f"scale {scale} is not allowed; give a whole number, 1 or more")
    if not can_be_written(path):
        raise BadInput(
            f"the output {path!a} has a character that no file takes, NUL or one that is no UTF-8; name another"
        )
    if crf is not None and (path in ("-", "null") or is_folder(path)):
        raise BadInput(f"{path} has no constant rate factor; leave crf out, or write .mp4 or .webm")
    frames_a_second = rate(fps)
    width, height = size[0] * scale, size[1] * scale
    if width < 1 or height < 1:
        raise BadInput(f"a size of {size[0]} x {size[1]} pixels is not allowed; give 1 or more each way")
    if path == "-" and sys.stdout is None:
        raise OutputError("stdout is closed, so it takes no frames; leave it open, or name a file")
    if path in ("-", "null"):
        return
    if not path:
        raise BadInput(f"no output was named; give {_ALLOWED}")
    if Path(path).name.lower() in KINDS:
        raise BadInput(f"{path} is an extension without a name before it; give one, such as video{Path(path).name}")
    if is_folder(path):
        _check_folder(Path(path), own)
        return
    kind = KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise BadInput(f"{path} ends in {Path(path).suffix}; this can write {_ALLOWED}")
    if kind.even and (width % 2 or height % 2):
        even = f"{width + width % 2} x {height + height % 2}"
        raise BadInput(
            f"{path} needs an even width and height, not {width} x {height}; {even} is allowed, and gif, "
            "webp and PNG take any"
        )
    if max(width, height) > kind.largest:
        raise BadInput(f"{path} can be at most {kind.largest} pixels a side, not {width} x {height}")
    if frames_a_second > kind.fastest:
        raise BadInput(f"{path} can hold at most {kind.fastest} frames a second, not {float(frames_a_second):g}")
    if crf is not None:
        _check_crf(path, kind, crf)
    check_writable(Path(path))
    _check_codec(path, kind.codec)


def _check_folder(path: Path, own: bool) -> None:
    if os.path.isdir(path):
        if not own and any(path.glob("frame_*.png")):
            raise OutputError(f"the folder {path} already holds frame_*.png; name another, or empty it")
        check_writable(path / picture_name(0))
    elif os.path.exists(path):
        raise OutputError(f"{path} is a file, not a folder; name a folder, or add an extension")
    else:
        check_writable(path)


def _check_crf(path: str, kind: Kind, crf: int) -> None:
    if kind.crf is None:
        raise BadInput(f"{path} has no constant rate factor; leave crf out, or write .mp4 or .webm")
    lowest, _, highest = kind.crf
    if not lowest <= crf <= highest or crf != int(crf):
        raise BadInput(f"a crf of {crf} is not allowed for {path}; give {lowest} (best) to {highest}")


def _check_codec(path: str, codec: str) -> None:
    import av

    try:
        av.Codec(codec, "w")
    except (av.FFmpegError, ValueError) as error:
        can = [end for end, kind in KINDS.items() if kind.codec in av.codecs_available]
        raise OutputError(
            f"{path} needs the codec {codec}, which this build of PyAV lacks; it can write "
            f"{', '.join([*can, 'PNG folders'])}"
        ) from error
