"""What a metric is: told of a video, given its frames in blocks, it answers with numbers over time.

There are two kinds.  A `Metric` looks at one video: for each it begins a `Meter`, which reads blocks of frames as they
come and gives readings at frame numbers.  A `SetMetric` looks at a whole set of videos against a reference set, as the
Frechet distances do: for each set it begins a `Gather`, which keeps sums or features but no frames.  Both work as a
stream, in memory that does not grow with the length of a video.

A metric object lives as long as the evaluation, so a network that it needs is loaded once, in the first `begin`.  One
that needs something says whether that is here (`missing`) without loading it.

Letters: n frames of a block, h w height and width in pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Quantity:
    """One number over time, a column of the report."""

    name: str  # of no other quantity: a word or a few, such as "flicker" or "subject consistency"
    unit: str  # "" for a bare number
    says: str  # what it tells, in one line
    better: Better = "neither"  # which way a good video goes


class Reading(NamedTuple):
    """A value of a quantity at a frame: of what lies between two frames or more, the last of them."""

    quantity: str
    frame: int
    value: float


@dataclass(frozen=True)
class Video:
    """What is known of a video before its first frame is read."""

    name: str
    size: tuple[int, int]  # width, height of its frames
    fps: float | None = None
    device: str = "cpu"  # where networks look at it
    prompt: str | None = None  # what it should show at first, where that is known
    cues: tuple[tuple[int, str], ...] = ()  # where its prompt changes, by frame
    scale: int = 1  # how many times larger than the model made it each pixel was written


class Meter(ABC):
    """Reads one video."""

    @abstractmethod
    def push(self, frames: Tensor, first: int) -> Iterable[Reading]:
        """frames: (n, 3, h, w) uint8 RGB on the CPU, the next n of the video, n >= 1 and not always the same;
        first: the number of the first of them.  What is needed of earlier frames the meter keeps itself.
        """

    def close(self) -> Iterable[Reading]:
        """The video is over: what is still owed.  Not called for a video that broke off."""
        return ()

    def facts(self) -> Mapping[str, Any]:
        """What was found that is no number over time, as JSON: the frames of cuts, say.  Asked after `close`."""
        return {}


class _Named(ABC):
    """What the two kinds have in common."""

    name: str  # what --metrics calls it: one word, or several with dashes
    quantities: tuple[Quantity, ...]
    needs: str = ""  # nothing; or a package, or a network by its name and where its weights come from
    usual: bool = True  # measured where none is named: off for what takes long and says what another says too

    def missing(self) -> str | None:
        """Why it cannot be had on this machine, and how it could, in one sentence; None where it can.  Loads nothing
        heavy.
        """
        return None


class Metric(_Named):
    """Looks at one video at a time."""

    @abstractmethod
    def begin(self, video: Video) -> Meter:
        """Raises ModelError for weights that are not those they should be, BadInput for a video too small for it."""

    def suits(self, video: Video) -> bool:
        """Whether it means anything for this video."""
        return True


@dataclass(frozen=True)
class Score:
    """A distance of one set of videos from another."""

    quantity: Quantity
    value: float
    of: str  # exactly what was compared: "612 clips of 16 frames against 512, 224 x 224, I3D Kinetics-400 logits"
    floor: float | None = None  # what one half of the reference is from its other half
    error: float | None = None  # standard error of the value, where there is a way to tell it


class Gather(ABC):
    """What is kept of a set of videos, one after another."""

    @abstractmethod
    def begin(self, video: Video) -> None:
        """The next video: no clip reaches from one into another."""

    @abstractmethod
    def push(self, frames: Tensor, first: int) -> None:
        """As `Meter.push`."""


class SetMetric(_Named):
    """Compares a set of videos with a reference set (`fifo evaluate WHAT --against FOLDER`)."""

    @abstractmethod
    def gather(self) -> Gather:
        """For one set.  Raises ModelError as `Metric.begin`."""

    @abstractmethod
    def compare(self, ours: Gather, reference: Gather) -> Iterable[Score]:
        """Both come from `gather` and have seen all their videos.  A set too small for a distance gives no score of
        it.  Raises BadInput only where the two cannot be compared at all.
        """
