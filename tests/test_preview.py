"""The picture of the queue: what it shows, and that it disturbs nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fifo_diffusion as fifo
from fifo_diffusion.decide import resolve
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.preview import Preview, Queue, compose
from fifo_diffusion.session import Session

TINY = {"prompt": "-", "model": "gauss", "size": (16, 8), "frames": 5, "partitions": 2}


def flat(*values: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([np.full((8, 16, 3), value, np.uint8) for value in values])


def test_each_place_is_a_column_with_what_it_is_above_what_it_becomes() -> None:
    sheet = np.asarray(compose(Queue(["frame 0", "frame 1", "frame 2"], flat(50, 60, 70), flat(150, 160, 170))))
    columns, rows = (4 + 48, 104 + 48, 204 + 48), (14 + 20, 76 + 20)
    assert [int(sheet[rows[0], x, 0]) for x in columns] == [50, 60, 70]
    assert [int(sheet[rows[1], x, 0]) for x in columns] == [150, 160, 170]
    assert (sheet[2 * (14 + 48) + 1 :] > 100).any()  # the names


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


def test_a_picture_takes_no_more_than_its_share(tmp_path: Path) -> None:
    preview, drawn = Preview(str(tmp_path / "q.jpg"), share=1e-9), 0

    def draw() -> Queue:
        nonlocal drawn
        drawn += 1
        return Queue(["a"], flat(50), flat(60))

    for _ in range(1000):
        preview(draw)
    assert drawn == 1


def test_a_picture_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    folder, said = tmp_path / "gone", list[str]()
    folder.mkdir()
    preview = Preview(str(folder / "q.png"), share=1, warn=said.append)
    folder.rmdir()
    frames = list(Session(resolve(fifo.Run.of(TINY)), preview=preview).frames())
    assert len(frames) == 5
    assert len(said) == 1
    assert "going on without" in said[0]


def test_a_name_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.png"):
        Preview(str(tmp_path / "q.mp4"))
    with pytest.raises(OutputError, match="missing"):
        fifo.generate(**TINY, output=str(tmp_path / "a.mp4"), preview=str(tmp_path / "no" / "q.png"))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
