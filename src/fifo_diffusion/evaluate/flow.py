"""Motion by optical flow: how much, how smoothly, and what is left when it is taken out.

The flow is OpenCV's DIS (Kroeger et al., ECCV 2016): dense, exact to a hundredth of a pixel on texture, and less than
half as dear as Farneback's (`python benchmarks/evaluate.py speed`), so that a long video takes minutes.  A learnt flow
is better at large and occluded motion.  Lengths are told in shares of the picture's shorter side, so they do not depend
on its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fifo_diffusion.evaluate.metric import Meter, Metric, Quantity, Reading, Video
from fifo_diffusion.names import Frame

Flow = NDArray[np.float32]  # (h, w, 2): where each pixel of the later frame was in the earlier one, from it, in pixels

LEAST, MOST = 128, 256  # pixels of the shorter side while the flow is sought
SLOW = 0.1  # % of the shorter side: less than that is no motion whose smoothness could be told
DYNAMIC, SHARE = 6 / 256, 0.05  # VBench: a pair is dynamic if the fastest 5 % are this fast
PACES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # the histogram's lower bounds, % of the shorter side


def quantities(way: str) -> tuple[Quantity, ...]:
    """Of motion found in some way, such as DIS."""
    return (
        Quantity(
            f"dynamic degree ({way})",
            "%",
            "share of frame pairs whose fastest 5 % of pixels move 6/256 of the shorter side, as in VBench (which has "
            "8 pairs a second, and RAFT)",
        ),
        Quantity(f"motion ({way})", "% of the short side", "mean length of the optical flow from frame to frame"),
        Quantity(
            f"motion smoothness ({way})",
            "%",
            "1 - mean |change of the flow| over mean |flow| of both: 100 of steady motion, 0 of motion to and fro",
            "higher",
        ),
        Quantity(
            f"warping error ({way})",
            "grey levels",
            "mean |difference to the frame before, moved by the flow| (Lai et al. 2018, without their mask): flicker "
            "that no motion explains",
            "lower",
        ),
    )


class FlowMeter(Meter):
    """Reads motion with any way to find it; quantities as in `quantities(way)`."""

    def __init__(self, way: str, estimate: Callable[[Frame, Frame], Flow]) -> None:
        """estimate(earlier, later)"""
        self._way, self._estimate = way, estimate
        self._before: Frame | None = None
        self._flow: Flow | None = None
        self._paces, self._sum, self._pairs = np.zeros(len(PACES)), np.zeros(2), 0

    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        for number, frame in enumerate(frames.permute(0, 2, 3, 1).contiguous().numpy(), first):
            if self._before is not None:
                flow = self._estimate(self._before, frame)
                yield from self._read(number, self._before, frame, flow)
                self._flow = flow
            self._before = frame

    def _read(self, number: int, before: Frame, frame: Frame, flow: Flow) -> Iterator[Reading]:
        side = min(frame.shape[:2])
        lengths = np.hypot(flow[..., 0], flow[..., 1]).ravel()
        fastest = np.partition(lengths, -max(1, int(SHARE * lengths.size)))[-max(1, int(SHARE * lengths.size)) :]
        pace = 100 * float(lengths.mean()) / side
        self._paces[np.searchsorted(PACES, pace, side="right") - 1] += 1
        self._sum -= flow.mean(axis=(0, 1)) / side  # forward in time
        self._pairs += 1
        yield Reading(f"dynamic degree ({self._way})", number, 100.0 * bool(fastest.mean() > DYNAMIC * side))
        yield Reading(f"motion ({self._way})", number, pace)
        if self._flow is not None:
            mean = float(lengths.mean() + np.hypot(self._flow[..., 0], self._flow[..., 1]).mean())
            change = flow - self._flow
            if 100 * mean / 2 / side >= SLOW:
                turned = float(np.hypot(change[..., 0], change[..., 1]).mean())
                yield Reading(f"motion smoothness ({self._way})", number, 100 * (1 - turned / mean))
        yield Reading(f"warping error ({self._way})", number, unexplained(before, frame, flow))

    def facts(self) -> Mapping[str, Any]:
        if not self._pairs:
            return {}
        shares = [round(float(count) / self._pairs, 4) for count in self._paces]
        right, down = (100 * self._sum / self._pairs).tolist()
        return {
            f"motion histogram ({self._way})": {"from %": list(PACES), "share of frames": shares},
            f"mean motion ({self._way})": {"right %": round(right, 3), "down %": round(down, 3)},
        }


def unexplained(before: Frame, frame: Frame, flow: Flow) -> float:
    """Mean absolute difference of a frame to the one before, moved along; of the pixels that come from within it."""
    import cv2

    height, width = frame.shape[:2]
    x = np.arange(width, dtype=np.float32)[None] + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    within = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    if not within.any():
        return float(np.abs(frame.astype(np.float32) - before).mean())
    moved = cv2.remap(before.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(moved - frame)[within].mean())


class Motion(Metric):
    """By DIS."""

    name = "motion"
    needs = "the package opencv-python-headless"
    quantities = quantities("DIS")

    def missing(self) -> str | None:
        return None if find_spec("cv2") else "OpenCV is not installed; install it with: pip install '.[evaluate]'"

    def begin(self, video: Video) -> Meter:
        return FlowMeter("DIS", dis())


def dis() -> Callable[[Frame, Frame], Flow]:
    """An estimator of its own for each video: it keeps memory between calls."""
    import cv2

    seeker = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def estimate(before: Frame, frame: Frame) -> Flow:
        height, width = frame.shape[:2]
        factor = min(max(1.0, LEAST / min(height, width)), MOST / min(height, width))
        size = max(16, round(width * factor)), max(16, round(height * factor))
        how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
        grey = [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), size, interpolation=how) for f in (frame, before)]
        flow = seeker.calc(grey[0], grey[1], None)  # None: no first guess
        scale = np.array([width / size[0], height / size[1]], dtype=np.float32)
        back: Flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * scale
        return back

    return estimate


METRICS = (Motion(),)
