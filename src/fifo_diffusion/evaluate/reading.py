"""What `fifo evaluate` is given, as sets of videos, and each of them read as a stream of blocks.

A folder of videos is a set, with all that is in the folders below it; files that are named one by one are one set
together.  A folder that holds pictures is itself a video.  What fifo wrote larger than the model made it (`--scale`) is
measured at the model's own size, brought back by the filter that enlarged it.

Letters: n frames of a block, h w height and width in pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from fifo_diffusion import sidecar
from fifo_diffusion.errors import BadInput
from fifo_diffusion.evaluate.metric import Video
from fifo_diffusion.letters import writable
from fifo_diffusion.media import reading
from fifo_diffusion.names import Frame
from fifo_diffusion.sinks import read_frames, read_metadata
from fifo_diffusion.sources import natural, opened, pictures

VIDEOS = frozenset({".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".gif", ".mpg", ".mpeg", ".webp"})
PICTURES = frozenset({".png", ".jpg", ".jpeg"})
FILES = "files"  # the set of those that were named one by one

_BLOCK, _MOST = 2**25, 32  # bytes of a block's frames, and how many they are at most


@dataclass(frozen=True)
class Found:
    """Videos that belong together."""

    name: str
    videos: tuple[Path, ...]


def find(given: Sequence[Path]) -> list[Found]:
    """The sets, in the order they were given.  Raises BadInput for a path that is not there or holds no video."""
    folders: dict[Path, Found] = {}
    files: list[Path] = []
    for path in given:
        if not os.path.exists(path):
            raise BadInput(f"there is no {path} to evaluate; name video files, folders of videos or of pictures")
        if not path.is_dir() or _is_pictures(path):
            if not path.is_dir() and path.suffix.lower() not in VIDEOS:
                raise BadInput(f"{path} is no video that is known here; give one of {', '.join(sorted(VIDEOS))}")
            files.append(path)
            continue
        within = tuple(_within(path))
        if not within:
            raise BadInput(f"the folder {path} holds no video and no pictures; name one that does")
        folders[path] = Found(writable(path.name or path.resolve().name), within)
    sets = [Found(FILES, tuple(dict.fromkeys(files)))] if files else []
    names = [found.name for found in (*sets, *folders.values())]
    for path, found in folders.items():
        if names.count(found.name) > 1:  # two of one name are told apart by where they are
            found = replace(found, name=writable(os.path.join(path, "") if str(path) == found.name else path))
        sets.append(found)
    return sets


def _is_pictures(path: Path) -> bool:
    """Whether it is a video itself.  Pictures beside videos are something else, such as a preview."""
    kinds = {file.suffix.lower() for file in path.iterdir() if not file.name.startswith(".")}
    return not kinds.isdisjoint(PICTURES) and kinds.isdisjoint(VIDEOS)


def _within(folder: Path, seen: set[Path] | None = None) -> Iterator[Path]:
    """Each video once, by whatever links it can be reached; seen: where the others are."""
    seen = {folder.resolve()} if seen is None else seen
    for path in sorted(folder.iterdir(), key=lambda path: natural(str(path))):
        if path.name.startswith(".") or ".partial" in path.suffixes:
            continue  # what fifo keeps beside its videos
        if not (path.is_dir() or path.suffix.lower() in VIDEOS) or (real := path.resolve()) in seen:
            continue
        seen.add(real)
        if path.is_dir() and not _is_pictures(path):
            yield from _within(path, seen)
        else:
            yield path


@dataclass(frozen=True)
class Opened:
    """A video that can be read, and how many frames its container promises (0: it does not say)."""

    path: Path
    video: Video
    promised: int

    def blocks(self) -> Iterator[Tensor]:
        """(n, 3, h, w) uint8, as many frames at once as 32 MiB hold, 32 at most.

        Raises BadInput where the video is damaged, after the frames before the damage, or where its frames change
        their size.
        """
        width, height = self.video.size
        most = max(1, min(_MOST, _BLOCK // (width * height * 3)))
        held: list[Frame] = []
        for frame in _frames(self.path):
            if self.video.scale > 1:
                frame = shrink(frame, self.video.scale)
            if frame.shape != (height, width, 3):
                was = f"{frame.shape[1]}x{frame.shape[0]}"
                raise BadInput(f"a frame of {self.path} is {was}, and its first was {width}x{height}; give one size")
            held.append(frame)
            if len(held) == most:
                yield _block(held)
                held = []
        if held:
            yield _block(held)


def _block(frames: list[Frame]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def shrink(frame: Frame, scale: int) -> Frame:
    """(H, W, 3) -> (H // scale, W // scale, 3), by the filter of `sinks`."""
    from PIL import Image

    size = frame.shape[1] // scale, frame.shape[0] // scale
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def _frames(path: Path) -> Iterator[Frame]:
    if not path.is_dir():
        yield from read_frames(path)
        return
    for picture in pictures(path):
        yield np.asarray(opened(picture))


def open_video(path: Path, name: str, device: str) -> Opened:
    """Raises BadInput for what holds no frame that can be read."""
    fps, promised = _clock(path)
    first = next(_frames(path), None)
    if first is None:
        raise BadInput(f"{path} holds no frame that can be read; give a whole video")
    run, clip_frames, scale = _told(path)
    height, width = first.shape[:2]
    if scale is None:  # the file's own tags do not say it; they say what size the model made
        made = run.size
        scale = width // made[0] if made and width % made[0] == 0 and width // made[0] * made[1] == height else 1
    video = Video(
        name=name,
        size=(width // scale, height // scale),
        fps=run.fps or fps,
        device=device,
        prompt=run.prompt,
        cues=tuple((clip_frames + cue.at, cue.prompt) for cue in run.cues),
        scale=scale,
    )
    return Opened(path, video, promised)


def _clock(path: Path) -> tuple[float | None, int]:
    """Frames a second and how many there are, as far as the container says it."""
    if path.is_dir():
        return None, len(pictures(path))
    if path.suffix.lower() == ".webp":
        return None, 0
    import av

    try:
        with reading(path) as container:
            if not container.streams.video:
                raise BadInput(f"{path} holds no video; give a video file or a folder of pictures")
            stream = container.streams.video[0]
            return (float(stream.average_rate) if stream.average_rate else None), stream.frames
    except av.FFmpegError as error:
        raise BadInput(f"{path} cannot be read as a video ({error.strerror}); give a whole file") from error


class _Cue(BaseModel):
    at: NonNegativeInt
    prompt: str


class _Run(BaseModel):
    """Of the settings that made a video, what a reader asks for.  Other programs write comments too."""

    prompt: str | None = None
    size: tuple[PositiveInt, PositiveInt] | None = None
    fps: PositiveFloat | None = None
    cues: tuple[_Cue, ...] = ()


def _told(path: Path) -> tuple[_Run, int, int | None]:
    """What fifo says of a video it made: the run's settings, the frames of a clip before its own, and the scale."""
    beside = sidecar.path_beside(str(path))
    if beside is not None and beside.exists():
        try:
            made = sidecar.read(beside)
            return _Run(**made.run.model_dump()), made.clip_frames, made.scale
        except BadInput:  # of another program or version
            pass
    try:
        said = json.loads(read_metadata(path).get("comment", ""))
        run = _Run(**said) if isinstance(said, dict) and "prompt" in said else _Run()
    except (BadInput, ValueError):  # pydantic's is a ValueError
        run = _Run()
    return run, 0, None
