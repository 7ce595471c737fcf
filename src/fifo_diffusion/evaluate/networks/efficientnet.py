"""EfficientNet-Lite0, trained on ImageNet: a picture's features, by place or averaged, from a small network.

EfficientNet (arXiv:1905.11946) without its gates, and with activations cut at 6; TensorFlow's padding.

Letters: N pictures, H W height and width, h w places: pixels / 32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.evaluate.networks.layers import fold, same, shorter_side

FEATURES = 1280
SIDE = 224
# Of each stage: blocks, kernel, stride of the first, expansion, channels.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip


class EfficientNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, before = _Conv(3, 32, 3, 2), nn.ModuleList(), 32
        for blocks, side, step, wider, after in _STAGES:
            for i in range(blocks):
                self.blocks.append(_Block(before, after, side, 1 if i else step, wider))
                before = after
        self.head = _Conv(before, FEATURES, 1, 1)
        self.classes = nn.Linear(FEATURES, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, 1280, h, w), none below 0"""
        x = functional.relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        out: Tensor = functional.relu6(self.head(x))
        return out


class _Conv(nn.Conv2d):
    def __init__(self, before: int, after: int, side: int, step: int, groups: int = 1) -> None:
        super().__init__(before, after, side, step, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(same(x, self.kernel_size, self.stride))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, side: int, step: int, wider: int) -> None:
        super().__init__()
        inside = before * wider
        self.expand = _Conv(before, inside, 1, 1) if wider > 1 else None
        self.depthwise = _Conv(inside, inside, side, step, groups=inside)
        self.project = _Conv(inside, after, 1, 1)
        self.short = step == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x))
        out: Tensor = self.project(functional.relu6(self.depthwise(y)))
        return x + out if self.short else out


@torch.inference_mode()
def features(net: EfficientNet, frames: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 1280, h, w): the shorter side is made 224 pixels, so h and w are 7 or more."""
    out: Tensor = net((shorter_side(frames, SIDE) - 127) / 128)
    return out


def converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published file's tensors as `EfficientNet` names them."""
    units = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    names = (("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1"))
    for i in range(sum(stage[0] for stage in _STAGES)):
        for ours, conv, norm in (*names, ("project", "_project_conv", "_bn2")):
            if f"_blocks.{i}.{conv}.weight" in tensors:
                units[f"blocks.{i}.{ours}"] = (f"_blocks.{i}.{conv}", f"_blocks.{i}.{norm}")
    out = {f"classes.{part}": tensors[f"_fc.{part}"] for part in ("weight", "bias")}
    for ours, (conv, norm) in units.items():
        mean, var, scale, shift = (
            tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        folded = fold(tensors[f"{conv}.weight"], mean, var, shift, scale=scale, eps=1e-3)
        out[f"{ours}.weight"], out[f"{ours}.bias"] = folded
    return out
