"""The layers that scenes scroll: tiles that repeat, so that a camera may travel for ever.

Tiles are drawn too fine (four times for 64 pixels, twice for 128) and averaged, so a layer can be placed at a part of a
pixel without shimmering.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNIT = 256  # tile pixels a picture's side is drawn with

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A repeating premultiplied RGBA tile; `depth` is how much of the camera's way it moves (x, y)."""

    tile: NDArray[np.uint8]  # (rows * fine_y, columns * fine, 4), and once more the first picture after each edge
    depth: tuple[float, float]
    fine: int
    fine_y: int
    period: tuple[int, int]  # rows, columns after which the tile repeats

    def view(self, x: float, y: float, size: int) -> Pixels:
        """The (size, size, 4) piece that a camera at (x, y) pixels sees."""
        left = round(x * self.depth[0] * self.fine) % self.period[1]
        top = round(y * self.depth[1] * self.fine_y) % self.period[0]
        seen = self.tile[top : top + size * self.fine_y : self.fine_y, left : left + size * self.fine : self.fine]
        return seen.astype(np.float32) / np.float32(255)


def fine(size: int) -> int:
    """Tile pixels per picture pixel."""
    return max(1, UNIT // size)


def repeating(tile: NDArray[np.uint8], depth: tuple[float, float], fine_y: int, size: int) -> Layer:
    """With the first picture again after the last, so that any view is one slice."""
    more = ((0, size * fine_y if depth[1] else 0), (0, size * fine(size)), (0, 0))
    return Layer(np.pad(tile, more, mode="wrap"), depth, fine(size), fine_y, (tile.shape[0], tile.shape[1]))


def soften(rgba: NDArray[np.generic], by: int, premultiplied: bool = False) -> NDArray[np.uint8]:
    """Average over one picture pixel at every fine position, around the edges too."""
    out = rgba.astype(np.float32)
    if not premultiplied:
        out[..., :3] *= out[..., 3:] / 255
    for axis in (0, 1):
        out = np.mean([np.roll(out, -k, axis) for k in range(by)], axis=0)
    return out.round().astype(np.uint8)
