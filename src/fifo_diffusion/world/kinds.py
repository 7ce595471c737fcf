"""The two worlds: the first, of 64 pixels, and a larger one that moves more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fifo_diffusion.world import animated, art
from fifo_diffusion.world.art import COLOURS, Art, Subject
from fifo_diffusion.world.backdrops import PAINTINGS
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
    load: Callable[[Path, int], Art]
    unmet: frozenset[tuple[str, str]] = frozenset()

    def art(self, folder: Path) -> Art:
        """From the art that is kept in the folder, fetched there where it is not.  Raises BadInput as `fetch` does."""
        return self.load(self.fetch(folder / "art"), self.size)


def _six(subject: str) -> tuple[str, ...]:
    return tuple(COLOURS)


def _unmet(subjects: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Every subject with one of the drawn scenes, every fourth with a painted one too: all scenes about as often.

    The painted ones came later. The pairs of before stay as they were, for weights that never saw them are trained on.
    """
    drawn, painted = [name for name in PLACES if name not in PAINTINGS], list(PAINTINGS)
    pairs = {(subject, drawn[(3 * i + 1) % len(drawn)]) for i, subject in enumerate(subjects)}
    return frozenset(pairs | {(subject, painted[i % len(painted)]) for i, subject in enumerate([*subjects][::4])})


SMALL = Kind("small", "embedded", 64, art.SUBJECTS, _six, tuple(SCENES), False, False, art.fetch, art.load)
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
    animated.load,
    _unmet(animated.SUBJECTS),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (SMALL, LARGE)}
