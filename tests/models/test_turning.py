"""Rotary positions in time, one of which turns otherwise: the networks that have them, on their real classes."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_wan
import torch
from cases import CASES, Case
from tiny_parts import noise, scramble

from fifo_diffusion.errors import BadInput
from fifo_diffusion.models import load
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.models.embedded.transformer import _rotary
from fifo_diffusion.models.wan import SMALL, Wan, turned, wan
from fifo_diffusion.protocols import Turn

CPU = torch.device("cpu")
ROTARY = [case for case in CASES if MODELS[case.name].repeats is not None]


def of(case: Case, folder: Path) -> Model:
    return load(case.name, CPU, torch.float32, case.weights(folder))


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_card_says_which_networks_have_them(case: Case, tmp_path: Path) -> None:
    model = of(case, tmp_path)
    assert bool(model.rates) == (MODELS[case.name].repeats is not None)
    assert list(model.rates) == sorted(model.rates, reverse=True)
    if not model.rates:
        with pytest.raises(BadInput, match="no rotary positions"):
            model.turning(Turn(0, 0.1))


def test_the_rates_of_wan_are_those_that_it_was_published_with(tmp_path: Path) -> None:
    """128 wide heads, 44 of them for time: 10,000 to the -2 k / 44."""
    from diffusers import WanTransformer3DModel

    model = load("wan-1.3b", CPU, torch.float32, tiny_wan.make(tmp_path))
    assert isinstance(model, Wan)
    small = {"num_attention_heads": 1, "ffn_dim": 8, "num_layers": 1, "text_dim": 8, "freq_dim": 8}
    model.network = scramble(WanTransformer3DModel(**{**SMALL, **small}), 1)
    assert model.rates == pytest.approx([10_000 ** (-k / 22) for k in range(22)], rel=1e-6)


def test_one_component_of_wans_positions_turns_otherwise() -> None:
    net, z, turn = tiny_wan.transformer(), noise(1, 16, 40, 4, 6), Turn(1, 2 * math.pi / 57)
    own = net.rope(z)
    held = [table.clone() for table in own]
    place = torch.arange(40.0).repeat_interleave(6)  # of 2 x 3 patches a frame
    for got, was, wave in zip(turned(own, turn, 40), own, (torch.cos, torch.sin), strict=True):
        assert got.shape == was.shape == (1, 240, 1, 12)
        changed = (got != was).any(dim=1)[0, 0]
        assert changed.tolist() == [i in (2, 3) for i in range(12)]
        torch.testing.assert_close(got[0, :, 0, 2], wave(2 * math.pi * place / 57), rtol=0, atol=1e-5)
        assert torch.equal(got[..., 2], got[..., 3])
    assert all(torch.equal(a, b) for a, b in zip(own, held, strict=True))


def test_one_component_of_the_embedded_networks_positions_turns_otherwise() -> None:
    """Of 16 pairs 6 are for time; entries i and i + 16 are a pair."""
    size = (40, 4, 4, 32, CPU, torch.float32)
    place = torch.arange(40.0).repeat_interleave(16)
    cos, sin = _rotary(*size, Turn(3, 2 * math.pi / 57))
    for got, was in ((cos, _rotary(*size)[0]), (sin, _rotary(*size)[1])):
        assert (got != was).any(dim=0).tolist() == [i in (3, 19) for i in range(32)]
    torch.testing.assert_close(cos[:, 3], torch.cos(2 * math.pi * place / 57), rtol=0, atol=1e-5)
    torch.testing.assert_close(sin[:, 19], torch.sin(2 * math.pi * place / 57), rtol=0, atol=1e-5)
    assert torch.equal(sin[:, 3], -sin[:, 19])


@pytest.mark.parametrize("case", ROTARY, ids=lambda case: case.name)
@torch.no_grad()
def test_a_network_hears_it_and_stays_as_it_is(case: Case, tmp_path: Path) -> None:
    """Turned as it turns anyway it says the same, up to rounding; otherwise, something else; and by itself it goes on
    saying what it said.
    """
    model, schedule = of(case, tmp_path), None
    schedule = model.schedule(64, "even")
    frames = 2 * MODELS[case.name].window
    z = noise(1, model.channels, frames, case.side, case.side)
    t, cond = schedule.times(torch.full((frames,), 40), z)[None], model.embed(["a red balloon"])
    own = model.denoiser(schedule)(z, t, cond)
    component, largest = 1, float(own.abs().max())
    same = model.turning(Turn(component, model.rates[component]))(z, t, cond)
    other = model.turning(Turn(component, model.rates[component] / 3))(z, t, cond)
    assert float((same - own).abs().max()) < 1e-4 * largest
    assert float((other - own).abs().max()) > 1e-3 * largest
    assert torch.equal(model.denoiser(schedule)(z, t, cond), own)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("case", ROTARY[::2], ids=lambda case: case.name)
@torch.no_grad()
def test_a_compiled_network_turns_too(case: Case, tmp_path: Path) -> None:
    model = of(case, tmp_path)
    schedule = model.schedule(64, "even")
    z = noise(1, model.channels, 20, case.side, case.side)
    t, cond = schedule.times(torch.full((20,), 40), z)[None], model.embed(["a red balloon"])
    turns = (Turn(1, 0.01), Turn(0, 0.02))
    said = [model.turning(turn)(z, t, cond) for turn in turns]
    model.compile("eager")  # the same kernels, so the same bits
    for turn, want in zip(turns, said, strict=True):
        assert torch.equal(model.turning(turn)(z, t, cond), want)


@torch.no_grad()
def test_wan_takes_windows_longer_than_its_own() -> None:
    """What diffusers' own forward says of twice as many frames."""
    net, z, text = tiny_wan.transformer(), noise(1, 16, 42, 4, 4), noise(1, 8, tiny_wan.WIDTH)
    want = net(z, torch.tensor([500.0]), text).sample
    torch.testing.assert_close(wan(net, z, torch.full((1, 42), 500.0), text), want, rtol=0, atol=1e-5)
