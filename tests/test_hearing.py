"""`benchmarks/hearing.py`: a caption with one thing wrong has just that wrong."""

from dataclasses import asdict, replace

import numpy as np
import pytest

import hearing
from fifo_diffusion.world.art import Art
from fifo_diffusion.world.clips import World
from fifo_diffusion.world.kinds import KINDS, Kind


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_one_thing_is_wrong_at_a_time(kind: Kind) -> None:
    rng, seen = np.random.default_rng(0), set()
    for i in range(40):
        caption = replace(World(Art({}), kind.size, kind=kind).draw_caption(rng), motion=hearing.WAYS[i % 4])
        for name, said in hearing.wrong(kind).items():
            if (mistaken := said(caption)) is None:
                continue
            seen.add(name)
            changed = {key for key, value in asdict(mistaken).items() if value != asdict(caption)[key]}
            about = "motion" if "up" in name or "left" in name or "still" in name else name
            assert about in changed <= {about, "speed"}, name
            assert mistaken.colour in kind.colours(mistaken.subject) or "colour" not in changed
    assert seen == set(hearing.wrong(kind))
