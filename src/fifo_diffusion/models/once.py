"""What need not be computed again: FIFO asks the same timesteps of a place in the queue in every iteration, and mostly
the same text, so whatever follows from these alone is the same too."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


class Once(Generic[Made]):
    """A function of tensors and of what compares, with its last few results, each for exactly equal arguments.

    Only on a CPU: elsewhere to look at the arguments would be to wait for the device.  There, with gradients and under
    torch.compile it is the function itself.
    """

    most = 8  # how many results are kept, at least an iteration's batches; 0: none

    def __init__(self, make: Callable[..., Made]) -> None:
        self.make = make
        self._kept: deque[tuple[tuple[Any, ...], Made]] = deque()

    def __call__(self, *given: object) -> Made:
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not self.most:
            return self.make(*given)
        if any(x.device.type != "cpu" for x in given if isinstance(x, Tensor)):
            return self.make(*given)
        entry = next((entry for entry in self._kept if all(map(_same, entry[0], given))), None)
        if entry is None:  # of copies, for the caller may write into his own
            entry = tuple(x.clone() if isinstance(x, Tensor) else x for x in given), self.make(*given)
        others = (other for other in self._kept if other is not entry)
        self._kept = deque([*others, entry], self.most)  # the newest last; the oldest falls out
        return entry[1]


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b
