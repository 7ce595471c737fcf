"""What came of each job, in `results.jsonl`: a line a job, whole at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fifo_diffusion.digest import NOTHING, link
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.sinks import picture_files
from fifo_diffusion.whole import write_whole

NAME = "results.jsonl"
OWN = ".batch"  # the folder in DIR that is the batch's own
SEEN = "seen-"  # how files in it are called that nodes are asked whether they see


class Result(BaseModel):
    """A line.  stopped: by Ctrl-C, the file is whole and shorter than it shall be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # the job's output
    state: Literal["done", "failed", "stopped"]
    frames: int = 0  # in all, without those of a clip
    sha256: str | None = None  # of the raw frames, as in the sidecar
    file_sha256: str | None = None  # of the file, or of a folder's pictures
    seconds: float = 0.0  # under way in the batch that brought it here, tries that were lost included
    device: str | None = None
    worker: str | None = None  # the machine
    tries: int = 1
    error: str | None = None  # one sentence


class Results:
    """The lines so far.  Each that is added is on the disk at once."""

    def __init__(self, folder: Path) -> None:
        """Raises BadInput for a file that was changed by hand."""
        self._path = folder / NAME
        self._lines: dict[str, Result] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").split("\n")  # as in `jobs`
        except FileNotFoundError:
            lines = []
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{self._path} cannot be read ({error}); move it away to begin another") from error
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                result = Result.model_validate_json(line)
            except ValidationError:
                raise BadInput(
                    f"{self._path}, line {number} is no result of a batch; mend it, or move the file away, and what "
                    f"is finished is proved by the videos' own records"
                ) from None
            self._lines[result.name] = result

    @property
    def lines(self) -> Mapping[str, Result]:
        """By the job's output."""
        return self._lines

    def add(self, result: Result) -> None:
        """In place of one of the same job.  Raises OutputError."""
        self._lines.pop(result.name, None)
        self._lines[result.name] = result
        text = "".join(line.model_dump_json() + "\n" for line in self._lines.values())
        try:
            write_whole(self._path, text.encode())
        except OSError as error:
            raise OutputError(
                f"{self._path} cannot be written ({error.strerror}); run the same command again when it can"
            ) from error


def fingerprint(output: Path) -> str:
    """A digest of the bytes of a file, or of the pictures of a folder."""
    if not output.is_dir():
        with open(output, "rb") as file:
            return file_digest(file, "sha256").hexdigest()
    digest = NOTHING
    for picture in picture_files(output):
        digest = link(digest, picture.read_bytes())
    return digest
