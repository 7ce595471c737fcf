"""What an evaluation found, as one JSON file.

`version` counts up when a name changes its meaning or goes; names may be added without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.whole import write_whole

VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(_Part):
    """A quantity of one video."""

    mean: float
    spread: float  # standard deviation over time
    first: float | None  # the mean over the first 15 % of the video
    last: float | None  # and over the last
    drift: float | None  # |first - last|
    readings: int
    frames_a_bin: int
    course: tuple[float | None, ...]  # the mean of each bin, from frame 0 on


class VideoResult(_Part):
    """A video; with an error, of what could be read of it."""

    name: str
    path: str
    error: str | None = None  # one sentence
    size: tuple[int, int] | None = None  # as it was measured, width and height
    fps: float | None = None
    frames: int = 0
    scale: int = 1  # its pixels were shown so much larger in the file
    prompt: str | None = None
    seconds: float = 0.0  # that reading and measuring took
    measured: dict[str, Measured] = {}  # by quantity
    facts: dict[str, Any] = {}
    remarks: tuple[str, ...] = ()  # metrics that said nothing of it, and why


class Mean(_Part):
    """A quantity over the videos of a set."""

    mean: float
    error: float | None  # standard error over videos; None of one
    drift: float | None  # the mean of the videos' drifts
    drift_error: float | None
    videos: int


class Distance(_Part):
    """A distance from the reference set; see `metric.Score`."""

    quantity: str
    value: float
    of: str
    floor: float | None
    error: float | None


class SetResult(_Part):
    name: str
    videos: tuple[VideoResult, ...]
    means: dict[str, Mean]  # by quantity
    distances: tuple[Distance, ...] = ()


class About(_Part):
    """What a quantity is."""

    name: str
    metric: str
    unit: str
    says: str
    better: Literal["higher", "lower", "neither"]


class Unmeasured(_Part):
    metric: str
    why: str


class Evaluation(_Part):
    """Everything; what the page is drawn from, but for the pictures."""

    version: int = VERSION
    fifo_diffusion: str
    date: str
    command: str
    machine: dict[str, str | int]
    quantities: tuple[About, ...]
    sets: tuple[SetResult, ...]
    against: str | None = None
    unmeasured: tuple[Unmeasured, ...] = ()
    stopped: bool = False  # by Ctrl-C, before all was read
    wall_seconds: float
    peak_memory_mb: int

    @property
    def failed(self) -> int:
        """Videos with an error."""
        return sum(video.error is not None for found in self.sets for video in found.videos)


def write(evaluation: Evaluation, path: Path) -> None:
    """Beside, then renamed.  Raises OutputError."""
    put(path, evaluation.model_dump_json(indent=1).encode() + b"\n")


def put(path: Path, data: bytes) -> None:
    """A file of an evaluation.  Raises OutputError."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); name another place with -o") from error


def read(path: Path) -> Evaluation:
    """Raises BadInput for a file that is missing or no evaluation of this version."""
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"the evaluation {path} cannot be read ({error.strerror}); give one of fifo evaluate") from error
    except ValidationError as error:
        at = ".".join(map(str, error.errors()[0]["loc"])) or "its JSON"
        raise BadInput(f"{path} is no evaluation that this version understands (see {at})") from error
