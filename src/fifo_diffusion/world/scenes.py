"""The scenes: a sky and three layers that scroll with their depth, drawn from a seed or painted; and drifting puffs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fifo_diffusion.world.backdrops import Backdrop
from fifo_diffusion.world.brush import TURNS, Brush, Colour
from fifo_diffusion.world.layers import Layer, Pixels, fine, repeating, soften
from fifo_diffusion.world.weather import puffs


@dataclass(frozen=True)
class Scene:
    """draw: what its layers are drawn with; None: they are cut from a backdrop, see `backdrops.PAINTINGS`."""

    words: tuple[str, ...]
    sky: tuple[Colour, Colour]
    puff: Colour
    draw: Callable[[Brush], None] | None = None


def _snowy_mountains(b: Brush) -> None:
    b.ridge(0.50, 0.16, 4, (150, 172, 205), 0, cap=(235, 242, 252))
    b.ridge(0.62, 0.20, 5, (92, 112, 150), 1, cap=(250, 252, 255))
    b.hills(0.84, 0.03, (232, 240, 250), 2)
    for x in b.places(14):
        h = b.rng.uniform(0.14, 0.22)
        b.box(2, (92, 66, 50), x - 0.012, 0.86, 0.024, 0.06)
        for k in range(3):
            top, wide = 0.86 - h + k * h * 0.28, 0.035 + 0.022 * k
            b.polygon(2, (30, 92 + 8 * k, 84), [(x, top), (x - wide, top + h * 0.46), (x + wide, top + h * 0.46)])


def _forest(b: Brush) -> None:
    b.hills(0.52, 0.05, (140, 190, 150), 0)
    for x in b.places(16):
        b.disc(1, (58, 140, 84), x, 0.66 + b.rng.uniform(-0.03, 0.03), b.rng.uniform(0.10, 0.15))
    b.box(1, (58, 140, 84), 0, 0.68, TURNS, 0.32)
    b.hills(0.86, 0.02, (96, 178, 64), 2)
    for x in b.places(10):
        b.box(2, (110, 72, 44), x - 0.02, 0.68, 0.04, 0.22)
        for dx, dy, r in ((-0.06, 0.0, 0.07), (0.06, 0.0, 0.07), (0.0, -0.06, 0.08)):
            b.disc(2, (34, 110, 50), x + dx, 0.68 + dy, r)


def _desert(b: Brush) -> None:
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


def _city(b: Brush) -> None:
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


def _ocean(b: Brush) -> None:
    for x in b.places(4):
        b.disc(0, (70, 150, 110), x, 0.62, b.rng.uniform(0.12, 0.2), 0.5)
    b.box(0, (64, 156, 214), 0, 0.61, TURNS, 0.39)
    b.box(1, (44, 128, 200), 0, 0.72, TURNS, 0.28)
    for x in b.places(14):
        b.disc(1, (150, 208, 240), x, 0.73 + b.rng.uniform(-0.01, 0.05), 0.07, 0.18)
    b.hills(0.85, 0.018, (22, 92, 168), 2, waves=4)
    for x in b.places(12):
        b.disc(2, (226, 244, 255), x, 0.88 + b.rng.uniform(0, 0.06), b.rng.uniform(0.05, 0.08), 0.25)


def _space(b: Brush) -> None:
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


def _beach(b: Brush) -> None:
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


def _candy(b: Brush) -> None:
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


def _reef(b: Brush) -> None:
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


def _farm(b: Brush) -> None:
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
    "autumn forest": Scene(
        ("an autumn forest", "the woods in autumn", "autumn trees"),
        sky=((190, 210, 205), (190, 210, 205)),
        puff=(255, 240, 214),
    ),
    "castle": Scene(
        ("a castle hall", "a stone castle", "the castle"),
        sky=((44, 52, 84), (44, 52, 84)),
        puff=(150, 172, 170),
    ),
    "meadow": Scene(
        ("a meadow", "the meadow", "a meadow of grass"),
        sky=((158, 204, 222), (158, 204, 222)),
        puff=(250, 253, 236),
    ),
}

_DEPTHS = ((0.2, 0.0), (0.5, 0.0), (1.0, 0.0))


def build(name: str, size: int, seed: int, backdrop: Backdrop | None) -> tuple[Pixels, tuple[Layer, ...]]:
    """The sky, (size, size, 3), and the layers back to front of one variant of a scene.

    Raises:
        ValueError: a painted scene comes without its backdrop.
    """
    rng = np.random.default_rng([seed, list(PLACES).index(name)])
    scene = PLACES[name]
    top, bottom = np.array(scene.sky, np.float32) / 255
    fall = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    sky = np.broadcast_to(top * (1 - fall) + bottom * fall, (size, size, 3))
    if scene.draw is not None:
        far, middle, near = _drawn(scene.draw, size, rng)
    elif backdrop is not None:
        far, middle, near = backdrop.layers(size, rng)
    else:
        raise ValueError(f"the scene {name!r} is painted; give its backdrop")
    return sky, (far, middle, puffs(scene.puff, size, rng), near)


def _drawn(draw: Callable[[Brush], None], size: int, rng: np.random.Generator) -> Iterator[Layer]:
    brush, by = Brush(size, rng), fine(size)
    draw(brush)
    for picture, depth in zip(brush.layers, _DEPTHS, strict=True):
        yield repeating(soften(np.asarray(picture), by)[::by], depth, 1, size)
