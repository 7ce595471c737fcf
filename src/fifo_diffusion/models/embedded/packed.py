"""How finished weights are packed into files: large ones in eight bits or in six, the others in half precision.

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
_HALF = 32  # of the 64 values that six bits have
_SHIFTS = (0, 6, 12, 18)  # four of them in three bytes


def write(weights: Mapping[str, Tensor], file: Path, bits: int = 8) -> None:
    """As safetensors; beside every large weight lie its scales as `NAME.scale`: (out, groups) in bfloat16, for half
    precision knows no small ones.

    bits: 8 (int8) or 6 (four numbers in three bytes, uint8, of matrices whose rows are a multiple of four).
    """
    kept: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim < 2 or value.numel() < LEAST:
            kept[name] = value.half().contiguous()
        elif bits == 6 and value.ndim == 2 and value.shape[1] % len(_SHIFTS) == 0:
            whole, kept[name + _SCALE] = _whole(value.float(), _HALF - 1)
            kept[name] = _six(whole)
        else:
            kept[name], kept[name + _SCALE] = _whole(value.float(), 127)
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


def _whole(weight: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """(out, ...) -> whole numbers from -most to most in int8, and (out, groups) what they are to be multiplied by."""
    rows = weight.flatten(1)
    groups = functional.pad(rows, (0, -rows.shape[1] % GROUP)).view(len(rows), -1, GROUP)
    # The largest of a group becomes `most` whichever way its scale is rounded, so what was read is written the same
    # again.
    scale = (groups.abs().amax(dim=2) / most).clamp(min=_SMALLEST).bfloat16()
    whole = (groups / scale.float()[..., None]).round().clamp(-most, most).to(torch.int8)
    return whole.flatten(1)[:, : rows.shape[1]].reshape(weight.shape).contiguous(), scale


def _wide(whole: Tensor, scale: Tensor) -> Tensor:
    if whole.dtype == torch.uint8:
        whole = _of_six(whole)
    rows = whole.flatten(1)
    by = scale.float().repeat_interleave(GROUP, dim=1)[:, : rows.shape[1]]
    return (rows.float() * by).view(whole.shape)


def _six(whole: Tensor) -> Tensor:
    """(out, in) of -31 .. 31 -> (out, 3/4 in) bytes"""
    four = (whole.int() + _HALF).view(len(whole), -1, len(_SHIFTS))
    word = (four << torch.tensor(_SHIFTS, dtype=torch.int32)).sum(dim=2)
    return torch.stack([word >> shift & 255 for shift in (0, 8, 16)], dim=2).flatten(1).to(torch.uint8)


def _of_six(packed: Tensor) -> Tensor:
    """(out, 3/4 in) bytes -> (out, in) of -31 .. 31"""
    low, middle, high = packed.int().view(len(packed), -1, 3).unbind(2)
    word = low | middle << 8 | high << 16
    return torch.stack([word >> shift & 63 for shift in _SHIFTS], dim=2).flatten(1) - _HALF
