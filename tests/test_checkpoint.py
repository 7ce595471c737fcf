"""Checkpoints as files: whole or not there, few, and only ever taken for what they are."""

import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fifo_diffusion import api, checkpoint
from fifo_diffusion.checkpoint import Checkpoint, spare
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.devices import still_here
from fifo_diffusion.digest import NOTHING, link
from fifo_diffusion.errors import BadInput, RankLost
from fifo_diffusion.models.gauss import Gauss
from fifo_diffusion.sinks import read_frames

RUN = Run.of({"prompt": "-", "model": "gauss", "size": (16, 16), "partitions": 1, "frames": 14, "fps": 4})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The folder of a finished run of 14 frames, with checkpoints at 4, 8 and 12."""
    api.make(RUN, str(tmp_path / "a.mp4"), checkpoint_every=1e-9, keep_checkpoints=True)
    folder = tmp_path / "a.mp4.run"
    assert checkpoint.committed(folder) == [12, 8, 4]
    return folder


def test_a_run_goes_on_where_there_is_no_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, cpu = (resolve(RUN).model_copy(update={"device": name}) for name in ("cuda:3", "cuda:0", "cpu"))
    assert checkpoint.differences(one, other) == {}
    assert checkpoint.differences(one, cpu) == {"device": ("cuda", "cpu")}
    monkeypatch.setattr("fifo_diffusion.devices.available", lambda: ["cpu", "cuda:0", "cuda:1"])
    assert [still_here(name) for name in ("cuda:3", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]


def test_what_waits_on_a_device_for_a_lost_rank_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint before it serves: reading one from a device that waits would be to wait for ever."""
    committed: list[int] = []
    usual = checkpoint.commit

    def commit(folder: Path, one: Checkpoint) -> None:
        committed.append(one.frame)
        usual(folder, one)

    monkeypatch.setattr(checkpoint, "commit", commit)

    def lose(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == 11:
            raise RankLost("another rank is lost")

    for waits in (False, True):
        monkeypatch.setattr(Checkpoint, "on_device", waits)
        with pytest.raises(RankLost):
            api.make(RUN, str(tmp_path / f"{waits}.mp4"), watch=lose, checkpoint_every=1e9)
    assert committed == [8]
    whole = api.make(RUN, str(tmp_path / "whole.mp4"))
    assert api.resume(str(tmp_path / "True.mp4")).frames_sha256 == whole.frames_sha256


def test_few_are_kept_further_and_further_apart() -> None:
    kept: list[int] = []
    for n in range(1, 5001):
        kept.append(n)
        for gone in spare(kept):
            kept.remove(gone)
        assert len(kept) <= 2 * math.log2(n) + 3
        assert kept[0] == 1
        assert kept[-2:] == [n - 1, n][-len(kept) :]
    for frame in range(1, 5001):  # one is never further before a frame than twice the frame is before the end
        nearest = max(n for n in kept if n <= frame)
        assert frame - nearest <= 2 * (5000 - frame) + 2


def test_one_goes_when_its_neighbours_are_as_near_each_other_as_the_end_is() -> None:
    assert spare([0, 1, 2, 4]) == [1]
    assert spare([0, 1, 2, 3]) == []


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60))
def test_the_first_and_the_last_two_are_never_spared(frames: list[int]) -> None:
    left = sorted(set(frames) - set(spare(frames)))
    assert left[:1] == sorted(frames)[:1]
    assert left[-2:] == sorted(frames)[-2:]


def test_a_state_comes_back_bit_for_bit(made: Path) -> None:
    one, two = checkpoint.load(made, 8), checkpoint.load(made, 12)
    assert one is not None
    assert two is not None
    checkpoint.commit(made, one)
    again = checkpoint.load(made, 8)
    assert again is not None
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in one.tensors.items())
    assert (again.run, again.frame, again.skip) == (one.run, 8, 0)
    assert not torch.equal(one.tensors["queue"], two.tensors["queue"])
    assert sorted(file.name for file in made.iterdir() if "partial" in file.name) == []


def test_digests_tell_order_number_and_content() -> None:
    def of(*items: bytes) -> str:
        digest = NOTHING
        for item in items:
            digest = link(digest, item)
        return digest

    assert len({of(), of(b"ab"), of(b"a", b"b"), of(b"b", b"a"), of(b"", b"ab"), of(b"ab", b"")}) == 6


def test_a_damaged_checkpoint_is_passed_over_and_said(made: Path) -> None:
    file = made / "checkpoint-00000012.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    said: list[str] = []
    longer = api.resume(str(made), frames=20, warn=said.append)
    assert said == [f"the checkpoint of frame 12 in {made} is damaged; an earlier one is taken"]
    straight = api.make(RUN.model_copy(update={"frames": 20}), str(made.parent / "b.mp4"))
    assert longer.frames_sha256 == straight.frames_sha256


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"seed": 0', '"seed": 3', "seed is 0 in it, not 3"),
        ('"eta": 0.0', '"eta": 0.5', "eta is 0.0 in it, not 0.5"),
        ('"weights": ""', '"weights": "ab12"', "weights is '' in it, not 'ab12'"),
        ('"model": "gauss"', '"model": "embedded"', "model is 'gauss' in it, not 'embedded'"),
        ('"fifo_diffusion": "', '"fifo_diffusion": "0.0.', "is of fifo-diffusion 0.0."),
        ('"scale"', '"scales"', "was changed"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(made: Path, old: str, new: str, says: str) -> None:
    file = made / "run.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    before = (made.parent / "a.mp4").read_bytes()
    with pytest.raises(BadInput, match=says):
        api.resume(str(made), frames="+5")
    assert (made.parent / "a.mp4").read_bytes() == before


def test_what_a_kill_left_half_written_is_no_checkpoint_and_goes_with_the_next_that_go(made: Path) -> None:
    half = made / "checkpoint-00000016.safetensors.partial"
    half.write_bytes(b"half")
    assert checkpoint.committed(made) == [12, 8, 4]
    checkpoint.drop(made, [4])
    assert checkpoint.committed(made) == [12, 8]
    assert not half.exists()


def test_a_checkpoint_under_the_name_of_another_frame_is_refused(made: Path) -> None:
    (made / "checkpoint-00000012.safetensors").rename(made / "checkpoint-00000013.safetensors")
    with pytest.raises(BadInput, match="frame is 12 in it, not 13"):
        api.resume(str(made), frames="+5")


def test_other_weights_are_refused_and_another_machine_is_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (made / "run.json").read_text()
    (made / "run.json").write_text(text.replace('"torch": "', '"torch": "1.'))
    said: list[str] = []
    api.resume(str(made), frames="+1", warn=said.append)
    assert "torch was 1." in said[0]
    monkeypatch.setattr(Gauss, "weights", "f00d")
    with pytest.raises(BadInput, match="the weights of gauss are f00d"):
        api.resume(str(made), frames="+1")


def test_what_cannot_be_gone_on_with_is_one_sentence(made: Path, tmp_path: Path) -> None:
    api.make(RUN, str(tmp_path / "b.gif"))
    assert not (tmp_path / "b.gif.run").exists()
    for name, says in (
        ("b.gif", "only mp4, webm and folders of PNGs"),
        ("none.mp4", "there is no"),
        ("b.gif.json", "there is no run beside"),
    ):
        with pytest.raises(BadInput, match=says):
            api.resume(str(tmp_path / name))
    video = str(tmp_path / "a.mp4")
    for changes, says in (
        ({}, "it has all its 14 frames"),
        ({"frames": 9}, "it has 14 frames already, more than 9"),
        ({"frames": "many"}, "--frames is 'many'"),
        ({"frames": "+0"}, "--frames is"),
        ({"frames": "9.5"}, "--frames is"),
        ({"seconds": "-1"}, "--seconds is"),
        ({"frames": 20, "seconds": 9}, "give one of them"),
        ({"at_frame": 8}, "name it with -o"),
        ({"at_frame": 3, "output": str(tmp_path / "c.mp4")}, "those kept are at 4, 8, 12"),
        ({"output": str(tmp_path / "c.webm")}, "a name that ends in .mp4"),
        ({"output": video}, "which is kept as it is"),
    ):
        with pytest.raises(BadInput, match=says):
            api.resume(video, **changes)
    assert len(list(read_frames(video))) == 14
    assert not (tmp_path / "c.mp4").exists()


def test_a_video_that_was_changed_is_not_gone_on_with(made: Path) -> None:
    video = made.parent / "a.mp4"
    api.make(RUN.model_copy(update={"seed": 9}), str(made.parent / "b.mp4"))
    (made.parent / "b.mp4").replace(video)
    with pytest.raises(BadInput, match="was changed, replaced or moved"):
        api.resume(str(video), frames="+5")


def test_two_processes_do_not_write_one_video(made: Path) -> None:
    with checkpoint.locked(made), pytest.raises(BadInput, match="is in use"):
        api.resume(str(made), frames="+5")


def test_seconds_and_frames_are_lengths_in_all_or_more(made: Path) -> None:
    dice = random.Random(1)
    length = 14
    for frames, seconds, more in (("+3", None, 3), (None, "+2", 8), (None, "10", 15), (45, None, 5)):
        made_now = api.resume(str(made), frames=frames, seconds=seconds, checkpoint_every=dice.choice([0, 1e-9]))
        length += more
        assert made_now.frames_written == len(list(read_frames(made.parent / "a.mp4"))) == length
