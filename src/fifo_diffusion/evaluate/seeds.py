"""The videos that an evaluation makes for itself: every prompt with every seed, as the jobs of a batch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fifo_diffusion.errors import BadInput


def listed(prompts: Path, seeds: int, settings: Mapping[str, Any], png: bool) -> list[dict[str, Any]]:
    """A job a prompt and seed, each with a name of its own; `batch.jobs` says what a job may hold, and checks it.

    prompts: a prompt a line, or an object with the settings of a job, which stand over `settings`; what begins with #
    is left out.  seeds: how many, from the one in the settings on.  Raises BadInput.
    """
    if seeds < 1:
        raise BadInput(f"--seeds is {seeds}; give 1 or more")
    try:
        lines = prompts.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"the prompts {prompts} cannot be read ({why}); give a text with a prompt a line") from error
    jobs = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        said = {**settings, **_said(line, f"{prompts}, line {number}")}
        first = int(said.pop("seed", 0))
        given = said.pop("output", None)
        stem = f"{number:03}-{_slug(str(said.get('prompt', given or '')))}" if given is None else Path(given).stem
        kind = "" if png else ".mp4"
        jobs += [{**said, "seed": s, "output": f"{stem}-seed{s}{kind}"} for s in range(first, first + seeds)]
    if not jobs:
        raise BadInput(f"the prompts {prompts} hold none; write a prompt a line")
    return jobs


def _said(line: str, where: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {"prompt": line}
    try:
        said = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is no JSON ({error.msg} at column {error.colno}); a prompt needs no braces") from None
    assert isinstance(said, dict)
    return said


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].rstrip("-") or "video"
