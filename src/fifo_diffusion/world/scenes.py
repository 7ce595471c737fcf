"""The scenes: a sky and three layers that scroll with their depth, drawn from a seed; and drifting puffs.

Every layer is a tile that repeats, so a camera may travel for ever.  Tiles are drawn too fine (four times for 64
pixels, twice for 128) and averaged, so a layer can be placed at a part of a pixel without shimmering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

UNIT = 256  # tile pixels a picture's side is drawn with
TURNS = 4  # a tile is this many pictures wide

Pixels = NDArray[np.float32]
Colour = tuple[int, int, int]


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


@dataclass(frozen=True)
class Scene:
    words: tuple[str, ...]
    sky: tuple[Colour, Colour]
    puff: Colour
    draw: Callable[[_Brush], None]


def fine(size: int) -> int:
    """Tile pixels per picture pixel."""
    return max(1, UNIT // size)


class _Brush:
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


def _snowy_mountains(b: _Brush) -> None:
    b.ridge(0.50, 0.16, 4, (150, 172, 205), 0, cap=(235, 242, 252))
    b.ridge(0.62, 0.20, 5, (92, 112, 150), 1, cap=(250, 252, 255))
    b.hills(0.84, 0.03, (232, 240, 250), 2)
    for x in b.places(14):
        h = b.rng.uniform(0.14, 0.22)
        b.box(2, (92, 66, 50), x - 0.012, 0.86, 0.024, 0.06)
        for k in range(3):
            top, wide = 0.86 - h + k * h * 0.28, 0.035 + 0.022 * k
            b.polygon(2, (30, 92 + 8 * k, 84), [(x, top), (x - wide, top + h * 0.46), (x + wide, top + h * 0.46)])


def _forest(b: _Brush) -> None:
    b.hills(0.52, 0.05, (140, 190, 150), 0)
    for x in b.places(16):
        b.disc(1, (58, 140, 84), x, 0.66 + b.rng.uniform(-0.03, 0.03), b.rng.uniform(0.10, 0.15))
    b.box(1, (58, 140, 84), 0, 0.68, TURNS, 0.32)
    b.hills(0.86, 0.02, (96, 178, 64), 2)
    for x in b.places(10):
        b.box(2, (110, 72, 44), x - 0.02, 0.68, 0.04, 0.22)
        for dx, dy, r in ((-0.06, 0.0, 0.07), (0.06, 0.0, 0.07), (0.0, -0.06, 0.08)):
            b.disc(2, (34, 110, 50), x + dx, 0.68 + dy, r)


def _desert(b: _Brush) -> None:
    for x in b.places(6):
        w = b.rng.uniform(0.18, 0.35)
        b.polygon(0, (214, 132, 92), [(x, 0.66), (x + 0.05, 0.46), (x + w, 0.46), (x + w + 0.05, 0.66)])
    b.hills(0.62, 0.02, (232, 172, 104), 0)
    b.hills(0.72, 0.06, (240, 192, 112), 1)
    b.hills(0.86, 0.03, (222, 160, 80), 2)
    for x in b.places(9):
        h = b.rng.uniform(0.16, 0.24)
        b.box(2, (50, 132, 72), x - 0.022, 0.9 - h, 0.044, h)
        b.box(2, (50, 132, 72), x - 0.075, 0.9 - h * 0.62, 0.11, 0.036)
        b.box(2, (50, 132, 72), x - 0.075, 0.9 - h * 0.85, 0.036, h * 0.28)
        b.box(2, (50, 132, 72), x + 0.04, 0.9 - h * 0.5, 0.045, 0.034)
        b.box(2, (50, 132, 72), x + 0.06, 0.9 - h * 0.78, 0.034, h * 0.3)


def _city(b: _Brush) -> None:
    for x in b.places(20):
        h = b.rng.uniform(0.2, 0.42)
        b.box(0, (62, 52, 110), x, 0.9 - h, b.rng.uniform(0.14, 0.2), h)
    for x in b.places(12, 0.3):
        h, w = b.rng.uniform(0.22, 0.42), 0.2
        b.box(1, (36, 34, 74), x, 0.92 - h, w, h)
        for row in np.arange(0.94 - h, 0.84, 0.09):
            for column in (0.03, 0.115):
                if b.rng.random() < 0.75:
                    b.box(1, (255, 214, 110), x + column, row, 0.05, 0.045)
    b.box(2, (52, 54, 66), 0, 0.88, TURNS, 0.12)
    for x in b.places(10, 0.05):
        b.box(2, (240, 240, 240), x, 0.935, 0.14, 0.02)
        b.box(2, (24, 24, 34), x + 0.2, 0.66, 0.022, 0.23)
        b.disc(2, (255, 236, 160), x + 0.211, 0.65, 0.035)


def _ocean(b: _Brush) -> None:
    for x in b.places(4):
        b.disc(0, (70, 150, 110), x, 0.62, b.rng.uniform(0.12, 0.2), 0.5)
    b.box(0, (64, 156, 214), 0, 0.61, TURNS, 0.39)
    b.box(1, (44, 128, 200), 0, 0.72, TURNS, 0.28)
    for x in b.places(14):
        b.disc(1, (150, 208, 240), x, 0.73 + b.rng.uniform(-0.01, 0.05), 0.07, 0.18)
    b.hills(0.85, 0.018, (22, 92, 168), 2, waves=4)
    for x in b.places(12):
        b.disc(2, (226, 244, 255), x, 0.88 + b.rng.uniform(0, 0.06), b.rng.uniform(0.05, 0.08), 0.25)


def _space(b: _Brush) -> None:
    for x in b.places(60):
        b.disc(0, (225, 225, 255), x, b.rng.uniform(0, 1), b.rng.uniform(0.009, 0.016))
    for x, c in zip(
        b.places(5),
        [(214, 120, 90), (120, 170, 220), (200, 180, 110), (160, 110, 200), (110, 200, 170)],
        strict=True,
    ):
        y, r = b.rng.uniform(0.12, 0.4), b.rng.uniform(0.06, 0.11)
        b.disc(1, c, x, y, r)
        b.disc(
            1,
            (min(c[0] + 30, 255), min(c[1] + 30, 255), min(c[2] + 30, 255)),
            x - r * 0.25,
            y - r * 0.25,
            r * 0.5,
        )
    b.hills(0.84, 0.03, (126, 122, 138), 2)
    for x in b.places(13):
        b.disc(2, (88, 84, 102), x, b.rng.uniform(0.89, 0.95), b.rng.uniform(0.04, 0.075), 0.4)


def _beach(b: _Brush) -> None:
    for x in b.places(3):
        b.disc(0, (84, 156, 120), x, 0.56, b.rng.uniform(0.12, 0.2), 0.4)
    b.box(0, (40, 178, 206), 0, 0.55, TURNS, 0.45)
    for x in b.places(16):
        b.disc(0, (170, 232, 240), x, 0.62 + b.rng.uniform(-0.03, 0.03), 0.05, 0.16)
    b.hills(0.74, 0.015, (250, 250, 250), 1, waves=3)
    b.hills(0.765, 0.015, (244, 214, 140), 1, waves=3)
    b.hills(0.88, 0.02, (232, 194, 112), 2)
    for x in b.places(7):
        h = b.rng.uniform(0.34, 0.46)
        b.polygon(2, (140, 94, 56), [(x - 0.02, 0.9), (x + 0.03, 0.9), (x + 0.055, 0.9 - h), (x + 0.03, 0.9 - h)])
        for dx, dy in ((-0.13, 0.03), (-0.1, -0.06), (0.13, 0.03), (0.1, -0.06), (0.0, -0.1)):
            top = (x + 0.042, 0.9 - h)
            b.polygon(2, (40, 150, 74), [top, (top[0] + dx, top[1] + dy - 0.03), (top[0] + dx, top[1] + dy + 0.05)])
    for x in b.places(6):
        b.disc(2, (236, 84, 92), x, 0.93, 0.035, 0.7)
        b.disc(2, (255, 244, 226), x, 0.925, 0.018, 0.7)


def _candy(b: _Brush) -> None:
    b.hills(0.56, 0.06, (250, 176, 206), 0)
    b.hills(0.68, 0.05, (196, 150, 232), 1)
    for x in b.places(12):
        y, r = b.rng.uniform(0.42, 0.56), b.rng.uniform(0.06, 0.09)
        b.box(1, (255, 255, 255), x - 0.012, y, 0.024, 0.28)
        for k, colour in enumerate(((236, 70, 120), (255, 250, 250), (236, 70, 120))):
            b.disc(1, colour, x, y, r * (1 - 0.32 * k))
    b.hills(0.85, 0.025, (128, 78, 58), 2, waves=3)
    for x in b.places(22):
        b.disc(2, (255, 168, 204), x, 0.86, b.rng.uniform(0.05, 0.09), 0.6)
    for x, colour in zip(b.places(9), [(255, 214, 70), (92, 206, 160), (110, 170, 250)] * 3, strict=True):
        b.disc(2, colour, x, 0.93, 0.04)


def _reef(b: _Brush) -> None:
    b.hills(0.62, 0.07, (26, 106, 156), 0)
    for x in b.places(10):
        h = b.rng.uniform(0.2, 0.4)
        b.polygon(1, (28, 128, 112), [(x - 0.03, 0.9), (x + 0.03, 0.9), (x + 0.05, 0.9 - h * 0.6), (x, 0.9 - h)])
    b.hills(0.78, 0.04, (36, 132, 160), 1)
    b.hills(0.88, 0.02, (226, 204, 150), 2)
    for x, colour in zip(b.places(12), [(250, 110, 110), (250, 160, 70), (236, 110, 190)] * 4, strict=True):
        h = b.rng.uniform(0.12, 0.2)
        for dx in (-0.05, 0.0, 0.05):
            b.polygon(
                2, colour, [(x - 0.016, 0.92), (x + 0.016, 0.92), (x + dx + 0.02, 0.92 - h), (x + dx - 0.02, 0.92 - h)]
            )
            b.disc(2, colour, x + dx, 0.92 - h, 0.026)


def _farm(b: _Brush) -> None:
    b.hills(0.54, 0.05, (150, 204, 120), 0)
    for x in b.places(7):
        b.polygon(1, (150, 60, 50), [(x - 0.02, 0.56), (x + 0.1, 0.44), (x + 0.22, 0.56)])
        b.box(1, (204, 70, 60), x, 0.55, 0.2, 0.16)
        b.box(1, (250, 240, 226), x + 0.07, 0.61, 0.06, 0.1)
    b.hills(0.7, 0.03, (120, 190, 84), 1)
    b.hills(0.84, 0.02, (92, 164, 60), 2)
    b.box(2, (250, 246, 236), 0, 0.82, TURNS, 0.022)
    b.box(2, (250, 246, 236), 0, 0.88, TURNS, 0.022)
    for x in b.places(24, 0.0):
        b.box(2, (250, 246, 236), x, 0.79, 0.026, 0.15)
    for x in b.places(15):
        b.disc(2, (250, 206, 60), x, b.rng.uniform(0.93, 0.97), 0.024)


SCENES: Mapping[str, Scene] = {
    "snowy mountains": Scene(
        ("snowy mountains", "mountains in the snow", "snowy peaks"),
        sky=((128, 186, 240), (214, 232, 248)),
        puff=(255, 255, 255),
        draw=_snowy_mountains,
    ),
    "forest": Scene(
        ("a green forest", "the woods", "a forest"),
        sky=((150, 216, 224), (226, 246, 226)),
        puff=(250, 252, 232),
        draw=_forest,
    ),
    "desert": Scene(
        ("a sandy desert", "the desert", "desert dunes"),
        sky=((250, 206, 120), (255, 234, 190)),
        puff=(255, 248, 226),
        draw=_desert,
    ),
    "city": Scene(
        ("a city at night", "a night city", "the city at night"),
        sky=((18, 16, 52), (84, 56, 120)),
        puff=(128, 106, 176),
        draw=_city,
    ),
    "ocean": Scene(
        ("the ocean", "the blue sea", "the sea"),
        sky=((92, 176, 238), (196, 230, 250)),
        puff=(255, 255, 255),
        draw=_ocean,
    ),
    "space": Scene(
        ("the moon in space", "outer space", "space"),
        sky=((6, 6, 22), (26, 16, 54)),
        puff=(112, 84, 164),
        draw=_space,
    ),
}

# The scenes of the larger world.
PLACES: Mapping[str, Scene] = {
    **SCENES,
    "beach": Scene(
        ("a sunny beach", "the beach", "a sandy beach with palm trees"),
        sky=((64, 172, 242), (190, 234, 250)),
        puff=(255, 255, 255),
        draw=_beach,
    ),
    "candy land": Scene(
        ("candy land", "a land of sweets", "a candy world"),
        sky=((255, 190, 200), (255, 230, 220)),
        puff=(255, 250, 252),
        draw=_candy,
    ),
    "reef": Scene(
        ("a coral reef", "the bottom of the sea", "an underwater reef"),
        sky=((60, 190, 222), (18, 96, 162)),
        puff=(170, 228, 244),
        draw=_reef,
    ),
    "farm": Scene(
        ("a farm", "the farm fields", "a green farm with red barns"),
        sky=((126, 200, 246), (232, 244, 236)),
        puff=(255, 255, 255),
        draw=_farm,
    ),
}

_DEPTHS = ((0.2, 0.0), (0.5, 0.0), (1.0, 0.0))


def build(name: str, size: int, seed: int) -> tuple[Pixels, tuple[Layer, ...]]:
    """The sky, (size, size, 3), and the layers back to front of one variant of a scene."""
    rng = np.random.default_rng([seed, list(PLACES).index(name)])
    scene, brush = PLACES[name], _Brush(size, rng)
    scene.draw(brush)
    top, bottom = np.array(scene.sky, np.float32) / 255
    fall = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    sky = np.broadcast_to(top * (1 - fall) + bottom * fall, (size, size, 3))
    by = fine(size)
    far, middle, near = (
        _repeating(_soften(np.asarray(picture), by)[::by], depth, 1, size)
        for picture, depth in zip(brush.layers, _DEPTHS, strict=True)
    )
    return sky, (far, middle, _puffs(scene.puff, size, rng), near)


def _puffs(colour: Colour, size: int, rng: np.random.Generator) -> Layer:
    """Soft little clouds close to the camera: what a rising or sinking subject passes.

    Ten to a tile of two pictures by two, spread so that every view holds a few: with five strewn at random a view
    could be empty, and then nothing told up from down.
    """
    by = fine(size)
    side = 2 * size * by
    y, x = np.mgrid[:side, :side] / (size * by)
    alpha = np.zeros((side, side))
    for place in range(10):
        row, column = divmod(place, 2)
        cx = column + (row % 2) / 2 + rng.uniform(-0.3, 0.3)
        cy = row / 2.5 + rng.uniform(-0.1, 0.1)
        for dx, dy, r in ((0, 0, 0.085), (-0.1, 0.025, 0.06), (0.1, 0.025, 0.065)):
            ax, ay = (x - cx - dx + 1) % 2 - 1, (y - cy - dy + 1) % 2 - 1
            alpha = np.maximum(alpha, np.clip((r - np.hypot(ax, ay * 1.4)) / 0.03, 0, 1))
    alpha *= 0.9
    rgba = np.concatenate([alpha[..., None] * np.array(colour), alpha[..., None] * 255], axis=-1)
    return _repeating(_soften(rgba, by, premultiplied=True), (1.0, 1.0), by, size)


WEATHER: Mapping[str, tuple[float, float]] = {"rain": (0.02, 0.16), "snow": (-0.012, 0.035)}
"""What falls, and its way in widths of the picture a frame (right, down)."""


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
    return _repeating(_soften(np.asarray(picture), fine(size)), (1.0, 1.0), fine(size), size)


def _repeating(tile: NDArray[np.uint8], depth: tuple[float, float], fine_y: int, size: int) -> Layer:
    """With the first picture again after the last, so that any view is one slice."""
    more = ((0, size * fine_y if depth[1] else 0), (0, size * fine(size)), (0, 0))
    return Layer(np.pad(tile, more, mode="wrap"), depth, fine(size), fine_y, (tile.shape[0], tile.shape[1]))


def _soften(rgba: NDArray[np.generic], by: int, premultiplied: bool = False) -> NDArray[np.uint8]:
    """Average over one picture pixel at every fine position, around the edges too."""
    out = rgba.astype(np.float32)
    if not premultiplied:
        out[..., :3] *= out[..., 3:] / 255
    for axis in (0, 1):
        out = np.mean([np.roll(out, -k, axis) for k in range(by)], axis=0)
    return out.round().astype(np.uint8)
