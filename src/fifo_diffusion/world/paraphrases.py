"""The larger world in words that no caption held: all a model knows of them is their vectors.

Of words whose vectors lie near one of a caption's; of others `TextEncoder.remarks` warns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fifo_diffusion.world.captions import say
from fifo_diffusion.world.clips import Caption
from fifo_diffusion.world.kinds import LARGE

UNHEARD: Mapping[str, tuple[str, ...]] = {
    # subjects
    "car": ("vehicle", "sedan"),
    "bird": ("sparrow",),
    "fish": ("salmon", "goldfish"),
    "helicopter": ("rotorcraft",),
    "dinosaur": ("brontosaurus",),
    "crab": ("crustacean",),
    "butterfly": ("insect",),
    "bee": ("wasp",),
    "horse": ("stallion", "mare"),
    "elephant": ("mammoth",),
    "duck": ("goose",),
    "rocket": ("starship", "missile"),
    "plane": ("aircraft", "airliner"),
    "train": ("railway",),
    "bus": ("minibus",),
    "boat": ("vessel",),
    "ghost": ("phantom", "spirit"),
    "pig": ("hog", "boar"),
    # scenes
    "snowy mountains": ("alpine snowfall",),
    "forest": ("woodland",),
    "city": ("downtown", "an urban town"),
    "beach": ("the seaside", "the coast"),
    "candy land": ("candies",),
    "reef": ("corals",),
    "farm": ("farms", "agricultural farms"),
    "castle": ("a fortress", "a chateau"),
    "meadow": ("a lawn",),
}


def can_be_unheard(caption: Caption) -> bool:
    """Whether there are other words for its subject and for its scene."""
    return caption.subject in UNHEARD and caption.scene in UNHEARD


def unheard(caption: Caption, rng: np.random.Generator) -> str:
    """The caption with other words for its subject and its scene; the rest as captions say it."""
    return say(caption, rng, leave_out=0, kind=LARGE, instead=UNHEARD)
