"""Freed memory is kept for the next tensor, on Linux with glibc.

By default glibc gives large blocks back to the system at once, and every new tensor then waits for the system to clear
its pages.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**25
"""Blocks from this size on still go back at once: 32 MiB, the most that glibc takes."""
KEPT = 2**28
"""So much free memory at the end of the heap is kept: 256 MiB."""


@cache
def keep_freed_memory() -> bool:
    """For the whole process; once is enough.  Says whether the C library understood."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt  # musl and macOS have none
        return all([mallopt(_MMAP_THRESHOLD, LARGEST), mallopt(_TRIM_THRESHOLD, KEPT)])
    return False
