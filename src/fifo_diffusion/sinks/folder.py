"""A folder of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from fifo_diffusion.digest import link
from fifo_diffusion.errors import OutputError
from fifo_diffusion.names import Frame
from fifo_diffusion.sinks.base import FrameSink
from fifo_diffusion.sinks.coded import Begun, picture_name, picture_number
from fifo_diffusion.whole import to_disk


class PngSink(FrameSink):
    """A folder of frame_000000.png, frame_000001.png, ...: exact pixels, and the metadata in each."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        scale: int,
        metadata: Mapping[str, str],
        begun: Begun | None = None,
    ) -> None:
        from PIL.PngImagePlugin import PngInfo

        super().__init__(size, scale)
        self.path = path
        self._info = PngInfo()
        for key, text in metadata.items():
            self._info.add_itxt(key, text)
        self._made = not path.exists()
        self._synced = 0  # the first file that a power cut could take
        try:
            path.mkdir(exist_ok=True)
            if self._made:
                to_disk(path.parent)
        except OSError as error:
            raise OutputError(f"cannot make the folder {path}: {error.strerror}") from error
        if begun is not None:
            self._go_on(begun)

    def _go_on(self, begun: Begun) -> None:
        assert self.path is not None
        if begun.source == self.path:
            try:
                for file in self.path.iterdir():
                    number = picture_number(file.name)
                    if number is not None and number >= begun.frames:
                        file.unlink()
            except OSError as error:
                raise OutputError(f"cannot go on writing to {self.path}: {error.strerror}") from error
            self._synced = begun.frames  # a checkpoint says so
        else:
            try:
                for number in range(begun.frames):
                    self._keep(number, (begun.source / picture_name(number)).read_bytes())
            except BaseException:  # Ctrl-C in a long copy: the folder is as free as it was
                for number in range(begun.frames):
                    self._unlink(number)
                raise
        self.frames, self.digest = begun.frames, begun.digest

    def abandon(self) -> None:
        for number in range(self.frames):
            self._unlink(number)
        super().abandon()

    def _unlink(self, number: int) -> None:
        assert self.path is not None
        with suppress(OSError):
            (self.path / picture_name(number)).unlink(missing_ok=True)

    def _put(self, frame: Frame) -> None:
        from PIL import Image

        coded = BytesIO()
        Image.fromarray(frame).save(coded, format="PNG", pnginfo=self._info)
        self._keep(self.frames, coded.getvalue())
        self.digest = link(self.digest, coded.getbuffer())

    def _keep(self, number: int, coded: bytes) -> None:
        assert self.path is not None
        file = self.path / picture_name(number)
        partial = file.with_name(f".{file.name}.partial")
        try:
            partial.write_bytes(coded)
            partial.replace(file)
        except OSError as error:
            if self.path.is_dir():
                partial.unlink(missing_ok=True)
            raise OutputError(f"cannot write {file}: {error.strerror}") from error

    def sync(self) -> None:
        assert self.path is not None
        try:
            for number in range(self._synced, self.frames):
                with suppress(FileNotFoundError):  # taken away by whoever shows them
                    to_disk(self.path / picture_name(number))
            to_disk(self.path)
        except OSError as error:
            raise OutputError(f"cannot go on writing to {self.path}: {error.strerror}") from error
        self._synced = self.frames

    def _end(self) -> None:
        assert self.path is not None
        if self._made and self.frames == 0:
            with suppress(OSError):  # another process has begun its pictures there
                self.path.rmdir()
