"""Real files, written with PyAV and Pillow and read back."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from fifo_diffusion.errors import BadInput, FifoError, OutputError
from fifo_diffusion.names import Frame
from fifo_diffusion.sinks import (
    Begun,
    NullSink,
    check_output,
    held,
    open_sink,
    piece,
    read_frames,
    read_metadata,
    video,
)

VIDEO = ["mp4", "webm", "gif", "webp"]
SIZE = (64, 48)  # width, height: not square, so that a swap would show
FPS = Fraction(24000, 1001)

# What a second process runs to write frames and wait, its file not closed.
WRITER = """
import sys
import numpy as np
from fifo_diffusion.sinks import open_sink
path, fps, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows, columns = np.mgrid[:64, :64]
with open_sink(path, fps=fps, size=(64, 64)) as sink:
    for i in range(last):
        sink.write(np.stack([rows * 3, columns * 3, rows + i // 4], -1).astype(np.uint8))
    print("written", flush=True)
    sys.stdin.read()  # wait to be killed
"""


def picture(number: int, size: tuple[int, int] = SIZE) -> Frame:
    """A smooth picture with a bright bar whose place tells the number, so order and content can be read."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    frame = np.stack([40 + y * 2, 40 + x * 2, 80 + 0 * x], axis=-1).clip(0, 255).astype(np.uint8)
    frame[:, number * 4 % (width - 4) : number * 4 % (width - 4) + 4] = (250, 30, 20)
    return frame


def pictures(count: int, size: tuple[int, int] = SIZE) -> Iterator[Frame]:
    return (picture(i, size) for i in range(count))


def write(path: Path | str, count: int = 30, **settings: Any) -> None:
    with open_sink(str(path), **{"fps": FPS, "size": SIZE, **settings}) as sink:
        for frame in pictures(count):
            sink.write(frame)
        assert sink.frames == count


def readable(path: Path) -> list[Frame]:
    """The frames before the place where a kill or a full disk cut the file."""
    frames = []
    with suppress(BadInput):
        for frame in read_frames(path):
            frames.append(frame)  # noqa: PERF402  (a comprehension would lose them)
    return frames


def mean_difference(a: Frame, b: Frame) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


# What is written comes back.


@pytest.mark.parametrize("extension", VIDEO)
def test_a_video_comes_back_in_order_with_its_size_and_colours(tmp_path: Path, extension: str) -> None:
    write(tmp_path / f"clip.{extension}")
    back = list(read_frames(tmp_path / f"clip.{extension}"))
    assert len(back) == 30
    for i, frame in enumerate(back):
        assert frame.shape == (48, 64, 3)
        assert frame.dtype == np.uint8
        # A neighbour differs by two bars of four columns, about 15 levels on average.
        assert mean_difference(frame, picture(i)) < 5, i
    assert [path.name for path in tmp_path.iterdir()] == [f"clip.{extension}"]


@pytest.mark.parametrize("extension", ["mp4", "webm"])
def test_a_flat_colour_is_not_shifted(tmp_path: Path, extension: str) -> None:
    """The colour matrix is written down, so a reader need not guess it: a guess moves red by 20 levels."""
    path = tmp_path / f"clip.{extension}"
    with open_sink(str(path), fps=8, size=SIZE, crf=4) as sink:
        for _ in range(8):
            sink.write(np.full((48, 64, 3), (220, 40, 60), np.uint8))
    for frame in read_frames(path):
        assert np.abs(frame.reshape(-1, 3).mean(0) - (220, 40, 60)).max() < 4
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.colorspace == 1  # BT.709


def test_pngs_come_back_exactly(tmp_path: Path) -> None:
    write(tmp_path / "frames", 12)
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"frame_{i:06d}.png" for i in range(12)]
    for i, frame in enumerate(read_frames(tmp_path / "frames")):
        np.testing.assert_array_equal(frame, picture(i))


def test_pngs_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number, grey in [(1_000_000, 3), (999_999, 2), (7, 1)]:
        Image.new("RGB", (2, 2), (grey, grey, grey)).save(tmp_path / f"frame_{number:06d}.png")
    assert [int(frame[0, 0, 0]) for frame in read_frames(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["frames", "frames.d/", "made"])
def test_what_counts_as_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "made").mkdir()
    write(f"{tmp_path}/{name}", 2)
    assert (tmp_path / name / "frame_000001.png").is_file()


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(1, 2), 8, 29.97])
def test_mp4_times_are_exact(tmp_path: Path, fps: Fraction | float) -> None:
    write(tmp_path / "clip.mp4", 50, fps=fps)
    wanted = 1 / Fraction(str(fps))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        assert stream.duration is not None
        times = [frame.pts * stream.time_base for frame in container.decode(stream) if frame.pts is not None]
        assert times == [i * wanted for i in range(50)]
        assert stream.duration * stream.time_base == 50 * wanted


@pytest.mark.parametrize(("extension", "clock"), [("webm", 1000), ("gif", 100)])
def test_coarser_clocks_do_not_drift(tmp_path: Path, extension: str, clock: int) -> None:
    write(tmp_path / f"clip.{extension}", 50)
    with av.open(str(tmp_path / f"clip.{extension}")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([float(i / FPS) for i in range(50)], abs=1 / clock)


def test_webp_lasts_as_long_as_it_should(tmp_path: Path) -> None:
    write(tmp_path / "clip.webp", 50)
    total = 0
    with Image.open(tmp_path / "clip.webp") as animation:
        for i in range(50):
            animation.seek(i)
            animation.load()
            total += animation.info["duration"]
    assert total / 1000 == pytest.approx(float(50 / FPS), abs=0.03)


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    """H.264 yuv420p, a key frame every second, and the index (moov) before the pictures (mdat)."""
    write(tmp_path / "clip.mp4", 60, fps=12)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    with av.open(str(tmp_path / "clip.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys[0] == 0
    assert max(np.diff([*keys, 60])) <= 12


@pytest.mark.parametrize("extension", VIDEO)
def test_the_same_frames_are_the_same_bytes(tmp_path: Path, extension: str) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}.{extension}", 10)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    assert len(digests) == 1


@pytest.mark.parametrize("extension", ["mp4", "webm"])
def test_crf_trades_bytes_for_likeness(tmp_path: Path, extension: str) -> None:
    size = {}
    for crf in (4, 45):
        write(tmp_path / f"{crf}.{extension}", crf=crf)
        size[crf] = (tmp_path / f"{crf}.{extension}").stat().st_size
    assert size[4] > 1.5 * size[45]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "frames"])
def test_scale_enlarges_smoothly(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, 4, scale=3)
    for i, frame in enumerate(read_frames(tmp_path / name)):
        assert frame.shape == (144, 192, 3)
        small = np.asarray(Image.fromarray(frame).resize(SIZE, Image.Resampling.BOX))
        assert mean_difference(small, picture(i)) < 6


def test_a_name_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("take:1.mp4", 3)
    assert len(readable(Path("take:1.mp4"))) == 3
    assert read_metadata(Path("take:1.mp4")).keys()


def test_a_very_long_mp4_keeps_its_fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("plain.mp4", 30), ("long.mp4", 29)):
        monkeypatch.setattr(video, "_INDEXED", most)
        write(tmp_path / name, 30)
    assert b"moof" not in (tmp_path / "plain.mp4").read_bytes()
    assert b"moof" in (tmp_path / "long.mp4").read_bytes()
    for a, b in zip(readable(tmp_path / "plain.mp4"), readable(tmp_path / "long.mp4"), strict=True):
        assert np.array_equal(a, b)


def test_metadata_goes_along(tmp_path: Path) -> None:
    words = {"title": "a red balloon – drifting", "comment": '{"seed": 7}'}
    for extension in ("mp4", "webm"):
        write(tmp_path / f"clip.{extension}", 3, metadata=words)
        with av.open(str(tmp_path / f"clip.{extension}")) as container:
            kept = {key.lower(): value for key, value in container.metadata.items()}
        assert words.items() <= kept.items()
    write(tmp_path / "frames", 1, metadata=words)
    with Image.open(tmp_path / "frames" / "frame_000000.png") as png:
        assert words.items() <= png.info.items()


def test_null_counts() -> None:
    sink = open_sink("null", fps=24, size=SIZE)
    assert isinstance(sink, NullSink)
    for frame in pictures(5):
        sink.write(frame)
    assert sink.frames == 5


# Nothing is lost.


def test_a_name_is_taken_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"what the user had")
    sink = open_sink(str(path), fps=8, size=SIZE)
    sink.write(picture(0))
    assert path.read_bytes() == b"what the user had"
    sink.close()
    assert len(list(read_frames(path))) == 1


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.gif", "clip.webp"])
def test_a_start_that_fails_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"what the user had")
    with pytest.raises(RuntimeError), open_sink(str(path), fps=8, size=SIZE):
        raise RuntimeError("the model did not load")
    assert path.read_bytes() == b"what the user had"
    assert list(tmp_path.iterdir()) == [path]


def test_a_start_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    open_sink(f"{tmp_path}/frames", fps=8, size=SIZE).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.gif", "clip.webp", "frames"])
def test_an_interruption_keeps_the_frames_so_far(tmp_path: Path, name: str) -> None:
    def interrupted() -> Iterator[Frame]:
        yield from pictures(5)
        raise KeyboardInterrupt

    def run() -> None:
        with open_sink(f"{tmp_path}/{name}", fps=8, size=SIZE) as sink:
            for frame in interrupted():
                sink.write(frame)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(list(read_frames(tmp_path / name))) == 5


@pytest.mark.parametrize("extension", ["mp4", "webm", "gif"])
def test_a_killed_run_leaves_all_but_its_last_second(tmp_path: Path, extension: str) -> None:
    fps, written, path = 12, 70, tmp_path / f"clip.{extension}"
    path.write_bytes(b"what the user had")
    command = [sys.executable, "-c", WRITER, str(path), str(fps), str(written)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    partial = tmp_path / f"clip.partial.{extension}"
    frames = readable(partial)
    assert len(frames) >= written - fps // 2 - 2  # half a second, and what waits for its successor
    rows, columns = np.mgrid[:64, :64]
    for i, frame in enumerate(frames):
        wanted = np.stack([rows * 3, columns * 3, rows + i // 4], -1).astype(np.uint8)
        assert mean_difference(frame, wanted) < 12, i
    assert path.read_bytes() == b"what the user had"
    # The next run does not write over what the killed one left.
    write(path, 3)
    assert len(readable(partial)) == len(frames)


def test_a_full_disk_is_one_sentence_and_keeps_what_was_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"what the user had")
    script = f"""
import resource, signal
import numpy as np
from fifo_diffusion.errors import OutputError
from fifo_diffusion.sinks import open_sink
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
noise = np.random.default_rng(0)
try:
    with open_sink({str(path)!r}, fps=8, size=(64, 64)) as sink:
        for _ in range(1000):
            sink.write(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8))
except OutputError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "cannot go on writing" in said.stdout
    assert "clip.partial.mp4" in said.stdout
    assert said.stderr == ""
    assert len(readable(tmp_path / "clip.partial.mp4")) > 8
    assert path.read_bytes() == b"what the user had"


@pytest.mark.parametrize("extension", VIDEO)
def test_memory_does_not_grow_with_length(extension: str) -> None:
    """Resident memory at frame 100 and at frame 400, in a process of its own."""
    script = f"""
import os, tempfile
import numpy as np
from fifo_diffusion.sinks import open_sink

def resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

noise = np.random.default_rng(0).integers(0, 255, (7, 64, 64, 3), dtype=np.uint8)
with tempfile.TemporaryDirectory() as folder:
    with open_sink(folder + "/clip.{extension}", fps=24, size=(64, 64)) as sink:
        for i in range(400):
            sink.write(noise[i % 7])
            if i == 100:
                early = resident()
        print(resident() - early)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # Kept raw, 300 pictures are 3.5 MiB.  FFmpeg's libwebp_anim, which keeps them coded, grows by 20.
    assert float(done.stdout) < 1


# What is there already can be gone on with.


@pytest.mark.parametrize(
    ("name", "fps", "frames"),
    [
        ("a.mp4", 24, 24),
        ("a.webm", FPS, 23),
        ("a.MP4", 12.5, 12),
        ("a.mp4", 0.5, 1),
        ("frames/", 24, 1),
        ("a.gif", 24, None),
        ("a.webp", 24, None),
        ("-", 24, None),
    ],
)
def test_a_video_can_be_gone_on_with_at_every_key_frame(name: str, fps: float, frames: int | None) -> None:
    assert piece(name, fps) == frames


@pytest.mark.parametrize("extension", ["mp4", "webm"])
@pytest.mark.parametrize("kept", [23, 46, 69])
def test_a_video_gone_on_with_is_byte_for_byte_the_one_never_stopped(tmp_path: Path, extension: str, kept: int) -> None:
    straight, other = tmp_path / f"a.{extension}", tmp_path / f"b.{extension}"
    write(straight, 75, metadata={"title": "t"})
    digests = list(held(straight))
    assert len(set(digests)) == 75
    begun = Begun(straight, kept, digests[kept - 1])
    with open_sink(str(other), fps=FPS, size=SIZE, metadata={"title": "t"}, begun=begun) as sink:
        assert sink.frames == kept
        for i in range(kept, 75):
            sink.write(picture(i))
            assert sink.digest == digests[i]
    assert other.read_bytes() == straight.read_bytes()


@pytest.mark.parametrize("extension", ["mp4", "webm"])
def test_what_a_kill_left_stays_until_the_new_file_holds_more(tmp_path: Path, extension: str) -> None:
    path, partial = tmp_path / f"clip.{extension}", tmp_path / f"clip.partial.{extension}"
    write(partial, 40, fps=10)
    left, digests = partial.read_bytes(), list(held(partial))
    with open_sink(
        str(path), fps=10, size=SIZE, begun=Begun(partial, 20, digests[19], held=40), partial=partial
    ) as sink:
        for i in range(20, 38):
            sink.write(picture(i))
            assert partial.read_bytes() == left
            assert sink.settled == 0
    assert sink.dropped  # it ended before it held as many
    assert [file.name for file in tmp_path.iterdir()] == [partial.name]
    assert partial.read_bytes() == left
    with open_sink(
        str(path), fps=10, size=SIZE, begun=Begun(partial, 20, digests[19], held=40), partial=partial
    ) as sink:
        for i in range(20, 55):
            sink.write(picture(i))
        assert sink.settled == 48
        assert len(readable(partial)) >= 48
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(list(read_frames(path))) == 55


def test_a_source_that_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 40, fps=10)
    begun = Begun(tmp_path / "a.mp4", 20, "00" * 32)
    with pytest.raises(OutputError, match=r"a\.mp4 changed"):
        open_sink(str(tmp_path / "b.mp4"), fps=10, size=SIZE, begun=begun)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


# Pipes.


def test_stdout_gets_the_raw_frames() -> None:
    script = """
import numpy as np
from fifo_diffusion.sinks import open_sink
with open_sink("-", fps=24, size=(5, 3)) as sink:
    for i in range(4):
        sink.write(np.arange(i, i + 45, dtype=np.uint8).reshape(3, 5, 3))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"".join(bytes(range(i, i + 45)) for i in range(4))
    assert done.stderr == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_ends_the_pipe_quietly(unbuffered: str) -> None:
    """With Python's own buffer before stdout, and without (PYTHONUNBUFFERED, which containers often set)."""
    script = """
import itertools
import numpy as np
from fifo_diffusion.sinks import open_sink
try:
    with open_sink("-", fps=24, size=(16, 16)) as sink:  # less than Python's buffer
        for i in itertools.count():
            sink.write(np.zeros((16, 16, 3), np.uint8))
except BrokenPipeError:
    raise SystemExit(0)
"""
    command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert len(writer.stdout.read(16 * 16 * 3)) == 16 * 16 * 3
        writer.stdout.close()
        assert writer.stderr.read() == b""
    assert writer.returncode == 0


def test_a_stop_is_heard_while_a_reader_lets_the_pipe_wait() -> None:
    import fcntl
    import struct
    import termios

    command = [sys.executable, "-m", "fifo_diffusion", "generate", "-", "--model", "gauss", "-n", "1", "--frames", "0"]
    with subprocess.Popen([*command, "-o", "-", "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        full, deadline = fcntl.fcntl(writer.stdout, fcntl.F_GETPIPE_SZ), time.monotonic() + 120
        while time.monotonic() < deadline:
            (waiting,) = struct.unpack("i", fcntl.ioctl(writer.stdout, termios.FIONREAD, b"    "))
            if waiting == full:
                break
            time.sleep(0.05)
        assert waiting == full
        writer.send_signal(signal.SIGTERM)
        try:
            assert writer.wait(60) == 130
        finally:
            writer.kill()


# What is refused, before any work.

REFUSED: list[tuple[str, dict[str, Any], type[FifoError], str]] = [
    ("clip.mp4", {"size": (65, 48)}, BadInput, "66 x 48 is allowed"),
    ("clip.mp4", {"size": (64, 49)}, BadInput, "64 x 50 is allowed"),
    ("clip.webm", {"size": (63, 48), "scale": 3}, BadInput, "190 x 144 is allowed"),
    ("clip.mp4", {"size": (0, 48)}, BadInput, "1 or more"),
    ("clip.mp4", {"size": (20000, 48)}, BadInput, "at most 16384"),
    ("clip.mp4", {"scale": 0}, BadInput, "1 or more"),
    ("clip.mp4", {"fps": 0}, BadInput, "above 0"),
    ("clip.mp4", {"fps": -8.0}, BadInput, "above 0"),
    ("clip.mp4", {"fps": float("nan")}, BadInput, "above 0"),
    ("clip.gif", {"fps": 60}, BadInput, "at most 50"),
    ("clip.mp4", {"crf": 0}, BadInput, "1 .best. to 51"),
    ("clip.gif", {"crf": 20}, BadInput, "no constant rate factor"),
    ("folder/", {"crf": 20}, BadInput, "no constant rate factor"),
    ("clip.mp4", {"crf": 18.5}, BadInput, "18.5 is not allowed"),
    ("clip.mp4", {"scale": 1.5}, BadInput, "whole number"),
    ("clip\0.mp4", {}, BadInput, "a character that no file takes"),
    ("caf\udce9.mp4", {}, BadInput, "a character that no file takes"),
    ("clip.webp", {"size": (16384, 2)}, BadInput, "at most 16383 pixels"),
    ("clip.avi", {}, BadInput, r"\.mp4, \.webm, \.gif, \.webp, a folder"),
    ("none/clip.mp4", {}, OutputError, "there is no folder"),
    ("none/frames", {}, OutputError, "there is no folder"),
    ("file/clip.mp4", {}, OutputError, "there is no folder"),
    ("file", {}, OutputError, "not a folder"),
    ("old", {}, OutputError, "already holds"),
    ("n" * 300 + ".mp4", {}, OutputError, "too long"),
]


@pytest.mark.parametrize(("name", "settings", "kind", "sentence"), REFUSED)
def test_what_is_refused_and_what_is_said(
    tmp_path: Path, name: str, settings: dict[str, Any], kind: type[FifoError], sentence: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "frame_000007.png").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind, match=sentence):
        write(tmp_path / name, **settings)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to: /proc of Linux")
@pytest.mark.parametrize("name", ["/proc/clip.mp4", "/proc/frames", "/proc"])
def test_a_folder_that_takes_no_files_is_refused_whatever_its_permissions_say(name: str) -> None:
    with pytest.raises(OutputError, match="the folder /proc takes no file"):
        check_output(name)


def test_the_check_of_an_output_leaves_nothing_and_takes_the_name_of_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"mine")
    for name in ("clip.mp4", "new.gif", "frames"):
        check_output(str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"mine"


def test_a_name_that_is_too_long_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long"):
        check_output(str(tmp_path / ("n" * 300 + ".mp4")))
    with pytest.raises(OutputError, match="too long"):  # itself not, but what is written beside it
        check_output(str(tmp_path / ("n" * 240 + ".mp4")))
    check_output(str(tmp_path / ("n" * 220 + ".mp4")))


def test_no_name_is_refused() -> None:
    with pytest.raises(BadInput, match="no output was named"):
        check_output("")


def test_odd_sizes_are_fine_where_the_format_takes_them(tmp_path: Path) -> None:
    for name in ("clip.gif", "clip.webp", "frames"):
        with open_sink(f"{tmp_path}/{name}", fps=8, size=(65, 33)) as sink:
            sink.write(picture(0, (65, 33)))
        assert [frame.shape for frame in read_frames(tmp_path / name)] == [(33, 65, 3)]


@pytest.mark.parametrize(
    "frame",
    [np.zeros((64, 48, 3), np.uint8), np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.float32)],
)
def test_frames_of_another_kind_are_refused(frame: Frame) -> None:
    with pytest.raises(BadInput, match=r"\(48, 64, 3\) uint8"):
        open_sink("null", fps=8, size=SIZE).write(frame)


def test_a_closed_sink_takes_no_frame(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/clip.mp4", fps=8, size=SIZE)
    sink.write(picture(0))
    sink.close()
    sink.close()
    with pytest.raises(BadInput, match="closed"):
        sink.write(picture(1))
    assert len(list(read_frames(tmp_path / "clip.mp4"))) == 1


def test_reading_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no"):
        read_frames(tmp_path / "none.mp4")
    for name in ("clip.mp4", "clip.webp"):
        (tmp_path / name).write_bytes(b"no video at all")
        with pytest.raises(BadInput, match="cannot read"):
            list(read_frames(tmp_path / name))
