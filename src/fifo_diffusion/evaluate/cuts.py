"""Cuts from one scene to another, by PySceneDetect: an endless video of one prompt should have none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fifo_diffusion.evaluate.metric import Meter, Metric, Quantity, Reading, Video
from fifo_diffusion.evaluate.temporal import TOLD

if TYPE_CHECKING:
    from scenedetect.detectors import AdaptiveDetector

_INSTALL = "install them with: pip install '.[evaluate]'"


class Cuts(Metric):
    """The adaptive detector: a frame whose change of hue, saturation and luma is at least 3 times that of the two
    frames before and after it, and at least 15 grey levels.  Fast steady motion is no cut for it.
    """

    name = "cuts"
    needs = "the packages scenedetect-headless and opencv-python-headless"
    quantities = (
        Quantity("cuts", "per 1,000 frames", "changes of scene by PySceneDetect's adaptive detector", "lower"),
    )

    def missing(self) -> str | None:
        if find_spec("scenedetect") and find_spec("cv2"):
            return None
        return f"scenedetect or OpenCV is not installed; {_INSTALL}"

    def begin(self, video: Video) -> Meter:
        from scenedetect.detectors import AdaptiveDetector

        # Its frame numbers are times: any rate gives the same numbers.  Short windows see flashes as cuts too.
        return _Cuts(AdaptiveDetector(min_scene_len=1))


class _Cuts(Meter):
    def __init__(self, detector: AdaptiveDetector) -> None:
        self._detector, self._found = detector, list[int]()
        self._seen = 0  # frames

    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        from scenedetect import FrameTimecode

        for number, frame in enumerate(frames.flip(1).permute(0, 2, 3, 1).contiguous().numpy(), first):  # BGR
            cuts = [at.frame_num for at in self._detector.process_frame(FrameTimecode(number, Fraction(25)), frame)]
            self._seen = number + 1
            # The detector answers two frames late: what it has not answered yet is no cut.
            for cut in cuts:
                yield Reading("cuts", cut, 1000.0)
                self._note(cut)
            late = number - self._detector.event_buffer_length
            if late >= 0 and late not in cuts:
                yield Reading("cuts", late, 0.0)

    def close(self) -> Iterator[Reading]:
        for frame in range(max(0, self._seen - self._detector.event_buffer_length), self._seen):
            yield Reading("cuts", frame, 0.0)

    def _note(self, cut: int) -> None:
        if len(self._found) < TOLD:
            self._found.append(cut)

    def facts(self) -> Mapping[str, Any]:
        return {"cuts": self._found}


METRICS = (Cuts(),)
