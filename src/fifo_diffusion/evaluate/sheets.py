"""Two pictures of a whole video, made as it goes by, in memory that does not grow.

A contact sheet: frames evenly spread over it.  A slit scan: the middle row of every frame, one below the other and laid
on its side, so that time runs to the right; what stands still draws level lines, what moves sideways slants, a
cut is an edge, drift a slow change of colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Kept = TypeVar("Kept")
Picture = NDArray[np.uint8]  # (height, width, 3)

ACROSS = 12  # frames of a contact sheet
THUMB = 160  # pixels of a frame's longer side there, at most
SLITS = 960  # columns of a slit scan, at most
HIGH = 2160  # and pixels of one: of wider frames every second is left out, or more


class Spread(Generic[Kept]):
    """Every k-th of a stream, k doubled whenever twice `least` are held: between `least` and twice as many of it."""

    def __init__(self, least: int) -> None:
        self._most, self._every, self.kept = 2 * least, 1, list[tuple[int, Kept]]()

    def wants(self, number: int) -> bool:
        return number % self._every == 0

    def add(self, number: int, item: Kept) -> None:
        self.kept.append((number, item))
        if len(self.kept) > self._most:
            self._every *= 2
            self.kept = [kept for kept in self.kept if self.wants(kept[0])]


@dataclass(frozen=True)
class Sheet:
    """Both pictures of a video, coded, and the numbers of the frames shown."""

    frames: tuple[int, ...]
    thumbs: tuple[bytes, ...]
    slit: bytes
    kind: str  # "image/webp"


class Watching:
    """Looks on while a video goes by."""

    def __init__(self) -> None:
        self._thumbs = Spread[Picture](ACROSS)
        self._slits = Spread[Picture](SLITS // 2)

    def push(self, frames: Tensor, first: int) -> None:
        """frames: (n, 3, h, w) uint8."""
        for number, frame in enumerate(frames.permute(0, 2, 3, 1).numpy(), first):
            if self._slits.wants(number):
                row = frame[len(frame) // 2]
                self._slits.add(number, row[:: -(-len(row) // HIGH)].copy())
            if self._thumbs.wants(number):
                self._thumbs.add(number, _thumb(frame))

    def sheet(self) -> Sheet | None:
        """None of a video without frames."""
        kept = self._thumbs.kept
        if not kept:
            return None
        at = np.unique(np.linspace(0, len(kept) - 1, ACROSS).round().astype(int))
        shown = [kept[i] for i in at]
        slit = np.stack([row for _, row in self._slits.kept], axis=1)  # (w, time, 3)
        return Sheet(tuple(n for n, _ in shown), tuple(_coded(p) for _, p in shown), _coded(slit), "image/webp")


def _thumb(frame: Picture) -> Picture:
    from PIL import Image

    picture = Image.fromarray(frame)
    picture.thumbnail((THUMB, THUMB))
    return np.asarray(picture)


def _coded(picture: Picture) -> bytes:
    from PIL import Image

    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "WEBP", quality=82, method=4)
    return out.getvalue()
