"""What is in the air before a scene: puffs that drift, rain and snow that fall."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from fifo_diffusion.world.brush import Colour
from fifo_diffusion.world.layers import Layer, fine, repeating, soften

WEATHER: Mapping[str, tuple[float, float]] = {"rain": (0.02, 0.16), "snow": (-0.012, 0.035)}
"""What falls, and its way in widths of the picture a frame (right, down)."""


def puffs(colour: Colour, size: int, rng: np.random.Generator) -> Layer:
    """Soft little clouds close to the camera: what a rising or sinking subject passes.

    Ten to a tile of two pictures by two, spread so that every view holds a few: with five strewn at random a view
    could be empty, and then nothing told up from down.
    """
    by = fine(size)
    side = 2 * size * by
    along = np.arange(side) / (size * by)
    alpha = np.zeros((side, side))
    for place in range(10):
        row, column = divmod(place, 2)
        cx = column + (row % 2) / 2 + rng.uniform(-0.3, 0.3)
        cy = row / 2.5 + rng.uniform(-0.1, 0.1)
        for dx, dy, r in ((0, 0, 0.085), (-0.1, 0.025, 0.06), (0.1, 0.025, 0.065)):
            x, y = (along - cx - dx + 1) % 2 - 1, ((along - cy - dy + 1) % 2 - 1) * 1.4
            here = np.ix_(abs(y) < r, abs(x) < r)  # a hundredth of the tile
            inside = np.clip((r - np.hypot(x[None, abs(x) < r], y[abs(y) < r, None])) / 0.03, 0, 1)
            alpha[here] = np.maximum(alpha[here], inside)
    alpha *= 0.9
    rgba = np.concatenate([alpha[..., None] * np.array(colour), alpha[..., None] * 255], axis=-1)
    return repeating(soften(rgba, by, premultiplied=True), (1.0, 1.0), by, size)


def falling(weather: str, size: int) -> Layer:
    """Streaks of rain or flakes of snow: a tile of one picture by one that goes its own way."""
    rng = np.random.default_rng([7, list(WEATHER).index(weather)])
    side, picture = size * fine(size), Image.new("RGBA", (size * fine(size),) * 2)
    draw = ImageDraw.Draw(picture)
    for place in range(26):
        row, column = divmod(place, 5)
        x, y = (column + rng.uniform(0, 0.8)) / 5, (row + rng.uniform(0, 0.8)) / 5.2
        for turn in np.ndindex(3, 3):
            left, top = ((x + turn[0] - 1) * side, (y + turn[1] - 1) * side)
            if weather == "rain":
                draw.line(
                    (left, top, left + 0.012 * side, top + 0.1 * side), fill=(196, 214, 240, 210), width=side // 80
                )
            else:
                r = side * (0.014 + 0.01 * (place % 3) / 2)
                draw.ellipse((left - r, top - r, left + r, top + r), fill=(255, 255, 255, 240))
    return repeating(soften(np.asarray(picture), fine(size)), (1.0, 1.0), fine(size), size)
