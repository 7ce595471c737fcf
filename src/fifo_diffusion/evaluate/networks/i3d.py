"""I3D (arXiv:1705.07750), RGB, trained on Kinetics-400: the network of the Frechet video distance (arXiv:1812.01717).

Batch normalisation is folded into the convolutions; TensorFlow's padding stays.

Letters: N clips, T frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.evaluate.networks.layers import bilinear, fold, same

CLASSES = 400
SIDE = 224
LEAST = 9  # frames: fewer leave the last pooling less than two of its steps in time

# Channels of the Inception blocks: branch 0; 1 inside, out; 2 inside, out; 3.
_BLOCKS = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_1a = _Conv(3, 64, 7, 2)
        self.conv_2b = _Conv(64, 64, 1)
        self.conv_2c = _Conv(64, 192, 3)
        before = 192
        for name, widths in _BLOCKS.items():
            self.add_module(name, _Mixed(before, *widths))
            before = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = nn.Conv3d(before, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, T, 224, 224) in [-1, 1], T >= LEAST -> (N, 400) logits."""
        x = _pool(self.conv_1a(x), (1, 3, 3), (1, 2, 2))
        x = _pool(self.conv_2c(self.conv_2b(x)), (1, 3, 3), (1, 2, 2))
        for name in _BLOCKS:
            if name == "mixed_4b":
                x = _pool(x, (3, 3, 3), (2, 2, 2))
            elif name == "mixed_5b":
                x = _pool(x, (2, 2, 2), (2, 2, 2))
            x = self.get_submodule(name)(x)
        x = self.logits(functional.avg_pool3d(x, (2, 7, 7), 1))
        return x.mean(dim=(2, 3, 4))


class _Conv(nn.Conv3d):
    def __init__(self, before: int, after: int, side: int, step: int = 1) -> None:
        super().__init__(before, after, side, step)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(super().forward(same(x, self.kernel_size, self.stride)))


class _Mixed(nn.Module):
    def __init__(self, before: int, zero: int, one_in: int, one: int, two_in: int, two: int, three: int) -> None:
        super().__init__()
        self.branch_0 = nn.ModuleDict({"conv_0a": _Conv(before, zero, 1)})
        self.branch_1 = nn.ModuleDict({"conv_0a": _Conv(before, one_in, 1), "conv_0b": _Conv(one_in, one, 3)})
        self.branch_2 = nn.ModuleDict({"conv_0a": _Conv(before, two_in, 1), "conv_0b": _Conv(two_in, two, 3)})
        self.branch_3 = nn.ModuleDict({"conv_0b": _Conv(before, three, 1)})

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for branch in (self.branch_0, self.branch_1, self.branch_2, self.branch_3):
            y = _pool(x, (3, 3, 3), (1, 1, 1)) if branch is self.branch_3 else x
            for conv in branch.values():
                y = conv(y)
            out.append(y)
        return torch.cat(out, dim=1)


def _pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """What comes in is never below 0, so zeros around it change no maximum."""
    return functional.max_pool3d(same(x, kernel, stride), kernel, stride)


def seen(frames: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 3, 224, 224) in [-1, 1], as published FVD scores do."""
    return bilinear(frames, SIDE) / 127.5 - 1


@torch.inference_mode()
def said(net: I3D, clips: Tensor) -> Tensor:
    """(N, T, 3, 224, 224) as `seen` makes them -> (N, 400) logits."""
    out: Tensor = net(clips.transpose(1, 2))
    return out


@torch.inference_mode()
def logits(net: I3D, clips: Tensor) -> Tensor:
    """(N, T, 3, H, W) uint8 -> (N, 400)"""
    return said(net, torch.unflatten(seen(clips.flatten(0, 1)), 0, clips.shape[:2]))


def converted(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Flax's arrays (kernels T H W in out) as `I3D` names them."""
    out: dict[str, Tensor] = {}
    for name, kernel in arrays.items():
        if not name.endswith("/Conv_0/kernel"):
            continue
        unit = name.removeprefix("params/").removesuffix("/Conv_0/kernel")
        ours = re.sub(r"conv3d_(\w\w)_\dx\d", r"conv_\1", unit.lower()).replace("/", ".")
        weight = kernel.permute(4, 3, 0, 1, 2)
        if unit.startswith("Logits"):
            out["logits.weight"], out["logits.bias"] = weight.contiguous(), arrays[f"params/{unit}/Conv_0/bias"]
            continue
        mean, var = (arrays[f"batch_stats/{unit}/BatchNorm_0/{part}"] for part in ("mean", "var"))
        shift = arrays[f"params/{unit}/BatchNorm_0/bias"]
        out[f"{ours}.weight"], out[f"{ours}.bias"] = fold(weight, mean, var, shift, eps=1e-3)
    return out
