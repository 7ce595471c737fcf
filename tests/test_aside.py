"""Decoding, encoding and checkpoints on another thread: the same files, whatever happens.

On a CPU nobody does this by default, so it is switched on here.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fifo_diffusion as fifo
from fifo_diffusion import api, sidecar
from fifo_diffusion import checkpoint as checkpoints
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.decode import PerFrame
from fifo_diffusion.making import Making
from fifo_diffusion.models.gauss import Gauss, GaussianVideo
from fifo_diffusion.session import Session
from fifo_diffusion.sinks import VideoSink, read_frames

SMALL: dict[str, Any] = {"prompt": "-", "model": "gauss", "size": (16, 16), "partitions": 1, "fps": 5}


@pytest.fixture
def aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Making, "writes_aside", True)
    monkeypatch.setattr(Session, "decodes_aside", True)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.suffix in (".mp4", ".png")}


@pytest.mark.parametrize("frames_per", [1, 17])
def test_the_same_file_and_no_iteration_more(frames_per: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made ahead that may not be needed."""
    made = []
    for name, on in (("plain", False), ("aside", True)):
        (tmp_path / name).mkdir()
        calls = 0
        real = GaussianVideo.__call__

        def counted(self: GaussianVideo, *args: Any, real=real) -> Tensor:  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            answer: Tensor = real(self, *args)
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(GaussianVideo, "__call__", counted)
            patch.setattr(Making, "writes_aside", on)
            patch.setattr(Session, "decodes_aside", on)
            one = fifo.generate(output=str(tmp_path / name / "a.mp4"), frames=frames_per, **SMALL)
        made.append((one.frames_sha256, calls, files(tmp_path / name)))
    assert made[0] == made[1]


@pytest.mark.usefixtures("aside")
def test_frames_are_decoded_and_written_on_threads_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: dict[str, set[threading.Thread]] = {"network": set(), "decode": set(), "write": set()}
    network, write = GaussianVideo.__call__, VideoSink.write

    def seen(what: str, call):  # type: ignore[no-untyped-def]
        def told(*args):  # type: ignore[no-untyped-def]
            where[what].add(threading.current_thread())
            return call(*args)

        return told

    monkeypatch.setattr(GaussianVideo, "__call__", seen("network", network))
    monkeypatch.setattr(Gauss, "decoder", lambda self: PerFrame(seen("decode", lambda z: z / 3)))
    monkeypatch.setattr(VideoSink, "write", seen("write", write))
    fifo.generate(output=str(tmp_path / "a.mp4"), frames=7, **SMALL)
    assert where["network"] == {threading.main_thread()}
    assert len(where["decode"]) == len(where["write"]) == 1
    assert len(set.union(*where.values())) == 3
    assert not any(thread.is_alive() for thread in where["decode"] | where["write"])


@pytest.mark.usefixtures("aside")
@pytest.mark.parametrize("every", [0.0, 1e-9])
@pytest.mark.parametrize("at", [1, 8, 23])
def test_a_video_that_is_stopped_is_whole_and_goes_on_bit_for_bit(tmp_path: Path, at: int, every: float) -> None:
    """Ctrl-C between two frames: what is said of the file is what it holds."""
    whole = fifo.generate(output=str(tmp_path / "whole.mp4"), frames=40, **SMALL)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done == at:
            raise KeyboardInterrupt

    cut = str(tmp_path / "cut.mp4")
    with pytest.raises(KeyboardInterrupt):
        api.make(Run.of({**SMALL, "frames": 40}), cut, watch=stop, checkpoint_every=every or 30)
    said = sidecar.read(Path(cut + ".json")).frames_written if at > 1 else 0
    assert said == (len(list(read_frames(Path(cut)))) if at > 1 else 0)
    assert at - 1 <= said <= at
    if at > 1:
        folder = Path(cut + ".run")
        frames = checkpoints.committed(folder)
        assert frames[0] == said // 5 * 5  # the last place that can be gone on from
        again = fifo.resume(cut)
    else:
        again = fifo.generate(output=cut, frames=40, **SMALL)
    assert again.frames_sha256 == whole.frames_sha256
    assert Path(cut).read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.usefixtures("aside")
def test_an_error_of_the_disk_is_the_same_sentence_and_nothing_is_written_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = VideoSink.write, []

    def full(self: VideoSink, frame: np.ndarray) -> None:
        written.append(self.frames)
        if self.frames == 3:
            raise fifo.OutputError("the disk is full")
        real(self, frame)

    monkeypatch.setattr(VideoSink, "write", full)
    with pytest.raises(fifo.OutputError, match=r"^the disk is full$"):
        fifo.generate(output=str(tmp_path / "a.mp4"), frames=40, **SMALL)
    assert written == [0, 1, 2, 3]


@pytest.mark.parametrize("on", [False, True])
def test_a_frame_that_is_no_number_is_never_written_and_those_before_it_are(
    on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noticed one iteration late where it is decoded aside."""
    monkeypatch.setattr(Making, "writes_aside", on)
    monkeypatch.setattr(Session, "decodes_aside", on)
    real, calls, first = GaussianVideo.__call__, 0, 0

    def breaks(self: GaussianVideo, *args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        answer: Tensor = real(self, *args)
        return answer * torch.nan if calls == first else answer

    monkeypatch.setattr(GaussianVideo, "__call__", breaks)
    run = {**SMALL, "partitions": 2, "lookahead": "off", "batch": 1, "start": "noise"}
    first = 0
    fifo.generate(output=str(tmp_path / "count.mp4"), frames=2, **run)
    calls, first = 0, calls + 1  # the first call of the third frame's iteration, which has two
    with pytest.raises(fifo.NotFinite, match=r"in frame 2; the frames before are good"):
        fifo.generate(output=str(tmp_path / "a.mp4"), frames=40, **run)
    assert calls == first + 1 + (2 if on else 0)
    assert len(list(read_frames(tmp_path / "a.mp4"))) == 2


@pytest.mark.usefixtures("aside")
def test_what_reaches_the_screen_when_is_the_same_every_time() -> None:
    """The engine runs ahead by one iteration, whichever thread is faster."""

    def reaches() -> list[int]:
        live, out = fifo.stream(**{**SMALL, "frames": 12}), []
        for frame in range(6):
            next(live)
            out.append(live.say(f"{frame % 3}"))
        live.close()
        return out

    assert reaches() == reaches()


def test_frames_before_the_first_that_is_seen_are_not_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor are those of a clip, by a decoder that remembers nothing."""
    decoded = 0

    def decode(z: Tensor) -> Tensor:
        nonlocal decoded
        decoded += len(z)
        return z / 3

    monkeypatch.setattr(Gauss, "decoder", lambda self: PerFrame(decode))
    run = resolve(Run.of({**SMALL, "partitions": 3, "frames": 5}))
    assert len(list(Session(run).frames())) == decoded == 5

    from PIL import Image

    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "still.png")
    decoded = 0
    from fifo_diffusion.models.embedded.model import Embedded

    real = Embedded.decoder

    def counting(self: Embedded) -> PerFrame:
        inner = real(self)

        def each(z: Tensor) -> Tensor:
            nonlocal decoded
            decoded += len(z)
            return inner.decode(z)

        return PerFrame(each)

    monkeypatch.setattr(Embedded, "decoder", counting)
    frames: Iterator[object] = fifo.stream(
        "a red balloon", clip=str(tmp_path / "still.png"), partitions=1, frames=2, guidance=1
    )
    assert len(list(frames)) == decoded == 2
