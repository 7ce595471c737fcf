"""One clip of the world: a subject in a colour, moving over a scene, the camera following it.

The camera's path is a straight line without end, so "the real endless video" of a caption exists: ask for
more frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fifo_diffusion.world.art import Art, Pixels
from fifo_diffusion.world.backdrops import Backdrop
from fifo_diffusion.world.kinds import SMALL, Kind
from fifo_diffusion.world.layers import Layer
from fifo_diffusion.world.scenes import PLACES, build
from fifo_diffusion.world.wake import leave_wake
from fifo_diffusion.world.weather import WEATHER, falling

MOTIONS: Mapping[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "still": (0, 0),
}
# Widths of the picture per frame.  A model cannot learn motion far below a fraction of its token.
SPEEDS: Mapping[str, float] = {"slowly": 2.5 / 64, "": 4.5 / 64, "quickly": 7.5 / 64}

LIGHTS: Mapping[str, tuple[float, float, float]] = {
    "": (1, 1, 1),
    "sunset": (1.0, 0.72, 0.58),
    "night": (0.38, 0.42, 0.66),
}
_OWN_LIGHT = ("city", "space", "reef", "castle")  # scenes without a sun or rain of their own
_FOG = np.float32(0.86)

TRAIN_VARIANTS = range(12)  # scene tiles that training draws from
HELD_OUT_VARIANTS = range(100, 104)  # and those that only validation sees


Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Caption:
    """What a clip shows."""

    subject: str
    colour: str
    scene: str
    motion: str
    speed: str = ""
    light: str = ""
    weather: str = ""


@dataclass(frozen=True)
class World:
    """Renders captions. `art` as the kind's `load` gives it; size in pixels.

    unmet: draw captions of the pairs that no model is trained on, and of no others; False: of all others; None: of all.
    """

    art: Art
    size: int = 64
    variants: range = TRAIN_VARIANTS
    kind: Kind = SMALL
    unmet: bool | None = False

    def draw_caption(self, rng: np.random.Generator) -> Caption:
        motion = str(rng.choice(list(MOTIONS), p=[0.25, 0.25, 0.18, 0.14, 0.18]))
        subject = str(rng.choice(list(self.kind.subjects)))
        colour = str(rng.choice(self.kind.colours(subject)))
        scene = str(rng.choice([s for s in self.kind.scenes if self.unmet in (None, (subject, s) in self.kind.unmet)]))
        speed = "" if motion == "still" else str(rng.choice(list(SPEEDS)))
        if not self.kind.skies:
            return Caption(subject, colour, scene, motion, speed)
        indoors = scene in _OWN_LIGHT
        light = "" if indoors else str(rng.choice(list(LIGHTS), p=[0.7, 0.15, 0.15]))
        weather = "" if indoors else str(rng.choice(["", "fog", *WEATHER], p=[0.76, 0.08, 0.08, 0.08]))
        return Caption(subject, colour, scene, motion, speed, light, weather)

    def frames(self, caption: Caption, rng: np.random.Generator) -> Iterator[Frames]:
        """Frames (size, size, 3) without end."""
        return (frame for frame, _ in self.covered(caption, rng))

    def covered(self, caption: Caption, rng: np.random.Generator) -> Iterator[tuple[Frames, Pixels]]:
        """The same frames, each with how much the subject covers every pixel of it, (size, size) in 0 .. 1."""
        size = self.size
        sky, layers = _scene(
            caption.scene, size, int(rng.choice(list(self.variants))), self.art.backdrops.get(caption.scene)
        )
        sprites = self.art.sprites[caption.subject, caption.colour]
        sprites = sprites if sprites.ndim == 4 else sprites[None]
        dx, dy = MOTIONS[caption.motion]
        if dx > 0:
            sprites = sprites[:, :, ::-1]
        step = SPEEDS[caption.speed] * size * rng.uniform(0.92, 1.08)
        x, y = rng.uniform(0, 64 * size, 2)
        phase, bob = rng.uniform(0, 2 * np.pi, 2), 0.03 * size
        home = np.array([rng.uniform(-0.06, 0.06), rng.uniform(-0.1, 0.04)]) * size + (size - sprites.shape[1]) / 2
        start = int(rng.integers(len(sprites))) if len(sprites) > 1 else 0
        fog = 0.28 if caption.weather == "fog" else 0.0
        drops = falling(caption.weather, size) if caption.weather in WEATHER else layers[0]
        begun, t = float(x), 0  # any part of the wake may be behind it already
        while True:
            picture = sky.copy()
            for layer in layers:
                _cover(picture, layer.view(x, y, size))
                if fog:
                    picture += fog * (_FOG - picture)
            if caption.light:
                picture *= _lit(caption.light)
            at = home + bob * np.sin(np.array([0.17, 0.31]) * t + phase)
            if self.kind.wakes and (dx or dy):
                middle = at[0] + sprites.shape[2] / 2, at[1] + sprites.shape[1] / 2
                leave_wake(picture, middle, (dx, dy), begun + step * t, _puff(caption.scene))
            shown = sprites[(t + start) % len(sprites)]
            cover = _paste(picture, _shaded(shown, caption.light), at[0], at[1])
            if caption.weather in WEATHER:
                right, down = WEATHER[caption.weather]
                _cover(picture, drops.view(x - right * size * t, y - down * size * t, size))
            yield (picture * 255).round().astype(np.uint8), cover
            x, y, t = x + dx * step, y + dy * step, t + 1

    def clip(self, caption: Caption, rng: np.random.Generator, length: int) -> Frames:
        """(length, size, size, 3)"""
        return np.stack(list(islice(self.frames(caption, rng), length)))


@lru_cache(maxsize=256)
def _scene(name: str, size: int, variant: int, backdrop: Backdrop | None) -> tuple[Pixels, tuple[Layer, ...]]:
    return build(name, size, variant, backdrop)


@lru_cache
def _puff(scene: str) -> Pixels:
    return np.array(PLACES[scene].puff, np.float32) / np.float32(255)


def _cover(picture: Pixels, seen: Pixels) -> None:
    picture *= 1 - seen[..., 3:]
    picture += seen[..., :3]


@lru_cache
def _lit(light: str) -> Pixels:
    """What each channel of a picture is multiplied by."""
    return np.array(LIGHTS[light], np.float32)


def _shaded(sprite: Pixels, light: str) -> Pixels:
    """A subject is lit half as its scene is: it must stay to be seen."""
    if not light:
        return sprite
    half: Pixels = np.append((1 + _lit(light)) / 2, np.float32(1))
    return sprite * half


def _paste(picture: Pixels, sprite: Pixels, x: float, y: float) -> Pixels:
    """Blend the sprite in at a fractional position (bilinear); returns how much it covers, (h, w) of the picture."""
    left, top = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - left, y - top
    padded = np.pad(sprite, ((1, 1), (1, 1), (0, 0)))
    moved = (1 - fy) * ((1 - fx) * padded[1:, 1:] + fx * padded[1:, :-1]) + fy * (
        (1 - fx) * padded[:-1, 1:] + fx * padded[:-1, :-1]
    )
    h, w = moved.shape[:2]
    part = picture[top : top + h, left : left + w]
    part *= 1 - moved[..., 3:]
    part += moved[..., :3]
    cover = np.zeros(picture.shape[:2], np.float32)
    cover[top : top + h, left : left + w] = moved[..., 3]
    return cover
