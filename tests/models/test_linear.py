"""Products by oneDNN are torch's, and what comes right after them is too."""

import os
import subprocess
import sys

import pytest
import torch
from tiny_parts import noise
from torch import nn
from torch.nn import functional

from fifo_diffusion.models.linear import Activation, Linear, LinearGelu, convolve, linear, quick, together

AFTER: dict[Activation, nn.Module] = {"none": nn.Identity(), "gelu": nn.GELU(), "gelu-tanh": nn.GELU("tanh")}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("bias", [None, noise(40)])
@pytest.mark.parametrize("then", ["none", "gelu", "gelu-tanh"])
def test_a_product_and_what_comes_after_it_are_torchs(
    then: Activation, bias: torch.Tensor | None, gradients: bool
) -> None:
    x, weight = noise(2, 5, 24), noise(40, 24)
    with torch.set_grad_enabled(gradients):
        got = linear(x, weight, bias, then)
    # GELU and its tanh differ by up to 5e-4, far above what another order of sums does.
    torch.testing.assert_close(got, AFTER[then](functional.linear(x, weight, bias)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("bias", [None, noise(40)])
def test_what_is_added_in_the_same_pass_is_added_once(bias: torch.Tensor | None, gradients: bool) -> None:
    x, weight, plus = noise(2, 5, 24), noise(40, 24), noise(2, 5, 40)
    pictures, kernel = noise(2, 24, 5, 4).contiguous(memory_format=torch.channels_last), noise(40, 24, 3, 1)
    others, before = noise(2, 40, 5, 4), plus.clone()
    with torch.set_grad_enabled(gradients):
        got, seen = linear(x, weight, bias, plus=plus), convolve(pictures, kernel, bias, (1, 0), others)
    assert torch.equal(plus, before)
    torch.testing.assert_close(got, plus + functional.linear(x, weight, bias), rtol=1e-5, atol=1e-5)
    want = others + functional.conv2d(pictures, kernel, bias, padding=(1, 0))
    torch.testing.assert_close(seen, want, rtol=1e-5, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_layers_together_are_the_layers_one_by_one(bias: bool) -> None:
    layers = [nn.Linear(24, 40, bias) for _ in range(3)]
    x = noise(2, 5, 24)
    for got, layer in zip(together(x, *layers), layers, strict=True):
        torch.testing.assert_close(got, layer(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_bfloat16_is_torchs_to_its_own_precision() -> None:
    x, weight = noise(3, 24), noise(40, 24)
    want = functional.linear(x, weight)
    torch.testing.assert_close(linear(x.bfloat16(), weight.bfloat16()).float(), want, rtol=0.05, atol=0.1)


def test_bfloat16_is_torchs_where_onednn_has_none() -> None:
    """As on a processor without AVX-512, where oneDNN raises."""
    code = """
import torch
from fifo_diffusion.models.linear import HALF, linear
with torch.no_grad():
    print("half" if HALF else float(linear(torch.ones(2, 8).bfloat16(), torch.ones(4, 8).bfloat16()).sum()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.stdout == "half\n":
        pytest.skip("this oneDNN keeps bfloat16 whatever it is told")
    assert done.stdout == "64.0\n", done.stderr


@torch.no_grad()
def test_the_layers_keep_their_weights_and_their_answers() -> None:
    network = nn.Sequential(nn.Conv2d(3, 24, 3), nn.Flatten(2), nn.Linear(36, 40), nn.ReLU())
    x = noise(2, 3, 8, 8)
    want, before = network(x), {name: value.clone() for name, value in network.state_dict().items()}
    assert type(quick(network)[2]) is Linear
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(network(x), want, rtol=1e-5, atol=1e-5)
    layer = LinearGelu(24, 40)
    y = noise(5, 24)
    want = functional.gelu(functional.linear(y, layer.weight, layer.bias), approximate="tanh")
    torch.testing.assert_close(layer(y), want, rtol=1e-5, atol=1e-5)
