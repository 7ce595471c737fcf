"""The JSON beside a video: every setting, seed and version, so that the same video can be made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fifo_diffusion.config import OF_FIFO, OF_OTHERS, Decided
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.letters import is_folder
from fifo_diffusion.whole import write_whole


class Sidecar(BaseModel):
    """What was run, where, and what came out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fifo_diffusion: str  # version
    run: Decided
    scale: Annotated[int, Field(ge=1)]
    crf: int | None
    machine: dict[str, str | int]
    weights: str  # what tells the model's weights from others
    clip_frames: int = 0  # of a clip that the video goes on from, how many stand before its own in the file
    frames_written: int  # new ones
    frames_sha256: str  # of the raw frames, in order, before scaling and encoding
    seconds: dict[str, float]  # by part
    wall_seconds: float  # from the first to the last, loading included
    peak_memory_mb: int


def path_beside(output: str) -> Path | None:
    """`clip.mp4` -> `clip.mp4.json`, `frames/` -> `frames/fifo.json`; None where there is no file to stand beside."""
    if output in ("-", "null"):
        return None
    path = Path(output)
    return path / "fifo.json" if is_folder(output) else path.with_name(path.name + ".json")


def again(before: Sidecar, said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make `before` again, with what was said now; what that unsettles is left to be decided anew.

    The frames are those that were made, so that a video that was stopped comes out as it is.
    """
    settings = {**before.run.model_dump(), "frames": before.frames_written}
    if said.get("model", before.run.model) != before.run.model:
        of_the_model = (
            "weights",
            "lora",
            "memory",
            "halves",
            "compile",
            "size",
            "fps",
            *OF_OTHERS,
            "partitions",
            "lookahead",
            "eta",
            "guidance",
            "guidance_levels",
            "batch",
        )
        settings = {name: value for name, value in settings.items() if name not in of_the_model}
    if "prompt" in said:
        settings.pop("cues")  # they go on from the prompt that was
    if {"partitions", "lookahead", "memory"} & said.keys():
        settings = {name: value for name, value in settings.items() if name not in ("batch", "halves")}
    if "clip" in said:
        settings.pop("clip_sha256", None)
    method = said.get("method", before.run.method)
    useless: tuple[str, ...] = OF_OTHERS if method == "fifo" else OF_FIFO
    if method != before.run.method:
        useless = (*OF_OTHERS, *OF_FIFO, "eta", "batch")
    settings = {name: value for name, value in settings.items() if name not in useless}
    if said.get("solver") == "2m":
        settings.pop("eta", None)
    return {**settings, **said}


def write(sidecar: Sidecar, path: Path) -> None:
    """Beside, then renamed.  Raises OutputError."""
    try:
        write_whole(path, sidecar.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise OutputError(
            f"the settings could not be written to {path} ({error.strerror}); free some room or name another folder"
        ) from error


def read(path: Path) -> Sidecar:
    """Raises BadInput for a file that is missing or no sidecar of this version."""
    try:
        return Sidecar(**json.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise BadInput(
            f"the sidecar {path} cannot be read ({error.strerror}); give the .json that stands beside a video"
        ) from error
    except (ValueError, TypeError, ValidationError) as error:
        at = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else "its JSON"
        raise BadInput(
            f"{path} is not a sidecar that this version understands (see {at}); give the .json beside a video of fifo"
        ) from error
