"""What a subject leaves behind: puffs that stay where it was.

The camera follows the subject, so they go from it as fast as it moves.  They are large, as a cloud that is passed by
chance is not, and alike for all subjects: by them a network learns up from down (docs/log.md, 2026-11-27).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fifo_diffusion.world.layers import Pixels

# In pictures: from one to the next on average, from the subject's middle to where one comes out.
_APART, _BEGINS = 0.2, 0.14
_REACH = 1.6  # how far behind the subject any of it can still be seen
# No two neighbours are alike in place and size, or a fast wake would look like a slow one. The fractional parts of
# square numbers times these (Roberts' sequence in three dimensions) fill their range evenly, and so do their steps.
_TIMES = np.array([0.8191725134, 0.6710436067, 0.5497004779])
_ALONG, _ASIDE, _WIDER = 0.22, 0.045, 0.03  # at most: along the way in distances, beside it and in radius in pictures
_DENSITY = 0.9


def wake(way: tuple[int, int], come: float, size: int) -> Iterator[tuple[float, float, float, float]]:
    """Every puff of it: x and y from the subject's middle, radius, and density in [0, 1], the nearest puff first.

    way: where the subject goes, (right, down); come: how far it has come; lengths in pixels of a picture of that size.
    """
    right, down = way
    newest = int(come / size / _APART) + 1
    for k in range(newest, newest - int(_REACH / _APART), -1):
        along, aside, wider = 2 * (k * k * _TIMES % 1) - 1
        behind = come / size - (k + _ALONG * along) * _APART
        if behind > _BEGINS:
            density = _DENSITY * min(1.0, 8 * (behind - _BEGINS))  # it comes out from behind the subject
            radius = 0.1 + 0.05 * min(behind, 1) + _WIDER * wider
            x, y = abs(down) * _ASIDE * aside - right * behind, abs(right) * _ASIDE * aside - down * behind
            yield x * size, y * size, radius * size, density


def leave_wake(picture: Pixels, middle: tuple[float, float], way: tuple[int, int], come: float, colour: Pixels) -> None:
    """Draw it into a square picture.  middle: of the subject, (x, y)."""
    for x, y, radius, density in wake(way, come, len(picture)):
        _disc(picture, middle[0] + x, middle[1] + y, radius, density, colour)


def _disc(picture: Pixels, x: float, y: float, radius: float, alpha: float, colour: Pixels) -> None:
    """With an edge two pixels soft."""
    top, left = max(0, int(y - radius - 2)), max(0, int(x - radius - 2))
    part = picture[top : max(0, int(y + radius + 3)), left : max(0, int(x + radius + 3))]
    if part.size:
        rows, columns = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
        inside = np.clip((radius - np.hypot(columns - x, rows - y)) / 2, 0, 1)
        seen = (inside * alpha).astype(np.float32)[..., None]
        part *= 1 - seen
        part += seen * colour
