"""The captioned world: what a caption says is what the pixels show.  Sprites are made here; no art is fetched."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fifo_diffusion.models.embedded.text import words
from fifo_diffusion.world.art import COLOURS, SUBJECTS, Sprites
from fifo_diffusion.world.captions import plain, say, vocabulary
from fifo_diffusion.world.clips import HELD_OUT_VARIANTS, MOTIONS, SPEEDS, TRAIN_VARIANTS, Caption, World
from fifo_diffusion.world.scenes import SCENES


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    """An invisible subject: what is left is the scene and its motion."""
    return {(s, c): np.zeros((30, 30, 4), np.float32) for s in SUBJECTS for c in COLOURS}


def moved(clip: NDArray[np.uint8], dx: int, dy: int) -> float:
    """Mean difference between a frame's lower half moved by (dx, dy) and the next frame's."""
    a, b = clip[:-1].astype(float), clip[1:].astype(float)
    part = (slice(None), slice(50, 60), slice(20, 44))
    return float(np.abs(np.roll(a, (dy, dx), axis=(1, 2))[part] - b[part]).mean())


@pytest.mark.parametrize(("motion", "way"), [("left", 1), ("right", -1)])
def test_the_ground_goes_by_the_other_way(sprites: Sprites, motion: str, way: int) -> None:
    world, rng = World(sprites, variants=HELD_OUT_VARIANTS), np.random.default_rng(0)
    clip = world.clip(Caption("balloon", "red", "city", motion, "quickly"), rng, 8)
    there = min(moved(clip, way * d, 0) for d in (6, 7, 8, 9))
    back = min(moved(clip, -way * d, 0) for d in (6, 7, 8, 9))
    assert there < 0.5 * back


def test_still_scenes_stay_and_rising_ones_show_puffs_sinking(sprites: Sprites) -> None:
    world = World(sprites)
    still = world.clip(Caption("balloon", "red", "space", "still"), np.random.default_rng(1), 3)
    assert (still[0] == still[-1]).all()
    rising = world.clip(Caption("balloon", "red", "desert", "up", "quickly"), np.random.default_rng(1), 12).astype(
        float
    )
    sky = rising[:, :36]
    down = np.mean([np.abs(np.roll(sky[:-1], d, axis=1)[:, 10:] - sky[1:][:, 10:]).mean() for d in (7, 8)])
    up = np.mean([np.abs(np.roll(sky[:-1], -d, axis=1)[:, :26] - sky[1:][:, :26]).mean() for d in (7, 8)])
    assert down < up


def test_the_camera_never_comes_to_an_end(sprites: Sprites) -> None:
    endless = World(sprites).frames(Caption("car", "blue", "forest", "right", "quickly"), np.random.default_rng(2))
    seen = [next(endless) for _ in range(600)]
    late, early = np.stack(seen[-300:]).astype(float), np.stack(seen[:300]).astype(float)
    assert abs(late.mean() - early.mean()) < 3
    assert np.abs(seen[-1].astype(float) - seen[-2]).mean() > 1


def test_same_numbers_same_clip(sprites: Sprites) -> None:
    one, two = (
        World(sprites).clip(Caption("fish", "white", "ocean", "down", "slowly"), np.random.default_rng(3), 4)
        for _ in range(2)
    )
    assert (one == two).all()


def test_training_and_validation_share_no_scene() -> None:
    assert not set(TRAIN_VARIANTS) & set(HELD_OUT_VARIANTS)


def test_every_caption_is_made_of_known_words_and_says_everything() -> None:
    known, rng = set(vocabulary()), np.random.default_rng(4)
    world = World({})
    for _ in range(300):
        caption = world.draw_caption(rng)
        assert caption.motion in MOTIONS
        assert caption.speed in SPEEDS
        assert set(words(say(caption, rng))) <= known
        assert set(words(plain(caption))) <= known
        assert all(word in plain(caption) for word in (caption.subject, caption.colour))
        assert SCENES[caption.scene].words[0] in plain(caption)
