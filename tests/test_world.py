"""The captioned world: what a caption says is what the pixels show.  Sprites are made here; no art is fetched."""

import os
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.embedded.text import words
from fifo_diffusion.world import backdrops, clips
from fifo_diffusion.world.art import COLOURS, SUBJECTS, Art, unpacked
from fifo_diffusion.world.backdrops import PAINTINGS, Backdrop
from fifo_diffusion.world.captions import plain, say, vocabulary
from fifo_diffusion.world.clips import HELD_OUT_VARIANTS, MOTIONS, SPEEDS, TRAIN_VARIANTS, Caption, World
from fifo_diffusion.world.kinds import LARGE, SMALL, Kind
from fifo_diffusion.world.layers import UNIT
from fifo_diffusion.world.scenes import SCENES, build
from fifo_diffusion.world.wake import leave_wake, wake


@pytest.fixture(scope="module")
def art() -> Art:
    """An invisible subject: what is left is the scene and its motion."""
    return Art({(s, c): np.zeros((30, 30, 4), np.float32) for s in SUBJECTS for c in COLOURS})


def agreement(clip: NDArray[np.uint8], dx: int, dy: int) -> float:
    """How well what moves in a frame, moved by (dx, dy), agrees with what moves in the next one: at most 1."""
    moving = clip - np.median(clip, axis=0)
    a, b = np.roll(moving[:-1], (dy, dx), axis=(1, 2))[:, 10:-10, 10:-10], moving[1:, 10:-10, 10:-10]
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@pytest.mark.parametrize(("motion", "dx", "dy"), [("left", 1, 0), ("right", -1, 0), ("up", 0, 1), ("down", 0, -1)])
def test_what_is_near_goes_by_the_other_way(art: Art, motion: str, dx: int, dy: int) -> None:
    world, rng = World(art, variants=HELD_OUT_VARIANTS), np.random.default_rng(0)
    clip = world.clip(Caption("balloon", "red", "desert", motion, "quickly"), rng, 12)
    there = max(agreement(clip, dx * d, dy * d) for d in (6, 7, 8, 9))
    back = max(agreement(clip, -dx * d, -dy * d) for d in (6, 7, 8, 9))
    assert there > 0.4
    assert there > back + 0.2


@pytest.mark.parametrize(("motion", "way"), [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1))])
def test_a_wake_lies_behind_and_goes_away_as_fast_as_the_subject_moves(motion: str, way: tuple[int, int]) -> None:
    assert MOTIONS[motion] == way
    size, step = 128, 10.0

    def puffs(come: float) -> NDArray[np.float64]:
        return np.array(list(wake(way, come, size)))[:, :2]

    behind = np.array([-way[0], -way[1]])
    for come in (0.0, 1_000.0):
        before, after = puffs(come), puffs(come + step)
        assert (before @ behind > 0).all()
        stay = before[(before @ behind) < size]  # further off they are forgotten, out of every view
        assert len(stay) >= 3
        for puff in stay + step * behind:
            assert np.abs(after - puff).sum(axis=1).min() < 1e-9
    picture = np.zeros((size, size, 3), np.float32)
    leave_wake(picture, (64, 64), way, step, np.ones(3, np.float32))
    rows, columns = np.nonzero(picture[..., 0] > 0.8)
    assert len(rows) > 200
    assert (np.stack([columns - 64, rows - 64], axis=1) @ behind > 0).all()


def test_the_speed_of_a_wake_can_be_told() -> None:
    """Puffs at equal distances would look the same after a step of one distance: a fast wake like a slow one."""
    places = np.sort([x for x, *_ in wake((-1, 0), 50_000.0, 128)])
    gaps = np.diff(places)
    assert gaps.min() > 4
    assert np.abs(gaps[:, None] - gaps[None])[~np.eye(len(gaps), dtype=bool)].min() > 0.1
    assert gaps.max() > 1.3 * gaps.min()


def test_any_part_of_a_wake_may_be_behind_a_clip_already(monkeypatch: pytest.MonkeyPatch) -> None:
    come: list[float] = []
    monkeypatch.setattr(clips, "leave_wake", lambda picture, middle, way, far, colour: come.append(far))
    world = World(Art({("pig", ""): np.zeros((1, 60, 60, 4), np.float32)}), LARGE.size, kind=LARGE)
    for seed in range(3):
        world.clip(Caption("pig", "", "farm", "up"), np.random.default_rng(seed), 2)
    assert len({round(far) for far in come[::2]}) == 3
    assert all(0 < after - before < 0.2 * LARGE.size for before, after in zip(come[::2], come[1::2], strict=True))


def test_what_stands_still_leaves_no_wake() -> None:
    """And the small world's subjects never do."""
    sprites = {("pig", ""): np.zeros((1, 60, 60, 4), np.float32), ("car", "red"): np.zeros((30, 30, 4), np.float32)}
    art = Art(sprites)

    def drawn(kind: Kind, subject: str, colour: str, motion: str, wakes: bool) -> NDArray[np.uint8]:
        world = World(art, kind.size, kind=replace(kind, wakes=wakes))
        return world.clip(Caption(subject, colour, "farm", motion), np.random.default_rng(4), 3)

    assert (drawn(LARGE, "pig", "", "still", True) == drawn(LARGE, "pig", "", "still", False)).all()
    assert (drawn(LARGE, "pig", "", "up", True) != drawn(LARGE, "pig", "", "up", False)).any()
    assert LARGE.wakes
    assert not SMALL.wakes


def test_still_scenes_stay(art: Art) -> None:
    still = World(art).clip(Caption("balloon", "red", "space", "still"), np.random.default_rng(1), 3)
    assert (still[0] == still[-1]).all()


def test_the_camera_never_comes_to_an_end(art: Art) -> None:
    endless = World(art).frames(Caption("car", "blue", "forest", "right", "quickly"), np.random.default_rng(2))
    seen = [next(endless) for _ in range(600)]
    late, early = np.stack(seen[-300:]).astype(float), np.stack(seen[:300]).astype(float)
    assert abs(late.mean() - early.mean()) < 3
    assert np.abs(seen[-1].astype(float) - seen[-2]).mean() > 1


NPM = """#!/bin/sh
echo "$3" >> "$FETCHED"
mkdir -p package/assets
echo picture > "package/assets/$3.webp"
tar cf "$3.tgz" package
echo "$3.tgz"
[ "$3" != "$BREAKS" ]
"""


def test_art_is_fetched_once_and_what_was_fetched_before_a_break_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for npm, for there may be no registry: it packs what it is asked for."""
    (tmp_path / "bin").mkdir()
    (npm := tmp_path / "bin" / "npm").write_text(NPM)
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FETCHED", str(tmp_path / "fetched"))
    monkeypatch.setenv("BREAKS", "two")
    files = [f"{name}.webp" for name in ("one", "two")]
    with pytest.raises(BadInput, match="the art package two could not be fetched with npm"):
        unpacked(tmp_path / "art", ("one", "two"), files)
    monkeypatch.setenv("BREAKS", "")
    pictures = unpacked(tmp_path / "art", ("one", "two"), files)
    assert unpacked(tmp_path / "art", ("one", "two"), files) == pictures
    assert (tmp_path / "fetched").read_text().split() == ["one", "two", "two"]
    assert sorted(file.name for file in pictures.glob("*.webp")) == files
    assert [file.name for file in (tmp_path / "art").iterdir()] == ["package"]  # no archive, and nothing half done
    (pictures / files[0]).unlink()
    with pytest.raises(BadInput, match=rf"lacks {files[0]}; delete that folder"):
        unpacked(tmp_path / "art", ("one", "two"), files)


def test_the_subject_is_where_it_is_said_to_be(art: Art) -> None:
    """Beside the same clip with a subject that cannot be seen."""
    square: NDArray[np.float32] = np.zeros((30, 30, 4), np.float32)
    square[5:25, 5:25] = (1, 0, 1, 1)
    caption = Caption("car", "red", "desert", "left")
    with_it, without = (
        World(shown).covered(caption, np.random.default_rng(3))
        for shown in (Art({**art.sprites, ("car", "red"): square}), art)
    )
    for (frame, cover), (bare, none) in islice(zip(with_it, without, strict=False), 3):
        assert not none.any()
        changed = np.abs(frame.astype(float) - bare).max(axis=2)
        assert 0.05 < (cover > 0.5).mean() < 0.4
        assert changed[cover == 0].max() == 0
        assert (changed[cover > 0.9] > 8).mean() > 0.95


def test_same_numbers_same_clip(art: Art) -> None:
    one, two = (
        World(art).clip(Caption("fish", "white", "ocean", "down", "slowly"), np.random.default_rng(3), 4)
        for _ in range(2)
    )
    assert (one == two).all()


def test_training_and_validation_share_no_scene() -> None:
    assert not set(TRAIN_VARIANTS) & set(HELD_OUT_VARIANTS)


def test_every_caption_is_made_of_known_words_and_says_everything() -> None:
    known, rng = {*vocabulary(), "an"}, np.random.default_rng(4)  # which the model leaves out
    world = World(Art({}))
    for _ in range(300):
        caption = world.draw_caption(rng)
        assert caption.motion in MOTIONS
        assert caption.speed in SPEEDS
        assert set(words(say(caption, rng))) <= known
        assert set(words(plain(caption))) <= known
        assert all(word in plain(caption) for word in (caption.subject, caption.colour))
        assert SCENES[caption.scene].words[0] in plain(caption)


def painted(horizon: float = 0.3) -> Backdrop:
    """A wall of grey bars over a ground of others, no two alike."""
    rng = np.random.default_rng(1)
    bars = [np.repeat(rng.integers(0, 256, 80), 5) for _ in range(2)]
    picture = np.stack([bars[y > horizon * UNIT] for y in range(UNIT)])
    return Backdrop((np.repeat(picture[..., None], 3, axis=2).astype(np.uint8),), horizon)


def test_a_painted_scene_goes_by_faster_the_nearer_it_is_and_never_ends() -> None:
    art = Art({("pig", ""): np.zeros((1, 60, 60, 4), np.float32)}, {"meadow": painted()})
    world, caption = World(art, 128, kind=LARGE), Caption("pig", "", "meadow", "right", "quickly")
    frames = np.stack(list(islice(world.frames(caption, np.random.default_rng(3)), 80)))[..., 0].astype(float)

    def step(row: int) -> int:
        """How far a row's picture goes by from one frame to the next."""

        def apart(by: int) -> float:
            return float(np.abs(frames[1:12, row, : 128 - by] - frames[:11, row, by:]).mean())

        return min(range(1, 20), key=apart)

    wall, ground, near = step(5), step(66), step(120)
    assert 0 < wall < ground < near
    assert near == pytest.approx(SPEEDS["quickly"] * 128, abs=2.5)
    assert wall == pytest.approx(0.3 * near, abs=1)
    assert (np.ptp(frames[:, 120], axis=1) > 60).all()  # nothing runs out: the picture is some 30 frames wide


def test_a_painted_scene_wants_its_backdrop() -> None:
    with pytest.raises(ValueError, match="'castle' is painted; give its backdrop"):
        build("castle", 64, 0, None)
    sky, layers = build("castle", 64, 0, painted())
    assert sky.shape == (64, 64, 3)
    assert len(layers) == 4
    assert (layers[0].view(0, 0, 64)[..., 3] == 1).all()  # the back hides the sky, what is nearer begins below it
    assert (layers[1].view(0, 0, 64)[:19, :, 3] == 0).all()


def a_wheel(folder: Path, pictures: Mapping[str, bytes]) -> str:
    """As pip takes it, under the name of the package that the backgrounds are packed in; its sha256."""
    info, tag = "procgen_mirror-0.10.7.dist-info/", "cp311-cp311-manylinux2014_x86_64"
    path = folder / f"procgen_mirror-0.10.7-{tag}.whl"
    with ZipFile(path, "w") as wheel:
        for name, held in pictures.items():
            wheel.writestr(f"procgen/data/assets/platform_backgrounds/{name}", held)
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: procgen-mirror\nVersion: 0.10.7\n")
        wheel.writestr(info + "WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        wheel.writestr(info + "RECORD", "")
    return sha256(path.read_bytes()).hexdigest()


def test_backgrounds_are_fetched_once_with_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder of wheels instead of an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    files = [file for painting in PAINTINGS.values() for file in painting.files]
    with pytest.raises(BadInput, match=r"could not be fetched with pip .*procgen-mirror.*put battleback"):
        backdrops.fetch(tmp_path / "art")
    made = a_wheel(tmp_path, {file: file.encode() for file in files} | {"other.png": b""})
    with pytest.raises(BadInput, match="DO NOT MATCH THE HASHES"):  # it is not the one that is known
        backdrops.fetch(tmp_path / "art")
    monkeypatch.setattr(backdrops, "ARCHIVE", made)
    backdrops.fetch(tmp_path / "art")
    assert {file.name: file.read_text() for file in (tmp_path / "art").iterdir()} == {file: file for file in files}
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "art"))
    backdrops.fetch(tmp_path / "art")  # nothing is asked for again
