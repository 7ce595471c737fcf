"""A video file, encoded as it is made, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fifo_diffusion.digest import link
from fifo_diffusion.errors import OutputError
from fifo_diffusion.media import reading, writing
from fifo_diffusion.names import Frame
from fifo_diffusion.sinks.base import FrameSink
from fifo_diffusion.sinks.coded import Begun, packets, piece
from fifo_diffusion.sinks.kinds import KINDS
from fifo_diffusion.whole import to_disk

if TYPE_CHECKING:
    import av

_BT709 = 1  # in ITU-T H.273 (2021): colour primaries, transfer and matrix of HD video all have number 1
_INDEXED = 1_000_000
"""Frames of the longest mp4 that gets an index in front; a longer one keeps its fragments, which all players read too.
An index takes some 200 bytes of memory a frame while it is made: 2 GB after ten days at 10 frames/s."""

_LIMITED = 1  # FFmpeg's AVCOL_RANGE_MPEG: 16 is black, 235 is white


class VideoSink(FrameSink):
    """mp4 (H.264), webm (VP9), gif or animated webp, encoded as it is made.

    The encoder of mp4 and webm begins anew every `piece` frames.  So the bytes do not tell whether, and where,
    the video was broken off and gone on with.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        scale: int,
        fps: Fraction,
        crf: int | None,
        metadata: Mapping[str, str],
        begun: Begun | None = None,
        partial: Path | None = None,
    ) -> None:
        import av

        super().__init__(size, scale)
        self.path = path
        self._fps = fps
        self._kind = kind = KINDS[path.suffix.lower()]
        self._piece = piece(str(path), fps)
        self._begun = begun
        self._failed = False
        # What a killed run left is needed until this file holds as much: it takes that one's name only then.
        self.partial = _create_beside(path) if partial is None else partial
        self._file = self.partial if partial is None else partial.with_name(f".{partial.name}.more")
        self._options = dict(kind.encoder)
        if self._piece is not None and kind.crf is not None:
            self._options |= {"crf": str(kind.crf[1] if crf is None else crf), "g": str(self._piece)}
        # bitexact leaves out dates and random numbers, so that the same frames are the same file.
        muxer = {"fflags": "+bitexact", **kind.muxer}
        try:
            self._container = writing(self._file, path.suffix.lower()[1:], muxer)
            self._container.metadata.update(metadata)
            stream = self._container.add_stream(kind.codec, rate=fps, options=self._options)
            assert isinstance(stream, av.VideoStream)
            self._stream = stream
            self._encoder: av.VideoCodecContext | None = stream.codec_context
            self._set_up(self._encoder)
            self._container.start_encoding()  # opens the encoder now, before any work
            if begun is not None and begun.frames:  # what was killed early cannot even be opened
                self._copy(begun)
        except (av.FFmpegError, OSError) as error:
            self._file.unlink(missing_ok=True)
            raise OutputError(f"cannot start {path} ({kind.codec}): {error.strerror}") from error
        except BaseException:  # Ctrl-C in a long copy
            self._file.unlink(missing_ok=True)
            raise

    @property
    def settled(self) -> int:
        """All but the last half second, and what waits for its successor; only once the file has its name."""
        return max(0, self._flushed()) if self._file == self.partial else 0

    def _flushed(self) -> int:
        """How many frames are surely in the file, for it is written in pieces of half a second."""
        return self.frames - math.ceil(self._fps / 2) - 2

    def sync(self) -> None:
        try:
            to_disk(self._file)
            to_disk(self._file.parent)  # its name, and that of the folder of checkpoints beside it
        except OSError as error:
            raise self._lost(error) from error

    def _set_up(self, encoder: av.VideoCodecContext) -> None:
        encoder.width, encoder.height = self._width * self._scale, self._height * self._scale
        encoder.pix_fmt = self._kind.pixels
        encoder.thread_count = 1  # the cores are the network's; and the same bytes on any number of them
        if self._kind.pixels == "yuv420p":
            encoder.colorspace = encoder.color_primaries = encoder.color_trc = _BT709
            encoder.color_range = _LIMITED

    def _another(self) -> av.VideoCodecContext:
        """An encoder like the first, that has seen nothing."""
        import av

        encoder = av.CodecContext.create(self._kind.codec, "w")
        assert isinstance(encoder, av.VideoCodecContext)
        self._set_up(encoder)
        encoder.framerate, encoder.time_base = self._fps, 1 / self._fps
        encoder.flags = self._stream.codec_context.flags  # the headers stand in the file's head
        encoder.options = self._options
        return encoder

    def _copy(self, begun: Begun) -> None:
        with reading(begun.source) as source:
            for number, packet in zip(range(begun.frames), packets(source), strict=False):
                self._mux(packet, number)
        if self.digest != begun.digest:
            raise OSError(0, f"{begun.source} changed while it was read")
        self.frames = begun.frames

    def _put(self, frame: Frame) -> None:
        if self._encoder is None:
            self._encoder = self._another()
        picture = self._picture(frame)
        picture.pts, picture.time_base = self.frames, 1 / self._fps
        self._send(picture)
        if self._piece is not None and (self.frames + 1) % self._piece == 0:
            self._send(None)
            self._encoder = None
            self._take_name()

    def _take_name(self) -> None:
        """That of the file it replaces, once it holds as much.  Raises OutputError for a file that nobody will find."""
        assert self.partial is not None
        try:
            self._file.stat()
            before = 0 if self._begun is None else self._begun.held
            if self._file != self.partial and self._flushed() >= before:
                self._file.replace(self.partial)
                self._file = self.partial
        except OSError as error:
            self._failed = True
            raise self._lost(error) from error

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

        assert self._encoder is not None
        try:
            for packet in self._encoder.encode(picture):
                self._mux(packet, None)
        except (av.FFmpegError, OSError) as error:
            self._failed = True
            raise self._lost(error) from error

    def _mux(self, packet: av.Packet[av.VideoStream], number: int | None) -> None:
        """Into the file; number: of the frame, for one that was read back, where its time was rounded."""
        if number is not None:
            packet.pts = packet.dts = number
            packet.time_base, packet.duration = 1 / self._fps, 0
        self.digest = link(self.digest, bytes(packet))
        packet.stream = self._stream
        self._container.mux_one(packet)

    def _lost(self, error: BaseException) -> OutputError:
        why = getattr(error, "strerror", None) or error
        if not self._file.exists():
            why = f"{self._file} has gone (was it, or its folder, moved or deleted?)"
            return OutputError(f"cannot go on writing {self.path}: {why}")
        return OutputError(f"cannot go on writing {self.path}: {why}; what was written is in {self._file}")

    def _end(self) -> None:
        import av

        assert self.path is not None
        assert self.partial is not None
        self.dropped = self._begun is not None and self.frames < self._begun.held
        if self.frames == 0 or self._failed or self.dropped:
            with suppress(av.FFmpegError, OSError):  # gif cannot end before it has begun; a full disk stays full
                self._container.close()
            if self.frames == 0 or self.dropped:
                self._file.unlink(missing_ok=True)
            return
        if self._encoder is not None:
            self._send(None)
        try:
            self._container.close()
            if self.path.suffix.lower() == ".mp4" and self.frames <= _INDEXED:
                # Always of this name, so that what a kill leaves of it is written over by the run that goes on.
                _index_in_front(self._file, self.partial.with_name(f".{self.partial.name}.plain"))
            to_disk(self._file)
            self._file = self._file.replace(self.path)
            self.partial.unlink(missing_ok=True)
        except (av.FFmpegError, OSError) as error:
            raise self._lost(error) from error


def _create_beside(path: Path) -> Path:
    """An empty file of a name nobody has: what a killed run left is not written over."""
    for n in count(1):
        partial = path.with_name(f"{path.stem}.partial{n if n > 1 else ''}{path.suffix}")
        try:
            partial.touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(f"cannot write {partial}: {error.strerror}") from error
        return partial
    raise AssertionError("count() has no end")


def _index_in_front(partial: Path, plain: Path) -> None:
    """Copy the fragments of an mp4, not decoded, into one plain file with its index in front, which takes its name."""
    import av

    try:
        with (
            reading(partial) as source,
            writing(plain, "mp4", {"movflags": "faststart", "fflags": "+bitexact"}) as target,
        ):
            for key in ("title", "comment"):
                target.metadata.update({key: source.metadata[key]} if key in source.metadata else {})
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in packets(source):
                packet.stream = stream
                target.mux(packet)
        plain.replace(partial)
    except (av.FFmpegError, OSError):  # such as a full disk: the fragments are a good file too
        plain.unlink(missing_ok=True)


def _palette(frame: Frame) -> tuple[Frame, Frame]:
    """The 256 colours of this frame alone: (H, W) indices and (256, 4) colours, alpha first."""
    from PIL import Image

    picture = Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT)
    colours = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
    table = np.zeros((256, 4), np.uint8)
    table[:, 0] = 255
    table[: len(colours), 1:] = colours
    return np.asarray(picture, dtype=np.uint8), table
