"""A table of prompts as people write it: `--prompt "4.5s: ..."`, or a YAML file with an entry for each prompt.

Times are frames (120) or seconds (4.5s); they become frames here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fifo_diffusion.config import Cue
from fifo_diffusion.errors import BadInput

_KEYS = ("at", "prompt", "negative", "guidance", "blend")


def frames(text: str, fps: float) -> int:
    """'120' -> 120, '4.5s' -> 4.5 seconds in frames.  Raises BadInput."""
    match = re.fullmatch(r"(\d{1,9})|(\d{1,9}(?:\.\d+)?|\.\d+)\s*s", text.strip())
    if match is None:
        raise BadInput(f"{text!r} is no time; give frames, such as 120, or seconds, such as 4.5s")
    return int(match[1]) if match[1] else round(float(match[2]) * fps)


def spoken(prompts: Sequence[str], fps: float, blend: int = 0) -> list[Cue]:
    """The cues of `--prompt "120: ..."`, given any number of times.  Raises BadInput, naming the one that is wrong."""
    cues = []
    for given in prompts:
        at, colon, prompt = given.partition(":")
        try:
            if not colon:
                raise BadInput("it does not say when; put a frame or a time before it, such as '120: a blue whale'")
            cues.append(Cue.of({"at": frames(at, fps), "prompt": prompt.strip(), "blend": blend}))
        except BadInput as error:
            raise BadInput(f"--prompt {given!r}: {error}") from None
    return cues


def read(path: Path, fps: float, blend: int = 0) -> list[Cue]:
    """The cues of a YAML file: a list of {at, prompt, negative, guidance, blend}, the last three if wanted.

    blend: frames, for entries that do not say.  Raises BadInput, naming the entry that is wrong.
    """
    try:
        # All scalars as text: YAML's own reading takes 1:30 for 90, and a prompt `on` for true.
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise BadInput(f"the script {path} cannot be read ({error.strerror}); give a YAML file of prompts") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" at line {mark.line + 1}"
        raise BadInput(
            f"the script {path} is not YAML{where}; it lists entries such as '- {{at: 12s, prompt: a blue whale}}', "
            "with quotes around a prompt that has a colon or a comma"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"the script {path} is not a list; each entry begins with '- at: ' and has a prompt")
    cues = []
    for number, entry in enumerate(entries, 1):
        try:
            cues.append(_cue(entry, fps, blend))
        except BadInput as error:
            raise BadInput(f"{path}, entry {number}: {error}") from None
    return cues


def table(cues: Sequence[Cue], prompt: str | None) -> dict[str, Any]:
    """The settings `prompt` and `cues` of a run: what was said of times, and the prompt that was said without one.

    Raises BadInput when nothing, or more than one prompt, is said for frame 0.
    """
    if prompt is not None and cues[0].at == 0 and cues[0].prompt != prompt:
        raise BadInput(f"frame 0 got two prompts, {prompt!r} and {cues[0].prompt!r}; give one of them")
    if prompt is None and cues[0].at != 0:
        raise BadInput(
            f"the first prompt, {cues[0].prompt!r}, is at frame {cues[0].at}; the first must be at 0, "
            "since a video shows something from its first frame on"
        )
    return {"prompt": cues[0].prompt if prompt is None else prompt, "cues": tuple(cues)}


def _cue(entry: object, fps: float, blend: int) -> Cue:
    if not isinstance(entry, Mapping):
        raise BadInput(
            f"it is {entry!r}; it must have at least at and prompt, such as {{at: 12s, prompt: a blue whale}}"
        )
    for key in entry:
        if key not in _KEYS:
            raise BadInput(f"{key!r} is unknown; an entry has {', '.join(_KEYS)}")
    for key in ("at", "prompt"):
        if key not in entry:
            raise BadInput(f"it has no {key}; give one")
    settings: dict[str, Any] = {"at": _time(entry, "at", fps), "prompt": entry["prompt"]}
    settings["blend"] = _time(entry, "blend", fps) if "blend" in entry else blend
    if "negative" in entry:
        settings["negative_prompt"] = entry["negative"]
    if "guidance" in entry:
        settings["guidance"] = entry["guidance"]
    return Cue.of(settings)


def _time(entry: Mapping[str, object], key: str, fps: float) -> int:
    try:
        return frames(str(entry[key]), fps)
    except BadInput as error:
        raise BadInput(f"{key} {error}") from None
