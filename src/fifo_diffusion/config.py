"""One frozen, validated description of a run: the flags, the Python arguments and the JSON sidecar are all this.

Knows no model: what is left None is the model's own default, decided by `decide.resolve`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fifo_diffusion.errors import BadInput
from fifo_diffusion.letters import can_be_written

Method = Literal["fifo", "plain", "chunked", "genlvideo", "freenoise", "freelong", "riflex"]
OF_FIFO = ("partitions", "lookahead", "solver", "start", "frames_per_level", "guidance_levels")  # what only FIFO has
OF_OTHERS = ("steps", "stride", "overlap", "repeats")  # what only the methods that it is compared with have
_INSTEAD = {  # what is meant by a setting that there is not, or not here
    "steps": "FIFO has window x partitions noise levels, so give it other partitions",
    "partitions": "give it steps, the noise levels",
    "seconds": "give frames, which are seconds x fps",
}


def span(text: str | None) -> tuple[int, int] | None:
    """The two whole numbers of "LO-HI"; None of anything else."""
    match = re.fullmatch(r"(\d+)-(\d+)", text or "")
    return None if match is None else (int(match[1]), int(match[2]))


def _part_of_a_window(lookahead: str) -> str:
    if lookahead not in ("off", "last", "middle") and span(lookahead) is None:
        raise ValueError(
            "it must be 'off', 'last' or 'middle', or the frames of a window to keep, LO-HI, counted from 0, such as "
            "'6-14'"
        )
    return lookahead


Lookahead = Annotated[str, AfterValidator(_part_of_a_window)]


def _part_of_the_levels(levels: str) -> str:
    first, last = span(levels) or (0, 0)
    if not 1 <= first <= last:
        raise ValueError(
            "it must be FIRST-LAST, the levels at which there is guidance, from 1 (nearly clean) up, such as '9-64'"
        )
    return levels


GuidanceLevels = Annotated[str, AfterValidator(_part_of_the_levels)]


def _of_letters(text: str) -> str:
    if not can_be_written(text):
        raise ValueError(f"{text!a} has a character that no file takes, NUL or one that is no UTF-8; leave it out")
    return text


def _says_something(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError(
            "it is empty; say what the video shows, e.g. 'a red balloon drifting right over snowy mountains'"
        )
    return prompt


def _a_name(path: object) -> object:
    """Of a file or a folder, which may be a `Path`."""
    if path == "":
        raise ValueError("it is empty; name a file or a folder, or leave it out")
    return os.fspath(path) if isinstance(path, os.PathLike) else path


Text = Annotated[str, AfterValidator(_of_letters)]
Name = Annotated[Text, BeforeValidator(_a_name)]
Prompt = Annotated[Text, AfterValidator(_says_something)]
Guidance = Annotated[float, Field(ge=0, le=50)]
Halves = Literal["together", "apart"]


class _Settings(BaseModel):
    """Named values that are checked as they are given and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Raises BadInput, in one sentence, for an unknown setting or a value that is not allowed."""
        try:
            return cls(**settings)
        except ValidationError as error:
            raise BadInput(_sentence(error, cls)) from None


class Cue(_Settings):
    """What a video shows from one of its frames on."""

    at: Annotated[int, Field(ge=0)]  # the first frame that hears it
    prompt: Prompt
    negative_prompt: Text | None = None  # None: the run's
    guidance: Guidance | None = None  # None: the run's
    blend: Annotated[int, Field(ge=0)] = 0  # frames from `at` on that hear a mixture of the one before and this one


class Run(_Settings):
    """Everything that decides a video's pixels, and on what it is computed."""

    prompt: Prompt
    cues: tuple[Cue, ...] = ()  # by frame, where the prompt changes: the first is at 0 and says `prompt`
    negative_prompt: Text = ""
    model: str = "embedded"
    weights: Name | None = None  # a Hub id, a folder or a file; None: the model's own
    lora: tuple[Name, ...] = ()  # FILE, FOLDER or either with :scale behind it, added in this order
    frames: Annotated[int, Field(ge=0)] | None = None  # 0: without end
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    fps: Annotated[float, Field(ge=0.1, le=240)] | None = None
    method: Method = "fifo"  # or another way to a long video, to compare with (see `methods`)
    steps: Annotated[int, Field(ge=1)] | None = None  # noise levels of the other methods; FIFO has window x partitions
    stride: Annotated[int, Field(ge=1)] | None = None  # genlvideo, freenoise, freelong: between windows
    overlap: Annotated[int, Field(ge=0)] | None = None  # chunked: frames that a clip takes over
    repeats: Annotated[int, Field(ge=1)] | None = None  # riflex: latent frames after which the network repeats itself
    partitions: Annotated[int, Field(ge=1, le=64)] | None = None
    lookahead: Lookahead | None = None
    frames_per_level: Annotated[int, Field(ge=1)] = 1  # that leave together; above 1 faster, and not the same
    solver: Literal["ddim", "2m"] = "ddim"
    levels: Literal["even", "paper"] = "even"
    start: Literal["clip", "noise"] = "clip"
    clip: Name | None = None  # a video, a picture or a folder of pictures to go on from
    clip_sha256: str | None = None  # of that file; another one is refused
    eta: Annotated[float, Field(ge=0, le=1)] | None = None
    guidance: Guidance | None = None
    guidance_levels: GuidanceLevels | None = None  # FIRST-LAST, 1 .. K; None: all of them
    batch: Annotated[int, Field(ge=1)] | None = None
    memory: Literal["auto", "low", "high"] = "auto"  # low: as little as can be; auto: by what the GPU has
    halves: Halves | None = None  # of guidance: as one call, or two, which ranks can share (memory low has two)
    split: Annotated[int, Field(ge=1, le=64)] = 1  # ranks that share one network, where it is too large for one
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    # What of the network is in eight bits: nothing, its large weights, or also what its linear layers multiply; all
    # else is computed in dtype.
    fp8: Literal["off", "weights", "products"] = "off"
    compile: Literal["auto", "on", "off"] = "auto"  # the network by torch.compile; changes the last bits

    @field_validator("cues")
    @classmethod
    def _a_table(cls, cues: tuple[Cue, ...], info: ValidationInfo) -> tuple[Cue, ...]:
        """Sorted, and from frame 0 on: where only changes were given, the prompt stands before them."""
        if not cues or "prompt" not in info.data:
            return cues
        prompt = info.data["prompt"]
        if cues[0].at > 0:
            cues = (Cue(at=0, prompt=prompt), *cues)
        elif cues[0].prompt != prompt:
            raise ValueError(f"it is {prompt!r} and {cues[0].prompt!r} at frame 0; give one of them")
        for one, next_ in pairwise(cues):
            if next_.at <= one.at:
                raise ValueError(
                    f"it is not in order: {next_.prompt!r} is at frame {next_.at} and comes after {one.prompt!r} "
                    f"at frame {one.at}; give them by rising frames, each a frame of its own"
                )
        return cues

    @model_validator(mode="after")
    def _of_this_method(self) -> Self:
        """What a method has no use for is refused, where it was said and would be something else."""
        defaults = type(self).model_fields
        for name in () if isinstance(self, Decided) else OF_OTHERS if self.method == "fifo" else OF_FIFO:
            if getattr(self, name) not in (None, defaults[name].default):
                instead = _INSTEAD.get(name, "leave it out")
                raise ValueError(f"{name} means nothing to method {self.method}; {instead}")
        return self

    @property
    def table(self) -> tuple[Cue, ...]:
        """The cues; of a run with one prompt that prompt, at frame 0."""
        return self.cues or (Cue(at=0, prompt=self.prompt),)


class Decided(Run):
    """A run with nothing left open: what is computed, and what the sidecar keeps (see `decide.resolve`)."""

    frames: Annotated[int, Field(ge=0)]
    size: tuple[int, int]
    fps: Annotated[float, Field(ge=0.1, le=240)]
    eta: Annotated[float, Field(ge=0, le=1)]
    guidance: Guidance
    batch: Annotated[int, Field(ge=1)]
    memory: Literal["low", "high"] = "high"
    # In a description that older code wrote, what is not said is what that code did.
    halves: Halves = Field(default_factory=lambda said: "apart" if said.get("memory") == "low" else "together")
    compile: Literal["on", "off"] = "off"


def _sentence(error: ValidationError, kind: type[_Settings]) -> str:
    first = error.errors(include_url=False)[0]
    where = ""
    if len(first["loc"]) > 1 and first["loc"][0] == "cues":
        kind, where = Cue, f"cue {int(first['loc'][1]) + 1}: "
        first["loc"] = first["loc"][2:]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        near = get_close_matches(name, kind.model_fields, n=1, cutoff=0.7)
        hint = _INSTEAD.get(name) or (f"did you mean {near[0]}?" if near else "")
        listed = f"the settings are {', '.join(kind.model_fields)}"
        return f"{where}setting {name!r} is unknown; {hint or listed}"
    if first["type"] == "missing":
        return f"{where}{name} is missing; every {kind.__name__.lower()} needs one"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if first["type"].startswith(("greater_than", "less_than")) and (allowed := _allowed(kind, name)):
        return f"{where}{name} is {first['input']!r}; give {allowed}"
    if message.startswith("it is"):
        return f"{where}{name}: {message}"
    return f"{where}{name} is {first['input']!r}; {message.replace('input should be', 'it must be')}"


def _allowed(kind: type[_Settings], name: str) -> str:
    """The numbers that a setting takes, in words; empty where that is not a range."""
    field = kind.model_json_schema()["properties"].get(name, {})
    said: dict[str, Any] = next((one for one in (field, *field.get("anyOf", ())) if "minimum" in one), {})
    low, high, below = (said.get(bound) for bound in ("minimum", "maximum", "exclusiveMaximum"))
    if low is None:
        return ""
    return f"{low:g} to {high:g}" if high is not None else f"{low:g} or more" + (f", below {below}" if below else "")
