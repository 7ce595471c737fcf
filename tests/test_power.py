"""A power cut at any moment: what nobody waited for is gone, and what is left can be gone on with."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fifo_diffusion import api, checkpoint, runs
from fifo_diffusion.config import Run
from fifo_diffusion.whole import write_whole

RUN = Run.of({"prompt": "-", "model": "gauss", "size": (16, 16), "partitions": 1, "fps": 4, "frames": 14})
Tree = dict[str, bytes]


@dataclass
class Disk:
    """What would outlast a power cut, as fsync(2) has it: of a file what it held when it was last synced, of a folder
    the names in it then; whatever was written, renamed or deleted since is as if it had not been.

    cuts: all that, after each sync.
    """

    root: Path
    cuts: list[Tree] = field(default_factory=list)
    _data: dict[int, bytes] = field(default_factory=dict)
    _names: dict[int, dict[str, int]] = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)  # so that no number of a file is used again

    def sync(self, handle: int) -> None:
        here = f"/proc/self/fd/{handle}"
        what = os.fstat(handle)
        if stat.S_ISDIR(what.st_mode):
            self._names[what.st_ino] = {name: self._keep(f"{here}/{name}") for name in os.listdir(handle)}
        else:
            self._data[self._keep(here)] = Path(here).read_bytes()
        self.cuts.append(dict(self._left(self.root.stat().st_ino, "")))

    def _keep(self, path: str) -> int:
        number = os.stat(path).st_ino
        if number not in self._open:
            self._open[number] = os.open(path, os.O_RDONLY)
        return number

    def _left(self, folder: int, where: str) -> Iterator[tuple[str, bytes]]:
        for name, number in self._names.get(folder, {}).items():
            if stat.S_ISDIR(os.fstat(self._open[number]).st_mode):
                yield from self._left(number, f"{where}{name}/")
            else:
                yield where + name, self._data.get(number, b"")

    def close(self) -> None:
        for handle in self._open.values():
            os.close(handle)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    watched, real = Disk(tmp_path / "disk"), os.fsync
    watched.root.mkdir()

    def fsync(handle: int) -> None:
        real(handle)
        watched.sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield watched
    watched.close()


def put(tree: Tree, folder: Path) -> None:
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def begun(folder: Path) -> int:
    """The frame that is gone on from: the latest that has a checkpoint, for its frames are there.  0 without one."""
    said: list[str] = []
    frames = checkpoint.committed(folder)
    chosen = runs.choose(folder, checkpoint.description(folder), None, said.append)
    frame = chosen.checkpoint.frame if chosen.checkpoint is not None else 0
    assert (frame, said) == (max(frames, default=0), [])
    return frame


@pytest.mark.parametrize(
    ("name", "every", "kept"),
    [
        ("a.mp4", 1e-9, {4, 8, 12, 16, 20, 24}),
        ("a.mp4", 3600, {12, 24}),
        ("frames", 1e-9, {4, 8, 12, 16, 20, 24}),
        ("frames", 3600, {14, 26}),
    ],
)
def test_whatever_a_power_cut_leaves_can_be_gone_on_with(
    name: str, every: float, kept: set[int], disk: Disk, tmp_path: Path
) -> None:
    """Of a video that is made, and then made longer.  kept: frames that there must have been a checkpoint of."""
    output = disk.root / name
    for frames in (14, 26):
        if frames == 14:
            api.make(RUN, str(output), checkpoint_every=every)
        else:
            api.resume(str(output), frames=frames, checkpoint_every=every)
        files = [output] if output.is_file() else output.glob("*.png")
        there = {str(file.relative_to(disk.root)): file.read_bytes() for file in files}
        assert there.items() <= disk.cuts[-1].items()

    begin: list[int] = []
    for number, cut in enumerate(disk.cuts):
        left = tmp_path / f"cut {number}"
        put(cut, left)
        folder = checkpoint.folder_beside(str(left / name), folder=name == "frames")
        if begin or (folder / "run.json").exists():
            begin.append(begun(folder))
    assert begin == sorted(begin)
    assert kept <= set(begin)


def test_a_file_is_as_it_was_or_as_it_shall_be(disk: Disk) -> None:
    path, versions = disk.root / "a.json", [b"one", b"two and more"]
    for version in versions:
        write_whole(path, version)
    assert {cut["a.json"] for cut in disk.cuts if "a.json" in cut} == set(versions)
    assert disk.cuts[-1] == {"a.json": versions[-1]}
