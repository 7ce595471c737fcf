"""Memory that does not suffice, in words."""

from __future__ import annotations

import re

import torch

from fifo_diffusion.errors import OutOfMemory


def no_memory_left(error: Exception) -> Exception:
    """OutOfMemory for what torch, numpy or Python raise where there is no memory left; else the error itself."""
    said = str(error)  # torch has a class for devices, and for the processor's memory only these words
    processor = isinstance(error, RuntimeError) and "can't allocate memory" in said
    if isinstance(error, OutOfMemory) or not (processor or isinstance(error, (torch.OutOfMemoryError, MemoryError))):
        return error
    wanted = re.search(r"tried to allocate ([\d.]+ \w+)", said, re.IGNORECASE)
    where = "memory of the GPU" if isinstance(error, torch.OutOfMemoryError) else "memory"
    much = "" if wanted is None else f" ({wanted[1]} more were asked for)"
    return OutOfMemory(
        f"the {where} does not suffice{much}; --memory low, --batch 1, --fp8 weights or a smaller --size need less"
    )
