"""Linear layers on a CPU: by oneDNN, which torch itself asks for convolutions and half precision but not for float32.

torch's float32 products go to MKL, which has only AVX2 kernels for a processor that is not Intel's: 208 GFLOP/s against
470 on two cores of an AMD EPYC with AVX-512.  The arithmetic is float32 either way; sums are in another order.
"""

from __future__ import annotations

import platform
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HERE = platform.machine() in ("x86_64", "AMD64") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether products on this machine's CPU are oneDNN's; elsewhere torch chooses well by itself."""

HALF = HERE and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""Whether bfloat16 is oneDNN's too: it refuses it on a processor without AVX-512, where torch's own, slow, must do."""

_QUICK = (torch.float32, torch.bfloat16) if HALF else (torch.float32,)

Activation = Literal["none", "gelu", "gelu-tanh"]
_NAMES: dict[Activation, tuple[str, list[float], str]] = {
    "none": ("none", [], ""),
    "gelu": ("gelu", [], "none"),
    "gelu-tanh": ("gelu", [], "tanh"),
}


def by_hand(x: Tensor) -> bool:
    """Whether what torch does slowly is written out here: on a CPU, with neither gradients nor torch.compile."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, then: Activation = "none", plus: Tensor | None = None
) -> Tensor:
    """(..., in), (out, in), (out,) -> (..., out), as torch's own `linear`, with what comes right after it: an
    activation, or else the sum with `plus`, (..., out).

    With gradients, for other precisions and on other devices it is torch's.
    """
    assert then == "none" or plus is None
    if HERE and x.dtype in _QUICK and x.device.type == "cpu" and not torch.is_grad_enabled():
        product = _whole if torch.compiler.is_compiling() else _onednn
        out: Tensor = product(x, weight, bias, then, plus)
        return out
    out = F.linear(x, weight, bias)
    out = out if then == "none" else F.gelu(out, approximate="tanh" if then == "gelu-tanh" else "none")
    return out if plus is None else plus + out


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, then: str, plus: Tensor | None) -> Tensor:
    op = torch.ops.mkldnn._linear_pointwise
    if plus is not None:
        summed: Tensor = op.binary(x, plus, weight, bias, "add")
        return summed
    out: Tensor = op(x, weight, bias, *_NAMES[then])  # type: ignore[index]
    return out


@torch.library.custom_op("fifo_diffusion::linear", mutates_args=())
def _whole(x: Tensor, weight: Tensor, bias: Tensor | None, then: str, plus: Tensor | None) -> Tensor:
    """The product as one piece to torch.compile, whose own handling of oneDNN's wants weights that it holds itself."""
    return _onednn(x, weight, bias, then, plus)


@_whole.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, then: str, plus: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


class CalledLinear(nn.Linear):
    """A linear layer whose product is another than that of its weight read back: it is called, never taken apart."""


def project(layer: nn.Linear | nn.Conv2d, x: Tensor, plus: Tensor | None = None) -> Tensor:
    """(..., in) -> (..., out), plus added.  layer: some published folders keep it as a convolution over one place."""
    if isinstance(layer, CalledLinear):
        out: Tensor = layer(x, plus=plus)
        return out
    return linear(x, layer.weight.flatten(1), layer.bias, plus=plus)


def together(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """What each of the layers, all as wide, makes of x.  On a CPU in one product, which reads x once; their weights are
    joined anew each time, for a LoRA may have changed them."""
    if not (HERE and by_hand(x)) or any(layer.bias is not None or isinstance(layer, CalledLinear) for layer in layers):
        return tuple(layer(x) for layer in layers)
    return linear(x, torch.cat([layer.weight for layer in layers])).chunk(len(layers), dim=-1)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], plus: Tensor) -> Tensor:
    """(N, in, height, width) -> (N, out, height, width), with plus added; on a CPU in one pass, as `linear`."""
    if not (HERE and x.dtype in _QUICK and by_hand(x)):
        return plus + F.conv2d(x, weight, bias, padding=padding)
    out: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        x, plus, weight, bias, padding, (1, 1), (1, 1), 1, "add", 1.0, None, [], None
    )
    return out


class Linear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        return linear(x, self.weight, self.bias, plus=plus)


class LinearGelu(nn.Linear):
    """nn.Linear and GELU (by tanh) in one."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, "gelu-tanh")


Net = TypeVar("Net", bound=nn.Module)


def quick(network: Net) -> Net:
    """The network itself: every plain nn.Linear inside is a `Linear` now, and the weights of convolutions are in the
    order that channels-last pictures want; their values are untouched."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            order = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
            module.weight.data = module.weight.data.contiguous(memory_format=order)
    return network
