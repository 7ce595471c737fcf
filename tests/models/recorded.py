"""The recordings of the authors' code (tests/data/golden/README.md), and the weights they were made with."""

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def recorded_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """A weight that only its key and shape decide: numpy's old generator, whose stream is frozen."""
    drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).standard_normal(shape)
    if key.endswith("bias"):
        drawn = 0.05 * drawn
    elif len(shape) == 1:
        drawn = 1.0 + 0.1 * drawn
    else:
        drawn = drawn / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(drawn.astype(np.float32))
