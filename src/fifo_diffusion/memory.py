"""Memory that does not suffice, in words."""

from __future__ import annotations

import re

import torch

from fifo_diffusion.errors import OutOfMemory

# torch has a class for its own memory on CUDA, and only words for what CUDA and its libraries take beside it, for the
# processor's memory and for Apple's MPS.
_WORDS = re.compile(
    r"can't allocate memory|MPS backend out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)


def lacks_memory(error: Exception) -> bool:
    """Whether this is what torch, numpy or Python raise where there is no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def no_memory_left(error: Exception) -> Exception:
    """OutOfMemory where there is no memory left; else the error itself."""
    if isinstance(error, OutOfMemory) or not lacks_memory(error):
        return error
    wanted = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
    gpu = isinstance(error, torch.OutOfMemoryError) or re.search("CUDA|CUBLAS", str(error)) is not None
    where = "memory of the GPU" if gpu else "memory"
    much = "" if wanted is None else f" ({wanted[1]} more were asked for)"
    return OutOfMemory(
        f"the {where} does not suffice{much}; --memory low, --batch 1, --fp8 weights or a smaller --size need less"
    )
