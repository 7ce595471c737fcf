"""What changes from frame to frame, and what does not: flicker, frozen stretches, loops.

Still videos score best at flicker, so it is never told without the motion beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from fifo_diffusion.evaluate.metric import Meter, Metric, Quantity, Reading, Video
from fifo_diffusion.evaluate.picture import luma

QUIET = 0.1  # grey levels: of a change smaller than this no ratio is told
BLOCK, STILL = 8, 1.0  # pixels; grey levels that no block's mean may change by in a frozen frame
LEAST = 4  # frames of a frozen stretch
SIGNATURE, LONGEST = 16, 1024  # side; frames of a loop
SAME, AWAY = 1.0, 4.0  # grey levels, mean over a signature: so near is a repeat of what was so far away meanwhile
TOLD = 200  # stretches or loops that are listed; more are only counted


class Flicker(Metric):
    """Differences of neighbouring frames."""

    name = "flicker"
    quantities = (
        Quantity(
            "temporal flickering",
            "%",
            "1 - mean |difference to the frame before| / 255, as VBench defines it; a still video has 100",
            "higher",
        ),
        Quantity(
            "jitter",
            "",
            "mean |second| over mean |first| difference in time: 0 of steady change, 1.7 of white noise and of fast "
            "texture, 2 of a flicker to and fro",
            "lower",
        ),
    )

    def begin(self, video: Video) -> Meter:
        return _Differences()


class _Differences(Meter):
    def __init__(self) -> None:
        self._before: Tensor | None = None  # (2 or fewer, 3, h, w)

    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        known = frames if self._before is None else torch.cat([self._before, frames])
        start = first - (len(known) - len(frames))  # the number of known[0]
        x = known.float()
        change = x.diff(dim=0)
        one = change.abs().mean((1, 2, 3))  # of frames start + 1, ...
        two = change.diff(dim=0).abs().mean((1, 2, 3))  # of frames start + 2, ...
        for frame, value in enumerate(one.tolist(), start + 1):
            if frame >= first:
                yield Reading("temporal flickering", frame, 100 * (1 - value / 255))
        around = (one[1:] + one[:-1]) / 2
        for frame, (second, mean) in enumerate(zip(two.tolist(), around.tolist(), strict=True), start + 2):
            if frame >= first and mean >= QUIET:
                yield Reading("jitter", frame, second / mean)
        self._before = known[-2:].clone()


class Standing(Metric):
    """Stretches in which nothing moves, and such in which the video repeats itself."""

    name = "standing"
    quantities = (
        Quantity(
            "frozen",
            "%",
            f"share of frames in which no {BLOCK}x{BLOCK} pixels changed their mean luma by {STILL:g} grey level",
            "lower",
        ),
        Quantity(
            "looped",
            "%",
            f"share of frames that repeat a stretch of at most {LONGEST:,} frames that came right before",
            "lower",
        ),
    )

    def begin(self, video: Video) -> Meter:
        return _Still()


class _Still(Meter):
    """A loop of period p is told from the moment a whole period has come again: then and as long as each frame's
    signature, its luma at 16 x 16, is that of the frame p before it, and something else came in between.
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None  # luma (1, h, w)
        self._ring = torch.full((LONGEST, SIGNATURE * SIGNATURE), torch.inf)  # of frame i at i % LONGEST
        self._run = torch.zeros(LONGEST + 1, dtype=torch.long)  # frames in a row that are as those so many before
        self._lags = torch.arange(LONGEST + 1)
        self._frozen, self._loops = _Stretches(LEAST), _Stretches(1)

    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        y = luma(frames)
        known = y if self._before is None else torch.cat([self._before, y])
        start = first - (len(known) - len(y))
        side = min(BLOCK, *y.shape[1:])
        most = (
            avg_pool2d(known.diff(dim=0)[:, None], side, ceil_mode=True).abs().amax((1, 2, 3)) if len(known) > 1 else y
        )
        still = {start + 1 + i: bool(value < STILL) for i, value in enumerate(most.tolist())} if len(known) > 1 else {}
        signatures = adaptive_avg_pool2d(y[:, None], SIGNATURE).flatten(1)
        for frame, signature in enumerate(signatures, first):
            frozen = still.get(frame)
            if frozen is not None:
                yield Reading("frozen", frame, 100.0 * frozen)
                self._frozen.see(frame, 1 if frozen else 0)
            period = self._loop(frame, signature, bool(frozen))
            yield Reading("looped", frame, 100.0 * (period > 0))
            self._loops.see(frame, period)
        self._before = y[-1:].clone()

    def _loop(self, frame: int, signature: Tensor, frozen: bool) -> int:
        """The shortest period that this frame continues; 0: none."""
        far = (self._ring - signature).abs().mean(1)  # of frame i at i % LONGEST
        by_lag = far.roll(-(frame % LONGEST)).flip(0)  # [lag - 1]: the frame at (frame - lag) % LONGEST
        same = torch.zeros(LONGEST + 1, dtype=torch.bool)
        same[2:] = by_lag[1:] < SAME
        self._run = torch.where(same, self._run + 1, 0)
        self._ring[frame % LONGEST] = signature
        if frozen:  # what does not move at all is told as such
            return 0
        away = torch.zeros(LONGEST + 1)
        away[2:] = by_lag.cummax(0).values[:-1]  # [lag]: the farthest of the frames in between
        whole = torch.nonzero((self._run >= self._lags) & same & (away >= AWAY))
        return int(whole[0]) if len(whole) else 0

    def facts(self) -> Mapping[str, Any]:
        frozen, loops = self._frozen, self._loops
        return {
            "frozen stretches": [{"first": a, "last": b} for a, b, _ in frozen.told()],
            "loops": [{"period": period, "first": a, "last": b} for a, b, period in loops.told()],
        }


class _Stretches:
    """Frames in a row that have the same number, which is not 0."""

    def __init__(self, least: int) -> None:
        self._least, self._found = least, list[tuple[int, int, int]]()
        self._first, self._last, self._what = 0, 0, 0

    def see(self, frame: int, what: int) -> None:
        if what != self._what:
            self._end()
            self._first, self._what = frame, what
        self._last = frame

    def _end(self) -> None:
        if self._what and self._last - self._first + 1 >= self._least and len(self._found) < TOLD:
            self._found.append((self._first, self._last, self._what))

    def told(self) -> list[tuple[int, int, int]]:
        """(first, last, number)"""
        self._end()
        self._what = 0
        return self._found


METRICS = (Flicker(), Standing())
