"""LPIPS (arXiv:1801.03924), version 0.1: how different two pictures look, by the features of a classifier.

Features of five layers, each place's brought to length 1; squared differences, weighted by what people said of pairs of
pictures, averaged over places, summed over layers.  0 for the same picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["alex", "vgg"]
LEAST: Mapping[Kind, int] = {"alex": 31, "vgg": 16}  # pixels each way, so that the last layer has a place

_MEAN, _SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in [-1, 1]
# Convolutions of each of the five stages: (channels, kernel, stride, padding); between stages the maximum is pooled.
_ALEX = (((64, 11, 4, 2),), ((192, 5, 1, 2),), ((384, 3, 1, 1),), ((256, 3, 1, 1),), ((256, 3, 1, 1),))
_VGG = tuple(((after, 3, 1, 1),) * times for after, times in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)))
_POOLS: Mapping[Kind, tuple[int, ...]] = {"alex": (1, 2), "vgg": (1, 2, 3, 4)}  # stages that begin with pooling


class LPIPS(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.pools, self.window = _POOLS[kind], 3 if kind == "alex" else 2
        self.stages, self.weights = nn.ModuleList(), nn.ParameterList()
        before = 3
        for stage in _ALEX if kind == "alex" else _VGG:
            convs = nn.ModuleList()
            for after, side, step, padding in stage:
                convs.append(nn.Conv2d(before, after, side, step, padding))
                before = after
            self.stages.append(convs)
            self.weights.append(torch.zeros(before))

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [-1, 1] -> five of (N, C, h, w), each place of length 1."""
        x = (x - x.new_tensor(_MEAN).view(3, 1, 1)) / x.new_tensor(_SPREAD).view(3, 1, 1)
        out = []
        for i, convs in enumerate(self.stages):
            if i in self.pools:
                x = functional.max_pool2d(x, self.window, 2)
            assert isinstance(convs, nn.ModuleList)
            for conv in convs:
                x = functional.relu(conv(x))
            out.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return out

    def between(self, one: list[Tensor], other: list[Tensor]) -> Tensor:
        """Two answers of `features` -> (N,)"""
        total = torch.zeros(len(one[0]), device=one[0].device)
        for a, b, weight in zip(one, other, self.weights, strict=True):
            total = total + torch.einsum("nchw,c->nhw", (a - b).square(), weight).mean(dim=(1, 2))
        return total


@torch.inference_mode()
def features(net: LPIPS, frames: Tensor) -> list[Tensor]:
    """(N, 3, H, W) uint8, as they are -> what `LPIPS.between` compares."""
    return net.features(frames.float() / 127.5 - 1)


def converted(arrays: Mapping[str, Tensor], kind: Kind) -> dict[str, Tensor]:
    """Flax's arrays (kernels H W in out, numbered through) as `LPIPS` names them."""
    places = [
        f"stages.{i}.{j}" for i, stage in enumerate(_ALEX if kind == "alex" else _VGG) for j, _ in enumerate(stage)
    ]
    out: dict[str, Tensor] = {}
    for name, value in arrays.items():
        head, number = re.fullmatch(r"(?:\w+Net_0|VGG16_0)/Conv_(\d+)/\w+", name), re.search(r"\d+", name)
        if head is not None:
            kernel = name.endswith("kernel")
            place = f"{places[int(head[1])]}.{'weight' if kernel else 'bias'}"
            out[place] = value.permute(3, 2, 0, 1).contiguous() if kernel else value
        elif number is not None:
            out[f"weights.{number[0]}"] = value.flatten()
    return out
