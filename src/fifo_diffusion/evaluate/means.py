"""Means over videos and their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from fifo_diffusion.evaluate.result import Mean, VideoResult

# Student's t, two-sided 5 %, by degrees of freedom (1, 2, ...)
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def means(videos: Sequence[VideoResult]) -> dict[str, Mean]:
    """By quantity, over the videos that are whole."""
    whole = [video.measured for video in videos if video.error is None]
    out = {}
    for name in dict.fromkeys(name for measured in whole for name in measured):
        of = [measured[name] for measured in whole if name in measured]
        mean, error = mean_and_error([m.mean for m in of])
        drift, drift_error = mean_and_error([m.drift for m in of if m.drift is not None])
        assert mean is not None
        out[name] = Mean(mean=mean, error=error, drift=drift, drift_error=drift_error, videos=len(of))
    return out


def student(degrees: int) -> float:
    """How many standard errors make each side of a 95 % interval; past the table by Cornish and Fisher's expansion."""
    if degrees <= len(STUDENT):
        return STUDENT[degrees - 1]
    return 1.95996 + 2.37227 / degrees + 2.8225 / degrees**2 + 2.5558 / degrees**3


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean, and its standard error where there are two or more."""
    if not values:
        return None, None
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
