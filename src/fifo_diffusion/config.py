"""One frozen, validated description of a run: the flags, the Python arguments and the JSON sidecar are all this.

Knows no model: what is left None is the model's own default, decided by `session.resolve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fifo_diffusion.errors import BadInput

Lookahead = Literal["off", "last", "middle"]


class Run(BaseModel):
    """Everything that decides a video's pixels, and on what it is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: str
    negative_prompt: str = ""
    model: str = "embedded"
    weights: str | None = None  # a Hub id, a folder or a file; None: the model's own
    lora: tuple[str, ...] = ()  # FILE, FOLDER or either with :scale behind it, added in this order
    frames: Annotated[int, Field(ge=0)] | None = None  # 0: without end
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    fps: Annotated[float, Field(ge=0.1, le=240)] | None = None
    partitions: Annotated[int, Field(ge=1, le=64)] | None = None
    lookahead: Lookahead | None = None
    solver: Literal["ddim", "2m"] = "ddim"
    levels: Literal["even", "paper"] = "even"
    start: Literal["clip", "noise"] = "clip"
    eta: Annotated[float, Field(ge=0, le=1)] | None = None
    guidance: Annotated[float, Field(ge=0, le=50)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    memory: Literal["auto", "low", "high"] = "auto"  # low: as little as can be; auto: by what the GPU has
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError(
                "it is empty; say what the video shows, e.g. 'a red balloon drifting right over snowy mountains'"
            )
        return prompt

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Raises BadInput, in one sentence, for an unknown setting or a value that is not allowed."""
        try:
            return cls(**settings)
        except ValidationError as error:
            raise BadInput(_sentence(error)) from None


class Decided(Run):
    """A run with nothing left open: what is computed, and what the sidecar keeps (see `session.resolve`)."""

    frames: Annotated[int, Field(ge=0)]
    size: tuple[int, int]
    fps: Annotated[float, Field(ge=0.1, le=240)]
    partitions: Annotated[int, Field(ge=1, le=64)]
    lookahead: Lookahead
    eta: Annotated[float, Field(ge=0, le=1)]
    guidance: Annotated[float, Field(ge=0, le=50)]
    batch: Annotated[int, Field(ge=1)]
    memory: Literal["low", "high"] = "high"


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "the settings"
    if first["type"] == "extra_forbidden":
        return f"setting {name!r} is unknown; the settings are {', '.join(Run.model_fields)}"
    if first["type"] == "missing":
        return f"{name} is missing; every run needs one"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if message.startswith("it is"):
        return f"{name}: {message}"
    return f"{name} is {first['input']!r}; {message.replace('input should be', 'it must be')}"
