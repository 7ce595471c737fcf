"""The two worlds: the first, of 64 pixels, and a larger one that moves more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fifo_diffusion.world import animated, art
from fifo_diffusion.world.art import COLOURS, Sprites, Subject
from fifo_diffusion.world.scenes import PLACES, SCENES


@dataclass(frozen=True)
class Kind:
    """What a world holds and where its art comes from.

    model: the name of the model that is trained on it.
    skies: whether it has light and weather.
    wakes: whether what moves leaves puffs behind.
    unmet: the (subject, scene) pairs that nothing is trained on, so that a model can be asked for what it never saw.
    """

    name: str
    model: str
    size: int
    subjects: Mapping[str, Subject]
    colours: Callable[[str], tuple[str, ...]]
    scenes: tuple[str, ...]
    skies: bool
    wakes: bool
    fetch: Callable[[Path], Path]
    load_sprites: Callable[[Path, int], Sprites]
    unmet: frozenset[tuple[str, str]] = frozenset()

    def sprites(self, folder: Path) -> Sprites:
        """From the art that is kept in the folder, fetched there where it is not.  Raises BadInput as `fetch` does."""
        return self.load_sprites(self.fetch(folder / "art"), self.size)


def _six(subject: str) -> tuple[str, ...]:
    return tuple(COLOURS)


def _one_scene_each(subjects: Mapping[str, Subject], scenes: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    """Every subject with one scene, and every scene with about as many subjects."""
    return frozenset((subject, scenes[(3 * i + 1) % len(scenes)]) for i, subject in enumerate(subjects))


SMALL = Kind("small", "embedded", 64, art.SUBJECTS, _six, tuple(SCENES), False, False, art.fetch, art.load_sprites)
LARGE = Kind(
    "large",
    "embedded-large",
    128,
    animated.SUBJECTS,
    animated.colours,
    tuple(PLACES),
    True,
    True,
    animated.fetch,
    animated.load_sprites,
    _one_scene_each(animated.SUBJECTS, tuple(PLACES)),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (SMALL, LARGE)}
