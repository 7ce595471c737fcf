"""Weights and products in eight bits: half the memory of half precision, at a cost in precision (docs/speed.md).

Each row of a weight is kept as float8 (e4m3: four significant bits) with a power of two of its own, so that its largest
number comes close to the largest float8.  Read back it is exact in every precision; a sum of products is then what the
run's precision makes of it.  So this runs wherever torch has float8, and is no faster.

torch's own parametrization does the reading back, so whoever asks a layer for its weight gets it in the run's
precision, whether he calls the layer or takes the weight apart himself.  diffusers' layerwise casting is by hooks on
calls, which the second kind goes round, and has no scale: most weights of large layers would fall below float8's
smallest normal number.

Products of eight-bit numbers are for GPUs that have them, on paper at twice the pace of half precision: what goes into
a linear layer is rounded too, each row by a scale of its own, so that a window's answer depends on nothing else in its
batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from fifo_diffusion.models.linear import CalledLinear, LinearGelu

EIGHT = torch.float8_e4m3fn
_ROWS = 4096  # narrowed together
_LARGEST = torch.finfo(EIGHT).max
_SMALLEST = -24  # the exponent of float16's smallest number, which a scale must not fall below
_KEPT = ("norm", "emb", "modulation")
"""In the names of layers inside blocks that stay as they are: what norms, times and texts modulate with."""


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(out, ...) -> the numbers in float8, and (out, 1, ...) in float32 what each row is to be multiplied by."""
    wide = weight.float()
    exponent = torch.frexp(wide.abs().flatten(1).amax(dim=1) / _LARGEST).exponent.clamp(min=_SMALLEST)
    scale = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)
    scale = scale.view(-1, *[1] * (weight.ndim - 1))
    return (wide / scale).to(EIGHT), scale


class _Kept(nn.Module):
    """A weight that is kept in float8 and read in the run's precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, eight: Tensor, scale: Tensor) -> Tensor:
        return eight.to(self.dtype).mul_(scale)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return rounded(weight)


Layer = nn.Linear | nn.Conv2d | nn.Conv3d


def large_layers(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    """The linear layers and convolutions inside the network's repeated blocks: nearly all of its weights.  What is
    around the blocks, first and last layers and embeddings, stays as it is, and inside them norms and modulations.
    """
    lists = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, nn.ModuleList))
    for name, layer in network.named_modules():
        inside = name.startswith(lists) and not any(kept in name for kept in _KEPT)
        if inside and isinstance(layer, Layer):
            yield name, layer


def in_eight_bits(network: nn.Module, dtype: torch.dtype, products: bool = False) -> None:
    """In place.  dtype: the run's precision, in which the weights are and are read back.

    products: linear layers multiply in eight bits, where their sizes allow.
    """
    for _, layer in list(large_layers(network)):
        multiplies = products and isinstance(layer, nn.Linear) and _fits(layer)
        # unsafe: torch would otherwise want what is kept to be of the precision of what is read
        parametrize.register_parametrization(layer, "weight", _Kept(dtype), unsafe=True)
        if multiplies:
            layer.__class__ = type(f"Eight{type(layer).__name__}", (EightBitProduct, type(layer)), {})


def _fits(layer: nn.Linear) -> bool:
    """Whether the hardware's products take such a weight."""
    return layer.in_features % 16 == layer.out_features % 16 == 0


def product(x: Tensor, eight: Tensor, scale: Tensor) -> Tensor:
    """(..., in), (out, in) in float8, (out, 1) -> (..., out) in x's precision, rounded to bfloat16.

    Sums are in float32 (no fast accumulation).  bfloat16 is the one precision in which the product by rows comes out of
    every GPU that has it.
    """
    rows = x.flatten(0, -2)
    # Compiled it is one pass; else a part at a time, for in float32 a wide layer's rows are larger than all else.
    some = (rows,) if torch.compiler.is_compiling() else torch.split(rows, _ROWS)
    parts, scales = zip(*map(_narrowed, some), strict=True)
    narrow, by = (parts[0], scales[0]) if len(parts) == 1 else (torch.cat(parts), torch.cat(scales))
    row = F.ScalingType.RowWise
    out = F.scaled_mm(narrow, eight.t(), by, row, scale.view(1, -1), row, output_dtype=torch.bfloat16)
    return out.to(x.dtype).view(*x.shape[:-1], len(eight))


def _narrowed(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, in) -> the same in float8, and (rows, 1) what they are to be multiplied by.

    Not by a power of two as weights are: nobody reads it back, and half a bit more is left to the numbers.
    """
    by = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / _LARGEST
    return (rows.float() / by).to(EIGHT).contiguous(), by  # as the product wants it, whatever way the rows lie


class EightBitProduct(CalledLinear):
    """What a linear layer becomes that multiplies in eight bits."""

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        kept: Any = self.parametrizations.weight  # type: ignore[union-attr]
        out = product(x, kept.original0, kept.original1)
        if self.bias is not None:
            out = out + self.bias
        if isinstance(self, LinearGelu):
            out = F.gelu(out, approximate="tanh")
        return out if plus is None else plus + out
