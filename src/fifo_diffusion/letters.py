"""Text that files and their names can hold, and what a name says."""

import os
from pathlib import Path


def can_be_written(text: str) -> bool:
    """Half of a pair stands for nothing in UTF-8; NUL is the end of a name and of a tag."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def writable(name: str | os.PathLike[str]) -> str:
    """A file's name, or what was typed, as text that can be written: some have bytes that are no letters."""
    return os.fsencode(name).decode("utf-8", "replace")


def is_folder(path: str) -> bool:
    """Whether an output of this name is a folder of pictures."""
    return path.endswith("/") or os.path.isdir(path) or not Path(path).suffix
