"""Captions in words: a clip's attributes said in one of many ways, now and then with one left unsaid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from fifo_diffusion.world.art import COLOURS
from fifo_diffusion.world.clips import Caption
from fifo_diffusion.world.kinds import SMALL, Kind
from fifo_diffusion.world.scenes import PLACES

_MOVING: Mapping[str, tuple[str, ...]] = {
    "left": ("moving left", "drifting left", "flying to the left", "heading left", "going left"),
    "right": ("moving right", "drifting right", "flying to the right", "heading right", "going right"),
    "up": ("moving up", "rising", "floating up", "flying up", "going up", "climbing"),
    "down": ("moving down", "sinking", "floating down", "flying down", "going down", "falling"),
    "still": ("standing still", "hovering", "not moving", "floating still", "resting"),
}
_WAYS: Mapping[str, tuple[str, ...]] = {way: (way, f"{way}wards") for way in ("left", "right", "up", "down")}
_SPEED: Mapping[str, tuple[str, ...]] = {
    "": ("",),
    "slowly": ("slowly", "gently"),
    "quickly": ("quickly", "fast"),
}
_OVER = ("over", "above", "in front of")
_LIGHT: Mapping[str, tuple[str, ...]] = {
    "": ("",),
    "sunset": ("at sunset", "in the evening", "at dusk"),
    "night": ("at night", "in the dark", "by moonlight"),
}
_WEATHER: Mapping[str, tuple[str, ...]] = {
    "": ("",),
    "fog": ("in the fog", "in the mist"),
    "rain": ("in the rain", "while it rains", "on a rainy day"),
    "snow": ("in falling snow", "while it snows", "in a snowstorm"),
}
NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})


def plain(caption: Caption) -> str:
    """The one canonical sentence of a caption; what the gates prompt with."""
    parts = (
        "a",
        caption.colour,
        caption.subject,
        _MOVING[caption.motion][0],
        caption.speed,
        "over",
        PLACES[caption.scene].words[0],
        _LIGHT[caption.light][0],
        _WEATHER[caption.weather][0],
    )
    return _sentence(*parts)


def _sentence(*parts: str) -> str:
    """With "an" before a vowel."""
    return re.sub(r"^a(?= [aeiou])", "an", " ".join(" ".join(parts).split()))


def say(
    caption: Caption,
    rng: np.random.Generator,
    leave_out: float = 0.08,
    kind: Kind = SMALL,
    instead: Mapping[str, Sequence[str]] = NOTHING,
) -> str:
    """One of the many ways to say it; each attribute is left out with probability `leave_out`.

    instead: by subject or scene, other words for it.
    """

    def maybe(text: str) -> str:
        return "" if rng.random() < leave_out else text

    subject = str(rng.choice(instead.get(caption.subject, kind.subjects[caption.subject].words)))
    motion = str(rng.choice(_MOVING[caption.motion]))
    speed = str(rng.choice(_SPEED[caption.speed]))
    action = f"{speed} {motion}" if rng.random() < 0.4 else f"{motion} {speed}"
    place = instead.get(caption.scene, PLACES[caption.scene].words)
    where = maybe(f"{rng.choice(_OVER)} {rng.choice(place)}")
    parts = ["a", maybe(caption.colour), maybe(subject), maybe(action), where]
    if kind.skies:
        parts += [str(rng.choice(_LIGHT[caption.light])), str(rng.choice(_WEATHER[caption.weather]))]
    return _sentence(*parts)


def understood(text: str, kind: Kind = SMALL) -> dict[str, str]:
    """The attributes that a text says, by name; what moves without a word of its speed has speed "".

    Of two values of one attribute the one that is said first counts, and a way by itself ("flies left") where no
    caption's words tell the motion.  A green forest makes no green bee, and falling snow nothing that falls: words of
    the scene, the light and the weather say nothing else.
    """
    text = text.lower()
    tables: Mapping[str, Mapping[str, tuple[str, ...]]] = {
        "subject": {name: subject.words for name, subject in kind.subjects.items()},
        "colour": {name: (name,) for name in COLOURS},
        "scene": {name: PLACES[name].words for name in kind.scenes},
        "motion": _MOVING,
        "speed": _SPEED,
    }
    places = [words for name in kind.scenes for words in PLACES[name].words]
    skies = [words for table in (_LIGHT, _WEATHER) for several in table.values() for words in several if words]
    around = sorted(map(_bare, (*places, *skies)), key=len, reverse=True)
    rest = re.sub(rf"\b(({'|'.join(COLOURS)}) )*?({'|'.join(map(re.escape, around))})\b", " ", text)
    said = {
        name: found
        for name, table in tables.items()
        if (found := _first(text if name == "scene" else rest, table)) is not None
    }
    if "motion" not in said and (way := _first(rest, _WAYS)) is not None:
        said["motion"] = way
    if said.get("motion", "still") == "still":
        said.pop("speed", None)
    else:
        said.setdefault("speed", "")
    return said


def _first(text: str, table: Mapping[str, tuple[str, ...]]) -> str | None:
    """The value one of whose words stands first; of those at one place the longest words."""
    found = [
        (match.start(), -len(word), value)
        for value, words in table.items()
        for word in words
        if word and (match := re.search(rf"\b{re.escape(_bare(word))}\b", text))
    ]
    return min(found)[2] if found else None


def _bare(words: str) -> str:
    """Without an article: a desert is the desert."""
    return re.sub(r"^(the|a|an) ", "", words)


def vocabulary(kind: Kind = SMALL) -> list[str]:
    """Every word a caption can hold, sorted."""
    texts = [*(colour for subject in kind.subjects for colour in kind.colours(subject)), *_OVER, "a"]
    texts += [w for s in kind.subjects.values() for w in s.words] + [w for s in kind.scenes for w in PLACES[s].words]
    tables = (_MOVING, _SPEED, *((_LIGHT, _WEATHER) if kind.skies else ()))
    texts += [w for table in tables for ways in table.values() for w in ways]
    return sorted({word for text in texts for word in text.split()})
