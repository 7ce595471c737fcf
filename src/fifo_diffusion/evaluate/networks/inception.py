"""Inception v3 as TensorFlow published it on 2015-12-05: the network that FID (arXiv:1706.08500) is defined with.

It differs from other Inception v3 in three places: averages over pooled places leave the padding out, the last block
pools by maximum, and its input is (pixel - 128) / 128.  2,048 features, averages of the last layer ("pool 3"); the file
holds no classifier, so there is no Inception score of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.evaluate.networks.layers import fold, tensorflow_bilinear

FEATURES = 2048
SIDE = 299


class Inception(nn.Module):
    """The names are those of the file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _Conv(3, 32, 3, step=2)
        self.conv_1 = _Conv(32, 32, 3)
        self.conv_2 = _Conv(32, 64, 3, around=True)
        self.conv_3 = _Conv(64, 80, 1)
        self.conv_4 = _Conv(80, 192, 3)
        blocks = [_A(192, 32), _A(256, 64), _A(288, 64), _B(288), *map(_C, (128, 160, 160, 192)), _D(768)]
        for i, block in enumerate([*blocks, _E(1280), _E(2048, largest=True)]):
            self.add_module(f"mixed_{i}" if i else "mixed", block)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 299, 299) in [-1, 1) -> (N, 2048)"""
        x = functional.max_pool2d(self.conv_2(self.conv_1(self.conv(x))), 3, 2)
        x = functional.max_pool2d(self.conv_4(self.conv_3(x)), 3, 2)
        for i in range(11):
            x = self.get_submodule(f"mixed_{i}" if i else "mixed")(x)
        return x.mean(dim=(2, 3))


class _Conv(nn.Conv2d):
    def __init__(
        self, before: int, after: int, kernel: int | tuple[int, int], *, step: int = 1, around: bool = False
    ) -> None:
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        super().__init__(before, after, sides, step, (sides[0] // 2, sides[1] // 2) if around else 0)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(super().forward(x))


def _tower(before: int, *layers: tuple[int, int | tuple[int, int]], step: int = 1) -> nn.ModuleDict:
    """Convolutions one after another, of (channels, kernel); the last one with this stride, and then no padding."""
    out = nn.ModuleDict()
    for i, (after, kernel) in enumerate(layers):
        last = step > 1 and i == len(layers) - 1
        conv = _Conv(before, after, kernel, step=step if last else 1, around=not last)
        out[f"conv_{i}" if i else "conv"] = conv
        before = after
    return out


def _through(tower: nn.ModuleDict, x: Tensor) -> Tensor:
    for conv in tower.values():
        x = conv(x)
    return x


def _average(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _A(nn.Module):
    def __init__(self, before: int, pooled: int) -> None:
        super().__init__()
        self.conv = _Conv(before, 64, 1)
        self.tower = _tower(before, (48, 1), (64, 5))
        self.tower_1 = _tower(before, (64, 1), (96, 3), (96, 3))
        self.tower_2 = _tower(before, (pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.conv(x), _through(self.tower, x), _through(self.tower_1, x), _through(self.tower_2, _average(x))]
        return torch.cat(parts, dim=1)


class _B(nn.Module):
    def __init__(self, before: int) -> None:
        super().__init__()
        self.conv = _Conv(before, 384, 3, step=2)
        self.tower = _tower(before, (64, 1), (96, 3), (96, 3), step=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), _through(self.tower, x), functional.max_pool2d(x, 3, 2)], dim=1)


class _C(nn.Module):
    def __init__(self, inside: int) -> None:
        super().__init__()
        wide, high = (1, 7), (7, 1)
        self.conv = _Conv(768, 192, 1)
        self.tower = _tower(768, (inside, 1), (inside, wide), (192, high))
        self.tower_1 = _tower(768, (inside, 1), (inside, high), (inside, wide), (inside, high), (192, wide))
        self.tower_2 = _tower(768, (192, 1))

    forward = _A.forward


class _D(nn.Module):
    def __init__(self, before: int) -> None:
        super().__init__()
        self.tower = _tower(before, (192, 1), (320, 3), step=2)
        self.tower_1 = _tower(before, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), step=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([_through(self.tower, x), _through(self.tower_1, x), functional.max_pool2d(x, 3, 2)], dim=1)


class _E(nn.Module):
    def __init__(self, before: int, largest: bool = False) -> None:
        super().__init__()
        self.largest = largest  # whether it pools by maximum
        self.conv = _Conv(before, 320, 1)
        self.tower_conv = _Conv(before, 384, 1)
        self.tower_mixed_conv = _Conv(384, 384, (1, 3), around=True)
        self.tower_mixed_conv_1 = _Conv(384, 384, (3, 1), around=True)
        self.tower_1_conv = _Conv(before, 448, 1)
        self.tower_1_conv_1 = _Conv(448, 384, 3, around=True)
        self.tower_1_mixed_conv = _Conv(384, 384, (1, 3), around=True)
        self.tower_1_mixed_conv_1 = _Conv(384, 384, (3, 1), around=True)
        self.tower_2_conv = _Conv(before, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.tower_conv(x), self.tower_1_conv_1(self.tower_1_conv(x))
        parts = [self.conv(x), self.tower_mixed_conv(one), self.tower_mixed_conv_1(one)]
        parts += [self.tower_1_mixed_conv(two), self.tower_1_mixed_conv_1(two)]
        pooled = functional.max_pool2d(x, 3, 1, 1) if self.largest else _average(x)
        return torch.cat([*parts, self.tower_2_conv(pooled)], dim=1)


@torch.inference_mode()
def features(net: Inception, frames: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 2048), resized as TensorFlow did."""
    out: Tensor = net((tensorflow_bilinear(frames, SIDE) - 128) / 128)
    return out


def converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The TorchScript archive's tensors as `Inception` names them."""
    out: dict[str, Tensor] = {}
    for name, weight in tensors.items():
        if name.endswith(".weight"):
            unit = name.removesuffix(".weight")
            ours = unit.removeprefix("net.layers.")
            mean, var, shift = (tensors[f"{unit}.{part}"] for part in ("mean", "var", "beta"))
            out[f"{ours}.weight"], out[f"{ours}.bias"] = fold(weight, mean, var, shift, eps=1e-3)
    return out
