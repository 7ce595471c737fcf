"""What a subject leaves behind: puffs that stay where it was.

The camera follows the subject, so they go from it as fast as it moves.  They are large, as a cloud that is passed by
chance is not, and alike for all subjects: by them a network learns up from down (docs/log.md, 2026-11-27).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fifo_diffusion.world.layers import Pixels

_COUNT = 6
# In pictures: from one to the next, from the subject's middle to where one comes out, and how far they lie off its way.
_APART, _BEGINS, _ASIDE = 0.22, 0.16, 0.03
_DENSITY = 0.9


def wake(way: tuple[int, int], come: float, size: int) -> Iterator[tuple[float, float, float, float]]:
    """Every puff of it: x and y from the subject's middle, radius, and density in [0, 1], the nearest puff first.

    way: where the subject goes, (right, down); come: how far it has come; lengths in pixels of a picture of that size.
    """
    right, down = way
    apart = _APART * size
    for k in range(_COUNT):
        behind = _BEGINS * size + come % apart + k * apart
        aside = _ASIDE * size * (-1) ** (k - int(come // apart))  # each keeps its side
        density = _DENSITY * min(1.0, 8 * (behind / size - 0.15))  # it comes out from behind the subject
        radius = size * (0.1 + 0.05 * min(behind / size, 1))
        yield abs(down) * aside - right * behind, abs(right) * aside - down * behind, radius, density


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
