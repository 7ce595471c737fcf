"""What scenes are drawn with: three layers, and shapes that go on over a tile's edge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fifo_diffusion.world.layers import fine

TURNS = 4  # a tile is this many pictures wide

Colour = tuple[int, int, int]


class Brush:
    """Draws three layers in units of the picture: x in [0, TURNS), y from 0 (top) to 1 (bottom)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.unit = size * fine(size)
        self.rng = rng
        self.layers = [Image.new("RGBA", (self.unit * TURNS, self.unit)) for _ in range(3)]

    def ridge(self, height: float, swing: float, rough: int, colour: Colour, layer: int, cap: Colour) -> None:
        """A periodic mountain line around `height`; `cap` paints what stands above it."""
        x = np.linspace(0, 1, self.unit * TURNS, endpoint=False)
        waves = np.arange(1, rough + 1) * TURNS // 2
        phases = self.rng.uniform(0, 2 * np.pi, rough)
        sizes = self.rng.uniform(0.4, 1, rough) / np.arange(1, rough + 1)
        line = sizes @ np.abs(np.sin(np.pi * np.outer(waves, x) + phases[:, None]))
        line = height - swing * (line / sizes.sum() - 0.5) * 2
        self._below(line, colour, layer)
        edge = height - 0.15 * swing + 0.14 * swing * np.sin(2 * np.pi * x * TURNS * 7)
        picture = np.array(self.layers[layer])
        y = np.arange(self.unit)[:, None] / self.unit
        picture[(y >= line) & (y < edge)] = (*cap, 255)
        self.layers[layer] = Image.fromarray(picture)

    def hills(self, height: float, swing: float, colour: Colour, layer: int, waves: int = 2) -> None:
        x = np.linspace(0, 1, self.unit * TURNS, endpoint=False)
        k = np.arange(1, waves + 1)[:, None]
        phases = self.rng.uniform(0, 6.28, waves)[:, None]
        line = (swing / k * np.sin(np.pi * TURNS * k * x + phases)).sum(axis=0)
        self._below(height + line, colour, layer)

    def _below(self, line: NDArray[np.float64], colour: Colour, layer: int) -> None:
        picture = np.array(self.layers[layer])
        picture[np.arange(self.unit)[:, None] / self.unit >= line] = (*colour, 255)
        self.layers[layer] = Image.fromarray(picture)

    def places(self, count: int, jitter: float = 0.6) -> NDArray[np.float64]:
        """`count` x positions spread over the tile."""
        step = TURNS / count
        return (np.arange(count) + self.rng.uniform(0, jitter, count)) * step

    def polygon(self, layer: int, colour: Colour, points: list[tuple[float, float]]) -> None:
        for turn in (-TURNS, 0, TURNS):  # drawn thrice, so that it repeats over the edge
            xy = [((x + turn) * self.unit, y * self.unit) for x, y in points]
            ImageDraw.Draw(self.layers[layer]).polygon(xy, fill=(*colour, 255))

    def box(self, layer: int, colour: Colour, x: float, y: float, w: float, h: float) -> None:
        self.polygon(layer, colour, [(x, y), (x + w, y), (x + w, y + h), (x, y + h)])

    def disc(self, layer: int, colour: Colour, x: float, y: float, r: float, squash: float = 1.0) -> None:
        turn = np.linspace(0, 2 * np.pi, 40)
        self.polygon(layer, colour, [(x + r * np.cos(a), y + r * squash * np.sin(a)) for a in turn])
