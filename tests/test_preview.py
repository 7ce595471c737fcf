"""The picture of the queue: what it shows, and that it disturbs nothing."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import fifo_diffusion as fifo
from fifo_diffusion.api import make, resume
from fifo_diffusion.decide import resolve
from fifo_diffusion.errors import BadInput, FifoError, OutputError
from fifo_diffusion.preview import Preview, Queue, compose
from fifo_diffusion.session import Session

TINY = {"prompt": "-", "model": "gauss", "size": (16, 8), "frames": 5, "partitions": 2}


def flat(*values: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([np.full((8, 16, 3), value, np.uint8) for value in values])


def test_each_place_is_a_column_with_what_it_is_above_what_it_becomes() -> None:
    sheet = np.asarray(compose(Queue(["frame 0", "frame 1", "frame 2"], flat(50, 60, 70), flat(150, 160, 170))))
    columns, row = (4 + 48, 104 + 48, 204 + 48), 14 + 48
    for y in (14, row - 1):
        assert [int(sheet[y, x, 0]) for x in columns] == [50, 60, 70]
        assert [int(sheet[row + y, x, 0]) for x in columns] == [150, 160, 170]
    for y in (0, row, 2 * row):  # two titles and the names
        assert (sheet[y : y + 14] > 100).any()
    assert (sheet[-4:] == 24).all()


def test_the_picture_shows_the_queue_from_clean_to_noisy_and_the_video_is_the_same(tmp_path: Path) -> None:
    queues: list[Queue] = []

    class Kept(Preview):
        def __call__(self, draw):  # type: ignore[no-untyped-def]
            super().__call__(lambda: queues.append(draw()) or queues[-1])  # type: ignore[func-returns-value]

    run = resolve(fifo.Run.of(TINY))
    plain = list(Session(run).frames())
    session = Session(run, preview=Kept(str(tmp_path / "q.png"), share=1))
    shown = list(session.frames())
    assert all((a == b).all() for a, b in zip(plain, shown, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["q.png"]
    assert Image.open(tmp_path / "q.png").size == (4 + 16 * 100, 4 + 3 * 14 + 2 * 48)
    assert len(queues) == 16 + 5
    last = queues[-1]
    assert last.as_it_is.shape == last.expected.shape == (16, 8, 16, 3)
    assert last.names[0] == "frame -4"  # eight of the context, and frame 4 is the next to come off
    # The place that comes off is taken for what came, as its last step leads there.
    assert np.array_equal(last.expected[last.names.index("frame 4")], shown[4])
    noise = np.abs(last.as_it_is.astype(int) - last.expected).mean(axis=(1, 2, 3))
    assert noise[0] == 0
    assert noise[-1] > 5 * noise[5] > 0


def test_a_picture_takes_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only drawing, of 3 seconds, and the stream move on."""
    now, drawn = 0.0, list[float]()
    monkeypatch.setattr("fifo_diffusion.preview.time", SimpleNamespace(perf_counter=lambda: now))
    preview = Preview(str(tmp_path / "q.JPG"), share=0.25)

    def draw() -> Queue:
        nonlocal now
        drawn.append(now)
        now += 3
        return Queue(["a"], flat(50), flat(60))

    for _ in range(24):
        preview(draw)
        now += 1
    assert drawn == [0, 12, 24]


def test_a_picture_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    preview = Preview(str(tmp_path / "q.png"), share=1)
    preview(lambda: Queue(["a"], flat(50), flat(60)))
    whole = (tmp_path / "q.png").read_bytes()
    with open(tmp_path / "q.png", "rb") as reading:
        preview(lambda: Queue(["a"], flat(150), flat(160)))
        assert reading.read() == whole != (tmp_path / "q.png").read_bytes()


def test_a_picture_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    folder, said = tmp_path / "gone", list[str]()
    folder.mkdir()
    preview = Preview(str(folder / "q.png"), share=1, warn=said.append)
    folder.rmdir()
    frames = list(Session(resolve(fifo.Run.of(TINY)), preview=preview).frames())
    assert len(frames) == 5
    assert len(said) == 1
    assert "going on without" in said[0]


def test_a_picture_that_memory_does_not_suffice_for_stops_no_run(tmp_path: Path) -> None:
    said = list[str]()
    preview = Preview(str(tmp_path / "q.png"), share=1, warn=said.append)

    def draw() -> Queue:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 41.19 GiB.\nMore of it.")

    for _ in range(2):
        preview(draw)
    (told,) = said
    assert "q.png cannot be written (CUDA out of memory. Tried to allocate 41.19 GiB.); going on without" in told


def test_nothing_is_left_of_a_picture_that_could_not_take_its_name_and_other_errors_are_told(tmp_path: Path) -> None:
    said = list[str]()
    preview = Preview(str(tmp_path / "q.png"), share=1, warn=said.append)

    def stop() -> Queue:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preview(stop)
    (tmp_path / "q.png").mkdir()
    preview(lambda: Queue(["a"], flat(50), flat(60)))
    assert len(said) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["q.png"]


NAMES = [("q.mp4", BadInput, r"end it in \.png"), ("no/q.png", OutputError, "there is no folder")]


@pytest.mark.parametrize(("name", "kind", "says"), NAMES)
def test_a_name_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, name: str, kind: type[FifoError], says: str
) -> None:
    told: list[str] = []  # how it is computed, which comes before the model is loaded
    picture, video = str(tmp_path / name), str(tmp_path / "a.mp4")
    with pytest.raises(kind, match=says):
        Preview(picture)
    with pytest.raises(kind, match=says):
        make(fifo.Run.of(TINY), video, preview=picture, tell=told.append)
    assert list(tmp_path.iterdir()) == []
    fifo.generate(**TINY, output=video)  # type: ignore[arg-type]
    with pytest.raises(kind, match=says):
        resume(video, frames="+2", preview=picture, tell=told.append)
    assert told == []
