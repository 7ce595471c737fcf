"""What is typed behind a flag, read: each raises BadInput, which names the flag and what it takes."""

from __future__ import annotations

import re

from fifo_diffusion.errors import BadInput


def size_of(text: str) -> tuple[int, int]:
    """Of --size: (width, height) in pixels."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise BadInput(f"--size is {text!r}; give WIDTHxHEIGHT in pixels, such as 64x64")
    return int(match[1]), int(match[2])


def seconds_of(text: str) -> float:
    """Of --checkpoint-every: seconds; 0 for none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|)", text)
    if match is None and text != "off":
        raise BadInput(f"--checkpoint-every is {text!r}; give seconds, such as 30s, minutes, such as 5m, or off")
    return 0 if match is None else float(match[1]) * (60 if match[2] == "m" else 1)


def blend_of(text: str, fps: float) -> int:
    """Of --blend: frames, at so many a second."""
    from fifo_diffusion import script

    try:
        return script.frames(text, fps)
    except BadInput as error:
        raise BadInput(f"--blend {error}") from None
