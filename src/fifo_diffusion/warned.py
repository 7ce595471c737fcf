"""Python's warnings, said to whoever watches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def warned(warn: Callable[[str], None]) -> Iterator[None]:
    """What is warned of meanwhile goes to `warn` as a line, and not to stderr with a place in code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where: warn(str(message))
        yield
