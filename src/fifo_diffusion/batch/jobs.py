"""The list of a batch: JSON Lines, each an object with the settings of one video and the name of its file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from fifo_diffusion import script
from fifo_diffusion.config import Run
from fifo_diffusion.errors import BadInput
from fifo_diffusion.letters import can_be_written
from fifo_diffusion.models import pace

_DEVICES = ("auto", "cpu", "cuda", "mps")
_LONGEST = 200  # bytes of a name: a file system has room for 255, and what stands beside a video has a longer one
_DIGITS = 19  # of a whole number: a seed has the most


class Job(Run):
    """Every setting of a run, and what `fifo generate` is told beside it."""

    output: str  # a name in the folder of the batch
    scale: Annotated[int, Field(ge=1)] | None = None
    crf: int | None = None
    only_new: bool = False

    @field_validator("output")
    @classmethod
    def _a_name(cls, output: str) -> str:
        name = output.rstrip("/")
        if name != Path(name).name or name in ("", ".", "..", "-", "null") or name.startswith("."):
            raise ValueError(f"it is {output!r}; give the name of a file or folder in DIR, such as balloon.mp4")
        if ".partial" in name:
            raise ValueError(f"it is {output!r}, but files under way are called .partial; give another name")
        if (size := len(name.encode())) > _LONGEST:
            raise ValueError(f"it is a name of {size} bytes, {name[:20]}...; give one of at most {_LONGEST}")
        return name

    @field_validator("frames")
    @classmethod
    def _an_end(cls, frames: int | None) -> int | None:
        if frames == 0:
            raise ValueError("it is 0, a video without end; give how many the video shall have, such as 600")
        return frames

    @field_validator("device")
    @classmethod
    def _a_kind(cls, device: str) -> str:
        if device not in _DEVICES:
            raise ValueError(
                f"it is {device!r}; a batch deals its devices itself, so leave it out or say {', '.join(_DEVICES)}"
            )
        return device

    @property
    def run(self) -> Run:
        """Without what is not of the run."""
        return Run.of({name: getattr(self, name) for name in Run.model_fields})


def read(path: Path) -> dict[int, Job]:
    """The jobs by the number of their line.

    A job may name a `script` in place of `cues`.  Files are found from this folder, as those of flags are, and named in
    full from here on, since a worker may stand elsewhere.
    Raises BadInput for the first line that is wrong, and says how many more there are.
    """
    try:
        # At these ends of lines and nowhere else: JSON has others in texts.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"the list {path} cannot be read ({why}); give a file with a JSON object a line") from error
    jobs: dict[int, Job] = {}
    wrong: list[str] = []
    names: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            job = _job(line)
            first = names.setdefault(job.output.casefold(), number)  # some disks take a.mp4 and A.mp4 for one
            if first != number:
                raise BadInput(f"output {job.output!r} is that of line {first} too; give each job a name of its own")
            jobs[number] = job
        except BadInput as error:
            wrong.append(f"{path}, line {number}: {error}")
    refuse(wrong)
    if not jobs:
        raise BadInput(f'the list {path} has no jobs; give a line such as {{"prompt": "a whale", "output": "a.mp4"}}')
    return jobs


def refuse(wrong: list[str]) -> None:
    """Raises BadInput with the first of what is wrong, if anything is."""
    if wrong:
        more = len(wrong) - 1
        raise BadInput(wrong[0] + (f" ({more} more line{'s are' if more > 1 else ' is'} wrong)" if more else ""))


def _job(line: str) -> Job:
    try:
        return Job.of(_in_full(_scripted(_object(line))))
    except RecursionError:
        raise BadInput("it, or its script, is nested too deeply; a job is one object on one line") from None


def _object(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"it is not JSON ({error.msg} at column {error.colno}); a job is one object on one line"
        ) from None
    if not isinstance(said, dict):
        raise BadInput('it is no object; a job is one, such as {"prompt": "a whale", "output": "a.mp4"}')
    for name, value in said.items():
        if not all(map(can_be_written, _texts([name, value]))):
            raise BadInput(f"{name!a} has a character that no file takes, NUL or half of a pair; leave it out")
    return said


def _whole(digits: str) -> int:
    """Python itself can neither read nor show one of some thousand digits."""
    if len(digits.lstrip("-")) > _DIGITS:
        raise BadInput(f"it has a number of {len(digits)} digits, {digits[:8]}...; no setting is that large")
    return int(digits)


def _texts(value: object) -> Iterator[str]:
    """All texts in what JSON says, names of settings too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _scripted(said: Mapping[str, Any]) -> dict[str, Any]:
    """With the prompts of the script, if it names one."""
    said = dict(said)
    named = said.pop("script", None)
    if named is None:
        return said
    if not isinstance(named, str):
        raise BadInput(f"script is {named!r}; give the name of a YAML file of prompts")
    if "cues" in said:
        raise BadInput("both script and cues were given; put all prompts into one of them")
    cues = script.read(Path(named), pace(said))
    return said | script.table(cues, said.get("prompt"))


def _in_full(said: Mapping[str, Any]) -> dict[str, Any]:
    def full(name: Any) -> Any:
        return os.path.abspath(name) if isinstance(name, str) and os.path.exists(name) else name

    said = {name: full(value) if name in ("clip", "weights") else value for name, value in said.items()}
    if isinstance(given := said.get("lora"), list):
        said["lora"] = [_lora_in_full(name) for name in given]
    return said


def _lora_in_full(given: Any) -> Any:
    """`FILE:scale` with the whole name of the file."""
    from fifo_diffusion.models.lora import find_lora

    if not isinstance(given, str):
        return given
    file, scale = find_lora(given)
    return f"{os.path.abspath(file)}:{repr(scale).removesuffix('.0')}"
