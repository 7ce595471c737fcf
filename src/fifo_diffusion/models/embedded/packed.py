"""How finished weights are packed into files: large ones in eight bits, the others in half precision.

Numbers that are multiplied together are cut into groups of 64, each with a scale of its own, so that one large number
costs only its neighbours precision.  Read back they are float32, whatever precision the run asks for.  (What
`models/eight_bits.py` does is for memory while a model runs: float8, by rows, for any model.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

GROUP = 64
LEAST = 4096  # numbers; of smaller weights there is nothing to save
_SCALE = ".scale"
_SMALLEST = 2.0**-100  # a scale must not be zero


def write(weights: Mapping[str, Tensor], file: Path) -> None:
    """As safetensors; beside every weight in int8 lie its scales as `NAME.scale`: (out, groups) in bfloat16, for half
    precision knows no small ones.
    """
    kept: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim < 2 or value.numel() < LEAST:
            kept[name] = value.half().contiguous()
        else:
            kept[name], kept[name + _SCALE] = _eight(value.float())
    save_file(kept, file)
    file.chmod(0o644)  # safetensors writes it for its owner alone


def read(file: Path) -> dict[str, Tensor]:
    """In float32; files without scales are whole in half precision.

    Raises:
        OSError, SafetensorError: it is missing or damaged.
    """
    kept = load_file(file)
    scales = {name: kept.pop(name + _SCALE) for name in list(kept) if name + _SCALE in kept}
    return {name: _wide(value, scales[name]) if name in scales else value.float() for name, value in kept.items()}


def _eight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(out, ...) -> the numbers in int8, and (out, groups) what they are to be multiplied by."""
    rows = weight.flatten(1)
    groups = functional.pad(rows, (0, -rows.shape[1] % GROUP)).view(len(rows), -1, GROUP)
    # The largest of a group becomes 127 whichever way its scale is rounded, so what was read is written the same again.
    scale = (groups.abs().amax(dim=2) / 127).clamp(min=_SMALLEST).bfloat16()
    eight = (groups / scale.float()[..., None]).round().clamp(-127, 127).to(torch.int8)
    return eight.flatten(1)[:, : rows.shape[1]].reshape(weight.shape).contiguous(), scale


def _wide(eight: Tensor, scale: Tensor) -> Tensor:
    rows = eight.flatten(1)
    by = scale.float().repeat_interleave(GROUP, dim=1)[:, : rows.shape[1]]
    return (rows.float() * by).view(eight.shape)
