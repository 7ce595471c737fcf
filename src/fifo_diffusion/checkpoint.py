"""What a stopped run needs to go on, in a folder beside its video.

    clip.mp4.run/  (for a folder of pictures: fifo.run/ in it)
        run.json                          what was run: `Description`
        checkpoint-00000450.safetensors   the stream as it stood before frame 450: `Checkpoint`
        lock                              held by the process that is writing the video
        replaced/                         the run of the video that had the name, until the new one is whole

A checkpoint is committed only when the frames before it are on the disk, is written beside and renamed, and
carries the digest of those frames as coded.  So whichever checkpoint is there, the video that it goes with can be
told, and its beginning is whole.  How many there are is bounded: see `spare`.

A checkpoint is as large as the stream's queue: 0.3 MB for the embedded model.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fifo_diffusion.config import Decided
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.version import __version__
from fifo_diffusion.whole import write_whole

_RUN, _LOCK, _REPLACED = "run.json", "lock", "replaced"
_LATER = {"frames", "prompt", "cues"}
"""Settings that may change while a video is made."""


class Description(BaseModel):
    """run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fifo_diffusion: str  # version
    run: Decided
    output: str  # a name in the folder that holds this one, so that both can be moved; "." for a folder of pictures
    scale: Annotated[int, Field(ge=1)]
    crf: int | None
    machine: dict[str, str | int]
    weights: str
    clip_frames: int = 0  # of the clip that the run goes on from, before its own
    partial: str | None = None  # the name of the file under way (a folder: of itself); None when nothing is
    whole: int | None = None  # frames of the finished output, once there is one
    coded_sha256: str | None = None  # of those as they stand in the file, see `digest`
    job: str | None = None  # the start of torchrun's that made it, see `job`


class Checkpoint(BaseModel):
    """A stream as it stood when its file held `frame` frames."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    fifo_diffusion: str = __version__
    run: Decided  # with all that was said up to here
    weights: str
    frame: Annotated[int, Field(ge=0)]
    clip_frames: Annotated[int, Field(ge=0)]  # of these are the clip's that the run goes on from
    skip: Annotated[int, Field(ge=0)]  # frames that the state gives once more
    frames_sha256: str  # see `digest`: of the stream's frames so far, as in the sidecar
    coded_sha256: str  # and of all in the file, as they stand in it
    tensors: Mapping[str, Tensor] = Field(exclude=True)  # the stream's state; the rest is told in the file's metadata

    @property
    def on_device(self) -> bool:
        """Whether to read it is to wait for a device."""
        return any(tensor.device.type != "cpu" for tensor in self.tensors.values())


def folder_beside(output: str, folder: bool) -> Path:
    """`clip.mp4` -> `clip.mp4.run`; for a folder of pictures `frames/` -> `frames/fifo.run`."""
    path = Path(output)
    return path / "fifo.run" if folder else path.with_name(path.name + ".run")


def find(where: str) -> Path:
    """The folder of the run that a video, its file under way, or the folder itself names, under a name of its own.

    Raises BadInput.
    """
    path = Path(where)
    plain = path.with_name(re.sub(r"\.partial\d*(?=\.\w+$)", "", path.name)) if path.name else path
    places = [path, path / "fifo.run", *(folder_beside(str(name), folder=False) for name in (path, plain) if name.name)]
    for place in places:
        if os.path.isfile(place / _RUN):  # unlike Path.is_file, for any name, however long
            return place.resolve() if place.name in ("", "..") or _is_away(place) else place
    if path.suffix.lower() in (".gif", ".webp") or where in ("-", "null"):
        raise BadInput(
            f"{where} cannot be gone on with, for only mp4, webm and folders of PNGs can be continued without loss; "
            f"make one of those, or this one anew with `fifo generate --from`"
        )
    if not os.path.exists(path):
        raise BadInput(f"there is no {where}; name a video that fifo made, or the .run folder beside it")
    raise BadInput(
        f"there is no run beside {where} to go on with; it stands in {folder_beside(where, path.is_dir())} unless it "
        f"was made with --checkpoint-every off, or moved without it"
    )


def _is_away(place: Path) -> bool:
    """Whether it is a link from somewhere else, and not what stands beside its video, kept on another disk."""
    video = place.with_name(place.name.removesuffix(".run"))
    return place.is_symlink() and place.name != "fifo.run" and not os.path.exists(video) and not under_way(place)


def differences(run: Decided, other: Decided) -> dict[str, tuple[object, object]]:
    """The settings that tell the frames of one from those of the other, with both values."""
    pairs = {name: (getattr(run, name), getattr(other, name)) for name in Decided.model_fields if name not in _LATER}
    kind, other_kind = (one.device.partition(":")[0] for one in (run, other))
    pairs["device"] = kind, other_kind  # whichever GPU of a machine
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def describe(folder: Path, description: Description) -> None:
    """Write run.json.  Raises OutputError."""
    try:
        folder.mkdir(exist_ok=True)
        write_whole(folder / _RUN, description.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise OutputError(f"the run could not be described in {folder}: {error.strerror}") from error


def description(folder: Path) -> Description:
    """Raises BadInput for what this version cannot go on with."""
    try:
        said: dict[str, Any] = json.loads((folder / _RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / _RUN} cannot be read ({error}); without it the run cannot be gone on with") from None
    version = said.get("fifo_diffusion") if isinstance(said, dict) else None
    if version != __version__:
        raise BadInput(
            f"{folder} is of fifo-diffusion {version} and this is {__version__}, whose frames may differ; go on with "
            f"that version, or make the video anew with `fifo generate --from`"
        )
    try:
        made = Description(**said)
    except (TypeError, ValidationError) as error:
        raise BadInput(f"{folder / _RUN} was changed, and is no description of a run any more ({error})") from None
    output, partial = _names(folder, made.output, made.partial)
    return made.model_copy(update={"output": output, "partial": partial})


def _names(folder: Path, output: str, partial: str | None) -> tuple[str, str | None]:
    """The names of the video and of its file under way; where the folder was copied or renamed together with them, by
    its own name now: those of old may be another run's.
    """
    name = folder.name.removesuffix(".run")
    if output in (".", name) or name == folder.name:
        return output, partial
    return name, partial and Path(name).stem + partial.removeprefix(Path(output).stem)


def under_way(folder: Path, but: str | None = None) -> bool:
    """Whether a run in this folder, of whatever version, was cut off, so that its file under way is still there.

    but: a name that has been taken since, so that a file of that name is not the run's.
    """
    try:
        said = json.loads((folder / _RUN).read_text(encoding="utf-8"))
        _, partial = _names(folder, said["output"], said["partial"])
        return isinstance(partial, str) and partial != but and (folder.parent / partial).exists()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def commit(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.  Raises OSError."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in checkpoint.tensors.items()}
    write_whole(_file(folder, checkpoint.frame), save(tensors, {"checkpoint": checkpoint.model_dump_json()}))


def committed(folder: Path) -> list[int]:
    """The frames that have a checkpoint, the latest first."""
    found = (re.fullmatch(r"checkpoint-(\d+)\.safetensors", file.name) for file in folder.iterdir())
    return sorted((int(match[1]) for match in found if match), reverse=True)


def load(folder: Path, frame: int) -> Checkpoint | None:
    """None when it is damaged.  Raises BadInput, with the difference, when run.json is of another run."""
    file = _file(folder, frame)
    try:
        with safe_open(file, framework="pt") as opened:
            told = json.loads((opened.metadata() or {})["checkpoint"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)
            found = Checkpoint(**told, tensors=tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # pydantic's and JSON's are ValueErrors
        return None
    said = description(folder)
    pairs = differences(found.run, said.run) | {
        "version": (found.fifo_diffusion, said.fifo_diffusion),
        "weights": (found.weights, said.weights),
        "frame": (found.frame, frame),
    }
    other = ", ".join(f"{name} is {a!r} in it, not {b!r}" for name, (a, b) in pairs.items() if a != b)
    if other:
        raise BadInput(f"{file} is of another run: {other}; delete it to go on from another checkpoint")
    return found


def drop(folder: Path, frames: Sequence[int]) -> None:
    """Take checkpoints away, and what a kill left half-written."""
    for file in [*(_file(folder, frame) for frame in frames), *folder.glob("*.partial")]:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def set_aside(folder: Path) -> None:
    """Keep the run of a finished video, whose name a new one is to take, until that one has frames.  The lock, which
    this process holds, stays where it is.  Raises OutputError.
    """
    kept = folder / _REPLACED
    here = [file for file in folder.iterdir() if file.name not in (_LOCK, _REPLACED)]
    try:
        if not kept.exists() and here:  # what is there already is the finished one's; the rest never came to frames
            kept.mkdir()
            for file in here:
                file.rename(kept / file.name)
        else:
            for file in here:
                file.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {error.strerror}") from error


def put_back(folder: Path) -> None:
    """What was set aside is the run of this folder again; where nothing was, the folder goes."""
    kept = folder / _REPLACED
    if not kept.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError):
        for file in folder.iterdir():
            if file.is_file() and file.name != _LOCK:
                file.unlink()
        for file in kept.iterdir():
            file.rename(folder / file.name)
        kept.rmdir()


def let_go(folder: Path) -> None:
    """Of what was set aside: its video has been replaced."""
    shutil.rmtree(folder / _REPLACED, ignore_errors=True)


def forsake(folder: Path) -> None:
    """Take a run away whose video was replaced, unless another process goes on with one there."""
    if folder.is_dir():
        with suppress(BadInput, OutputError), locked(folder):
            if not under_way(folder):
                shutil.rmtree(folder, ignore_errors=True)


def spare(frames: Sequence[int]) -> list[int]:
    """Which of these checkpoints to do without.

    The first, the last and the one before it stay; further back they stand further and further apart: one goes
    when those on either side of it are no further from each other than the later of them is from the last.  So
    after n at even distances about 2 log2(n) are left, and there is one to fork from near any frame, as
    near in proportion to how long ago it was.
    """
    left, gone = sorted(frames), []
    i = len(left) - 3
    while i > 0:
        if left[i + 1] - left[i - 1] <= left[-1] - left[i + 1]:
            gone.append(left.pop(i))
        i -= 1
    return gone


@contextmanager
def locked(folder: Path, new: bool = False) -> Iterator[None]:
    """While a process writes the video.  Raises BadInput if another one does.  The lock dies with its process.

    new: make the folder, if there is none.  Raises OutputError where that, or the lock in it, cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    while True:
        try:
            if new:
                folder.mkdir(exist_ok=True)
            file = open(folder / _LOCK, "w")  # noqa: SIM115  (open as long as it is locked)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written to: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(
                    f"{folder} is in use: its video is being made by another process; wait, or stop that"
                ) from None
            except OSError as error:
                raise OutputError(
                    f"{folder} cannot be locked ({error.strerror}), so nothing would keep a second process from it; "
                    "write to another disk, or without checkpoints (--checkpoint-every off)"
                ) from error
            if _is_at(folder / _LOCK, os.fstat(file.fileno())):
                yield
                return


def _is_at(path: Path, opened: os.stat_result) -> bool:
    """Whether a file that is open is still the one of this name, and not one that was taken away meanwhile."""
    try:
        return os.path.samestat(path.stat(), opened)
    except OSError:
        return False


def _file(folder: Path, frame: int) -> Path:
    return folder / f"checkpoint-{frame:08d}.safetensors"
