"""Where frames go: a video file, a folder of pictures, a pipe, or nowhere; and how they are read back.

A sink takes frames one at a time and keeps none, so memory does not grow with the length of the video.

A name only ever holds a whole file.  `clip.mp4` is written as `clip.partial.mp4` beside it and takes its
name when it is closed; until then a file that had the name keeps it, and a start that fails loses nothing.
mp4 and webm are written in pieces of half a second, gif and PNG frame by frame, so if the program is killed
`clip.partial.mp4` plays up to its last second (not so webp, whose length stands at its head).  A clean end
copies the pieces of an mp4 into one plain file with its index in front, because some players cannot seek in
fragments.

Knows nothing of torch, models or queues.  Letters: H W height and width in pixels.
"""

from __future__ import annotations

import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from fifo_diffusion.errors import BadInput, OutputError

if TYPE_CHECKING:
    import av

Frame = NDArray[np.uint8]  # (H, W, 3), red green blue

_HALF_SECOND = {"us": "500000", "ms": "500"}
_BT709 = 1  # in ITU-T H.273 (2021): colour primaries, transfer and matrix of HD video all have number 1
_LIMITED = 1  # FFmpeg's AVCOL_RANGE_MPEG: 16 is black, 235 is white


@dataclass(frozen=True)
class _Kind:
    """How one extension is encoded."""

    codec: str
    pixels: str  # FFmpeg's name of the pixel format
    encoder: Mapping[str, str]
    muxer: Mapping[str, str]
    crf: tuple[int, int, int] | None = None  # lowest (best), usual, highest
    fastest: int = 1000  # frames a second the container's clock can tell apart
    largest: int = 16384  # pixels a side
    even: bool = False  # colour is kept for blocks of 2 x 2 pixels


_KINDS = {
    ".mp4": _Kind(
        "libx264",
        "yuv420p",
        # No frame waits in the encoder: a killed run would lose those too.
        {"preset": "medium", "tune": "zerolatency"},
        {
            "movflags": "frag_keyframe+empty_moov+default_base_moof",
            "frag_duration": _HALF_SECOND["us"],
            "flush_packets": "1",
        },
        crf=(1, 18, 51),  # 0 is lossless, in a profile that browsers do not play
        even=True,
    ),
    ".webm": _Kind(
        "libvpx-vp9",
        "yuv420p",
        {"deadline": "good", "cpu-used": "4", "lag-in-frames": "0", "b": "0"},
        {"cluster_time_limit": _HALF_SECOND["ms"], "flush_packets": "1"},
        crf=(0, 24, 63),
        even=True,
    ),
    ".gif": _Kind(
        "gif", "pal8", {}, {"loop": "0", "flush_packets": "1"}, fastest=50
    ),  # browsers slow down anything faster
    # Not libwebp_anim: it holds the whole animation until the end.  This one codes each frame by itself.
    ".webp": _Kind("libwebp", "bgra", {"quality": "90"}, {"loop": "0", "flush_packets": "1"}),
}

_ALLOWED = ".mp4, .webm, .gif, .webp, a folder (no extension, or a final /) for PNGs, - for stdout, or null"


class FrameSink(ABC):
    """Takes frames in order; `close` it, or use it in a `with`: the frames so far are kept either way.

    `frames` counts what was taken, `path` is the file or folder (None for stdout and null).
    """

    path: Path | None = None

    def __init__(self, size: tuple[int, int], scale: int) -> None:
        self.frames = 0
        self._width, self._height = size
        self._scale = scale
        self._open = True

    def write(self, frame: Frame) -> None:
        """Take one frame, (H, W, 3) uint8.

        Raises `BadInput` for another shape or kind, `OutputError` when it cannot be written (the frames
        before it are kept), and `BrokenPipeError` when whoever read stdout has gone: the clean end of a pipe.
        """
        wanted = (self._height, self._width, 3)
        if frame.shape != wanted or frame.dtype != np.uint8:
            raise BadInput(f"This sink takes frames of shape {wanted} uint8, not {frame.shape} {frame.dtype}.")
        if not self._open:
            raise BadInput("This sink is closed; open another for more frames.")
        self._put(_enlarge(frame, self._scale))
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name.  A sink that took no frame leaves nothing behind."""
        if self._open:
            self._open = False
            self._end()

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
            raise OutputError(f"Cannot write to stdout: {error.strerror}.") from error


class PngSink(FrameSink):
    """A folder of frame_000000.png, frame_000001.png, ...: exact pixels, and the metadata in each."""

    def __init__(self, path: Path, size: tuple[int, int], scale: int, metadata: Mapping[str, str]) -> None:
        from PIL.PngImagePlugin import PngInfo

        super().__init__(size, scale)
        self.path = path
        self._info = PngInfo()
        for key, text in metadata.items():
            self._info.add_itxt(key, text)
        self._made = not path.exists()
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot make the folder {path}: {error.strerror}.") from error

    def _put(self, frame: Frame) -> None:
        from PIL import Image

        assert self.path is not None
        name = f"frame_{self.frames:06d}.png"
        partial = self.path / f".{name}.partial"
        try:
            Image.fromarray(frame).save(partial, format="PNG", pnginfo=self._info)
            partial.replace(self.path / name)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"Cannot write {self.path / name}: {error.strerror}.") from error

    def _end(self) -> None:
        assert self.path is not None
        if self._made and self.frames == 0:
            self.path.rmdir()


class VideoSink(FrameSink):
    """mp4 (H.264), webm (VP9), gif or animated webp, encoded as it is made."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        scale: int,
        fps: Fraction,
        crf: int | None,
        metadata: Mapping[str, str],
    ) -> None:
        import av

        super().__init__(size, scale)
        self.path = path
        self._fps = fps
        self._kind = kind = _KINDS[path.suffix.lower()]
        self._failed = False
        self._partial = _create_beside(path)
        encoder = dict(kind.encoder)
        if kind.crf is not None:
            encoder |= {"crf": str(kind.crf[1] if crf is None else crf), "g": str(max(1, math.floor(fps)))}
        # bitexact leaves out dates and random numbers, so that the same frames are the same file.
        muxer = {"fflags": "+bitexact", **kind.muxer}
        try:
            self._container = av.open(str(self._partial), "w", format=path.suffix.lower()[1:], options=muxer)
            self._container.metadata.update(metadata)
            self._stream = self._container.add_stream(kind.codec, rate=fps, options=encoder)
            assert isinstance(self._stream, av.VideoStream)
            self._stream.width, self._stream.height = size[0] * scale, size[1] * scale
            self._stream.pix_fmt = kind.pixels
            context = self._stream.codec_context
            context.thread_count = 1  # the cores are the network's; and the same bytes on any number of them
            if kind.pixels == "yuv420p":
                context.colorspace = context.color_primaries = context.color_trc = _BT709
                context.color_range = _LIMITED
            self._container.start_encoding()  # opens the encoder now, before any work
        except (av.FFmpegError, OSError) as error:
            self._partial.unlink(missing_ok=True)
            raise OutputError(f"Cannot start {path} ({kind.codec}): {error.strerror}.") from error

    def _put(self, frame: Frame) -> None:
        picture = self._picture(frame)
        picture.pts, picture.time_base = self.frames, 1 / self._fps
        self._send(picture)

    def _picture(self, frame: Frame) -> av.VideoFrame:
        import av

        if self._kind.pixels == "pal8":
            # PyAV takes this pair (it is how it documents pal8), but its stub says one array.
            return av.VideoFrame.from_ndarray(_palette(frame), format="pal8")  # type: ignore[arg-type]
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        if self._kind.pixels == "yuv420p":
            return picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        return picture.reformat(format=self._kind.pixels)

    def _send(self, picture: av.VideoFrame | None) -> None:
        import av

        assert isinstance(self._stream, av.VideoStream)
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            self._failed = True
            raise self._lost(error) from error

    def _lost(self, error: BaseException) -> OutputError:
        why = getattr(error, "strerror", None) or error
        return OutputError(f"Cannot go on writing {self.path}: {why}; what was written is in {self._partial}.")

    def _end(self) -> None:
        import av

        assert self.path is not None
        if self.frames == 0 or self._failed:
            with suppress(av.FFmpegError, OSError):  # gif cannot end before it has begun; a full disk stays full
                self._container.close()
            if self.frames == 0:
                self._partial.unlink()
            return
        self._send(None)
        try:
            self._container.close()
            if self.path.suffix.lower() == ".mp4":
                _index_in_front(self._partial)
            self._partial.replace(self.path)
        except (av.FFmpegError, OSError) as error:
            raise self._lost(error) from error


def open_sink(
    path: str,
    *,
    fps: Fraction | float,
    size: tuple[int, int],
    scale: int = 1,
    crf: int | None = None,
    metadata: Mapping[str, str] | None = None,
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

    Raises `BadInput` for a value that is not allowed and `OutputError` for what cannot be written.
    """
    check_output(path, fps=fps, size=size, scale=scale, crf=crf)
    if path == "-":
        return RawSink(size, scale)
    if path == "null":
        return NullSink(size, scale)
    if _is_folder(path):
        return PngSink(Path(path), size, scale, metadata or {})
    return VideoSink(Path(path), size, scale, _fraction(fps), crf, metadata or {})


def check_output(
    path: str,
    *,
    fps: Fraction | float = 24,
    size: tuple[int, int] = (64, 64),
    scale: int = 1,
    crf: int | None = None,
) -> None:
    """Refuse, without making anything, what `open_sink` would refuse."""
    if scale < 1:
        raise BadInput(f"Scale {scale} is not allowed; give a whole number, 1 or more.")
    rate = _fraction(fps)
    width, height = size[0] * scale, size[1] * scale
    if width < 1 or height < 1:
        raise BadInput(f"A size of {size[0]} x {size[1]} pixels is not allowed; give 1 or more each way.")
    if path in ("-", "null"):
        return
    if not path:
        raise BadInput(f"No output was named; give {_ALLOWED}.")
    if _is_folder(path):
        _check_folder(Path(path))
        return
    kind = _KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise BadInput(f"{path} ends in {Path(path).suffix}; this can write {_ALLOWED}.")
    if kind.even and (width % 2 or height % 2):
        even = f"{width + width % 2} x {height + height % 2}"
        raise BadInput(
            f"{path} needs an even width and height, not {width} x {height}; {even} is allowed, and gif, "
            "webp and PNG take any."
        )
    if max(width, height) > kind.largest:
        raise BadInput(f"{path} can be at most {kind.largest} pixels a side, not {width} x {height}.")
    if rate > kind.fastest:
        raise BadInput(f"{path} can hold at most {kind.fastest} frames a second, not {float(rate):g}.")
    if crf is not None:
        _check_crf(path, kind, crf)
    _check_writable(Path(path).parent)
    _check_codec(path, kind.codec)


def read_frames(path: str | Path) -> Iterator[Frame]:
    """Read a video, or a folder of frame_*.png, one (H, W, 3) uint8 frame at a time.

    Raises `BadInput` when there is no such file, or it is no video; when it is damaged, after the frames
    before the damage.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise BadInput(f"There is no {path} to read.")
    if path.is_dir():
        return _read_folder(path)
    return _read_webp(path) if path.suffix.lower() == ".webp" else _read_video(path)


def _read_folder(path: Path) -> Iterator[Frame]:
    from PIL import Image

    for name in sorted(path.glob("frame_*.png"), key=lambda file: (len(file.name), file.name)):
        with Image.open(name) as picture:
            yield np.asarray(picture.convert("RGB"))


def _read_webp(path: Path) -> Iterator[Frame]:
    from PIL import Image, ImageSequence  # FFmpeg writes animated webp but cannot read it

    try:
        with Image.open(path) as animation:
            for picture in ImageSequence.Iterator(animation):
                yield np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise BadInput(f"Cannot read {path} as a video: {error}.") from error


def _read_video(path: Path) -> Iterator[Frame]:
    import av

    try:
        with av.open(str(path)) as container:
            for picture in container.decode(video=0):
                yield picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except av.FFmpegError as error:
        raise BadInput(f"Cannot read {path} as a video: {error.strerror}.") from error


def _fraction(fps: Fraction | float) -> Fraction:
    if not math.isfinite(fps) or fps <= 0:
        raise BadInput(f"{fps} frames a second is not allowed; give a number above 0.")
    # 1001 is the largest denominator in use: 24000/1001 for NTSC film.
    return fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)


def _is_folder(path: str) -> bool:
    return path.endswith("/") or os.path.isdir(path) or not Path(path).suffix


def _check_folder(path: Path) -> None:
    if os.path.isdir(path):
        if any(path.glob("frame_*.png")):
            raise OutputError(f"The folder {path} already holds frame_*.png; name another, or empty it.")
        if not os.access(path, os.W_OK | os.X_OK):
            raise OutputError(f"The folder {path} may not be written to; name another.")
    elif os.path.exists(path):
        raise OutputError(f"{path} is a file, not a folder; name a folder, or add an extension.")
    else:
        _check_writable(path.parent)


def _check_writable(folder: Path) -> None:
    if not os.path.isdir(folder):
        raise OutputError(f"There is no folder {folder}; make it first, or write elsewhere.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"The folder {folder} may not be written to; write elsewhere.")


def _check_crf(path: str, kind: _Kind, crf: int) -> None:
    if kind.crf is None:
        raise BadInput(f"{path} has no constant rate factor; leave crf out, or write .mp4 or .webm.")
    lowest, _, highest = kind.crf
    if not lowest <= crf <= highest:
        raise BadInput(f"A crf of {crf} is not allowed for {path}; give {lowest} (best) to {highest}.")


def _check_codec(path: str, codec: str) -> None:
    import av

    try:
        av.Codec(codec, "w")
    except (av.FFmpegError, ValueError) as error:
        can = [end for end, kind in _KINDS.items() if kind.codec in av.codecs_available]
        raise OutputError(
            f"{path} needs the codec {codec}, which this build of PyAV lacks; it can write "
            f"{', '.join([*can, 'PNG folders'])}."
        ) from error


def _create_beside(path: Path) -> Path:
    """An empty file of a name nobody has: what a killed run left is not written over."""
    for n in count(1):
        partial = path.with_name(f"{path.stem}.partial{n if n > 1 else ''}{path.suffix}")
        try:
            partial.touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(f"Cannot write {partial}: {error.strerror}.") from error
        return partial
    raise AssertionError("count() has no end")


def _index_in_front(partial: Path) -> None:
    """Copy the fragments of an mp4, not decoded, into one plain file with its index in front."""
    import av

    plain = partial.with_name(f".{partial.name}.plain")
    try:
        with (
            av.open(str(partial)) as source,
            av.open(str(plain), "w", format="mp4", options={"movflags": "faststart", "fflags": "+bitexact"}) as target,
        ):
            for key in ("title", "comment"):
                target.metadata.update({key: source.metadata[key]} if key in source.metadata else {})
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:  # the last, empty packet only says that there are no more
                    packet.stream = stream
                    target.mux(packet)
        plain.replace(partial)
    except (av.FFmpegError, OSError):  # such as a full disk: the fragments are a good file too
        plain.unlink(missing_ok=True)


def _enlarge(frame: Frame, scale: int) -> Frame:
    if scale == 1:
        return np.ascontiguousarray(frame)
    from PIL import Image

    height, width, _ = frame.shape
    size = (width * scale, height * scale)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def _palette(frame: Frame) -> tuple[Frame, Frame]:
    """The 256 colours of this frame alone: (H, W) indices and (256, 4) colours, alpha first."""
    from PIL import Image

    picture = Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT)
    colours = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
    table = np.zeros((256, 4), np.uint8)
    table[:, 0] = 255
    table[: len(colours), 1:] = colours
    return np.asarray(picture, dtype=np.uint8), table
