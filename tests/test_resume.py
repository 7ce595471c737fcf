"""A video that was stopped, killed, starved of disk or moved, and gone on with, is the one never stopped."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fifo_diffusion as fifo
from fifo_diffusion import api, checkpoint, making, sidecar
from fifo_diffusion.cli.running import _kept
from fifo_diffusion.config import Cue, Decided, Run
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.interrupt import uninterrupted
from fifo_diffusion.job import Job
from fifo_diffusion.names import Frame, Watch
from fifo_diffusion.session import Session
from fifo_diffusion.sinks import VideoSink, open_sink, read_frames, video
from fifo_diffusion.sinks import folder as pictures
from fifo_diffusion.sinks.folder import PngSink

ROOT = Path(__file__).parents[1]
RUN = Run.of({"prompt": "-", "model": "gauss", "size": (16, 16), "partitions": 1, "fps": 4})
OFTEN = 1e-9  # seconds: a checkpoint wherever there can be one


def run_of(frames: int, fps: float = 4) -> Run:
    return RUN.model_copy(update={"frames": frames, "fps": fps})


def stop_at(frame: int) -> Watch:
    """Ctrl-C when a frame comes out."""

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == frame:
            raise KeyboardInterrupt

    return watch


def content(output: Path) -> dict[str, bytes]:
    """The bytes of a video, or of the pictures of a folder."""
    files = sorted(output.glob("*.png")) if output.is_dir() else [output]
    return {file.name if output.is_dir() else "video": file.read_bytes() for file in files}


@cache
def straight(kind: str, frames: int, fps: float) -> tuple[dict[str, bytes], str]:
    """What a run gives that is never stopped, and the digest of its frames."""
    with TemporaryDirectory() as folder:
        made = api.make(run_of(frames, fps), f"{folder}/straight{kind}", checkpoint_every=0)
        return content(Path(folder) / f"straight{kind}"), made.frames_sha256


@settings(max_examples=14)
@given(
    kind=st.sampled_from([".mp4", ".webm", ""]),
    fps=st.sampled_from([1 / 2, 4.0, 12.5]),
    stops=st.lists(st.integers(1, 40), max_size=3),
    every=st.sampled_from([OFTEN, 3600.0]),
    fork=st.none() | st.integers(0, 40),
)
def test_whatever_the_schedule_of_stops_and_forks_the_frames_and_the_files_are_the_same(
    kind: str, fps: float, stops: list[int], every: float, fork: int | None
) -> None:
    with TemporaryDirectory() as folder:
        output = Path(folder) / f"a{kind}"
        how: dict[str, Any] = {"checkpoint_every": every, "keep_checkpoints": True}
        for frame in [*stops, 0]:  # the last is never stopped
            there = api.left(str(output))
            if there is not None and there[1].whole == 40:  # it was stopped after its last frame
                break
            with suppress(KeyboardInterrupt):
                if there is None:
                    api.make(run_of(40, fps), str(output), watch=stop_at(frame), **how)
                else:
                    api.resume(str(output), watch=stop_at(frame), **how)
        assert content(output) == straight(kind, 40, fps)[0]
        beside = sidecar.path_beside(str(output))
        assert beside is not None
        assert sidecar.read(beside).frames_sha256 == straight(kind, 40, fps)[1]
        kept = checkpoint.committed(checkpoint.find(str(output)))
        if fork is not None and any(frame <= fork for frame in kept):
            other = api.resume(str(output), at_frame=fork, output=f"{folder}/b{kind}", frames=45)
            assert other.frames_sha256 == straight(kind, 45, fps)[1]
            videos = content(Path(f"{folder}/b{kind}"))
            if kind:  # a folder's pictures say what was asked when each was made
                assert videos == straight(kind, 45, fps)[0]
            assert content(output) == straight(kind, 40, fps)[0]


def test_the_embedded_model_goes_on_bit_for_bit(tmp_path: Path) -> None:
    said = {"prompt": "a red balloon drifting right", "partitions": 1, "guidance": 1.0, "frames": 5, "fps": 2}
    whole = api.make(Run.of({**said, "eta": 1.0}), str(tmp_path / "a.mp4"), checkpoint_every=0)
    with pytest.raises(KeyboardInterrupt):
        api.make(Run.of({**said, "eta": 1.0}), str(tmp_path / "b.mp4"), watch=stop_at(4))
    stopped = sidecar.read(tmp_path / "b.mp4.json")
    assert stopped.frames_written == 3
    assert fifo.resume(tmp_path / "b.mp4").frames_sha256 == whole.frames_sha256
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_file_that_begins_with_a_clip_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """The clip's frames are the file's and not the stream's; 3 of them, so that no piece of the file ends with them."""
    clip = tmp_path / "clip"
    clip.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (40 + 60 * i, 90, 200)).save(clip / f"frame_{i}.png")
    said = {"prompt": "a red balloon drifting right", "partitions": 1, "guidance": 1.0, "fps": 2, "clip": str(clip)}
    whole = api.make(Run.of({**said, "frames": 6}), str(tmp_path / "a.mp4"), checkpoint_every=0)
    with pytest.raises(KeyboardInterrupt):
        api.make(Run.of({**said, "frames": 6}), str(tmp_path / "b.mp4"), watch=stop_at(5))
    stopped = sidecar.read(tmp_path / "b.mp4.json")
    assert (stopped.clip_frames, stopped.frames_written) == (3, 4)
    assert [
        frame for frame in checkpoint.committed(tmp_path / "b.mp4.run") if frame > 3
    ]  # the clip is not all there is
    made = api.resume(str(tmp_path / "b.mp4"))
    assert (made.clip_frames, made.frames_written) == (3, 6)
    assert made.frames_sha256 == whole.frames_sha256
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    longer = api.resume(str(tmp_path / "b.mp4"), frames="+2")
    assert longer.frames_written == 8
    assert len(list(read_frames(tmp_path / "b.mp4"))) == 11


def test_a_run_in_is_not_made_again(tmp_path: Path) -> None:
    """Killed, as it were, in the run-in: what is left has no frame yet, but the state of the queue.  And stopped there
    again: it was told to be another video then.
    """
    heard: list[str] = []

    def watch(stage: str, done: int, total: int) -> None:
        heard.append(stage)
        if stage == "run-in" and done == 40:
            for file in [*folder.iterdir(), tmp_path / "a.partial.mp4"]:
                (kept / file.name).write_bytes(file.read_bytes())
            raise KeyboardInterrupt

    folder, kept = tmp_path / "a.mp4.run", tmp_path / "kept"
    kept.mkdir()
    run = run_of(9).model_copy(update={"partitions": 4})
    with pytest.raises(KeyboardInterrupt):
        api.make(run, str(tmp_path / "a.mp4"), checkpoint_every=OFTEN, watch=watch)
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]  # Ctrl-C before the first frame leaves nothing
    folder.mkdir()
    for file in kept.iterdir():
        file.replace((tmp_path if file.suffix == ".mp4" else folder) / file.name)
    before = checkpoint.description(folder)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "run-in" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.resume(str(tmp_path / "a.partial.mp4"), checkpoint_every=OFTEN, watch=stop)
    assert checkpoint.description(folder) == before
    heard.clear()
    made = api.resume(str(tmp_path / "a.partial.mp4"), watch=lambda stage, done, total: heard.append(stage))
    assert "base clip" not in heard
    assert 0 < heard.count("run-in") <= 6
    assert made.frames_sha256 == api.make(run, str(tmp_path / "b.mp4")).frames_sha256
    assert not (tmp_path / "a.partial.mp4").exists()


def test_an_endless_video_is_stopped_made_longer_and_forked_with_another_prompt(tmp_path: Path) -> None:
    video, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with pytest.raises(KeyboardInterrupt):
        api.make(run_of(0), str(video), checkpoint_every=OFTEN, watch=stop_at(31))
    assert len(list(read_frames(video))) == 30
    with pytest.raises(KeyboardInterrupt):  # less than there was: that is kept
        api.resume(str(video), watch=stop_at(29))
    assert len(list(read_frames(video))) == sidecar.read(tmp_path / "a.mp4.json").frames_written == 30
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "a.mp4.json", "a.mp4.run"]
    made = api.resume(str(video), frames="+6")
    assert made.frames_sha256 == straight(".mp4", 36, 4)[1]
    forked = api.resume(str(video), at_frame=37, output=str(other), prompt="1", frames=60)
    assert forked.run.prompt == "-"
    assert [cue.prompt for cue in forked.run.cues] == ["-", "1"]  # what had entered the queue hears what it heard
    assert len(list(read_frames(video))) == 36
    assert len(list(read_frames(other))) == 60
    assert checkpoint.description(tmp_path / "b.mp4.run").run.cues == forked.run.cues
    again = api.make(forked.run, str(tmp_path / "c.mp4"))  # told from the start, the same
    assert again.frames_sha256 == forked.frames_sha256


def test_a_finished_video_keeps_its_last_checkpoint_and_one_without_keeps_none(tmp_path: Path) -> None:
    api.make(run_of(22), str(tmp_path / "a.mp4"), checkpoint_every=OFTEN)
    assert checkpoint.committed(tmp_path / "a.mp4.run") == [20]
    api.make(run_of(22), str(tmp_path / "b.mp4"))  # sooner done than the first is due
    assert checkpoint.committed(tmp_path / "b.mp4.run") == [20]
    api.make(run_of(5), str(tmp_path / "a.mp4"), checkpoint_every=0)
    assert not (tmp_path / "a.mp4.run").exists()
    with pytest.raises(BadInput, match="--checkpoint-every off"):
        api.resume(str(tmp_path / "a.mp4"))


def killed(folder: Path, frames: int = 300) -> None:
    """A run of many frames in a process of its own, killed when it has a checkpoint."""
    script = f"""
from pathlib import Path
from fifo_diffusion import api
from fifo_diffusion.config import Decided, Run
api.make(Run.of({run_of(frames).model_dump()!r}), "a.mp4", checkpoint_every=0.05)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=folder)
    deadline = time.monotonic() + 120
    while not list(folder.glob("a.mp4.run/checkpoint-000000[1-9]?.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL


def as_a_kill_left_it(folder: Path, name: str, frames: int) -> Path:
    """A video of 40 frames when it had so many, its run beside it, in a folder of its own."""
    making = folder / "making"
    making.mkdir()

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == frames:
            shutil.copytree(making, folder / "killed")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.make(run_of(40), str(making / name), checkpoint_every=OFTEN, watch=watch)
    return folder / "killed"


@pytest.mark.parametrize("name", ["a.mp4", "live"])
def test_frames_that_are_not_as_they_were_are_not_written_over(name: str, tmp_path: Path) -> None:
    """A picture that was cleared away, or a bit that was lost, takes no more than itself."""
    there = as_a_kill_left_it(tmp_path, name, 23)
    shutil.copytree(there, whole := tmp_path / "whole")
    if name == "live":
        (there / name / "frame_000000.png").unlink()
    else:
        coded = bytearray((there / "a.partial.mp4").read_bytes())
        coded[coded.index(b"mdat") + 400] ^= 1
        (there / "a.partial.mp4").write_bytes(coded)
    before = {file: file.read_bytes() for file in there.rglob("*") if file.is_file()}
    with pytest.raises(BadInput, match=r"does not hold the frames before its checkpoint of frame \d+, nor"):
        api.resume(str(there / name))
    assert {file: file.read_bytes() for file in there.rglob("*") if file.is_file()} == before
    api.resume(str(whole / name))
    assert content(whole / name) == straight(Path(name).suffix, 40, 4)[0]


def test_a_copy_of_a_run_that_goes_on_under_another_name_is_a_video_of_its_own(tmp_path: Path) -> None:
    """Also while the first is being made: the copy takes nothing of it."""
    there = as_a_kill_left_it(tmp_path, "a.mp4", 23)
    shutil.copytree(there / "a.mp4.run", there / "b.mp4.run")
    with pytest.raises(BadInput, match=r"b\.partial\.mp4 is not there"):
        api.resume(str(there / "b.mp4.run"))
    shutil.copy(there / "a.partial.mp4", there / "b.partial.mp4")
    before = {file: file.read_bytes() for file in there.rglob("a.*") if file.is_file()}
    assert api.resume(str(there / "b.mp4")).frames_sha256 == straight(".mp4", 40, 4)[1]
    assert {file: file.read_bytes() for file in there.rglob("a.*") if file.is_file()} == before
    assert content(there / "b.mp4") == straight(".mp4", 40, 4)[0]
    assert not (there / "b.partial.mp4").exists()
    for suffix in ("", ".run", ".json"):
        (there / f"b.mp4{suffix}").rename(there / f"c.mp4{suffix}")
    assert api.resume(str(there / "c.mp4"), frames="+10").frames_written == 50
    assert len(list(read_frames(there / "c.mp4"))) == 50
    assert not (there / "b.mp4").exists()


def test_a_file_that_was_taken_away_is_missed_and_not_begun_again(tmp_path: Path) -> None:
    there = as_a_kill_left_it(tmp_path, "a.mp4", 23)
    (there / "a.partial.mp4").rename(tmp_path / "elsewhere.mp4")
    kept = checkpoint.committed(there / "a.mp4.run")
    with pytest.raises(BadInput, match=r"a\.partial\.mp4 is not there, which held the frames up to \d+; put it back"):
        api.resume(str(there / "a.mp4"))
    assert checkpoint.committed(there / "a.mp4.run") == kept
    (tmp_path / "elsewhere.mp4").rename(there / "a.partial.mp4")
    assert api.resume(str(there / "a.mp4")).frames_sha256 == straight(".mp4", 40, 4)[1]


def test_a_run_may_lie_on_another_disk(tmp_path: Path) -> None:
    """A link to it stands beside its video."""
    there = as_a_kill_left_it(tmp_path, "a.mp4", 23)
    (tmp_path / "scratch").mkdir()
    (there / "a.mp4.run").rename(tmp_path / "scratch" / "a.mp4.run")
    (there / "a.mp4.run").symlink_to(tmp_path / "scratch" / "a.mp4.run")
    assert api.resume(str(there / "a.mp4")).frames_sha256 == straight(".mp4", 40, 4)[1]
    assert api.resume(str(there / "a.mp4"), frames="+1").frames_written == 41


def test_a_folder_that_was_told_a_crf_goes_on_without(tmp_path: Path) -> None:
    """It was taken, and said nothing, before it was refused."""
    killed_at = tmp_path / "frames"
    api.make(run_of(8), str(killed_at), checkpoint_every=OFTEN, keep_checkpoints=True)
    told = killed_at / "fifo.run" / "run.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"crf": 20}))
    assert api.resume(str(killed_at), frames="+2").frames_written == 10


def test_a_run_is_gone_on_with_from_inside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = as_a_kill_left_it(tmp_path, "a.mp4", 23)
    monkeypatch.chdir(there / "a.mp4.run")
    assert api.resume(".").frames_sha256 == straight(".mp4", 40, 4)[1]
    assert content(there / "a.mp4") == straight(".mp4", 40, 4)[0]


def test_a_pipe_that_breaks_for_whoever_watches_is_no_end_of_the_video(tmp_path: Path) -> None:
    def watch(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == 5:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        api.make(run_of(40), str(tmp_path / "a.mp4"), watch=watch)
    assert api.resume(str(tmp_path / "a.mp4")).frames_sha256 == straight(".mp4", 40, 4)[1]


def test_pictures_may_be_taken_away_while_they_are_made(tmp_path: Path) -> None:
    """By a player that shows them, say; of those the run cannot be gone on with, and says so."""

    def watch(stage: str, done: int, total: int) -> None:
        for picture in (tmp_path / "live").glob("frame_*.png"):
            picture.unlink()

    made = api.make(run_of(40), f"{tmp_path}/live/", watch=watch)
    assert made.frames_sha256 == straight("", 40, 4)[1]


def test_pictures_that_are_gone_on_with_are_not_put_to_disk_again_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = as_a_kill_left_it(tmp_path, "live", 23)
    (there / "live" / "frame_000003 (copy).png").write_bytes(b"")
    synced: list[str] = []
    monkeypatch.setattr(pictures, "to_disk", lambda path: synced.append(path.name))
    api.resume(str(there / "live"), checkpoint_every=OFTEN)
    assert "frame_000030.png" in synced
    assert "frame_000003.png" not in synced
    assert (there / "live" / "frame_000003 (copy).png").exists()
    assert (there / "live" / "frame_000039.png").exists()


def test_a_part_of_a_frame_more_is_a_frame_and_not_without_end(tmp_path: Path) -> None:
    there = as_a_kill_left_it(tmp_path, "a.mp4", 23)

    def watch(stage: str, done: int, total: int) -> None:
        assert done < 60, "without end"

    with pytest.raises(BadInput, match=r"it has \d+ frames already, more than 1"):
        api.resume(str(there / "a.mp4"), seconds="0.1", watch=watch)


def test_what_a_kill_left_is_not_overwritten_by_a_new_run_of_the_same_name(tmp_path: Path) -> None:
    killed(tmp_path)
    before = sorted(file.name for file in tmp_path.iterdir())
    assert before == ["a.mp4.run", "a.partial.mp4"]
    with pytest.raises(BadInput, match=r"`fifo resume .*a.mp4` goes on with it"):
        api.make(run_of(3), str(tmp_path / "a.mp4"))
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert _kept(str(tmp_path / "a.mp4"), 0).startswith(
        "what there was of it is in a.partial.mp4; go on with: fifo resume"
    )
    elsewhere = tmp_path / "elsewhere"  # all of it can be moved
    elsewhere.mkdir()
    for name in before:
        (tmp_path / name).rename(elsewhere / name)
    made = api.resume(str(elsewhere / "a.partial.mp4"))
    assert made.frames_sha256 == straight(".mp4", 300, 4)[1]
    assert content(elsewhere / "a.mp4") == straight(".mp4", 300, 4)[0]


def test_runs_that_are_killed_again_and_again_come_out_the_same() -> None:
    """A modest number of kills; `python benchmarks/kill.py` does many."""
    command = [sys.executable, str(ROOT / "benchmarks/kill.py"), "--kills", "9", "--seed", str(time.time_ns() % 1000)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert sum(row["kills"] for row in rows) == 9
    assert [row["identical"] for row in rows] == ["yes"] * 3


@pytest.mark.parametrize("name", ["a.mp4", "a"])
def test_of_two_runs_of_one_name_begun_at_once_the_second_is_refused_and_the_first_unharmed(
    tmp_path: Path, name: str
) -> None:
    output = tmp_path / name
    passed, first = Event(), Event()
    refused: list[BaseException] = []

    def wait(session: Session) -> None:  # it has found the name free
        passed.set()
        assert first.wait(60)

    def second() -> None:
        try:
            api.make(run_of(5), str(output), ready=wait)
        except BaseException as error:
            refused.append(error)

    thread = Thread(target=second)
    thread.start()
    assert passed.wait(60)

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == 1:  # before its first picture
            first.set()
            thread.join()

    made = api.make(run_of(12), str(output), checkpoint_every=OFTEN, watch=watch)
    assert [type(error) for error in refused] == [BadInput]
    assert "is in use: its video is being made by another process" in str(refused[0])
    assert made.frames_sha256 == straight(output.suffix, 12, 4)[1]
    assert content(output) == straight(output.suffix, 12, 4)[0]
    assert sorted(file.name for file in tmp_path.iterdir() if "partial" in file.name) == []
    assert api.resume(str(output), frames="+3").frames_sha256 == straight(output.suffix, 15, 4)[1]


def test_a_run_without_checkpoints_leaves_those_of_another_that_began_meanwhile(tmp_path: Path) -> None:
    output = tmp_path / "a.mp4"
    there, go = Event(), Event()

    def hold(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == 3:
            there.set()
            assert go.wait(60)

    def kept() -> None:
        api.make(run_of(12), str(output), checkpoint_every=OFTEN, watch=hold)

    def without(session: Session) -> None:  # it has found the name free
        thread.start()
        assert there.wait(60)

    thread = Thread(target=kept)
    api.make(run_of(3), str(output), checkpoint_every=0, ready=without)
    assert (tmp_path / "a.mp4.run" / "run.json").exists()
    go.set()
    thread.join()
    assert api.resume(str(output), frames="+3").frames_sha256 == straight(".mp4", 15, 4)[1]


def test_a_folder_that_another_has_begun_in_stays_when_no_picture_came(tmp_path: Path) -> None:
    with open_sink(str(tmp_path / "a"), fps=4, size=(16, 16)):
        (tmp_path / "a" / "fifo.run").mkdir()
    assert (tmp_path / "a" / "fifo.run").is_dir()


@pytest.mark.parametrize("name", ["a.mp4", "a"])
@pytest.mark.parametrize("fork", [False, True])
def test_ctrl_c_while_the_frames_before_are_copied_leaves_all_as_it_was(
    tmp_path: Path, name: str, fork: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.make(run_of(12), str(tmp_path / name), checkpoint_every=OFTEN)
    before, names = content(tmp_path / name), sorted(file.name for file in tmp_path.iterdir())
    changes: dict[str, Any] = {"frames": "+3"} | ({"output": str(tmp_path / f"b{name[1:]}")} if fork else {})

    def interrupted(*given: Any, **said: Any) -> None:
        raise KeyboardInterrupt

    def at_the_third(self: PngSink, number: int, coded: bytes) -> None:
        if number == 2:
            raise KeyboardInterrupt
        keep(self, number, coded)

    keep = PngSink._keep
    with monkeypatch.context() as patched:
        patched.setattr(VideoSink, "_copy", interrupted)
        patched.setattr(PngSink, "_keep" if fork else "_go_on", at_the_third if fork else interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.resume(str(tmp_path / name), **changes)
    assert content(tmp_path / name) == before
    assert [file.name for file in sorted(tmp_path.iterdir()) if file.name != "b"] == names
    assert api.resume(str(tmp_path / name), **changes).frames_sha256 == straight(Path(name).suffix, 15, 4)[1]


def test_a_lock_that_was_taken_away_meanwhile_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    folder, lock = tmp_path / "a.mp4.run", fcntl.flock
    takings: list[int] = []

    def slow(file: Any, how: int) -> None:  # the one before takes the folder away as it ends
        if not takings:
            shutil.rmtree(folder)
        takings.append(how)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with checkpoint.locked(folder, new=True):
        assert len(takings) == 2
        with pytest.raises(BadInput, match="is in use"), checkpoint.locked(folder):
            pass


def test_a_kill_while_the_index_is_moved_leaves_nothing_behind(tmp_path: Path) -> None:
    """The half copy was named after the file that was copied, and a run that goes on copies another one."""
    script = """if True:
        import kill, pathlib
        assert kill.attempt("a.mp4", False, None, "index", 40)
        print(*sorted(file.name for file in pathlib.Path().iterdir()))
        kill.go("a.mp4", resume=True)
    """
    path = [str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert ".a.partial.mp4.plain" in done.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "a.mp4.json", "a.mp4.run"]


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_a_kill_between_the_sidecar_and_the_end_of_the_run_costs_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A run that called itself whole before its sidecar stood there could not be gone on with, nor be believed."""
    output, usual = tmp_path / name, checkpoint.describe

    def describe(folder: Path, said: checkpoint.Description) -> None:
        if said.whole is not None:
            raise SystemExit  # in place of a kill
        usual(folder, said)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "describe", describe)
        with pytest.raises(SystemExit):
            api.make(run_of(40), str(output), checkpoint_every=OFTEN)
    beside, there = sidecar.path_beside(str(output)), api.left(str(output))
    assert beside is not None
    assert sidecar.read(beside).frames_sha256 == straight(output.suffix, 40, 4)[1]
    assert there is not None
    assert there[1].whole is None
    api.resume(str(output))
    assert content(output) == straight(output.suffix, 40, 4)[0]
    assert sidecar.read(beside).frames_sha256 == straight(output.suffix, 40, 4)[1]


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_a_full_disk_leaves_what_is_needed_to_go_on(tmp_path: Path, name: str) -> None:
    """A limit on the size of files stands for the full disk (for pictures: one of no room at all)."""
    output = tmp_path / name
    said: list[str] = []
    usual, blocked = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == 41:
            room = output.with_name("a.partial.mp4").stat().st_size + 9000 if name == "a.mp4" else 100
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, usual[1]))

    try:
        with pytest.raises(OutputError, match=r"cannot (go on writing|write) .*File too large"):
            api.make(run_of(120), str(output), checkpoint_every=OFTEN, watch=fill, warn=said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, blocked)
    assert len(said) <= 1  # that no checkpoint can be written either, once
    assert not (tmp_path / "a.mp4").exists()
    assert checkpoint.committed(checkpoint.find(str(output)))[0] >= 32
    made = api.resume(str(output))
    kind = output.suffix
    assert made.frames_sha256 == straight(kind, 120, 4)[1]
    assert content(output) == straight(kind, 120, 4)[0]


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_a_folder_that_is_moved_away_is_said_and_the_run_goes_on_there(tmp_path: Path, name: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()

    def move(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == 41:
            here.rename(there)

    with pytest.raises(OutputError, match=r"has gone|No such file"):
        api.make(run_of(120), str(here / name), checkpoint_every=OFTEN, watch=move)
    assert not here.exists()
    made = api.resume(str(there / name))
    kind = (there / name).suffix
    assert made.frames_sha256 == straight(kind, 120, 4)[1]
    assert content(there / name) == straight(kind, 120, 4)[0]


def test_checkpoints_that_cannot_be_written_are_said_and_the_video_goes_on(tmp_path: Path) -> None:
    said: list[str] = []

    def delete(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done in (9, 29):
            shutil.rmtree(tmp_path / "a.mp4.run")
        if stage == "streaming" and done == 19:
            (tmp_path / "a.mp4.run").mkdir()

    made = api.make(run_of(40), str(tmp_path / "a.mp4"), checkpoint_every=OFTEN, watch=delete, warn=said.append)
    assert len(said) == 2  # once each time that it begins
    assert all("no checkpoint could be written" in text for text in said)
    assert made.frames_sha256 == straight(".mp4", 40, 4)[1]
    assert content(tmp_path / "a.mp4") == straight(".mp4", 40, 4)[0]


def test_what_is_said_meanwhile_is_stored_with_the_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Session.described` tells it: a stream that hears more, as it goes on, describes itself by more."""
    usual = Session.described

    def described(session: Session) -> Decided:
        frame = session.trail.given
        return usual(session).model_copy(update={"prompt": f"from {frame // 10 * 10}"})

    monkeypatch.setattr(Session, "described", described)
    folder = tmp_path / "a.mp4.run"
    with pytest.raises(KeyboardInterrupt):
        api.make(run_of(0), str(tmp_path / "a.mp4"), checkpoint_every=OFTEN, watch=stop_at(27))
    assert checkpoint.description(folder).run.prompt == "from 20"
    assert sidecar.read(tmp_path / "a.mp4.json").run.prompt == "from 20"
    prompts = [found.run.prompt for n in checkpoint.committed(folder) if (found := checkpoint.load(folder, n))]
    assert prompts[0] == "from 20"
    assert {"from 0", "from 10"} <= set(prompts)


def test_what_is_said_live_is_there_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill finds it, before the next checkpoint; also where the disk was full for a moment."""
    video, kept, sessions = tmp_path / "a.mp4", tmp_path / "kept", list[Session]()
    usual, warned, full = checkpoint.describe, list[str](), [OutputError("the disk is full")]

    def describe(folder: Path, description: checkpoint.Description) -> None:
        if description.run.cues and full:
            raise full.pop()
        usual(folder, description)

    def look(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == 8:
            assert sessions[0].prompts.say("3") == 23
        if stage == "streaming" and done == 11:
            shutil.copytree(tmp_path / "a.mp4.run", kept / "a.mp4.run")
            shutil.copy(tmp_path / "a.partial.mp4", kept)

    monkeypatch.setattr(checkpoint, "describe", describe)
    made = api.make(
        run_of(30), str(video), checkpoint_every=OFTEN, watch=look, ready=sessions.append, warn=warned.append
    )
    assert len(warned) == 1
    assert checkpoint.committed(kept / "a.mp4.run")[0] == 4
    assert api.resume(str(kept / "a.partial.mp4")).frames_sha256 == made.frames_sha256


def test_a_signal_waits_for_the_end_of_a_step() -> None:
    steps: list[str] = []

    def work() -> Iterator[str]:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            yield "whole"
        yield "after"

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    try:
        with suppress(KeyboardInterrupt):
            steps.extend(work())
            steps.append("not stopped")
        assert steps == ["whole"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_frame_that_is_being_written_when_a_signal_comes_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = VideoSink.write

    def write(self: VideoSink, frame: Frame) -> None:
        real(self, frame)
        if self.frames == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(VideoSink, "write", write)
    with ctrl_c_is_heard():
        api.make(run_of(20), str(tmp_path / "a.mp4"))
    assert sidecar.read(tmp_path / "a.mp4.json").frames_written == len(list(read_frames(tmp_path / "a.mp4"))) == 6


@contextmanager
def ctrl_c_is_heard() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_the_file_is_closed_leaves_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def index(partial: Path, plain: Path) -> None:
        signal.raise_signal(signal.SIGINT)
        real(partial, plain)

    real = video._index_in_front
    monkeypatch.setattr(video, "_index_in_front", index)
    with ctrl_c_is_heard():
        api.make(run_of(12), str(tmp_path / "a.mp4"))
    monkeypatch.undo()
    assert content(tmp_path / "a.mp4") == straight(".mp4", 12, 4)[0]
    assert not (tmp_path / "a.partial.mp4").exists()
    assert api.resume(str(tmp_path / "a.mp4"), frames="+3").frames_sha256 == straight(".mp4", 15, 4)[1]


@pytest.mark.parametrize("name", ["a.mp4", "a"])
def test_a_fork_may_be_shorter_than_the_video_it_begins_like(tmp_path: Path, name: str) -> None:
    api.make(run_of(40), str(tmp_path / name), checkpoint_every=OFTEN, keep_checkpoints=True)
    fork = tmp_path / f"b{name[1:]}"
    made = api.resume(str(tmp_path / name), at_frame=10, output=str(fork), frames=20)
    assert made.frames_sha256 == straight(Path(name).suffix, 20, 4)[1]
    assert len(list(read_frames(fork))) == 20
    stopped = tmp_path / f"c{name[1:]}"
    with pytest.raises(KeyboardInterrupt):
        api.resume(str(tmp_path / name), at_frame=10, output=str(stopped), frames=60, watch=stop_at(12))
    assert len(list(read_frames(stopped))) > 10
    assert api.resume(str(stopped)).frames_sha256 == straight(Path(name).suffix, 60, 4)[1]


def test_a_new_video_killed_before_its_first_checkpoint_goes_on_though_a_longer_one_had_the_name(
    tmp_path: Path,
) -> None:
    api.make(run_of(40), str(tmp_path / "a.mp4"))
    script = f"""
import os, signal
from fifo_diffusion import api
from fifo_diffusion.config import Run
def watch(stage, done, total):
    if stage == "streaming" and done == 6:
        os.kill(os.getpid(), signal.SIGKILL)
api.make(Run.of({run_of(12).model_dump()!r}), "a.mp4", watch=watch)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path).returncode == -signal.SIGKILL
    assert api.resume(str(tmp_path / "a.mp4"), checkpoint_every=OFTEN).frames_sha256 == straight(".mp4", 12, 4)[1]
    assert content(tmp_path / "a.mp4") == straight(".mp4", 12, 4)[0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "a.mp4.json", "a.mp4.run"]
    assert not (tmp_path / "a.mp4.run" / "replaced").exists()


def test_a_name_given_by_mistake_takes_nothing_from_the_video_that_has_it(tmp_path: Path) -> None:
    api.make(run_of(12), str(tmp_path / "a.mp4"), checkpoint_every=OFTEN)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.name != "lock"}

    def early(stage: str, done: int, total: int) -> None:
        if stage == "base clip":
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            api.make(run_of(300), str(tmp_path / "a.mp4"), watch=early)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.name != "lock"} == before
    assert api.resume(str(tmp_path / "a.mp4"), frames="+3").frames_sha256 == straight(".mp4", 15, 4)[1]


def test_a_new_video_without_checkpoints_that_is_stopped_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    api.make(run_of(20), str(tmp_path / "a.mp4"))
    with pytest.raises(KeyboardInterrupt):
        api.make(
            run_of(12).model_copy(update={"seed": 1}), str(tmp_path / "a.mp4"), checkpoint_every=0, watch=stop_at(8)
        )
    assert len(list(read_frames(tmp_path / "a.mp4"))) == 7
    assert api.left(str(tmp_path / "a.mp4")) is None


def test_a_folder_of_pictures_goes_on_where_torchrun_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start, watch in (("1", stop_at(6)), ("2", stop_at(0))):
        for module in (api, making):
            monkeypatch.setattr(module, "job", lambda start=start: Job("one", start, None))
        with suppress(KeyboardInterrupt):
            made = api.make(run_of(12), str(tmp_path / "a"), watch=watch)
    assert made.frames_sha256 == straight("", 12, 4)[1]


def test_a_disk_that_knows_no_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(file: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OutputError, match=r"cannot be locked \(No locks available\).*--checkpoint-every off"):
        api.make(run_of(3), str(tmp_path / "a.mp4"))
    api.make(run_of(3), str(tmp_path / "a.mp4"), checkpoint_every=0)


def fifo_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fifo_diffusion", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


def test_the_command_says_how_to_go_on_and_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fifo_diffusion", "generate", "-", "--model", "gauss", "--size", "16x16"]
    command += ["-n", "1", "--frames", "0", "-o", "it's.mp4", "--checkpoint-every", "1s"]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "it's.partial.mp4"
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 20_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=240)[1]
    assert running.returncode == 130
    told = re.search(r"is whole and holds (\d+) frames; go on with: (fifo resume 'it'\"'\"'s.mp4')", said)
    assert told is not None, said
    assert len(list(read_frames(tmp_path / "it's.mp4"))) == int(told[1])
    done = fifo_command("resume", "it's.mp4", "--frames", "+7", "--preview", "queue.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "queue.png").exists()
    assert len(list(read_frames(tmp_path / "it's.mp4"))) == int(told[1]) + 7
    refused = fifo_command("resume", "it's.mp4", "--checkpoint-every", "often", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--checkpoint-every is 'often'" in refused.stderr


def test_info_prints_what_a_video_says_of_itself(tmp_path: Path) -> None:
    run = run_of(3).model_copy(update={"prompt": "a [b] c", "seed": 41})
    for name in ("a.mp4", "b.webm", "c.gif", "d.webp", "frames"):
        api.make(run, str(tmp_path / name))
        assert api.told(str(tmp_path / name))["seed"] == 41
    for name in ("a.mp4", "b.webm", "frames"):
        sidecar_beside = sidecar.path_beside(str(tmp_path / name))
        assert sidecar_beside is not None
        sidecar_beside.unlink()
        assert api.told(str(tmp_path / name))["prompt"] == "a [b] c"
    (tmp_path / "c.gif.json").unlink()
    with pytest.raises(BadInput, match="tells no settings"):
        api.told(str(tmp_path / "c.gif"))
    with pytest.raises(BadInput, match="there is no"):
        api.told(str(tmp_path / "none.mp4"))
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path):  # which holds videos, and none of its own
        with pytest.raises(BadInput, match=f"^the folder {folder} holds no frames of a video that fifo made; name the"):
            api.told(str(folder))
    # What a video was made with since it began, its sidecar knows.
    api.make(run, str(tmp_path / "e"))
    api.resume(str(tmp_path / "e"), frames="+30", prompt="3")
    known = api.told(str(tmp_path / "e"))
    assert (known["frames"], known["cues"][-1]["prompt"]) == (33, "3")
    assert api.told(str(tmp_path / "a.mp4"))["from"] == "the video's own metadata"
    assert api.told(str(tmp_path / "e" / "fifo.json"))["frames written"] == 33
    assert api.told(str(tmp_path / "a.mp4.run"))["seed"] == 41
    printed = fifo_command("info", "a.mp4", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert re.search(r"^prompt +a \[b\] c$", printed.stdout, re.MULTILINE)
    assert re.search(r"^seed +41$", printed.stdout, re.MULTILINE)
    assert re.search(r"^size +16x16$", printed.stdout, re.MULTILINE)
    assert "lora" not in printed.stdout  # nor anything else that is empty
    spoken = fifo_command("info", "e", cwd=tmp_path)
    assert re.search(r"^cues +0: a \[b\] c; \d+: 3( \(blend \d+\))?$", spoken.stdout, re.MULTILINE), spoken.stdout


def test_a_clip_video_without_a_checkpoint_is_made_as_long_as_was_asked(tmp_path: Path) -> None:
    """Its frames are all there is of it until the first piece of the file ends."""
    Image.new("RGB", (64, 64), (40, 90, 200)).save(tmp_path / "still.png")
    said = {"prompt": "a red balloon", "partitions": 1, "guidance": 1.0, "clip": str(tmp_path / "still.png")}
    api.make(Run.of({**said, "frames": 2}), str(tmp_path / "a.mp4"))
    assert checkpoint.committed(tmp_path / "a.mp4.run") == []
    made = api.resume(str(tmp_path / "a.mp4"), frames="+2")
    assert (made.clip_frames, made.frames_written) == (1, 4)
    api.make(Run.of({**said, "clip": str(tmp_path / "a.mp4"), "frames": 9, "fps": 4}), str(tmp_path / "b.mp4"))
    with pytest.raises(BadInput, match="the clip itself"):
        api.resume(str(tmp_path / "b.mp4"), frames="+2", output=str(tmp_path / "a.mp4"))


def test_a_prompt_for_what_comes_is_there_after_a_kill_and_told_by_the_file(tmp_path: Path) -> None:
    video, said = tmp_path / "a.mp4", list[str]()
    later = {"cues": (Cue(at=0, prompt="-"), Cue(at=59, prompt="2"))}  # in whose place the new one comes
    with pytest.raises(KeyboardInterrupt):
        api.make(run_of(0).model_copy(update=later), str(video), checkpoint_every=OFTEN, watch=stop_at(22))

    def look(stage: str, done: int, total: int) -> None:
        """As a kill would find it: before the next checkpoint."""
        if done == 22:
            said.append(checkpoint.description(tmp_path / "a.mp4.run").run.cues[-1].prompt)

    warned: list[str] = []
    api.resume(str(video), frames=60, prompt="3", watch=look, warn=warned.append)
    assert said == ["3"]
    assert warned == []
    cues = api.told(str(video))["cues"]
    assert [cue["prompt"] for cue in cues] == ["-", "3"]
    reaches = cues[1]["at"] + 60 - 20  # as long after the last checkpoint
    api.resume(str(video), frames=reaches, prompt="4", warn=warned.append)
    assert warned == [f"the video ends at frame {reaches}, before '4' at frame {reaches} is seen"]
