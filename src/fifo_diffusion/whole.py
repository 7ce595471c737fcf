"""Files that are whole or not there: written beside, on the disk before they take their name."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from fifo_diffusion.errors import OutputError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that a crash or a power cut at any moment leaves as it was, or as it shall be.  Raises OSError."""
    beside = path.with_name(path.name + ".partial")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        if path.parent.is_dir():
            beside.unlink(missing_ok=True)
        raise
    to_disk(path.parent)


def check_writable(path: Path) -> None:
    """Raises OutputError where no file of this name can be made; nothing is left of the try.

    What the permissions say is not enough: a superuser may write to any folder, and /proc takes no file all the same.
    """
    if not os.path.isdir(path.parent):
        raise OutputError(f"there is no folder {path.parent}; make it first, or write elsewhere")
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"):  # longest of its kin
            pass
    except OSError as error:
        raise OutputError(
            f"the folder {path.parent} takes no file {path.name} ({error.strerror}); write elsewhere"
        ) from error


def to_disk(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, would outlast a power cut.  Raises OSError."""
    if os.name == "nt" and path.is_dir():  # Windows keeps names by itself, and opens no folder
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
