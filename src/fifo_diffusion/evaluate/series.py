"""A quantity over the time of one video: its mean, its drift and its course, in memory that does not grow.

Values are summed in bins of equal width.  When the bins are full, neighbours are put together and each is twice as
wide, so that 512 to 1,024 bins span any length; up to 1,024 frames each frame has its own.
"""

from __future__ import annotations

import math

import numpy as np

BINS = 1024
SHARE = 0.15  # of a video, at its beginning and its end, between which drift is told


class Series:
    """Readings of one quantity, in any order."""

    def __init__(self) -> None:
        self._width = 1  # frames of a bin
        self._sums, self._counts = np.zeros(BINS), np.zeros(BINS, dtype=np.int64)
        self._squares = 0.0

    def add(self, frame: int, value: float) -> None:
        """Raises ValueError for a value that is not finite."""
        if not math.isfinite(value):
            raise ValueError(f"a reading at frame {frame} is {value}")
        while frame >= BINS * self._width:
            self._sums = np.concatenate([self._sums.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            halves = self._counts.reshape(-1, 2).sum(1)
            self._counts = np.concatenate([halves, np.zeros(BINS // 2, dtype=np.int64)])
            self._width *= 2
        at = frame // self._width
        self._sums[at] += value
        self._counts[at] += 1
        self._squares += value * value

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    @property
    def mean(self) -> float:
        return float(self._sums.sum() / self.count)

    @property
    def spread(self) -> float:
        """Standard deviation over time."""
        return math.sqrt(max(0.0, self._squares / self.count - self.mean**2))

    def ends(self, frames: int) -> tuple[float, float] | None:
        """The means over the first and the last 15 % of a video of so many frames; None where either has no reading.

        Of the bin that a limit lies in, the part that lies within counts.
        """
        part = max(1, round(SHARE * frames))
        first, last = self._between(0, part), self._between(frames - part, frames)
        return None if first is None or last is None else (first, last)

    def drift(self, frames: int) -> float | None:
        """|M(first 15 %) - M(last 15 %)| (FramePack, arXiv:2504.12626)."""
        ends = self.ends(frames)
        return None if ends is None else abs(ends[0] - ends[1])

    def course(self, most: int) -> tuple[int, list[float | None]]:
        """The width of a bin in frames, and the mean of each of at most `most` bins, None where there is no reading."""
        held = int(np.flatnonzero(self._counts)[-1]) + 1
        fold = max(1, math.ceil(held / most))
        padded = math.ceil(held / fold) * fold
        sums = np.pad(self._sums[:held], (0, padded - held)).reshape(-1, fold).sum(1)
        counts = np.pad(self._counts[:held], (0, padded - held)).reshape(-1, fold).sum(1)
        means = [float(s / c) if c else None for s, c in zip(sums, counts, strict=True)]
        return self._width * fold, means

    def _between(self, first: int, end: int) -> float | None:
        edges = np.arange(BINS) * self._width
        inside = np.clip(np.minimum(end, edges + self._width) - np.maximum(first, edges), 0, None) / self._width
        weight = float((inside * self._counts).sum())
        return float((inside * self._sums).sum()) / weight if weight else None
