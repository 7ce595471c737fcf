"""A clip is matched to the model as it is read: size, frame rate, length; and refused before any work."""

import math
import struct
import tracemalloc
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fifo_diffusion.errors import BadInput
from fifo_diffusion.sinks import open_sink, read_frames
from fifo_diffusion.sources import Clip, _decoded

Frames = NDArray[np.uint8]


def grey(*values: int, side: int = 16) -> Frames:
    return np.stack([np.full((side, side, 3), value, np.uint8) for value in values])


def video(path: Path, frames: Frames, fps: float) -> Path:
    with open_sink(str(path), fps=fps, size=(frames.shape[2], frames.shape[1])) as sink:
        for frame in frames:
            sink.write(frame)
    return path


def levels(clip: Clip, skip: int = 0) -> list[int]:
    """How bright the middle of each frame is."""
    return [int(frame[8, 8, 1]) for frame in clip.frames(skip)]


def test_a_clip_of_the_models_own_size_and_rate_is_taken_as_it_is(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", grey(*range(40, 200, 8)), 10)
    clip = Clip(path, (16, 16), 10)
    assert len(clip) == 20
    assert all((a == b).all() for a, b in zip(clip.frames(), read_frames(path), strict=True))
    assert "20 frames of 16x16, 10 frames a second" in clip.told(16)


@pytest.mark.parametrize("fps", [10, 24, 12.5, 60])
def test_frames_are_blended_at_their_instants_counted_back_from_the_last(tmp_path: Path, fps: float) -> None:
    """A picture that brightens by 80 a second, at 24 frames a second."""
    path = video(tmp_path / "a.mp4", grey(*(40 + round(80 * i / 24) for i in range(45))), 24)
    clip = Clip(path, (16, 16), fps)
    assert len(clip) == 1 + int(44 / 24 * fps + 1e-6)
    wanted = [40 + 80 * (44 / 24 - i / fps) for i in reversed(range(len(clip)))]
    assert np.abs(np.array(levels(clip)) - wanted).max() < 3
    assert levels(clip, skip=5) == levels(clip)[5:]
    if fps != 24:
        assert f"24 frames a second blended to {fps:g}" in clip.told(16)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_the_end_of_a_long_clip_is_the_same_without_its_beginning(tmp_path: Path, name: str) -> None:
    """A key frame every second: the end is found without decoding all of it."""
    rough = np.random.default_rng(0).integers(0, 60, (1, 16, 16, 3), np.uint8)
    path = video(tmp_path / name, grey(*(40 + i for i in range(150))) + rough, 10)
    clip = Clip(path, (16, 16), 8)
    whole = list(clip.frames())
    for skip in (1, 9, 57, 100, len(clip) - 1):
        assert all((a == b).all() for a, b in zip(clip.frames(skip), whole[skip:], strict=True))
    firsts = [next(_decoded(path, since))[0] for since in (-math.inf, -5.0, 0.0, 0.55, 9.0, 14.9)]
    assert firsts == pytest.approx([0, 0, 0, 0, 9, 14])


def test_the_window_is_the_end_and_a_short_clip_is_held_before_it(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", grey(*range(40, 200, 20)), 10)
    clip = Clip(path, (16, 16), 10)
    own = levels(clip)
    assert [int(f[8, 8, 1]) for f in clip.window(5)] == own[-5:]
    assert [int(f[8, 8, 1]) for f in clip.window(11)] == [own[0]] * 3 + own
    assert "the new frames follow its last 5" in clip.told(5)
    assert "held for 3 more" in clip.told(11)


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_the_middle_is_kept_in_its_own_proportions(tmp_path: Path, size: tuple[int, int]) -> None:
    """Red, green and blue squares in a row: only the middle one stays, whole."""
    row = np.zeros((100, 300, 3), np.uint8)
    for i in range(3):
        row[:, 100 * i : 100 * i + 100, i] = 255
    picture = row if size[0] > size[1] else row.transpose(1, 0, 2)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (frame,) = Clip(tmp_path / "a.png", (20, 20), 10).frames()
    assert (frame[3:-3, 3:-3] == (0, 255, 0)).all()
    assert (frame.argmax(axis=2) == 1).all()


def test_a_picture_is_a_clip_that_stands_still(tmp_path: Path) -> None:
    Image.fromarray(grey(90)[0]).save(tmp_path / "a.webp", lossless=True)
    clip = Clip(tmp_path / "a.webp", (16, 16), 10)
    assert len(clip) == 1
    assert (clip.window(6) == 90).all()
    assert "held still for 6 frames" in clip.told(6)


def test_pictures_are_seen_as_viewers_show_them(tmp_path: Path) -> None:
    """A phone's picture is turned upright, and what is transparent is white."""
    lying = Image.fromarray(np.concatenate([grey(0)[0], grey(250)[0]], axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the left edge is up
    lying.save(tmp_path / "a.png", exif=exif)
    (frame,) = Clip(tmp_path / "a.png", (16, 32), 10).frames()
    assert frame[:14].max() < 10
    assert frame[18:].min() > 240
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "b.png")
    (frame,) = Clip(tmp_path / "b.png", (16, 16), 10).frames()
    assert (frame == 255).all()


def test_videos_are_seen_as_players_show_them(tmp_path: Path) -> None:
    """A phone's lies on its side in the file, and says so; others have pixels wider than high."""
    half = np.concatenate([grey(10)[0], grey(240)[0]], axis=1)  # 32 wide, its left half dark
    with open_sink(str(tmp_path / "a.mp4"), fps=10, size=(32, 16)) as sink:
        for _ in range(3):
            sink.write(half)
    coded = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = coded.index(b"tkhd") + 44
    coded[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 16 << 16, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(coded)
    for frame in (
        next(read_frames(tmp_path / "turned.mp4")),
        next(Clip(tmp_path / "turned.mp4", (16, 32), 10).frames()),
    ):
        assert frame.shape == (32, 16, 3)
        assert frame[:14].max() < 30
        assert frame[18:].min() > 220
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for packet in (*stream.encode(av.VideoFrame.from_ndarray(half)), *stream.encode(None)):
            container.mux(packet)
    assert next(read_frames(tmp_path / "wide.mp4")).shape == (16, 48, 3)


def test_a_camera_s_picture_is_no_animation_of_its_preview(tmp_path: Path) -> None:
    large, preview = Image.fromarray(grey(90, side=64)[0]), Image.fromarray(grey(10)[0])
    large.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    clip = Clip(tmp_path / "a.jpg", (16, 16), 10)
    assert levels(clip) == [90]
    assert "a picture of 64x64" in clip.told(1)


def test_sixteen_bits_of_grey_are_the_same_grey(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 16).round().astype(np.uint16)[None].repeat(16, axis=0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    (frame,) = Clip(tmp_path / "a.png", (16, 16), 10).frames()
    assert (frame[0, :, 0] == np.arange(0, 256, 17)).all()
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "b.tiff")
    with pytest.raises(BadInput, match="has pixels of 32 bits"):
        Clip(tmp_path / "b.tiff", (16, 16), 10).check()


def test_what_a_cut_left_in_front_is_not_shown(tmp_path: Path) -> None:
    """An edit list: decoding begins at a key frame, what is shown begins later."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "20", "bf": "0", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for frame in grey(*range(40, 200, 8)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    coded = bytearray((tmp_path / "a.mp4").read_bytes())
    edits = coded.find(b"elst")
    if edits < 0:
        pytest.skip("this build of FFmpeg writes no edit list")
    version, entries = coded[edits + 4], struct.unpack_from(">I", coded, edits + 8)[0]
    assert (version, entries) == (0, 1)
    timescale = struct.unpack_from(">I", coded, coded.index(b"mdhd") + 16)[0]
    struct.pack_into(">i", coded, edits + 16, timescale * 3 // 2)  # half a second behind a key frame
    (tmp_path / "cut.mp4").write_bytes(coded)
    clip = Clip(tmp_path / "cut.mp4", (16, 16), 10)
    assert len(clip) == 5
    assert np.abs(np.array(levels(clip)) - np.arange(160, 200, 8)).max() < 3


def test_titles_in_old_encodings_are_no_fault(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        container.metadata["title"] = "caf_"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for packet in (*stream.encode(av.VideoFrame.from_ndarray(grey(90)[0])), *stream.encode(None)):
            container.mux(packet)
    coded = (tmp_path / "a.avi").read_bytes()
    assert b"caf_" in coded
    (tmp_path / "a.avi").write_bytes(coded.replace(b"caf_", b"caf\xe9"))
    assert len(Clip(tmp_path / "a.avi", (16, 16), 10)) == 1
    assert len(list(read_frames(tmp_path / "a.avi"))) == 1


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_an_animation_keeps_its_own_clock(tmp_path: Path, name: str) -> None:
    pictures = [Image.fromarray(f) for f in grey(50, 100, 150, 200)]
    lasting = [100, 300, 100, 100]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=lasting, loop=0, quality=100)
    assert levels(Clip(tmp_path / name, (16, 16), 10)) == pytest.approx([50, 100, 117, 133, 150, 200], abs=1)


def test_a_folder_holds_the_models_own_frames_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number, value in ((9, 50), (10, 100), (100, 150)):
        Image.fromarray(grey(value)[0]).save(tmp_path / f"shot{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    assert levels(Clip(tmp_path, (16, 16), 25)) == [50, 100, 150]


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (120, 64, 64, 3), np.uint8)
    path = video(tmp_path / "a.mp4", frames, 30)
    del frames
    clip = Clip(path, (64, 64), 30)
    clip.window(4)  # what is loaded once
    tracemalloc.start()
    clip.window(16)
    for _ in clip.frames():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # all frames are 1.5 MB


def test_another_content_is_another_clip(tmp_path: Path) -> None:
    def digest() -> str:
        return Clip(tmp_path, (16, 16), 10).sha256

    Image.fromarray(grey(1)[0]).save(tmp_path / "1.png")
    Image.fromarray(grey(2)[0]).save(tmp_path / "2.png")
    first = digest()
    assert digest() == first
    (tmp_path / "2.png").rename(tmp_path / "0.png")
    assert digest() != first
    one = Clip(tmp_path / "1.png", (16, 16), 10).sha256
    Image.fromarray(grey(3)[0]).save(tmp_path / "1.png")
    assert Clip(tmp_path / "1.png", (16, 16), 10).sha256 != one


def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    whole = video(tmp_path / "a.mp4", grey(*range(40, 200, 8)), 10).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:400])
    moving = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)) for i in range(6)]
    for name in ("cut.gif", "cut.apng"):
        moving[0].save(
            tmp_path / name, format="PNG" if name[-4:] == "apng" else None, save_all=True, append_images=moving[1:]
        )
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: 40_000 if name[-4:] == "apng" else 12_000])
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", "none"))
        sound.writeframes(bytes(4000))
    Image.fromarray(grey(90)[0]).save(tmp_path / "whole.png")
    broken = bytearray((tmp_path / "whole.png").read_bytes())
    broken[broken.index(b"IDAT") + 20] ^= 255
    (tmp_path / "broken.png").write_bytes(broken)
    for name, says in (
        ("broken.png", "cannot be read"),
        ("none.mp4", "there is no clip"),
        ("text.mp4", "cannot be read"),
        ("empty.png", "cannot be read"),
        ("folder", "holds no .png"),
        ("cut.mp4", "holds no frame"),
        ("sound.wav", "holds no video"),
        ("cut.gif", "cannot be read to its end"),
        ("cut.apng", "cannot be read to its end"),
    ):
        with pytest.raises(BadInput, match=says) as refused:
            Clip(tmp_path / name, (16, 16), 10).check()
        assert "\n" not in str(refused.value)
        assert name in str(refused.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadInput, match="more pixels than can be read"):
        Clip(tmp_path / "whole.png", (16, 16), 10).check()
