"""What can be measured of a video (T, H, W, 3) uint8: flicker, motion, sharpness, drift, and what the judge sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from fifo_diffusion.decode import to_pixels
from fifo_diffusion.evaluate.judge import ATTRIBUTES, LOOK, Judge
from fifo_diffusion.world.clips import Caption

Video = NDArray[np.uint8]
Values = NDArray[np.float64]

BLOCK, REACH = 8, 10  # pixels
PACES = (0.0, 0.5, 1.5, 3.0, 4.5, 6.0, 7.5)  # the histogram's lower bounds, pixels a frame


def flicker(video: Video) -> Values:
    """Mean absolute change from frame to frame, in grey levels, (T - 1,)."""
    change: Values = np.abs(np.diff(video.astype(np.float64), axis=0)).mean(axis=(1, 2, 3))
    return change


def sharpness(video: Video) -> Values:
    """Mean absolute difference of neighbouring pixels, in grey levels, (T,)."""
    x = video.astype(np.float64)
    across, down = np.abs(np.diff(x, axis=2)).mean(axis=(1, 2, 3)), np.abs(np.diff(x, axis=1)).mean(axis=(1, 2, 3))
    steep: Values = (across + down) / 2
    return steep


def motion(video: Video) -> Values:
    """Mean length of the optical flow from frame to frame, in pixels, (T - 1,): blocks of 8, matched up to 10 pixels
    away; of equally good matches the nearest, so a flat block stands still.
    """
    grey = video.astype(np.float64).mean(axis=3)
    before, after = grey[:-1], np.pad(grey[1:], ((0, 0), (REACH, REACH), (REACH, REACH)), mode="edge")
    height, width = grey.shape[1:]
    shifts = [(dy, dx) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1)]
    shifts.sort(key=lambda shift: np.hypot(*shift))
    best = np.full((len(before), height // BLOCK, width // BLOCK), np.inf)
    far = np.zeros_like(best)
    for dy, dx in shifts:
        moved = after[:, REACH + dy : REACH + dy + height, REACH + dx : REACH + dx + width]
        error = np.abs(moved - before).reshape(len(before), height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        cost = error.mean(axis=(2, 4))
        better = cost < best - 0.5  # grey levels: what noise alone may win is not a better match
        best, far = np.where(better, cost, best), np.where(better, np.hypot(dy, dx), far)
    length: Values = far.mean(axis=(1, 2))
    return length


def histogram(lengths: Values) -> list[float]:
    """The share of frames whose motion lies above each of PACES and below the next."""
    counts, _ = np.histogram(lengths, bins=[*PACES, np.inf])
    return [round(float(count) / len(lengths), 3) for count in counts]


def drift(values: Values) -> float:
    """|M(first 15 %) - M(last 15 %)|."""
    part = max(1, round(0.15 * len(values)))
    return float(abs(values[:part].mean() - values[-part:].mean()))


MEASURES: dict[str, Callable[[Video], Values]] = {"flicker": flicker, "sharpness": sharpness, "flow": motion}


def right(judge: Judge, video: Video, caption: Caption) -> dict[str, Values]:
    """By attribute, of every four neighbouring frames: how sure the judge is of what was asked for, (T - 3,)."""
    x = to_pixels(video)
    with torch.no_grad():
        scores = judge(torch.stack([x[i : i + LOOK] for i in range(len(x) - LOOK + 1)]))
    return {
        name: scores[name].softmax(1)[:, values.index(getattr(caption, name))].double().numpy()
        for name, values in ATTRIBUTES.items()
    }
