"""Where a clip comes from that a video goes on from: a video, an animation, a still picture, a folder of pictures.

A model knows one size and one frame rate, so a clip is matched to them as it is read:

- size: centre crop to the shape of the model's frames, then Lanczos.  Stretching would make subjects that the model
  never saw; bars would be taken for a part of the scene.
- frame rate: frames at the wanted instants, counted back from the clip's last frame so that this one stays exactly as
  it is: it is what the new frames are seen beside.  An instant between two frames is their blend, weighted by
  nearness.  Whole frames only (the nearest) would make 24 frames a second into 10 by steps of 2, 3, 2, 3: a judder
  that a model takes for the motion and goes on with.
- length: a model looks back on one window; `window` keeps that much of the end.  A shorter clip's first frame is held
  before it: to play it there and back would show the model the motion reversed.

Frames are read one at a time, so memory does not grow with the clip.  Knows nothing of torch, models or queues.
Letters: H W height and width in pixels.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fifo_diffusion.errors import BadInput
from fifo_diffusion.media import reading, upright
from fifo_diffusion.names import Frame

if TYPE_CHECKING:
    from PIL import Image

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_DAMAGED = (OSError, EOFError, IndexError, ValueError, SyntaxError)  # what PIL raises for a file that was cut
_UNSAID = 0.1  # seconds that browsers show a frame of an animation for that does not say how long


@dataclass(frozen=True)
class Clip:
    """A clip as a model of `size` (width, height) and `fps` frames a second sees it.

    Raises BadInput, when anything is read of it, for a file that is missing or holds no picture.
    """

    path: Path
    size: tuple[int, int]
    fps: float

    @cached_property
    def sha256(self) -> str:
        """Of the file; of a folder's pictures, in order."""
        if not self.path.is_dir():
            return _digest(self.path)
        return sha256("".join(_digest(picture) for picture in pictures(self.path)).encode()).hexdigest()

    def check(self) -> None:
        """Raises BadInput for what cannot be read, before any work."""
        _ = self._seen

    def __len__(self) -> int:
        """How many frames it has, matched."""
        return 1 + int(self._seen.seconds * self.fps + 1e-6)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The matched frames in order, without the first `skip`."""
        last = self._seen.last
        wanted = [last - (len(self) - 1 - i) / self.fps for i in range(skip, len(self))]
        since = wanted[0] - 1 if skip else -math.inf  # a second earlier, for the frame before it
        yield from _at(self._timed(since), iter(wanted), self.size)

    def window(self, count: int) -> Frame:
        """(count, H, W, 3): the last matched frames; of a shorter clip the first is held before them."""
        kept = deque(self.frames(max(0, len(self) - count)), count)
        if not kept:
            raise BadInput(f"{self.path} holds no frame that can be read; give a whole video or a picture")
        return np.stack([kept[0]] * (count - len(kept)) + [*kept])

    def told(self, count: int) -> str:
        """One sentence: what was found and what was made of it, for a model that looks back on `count` frames."""
        seen, (width, height) = self._seen, self.size
        as_it_is = (seen.width, seen.height) == self.size
        shape = "" if as_it_is else f", shown to the model as {width}x{height} (centre crop)"
        if not seen.seconds:
            return f"{self.path}: a picture of {seen.width}x{seen.height}{shape}, held still for {count} frames"
        rate = (seen.frames - 1) / seen.seconds
        other = abs(rate / self.fps - 1) > 0.01
        pace = f", {rate:g} frames a second blended to {self.fps:g}" if other else f", {self.fps:g} frames a second"
        short = count - len(self)
        back = f"its first is held for {short} more" if short > 0 else f"the new frames follow its last {count}"
        return f"{self.path}: {len(self)} frames of {seen.width}x{seen.height}{shape}{pace}; {back}"

    @cached_property
    def _seen(self) -> _Seen:
        """Looked through once, without decoding where the container says enough."""
        if not os.path.exists(self.path):
            raise BadInput(f"there is no clip {self.path}; name a video, a picture or a folder of pictures")
        if not self.path.is_dir() and self._animation is None:
            return _look(self.path)
        times, shape = [], (0, 0)
        for time, picture in self._timed():
            times.append(time)
            shape = picture.size
        return _Seen(len(times), times[0], times[-1], *shape)

    @cached_property
    def _animation(self) -> bool | None:
        """Whether this is a still (False) or moving (True) picture; None for what only a video library can read."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self.path) as picture:
                # A camera's MPO is a picture, and previews of it behind.
                return picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1
        except UnidentifiedImageError:
            return None
        except _DAMAGED as error:
            why = getattr(error, "strerror", None) or error
            raise BadInput(f"{self.path} cannot be read ({why}); give a whole file") from error
        except Image.DecompressionBombError as error:
            raise _too_large(self.path) from error

    def _timed(self, since: float = -math.inf) -> Iterator[tuple[float, Image.Image]]:
        """Each picture as it is, with the second it is shown at; of a long video not all that are before `since`."""
        from PIL import Image

        if self.path.is_dir():  # pictures have no clock, so they are the model's own frames
            for i, name in enumerate(pictures(self.path)):
                yield i / self.fps, opened(name)
        elif self._animation is False:
            yield 0.0, opened(self.path)
        elif self._animation:
            with Image.open(self.path) as animation:
                time = 0.0
                for i in range(_count(animation, self.path)):
                    yield time, _shown(animation, i, self.path)
                    time += animation.info.get("duration", 0) / 1000 or _UNSAID
        else:
            yield from _decoded(self.path, since)


@dataclass(frozen=True)
class _Seen:
    """A clip as it lies on disk: first and last are when the first and the last frame are shown, in seconds."""

    frames: int
    first: float
    last: float
    width: int
    height: int

    @property
    def seconds(self) -> float:
        return self.last - self.first


def _at(timed: Iterator[tuple[float, Image.Image]], wanted: Iterator[float], size: tuple[int, int]) -> Iterator[Frame]:
    """The picture at each wanted second, in order: blended of the one before and the one after."""
    before: tuple[float, Image.Image] | None = None
    after = next(timed, None)
    if after is None:
        return
    fitted: Mapping[int, NDArray[np.float32]] = {}
    for second in wanted:
        while after is not None and after[0] < second - 1e-6:
            before, after = after, next(timed, None)
        shown = [at for at in (before, after) if at is not None]
        fitted = {id(p): fitted[id(p)] if id(p) in fitted else _fit(p, size) for _, p in shown}
        if len(shown) == 1 or shown[1][0] - second < 1e-3:
            yield fitted[id(shown[-1][1])].round().astype(np.uint8)
            continue
        (early, one), (late, other) = shown
        weight = (second - early) / (late - early)
        mixed = (1 - weight) * fitted[id(one)] + weight * fitted[id(other)]
        yield mixed.round().astype(np.uint8)


def _fit(picture: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
    from PIL import Image, ImageOps

    if picture.size != size:
        picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.float32)


def _count(animation: Image.Image, path: Path) -> int:
    """How many pictures.  Raises BadInput."""
    try:
        return int(getattr(animation, "n_frames", 1))
    except _DAMAGED as error:
        raise _cut(path, error) from error


def _shown(animation: Image.Image, number: int, path: Path) -> Image.Image:
    """One of its pictures.  Raises BadInput."""
    try:
        animation.seek(number)
        return _opaque(animation, path)
    except _DAMAGED as error:
        raise _cut(path, error) from error


def _cut(path: Path, error: Exception) -> BadInput:
    return BadInput(f"{path} cannot be read to its end ({error}); give a whole file")


def _too_large(path: Path) -> BadInput:
    return BadInput(f"{path} has more pixels than can be read safely; give a smaller picture")


def _opaque(picture: Image.Image, path: Path) -> Image.Image:
    """Without transparency: on white, as browsers show it.  Raises BadInput for numbers that say no colour."""
    from PIL import Image

    if picture.mode.startswith("I;16"):  # which `convert` would cut off at 255
        return Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise BadInput(f"{path} has pixels of 32 bits, of which white is not known; save it with 8 or 16 bits")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    over = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


def opened(path: Path) -> Image.Image:
    """A still, upright."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            return _opaque(ImageOps.exif_transpose(picture), path)
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except _DAMAGED as error:
        raise BadInput(f"the picture {path} cannot be read ({error}); give a whole one or take it away") from error


def pictures(folder: Path) -> list[Path]:
    """By number where their names hold one: frame_9 comes before frame_10."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in _PICTURES and not path.name.startswith(".")]
    if not found:
        raise BadInput(f"the folder {folder} holds no {', '.join(_PICTURES)}; name one that holds the clip's frames")
    return sorted(found, key=lambda path: natural(path.name))


def natural(name: str) -> list[tuple[int, str]]:
    """To sort by number where names hold one."""
    return [(len(part), part) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _look(path: Path) -> _Seen:
    """From the packets' own clock, which is read in a moment; the container's word for the length is often wrong."""
    import av

    try:
        with reading(path) as container:
            if not container.streams.video:
                raise BadInput(f"{path} holds no video; give a video, a picture or a folder of pictures")
            stream = container.streams.video[0]
            clock = stream.time_base
            # What a cut left in front, to begin decoding at, is not shown.
            packets = (p for p in container.demux(stream) if not p.is_discard)
            times = sorted(float(p.pts * clock) for p in packets if p.pts is not None and clock)
        shown = next(_decoded(path))[1] if times else None
    except (av.FFmpegError, OSError, StopIteration) as error:
        why = getattr(error, "strerror", None) or "no frame can be decoded"
        raise BadInput(f"{path} cannot be read as a video or a picture ({why}); give a whole file") from error
    if shown is None:
        raise BadInput(f"{path} holds no frame that says when it is shown; give a whole .mp4, .webm or .mkv")
    return _Seen(len(times), times[0], times[-1], *shown.size)


def _decoded(path: Path, since: float = -math.inf) -> Iterator[tuple[float, Image.Image]]:
    """A video's frames, turned upright and to square pixels: all, or from the last key frame at or before `since`,
    where the container can find that.
    """
    import av
    from PIL import Image

    try:
        with reading(path) as container:
            stream = container.streams.video[0]
            if since > -math.inf and stream.time_base:
                container.seek(int(since / stream.time_base), stream=stream)
            for shown in container.decode(stream):
                if shown.time is None:
                    continue
                if shown.time > since > -math.inf:
                    yield from _decoded(path)
                    return
                since = -math.inf  # only the first one tells
                yield shown.time, Image.fromarray(upright(shown, stream.sample_aspect_ratio))
    except av.FFmpegError as error:
        raise BadInput(f"{path} is damaged ({error.strerror}); give a whole video") from error


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({os.strerror(error.errno or 0)}); name another clip") from error
