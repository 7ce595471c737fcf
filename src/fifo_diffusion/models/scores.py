"""What plans of a model reached where they were measured, as `fifo models NAME` lists it.

scores.json is written by `python benchmarks/results.py --scores` from what the benchmarks said (docs/results.md).
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import NamedTuple


class Score(NamedTuple):
    """One plan; errors are standard errors over streams, each a prompt and a seed of its own."""

    flags: str  # of fifo generate
    told: float  # % of what the prompts told, that the judge sees: mean of subject, colour, scene and motion
    distance: float  # ‰, from the model's own clips
    distance_error: float
    flicker: float  # mean second over mean first difference of neighbouring pictures
    flicker_error: float
    real_flicker: float  # of real renders of the same prompts
    streams: int
    date: str
    commit: str


def scores(name: str, size: tuple[int, int]) -> tuple[Score, ...]:
    """Of all plans of a model that were measured with pictures of this size: another size is another network's."""
    said = json.loads(files(__package__).joinpath("scores.json").read_text()).get(name, {"size": None, "plans": ()})
    return tuple(Score(**plan) for plan in said["plans"]) if said["size"] == list(size) else ()
