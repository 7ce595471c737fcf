"""What several of the published networks share: a convolution that batch normalisation was folded into, TensorFlow's
padding, and pictures as networks want them.

Folding is exact in real numbers: normalisation with fixed statistics is one more factor and summand of each channel.
It is done once, in float64, when weights are converted.

Letters: N pictures, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def fold(
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    shift: Tensor,
    *,
    eps: float,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weight (C, ...) and bias (C,) of the convolution that gives what this one and the normalisation after it give."""
    mean, var, shift = (part.flatten().double() for part in (mean, var, shift))
    factor = (var + eps).rsqrt() * (1 if scale is None else scale.double())
    offset = shift - (mean if bias is None else mean - bias.double()) * factor
    folded = weight.double() * factor.view(-1, *[1] * (weight.ndim - 1))
    return folded.float().contiguous(), offset.float()


def same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros around x as TensorFlow's SAME puts them: the output has ceil(size / stride), the odd zero comes last."""
    pad: list[int] = []
    for size, side, step in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max((-(-size // step) - 1) * step + side - size, 0)
        pad = [missing // 2, missing - missing // 2, *pad]
    return functional.pad(x, pad)


def shorter_side(frames: Tensor, side: int, multiple: int = 1) -> Tensor:
    """(N, 3, H, W) uint8 -> float32 in [0, 255] with its shorter side about `side`, both sides multiples of `multiple`.

    Antialiased, for pictures that are made smaller.
    """
    height, width = frames.shape[-2:]
    scale = side / min(height, width)
    wanted = [max(1, round(length * scale / multiple)) * multiple for length in (height, width)]
    pictures = frames.float()
    if wanted == [height, width]:
        return pictures
    return functional.interpolate(pictures, wanted, mode="bilinear", antialias=True, align_corners=False)


def bilinear(frames: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) -> (N, 3, side, side) float32, without antialiasing: as the published FVD scores are computed."""
    return functional.interpolate(frames.float(), [side, side], mode="bilinear", align_corners=False)


def tensorflow_bilinear(frames: Tensor, side: int) -> Tensor:
    """As TensorFlow 1 resized: output pixel i looks at place i H / side, without half a pixel's shift.

    The published FID (arXiv:1706.08500) is defined with it.
    """
    height, width = frames.shape[-2:]
    x = torch.arange(side, device=frames.device) * (2 / side) + 1 / width - 1
    y = torch.arange(side, device=frames.device) * (2 / side) + 1 / height - 1
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).expand(len(frames), -1, -1, -1)
    return functional.grid_sample(frames.float(), places, mode="bilinear", padding_mode="border", align_corners=False)
