"""Weights in eight bits: read back exactly, wherever a network asks for them, and told in everything that is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_wan
import torch
from cases import CASES, Case, named
from tiny_parts import network, noise
from torch import Tensor, nn
from torch import _dynamo as dynamo

from fifo_diffusion import api, sidecar
from fifo_diffusion.config import Run
from fifo_diffusion.decide import _room, resolve, told
from fifo_diffusion.devices import check_products
from fifo_diffusion.errors import BadInput
from fifo_diffusion.models import eight_bits, load
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.models.eight_bits import EIGHT, EightBitProduct, in_eight_bits, large_layers, product, rounded
from fifo_diffusion.models.latent import LatentModel, pictures_in
from fifo_diffusion.session import Session
from need import FULL, HALF

CPU = torch.device("cpu")
NETWORKS = [case for case in CASES if case.name != "gauss"]
SMALL = {"device": "cpu", "frames": 2, "partitions": 1, "lookahead": "off"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_number_is_kept_to_four_bits_of_its_own_and_read_back_exactly(dtype: torch.dtype) -> None:
    weight = noise(64, 8, 3, 3) * torch.logspace(-4, 2, 64).view(-1, 1, 1, 1)
    weight[5] = 0
    weight = weight.to(dtype)
    eight, scale = rounded(weight)
    assert eight.dtype == EIGHT
    assert scale.shape == (64, 1, 1, 1)
    assert torch.equal(scale, torch.exp2(scale.log2().round()))
    read = eight.float() * scale
    assert torch.equal(eight.to(dtype).mul_(scale).float(), read)
    largest = weight.float().abs().flatten(1).amax(dim=1).view_as(scale)
    off = (read - weight.float()).abs()
    assert bool((off <= weight.float().abs() / 16 + largest / 2**16).all())
    assert float(off.max()) > 0


def test_rows_that_are_nearly_nothing_stay_numbers_in_float16() -> None:
    weight = torch.tensor([[1e-7, -2e-6], [0.0, 0.0], [6e-8, 3e4]]).to(torch.float16)
    eight, scale = rounded(weight)
    torch.testing.assert_close(eight.to(torch.float16).mul_(scale), weight, rtol=1 / 16, atol=6e-8)


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
@torch.no_grad()
def test_the_answers_are_those_of_a_network_whose_large_weights_were_rounded(case: Case, tmp_path: Path) -> None:
    """Bit for bit, so each layer, called or taken apart, is read and nothing else has changed."""
    weights = case.weights(tmp_path)
    whole, eight, want = (load(case.name, CPU, torch.float32, weights) for _ in range(3))
    schedule = want.schedule(64, "even")
    z = noise(1, want.channels, MODELS[case.name].window, case.side, case.side)
    t = schedule.times(torch.linspace(4, 60, z.shape[2]).long(), z)[None]
    cond = want.embed(["a red balloon"])
    names = [name for name, _ in large_layers(network(want))]
    assert not any("norm" in name or "emb" in name or "modulation" in name for name in names)
    for _, layer in large_layers(network(want)):
        kept, scale = rounded(layer.weight)
        layer.weight.copy_(kept.float() * scale)
    before = sum(p.numel() * p.element_size() for p in network(want).parameters())

    eight.in_eight_bits(CPU)

    held = dict(network(eight).named_parameters())
    in_eight = sum(p.numel() for p in held.values() if p.dtype == EIGHT)
    assert in_eight == sum(layer.weight.numel() for _, layer in large_layers(network(want)))
    assert sum(p.numel() * p.element_size() for p in held.values()) < before - 2.8 * in_eight  # 3, but for the scales
    answer, was = (model.denoiser(schedule)(z, t, cond) for model in (eight, whole))
    assert torch.equal(answer, want.denoiser(schedule)(z, t, cond))
    assert 1e-3 < float((answer - was).norm() / was.norm()) < 0.25
    assert eight.weights == want.weights


def test_a_product_is_that_of_the_rounded_numbers_and_knows_nothing_of_its_batch() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 10, 64, generator=draw) * torch.logspace(-6, 3, 10)[:, None]
    x[1, 4] = 0
    eight, scale = rounded(torch.randn(48, 64, generator=draw) * torch.logspace(-3, 1, 48)[:, None])
    got = product(x, eight, scale)
    by = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 448
    want = ((x / by).to(EIGHT).double() * by) @ (eight.double() * scale).T
    size = (x.double().norm(dim=-1, keepdim=True) * (eight.double() * scale).norm(dim=1)).clamp(min=1e-30)
    assert float(((got - want) / size).abs().max()) < 2**-9  # bfloat16's own rounding
    assert got[1, 4].abs().max() == 0
    assert torch.equal(product(x[1:2, 3:7], eight, scale), got[1:2, 3:7])


def test_many_rows_are_narrowed_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 they took more memory than all else; what comes out is the same to the bit."""
    draw = torch.Generator().manual_seed(0)
    x, (eight, scale) = torch.randn(10, 64, generator=draw), rounded(torch.randn(48, 64, generator=draw))
    want, sizes, narrow = product(x, eight, scale), list[int](), eight_bits._narrowed

    def noted(rows: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(rows))
        return narrow(rows)

    monkeypatch.setattr(eight_bits, "_ROWS", 4)
    monkeypatch.setattr(eight_bits, "_narrowed", noted)
    assert torch.equal(product(x, eight, scale), want)
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize("name", ["videocrafter2", "zeroscope", "latte", "open-sora-plan", "wan-1.3b"])
@torch.no_grad()
def test_every_linear_layer_of_a_published_network_multiplies_in_eight_bits(name: str) -> None:
    """None is gone round by its weight.  Without numbers: on the meta device."""
    card = MODELS[name]
    with torch.device("meta"):
        full = FULL[name]()
        linear = {n for n, layer in large_layers(full.network) if isinstance(layer, nn.Linear)}
        in_eight_bits(full.network, HALF, products=True)
        made, asked = products_of(full.network)
        z = torch.empty(1, full.channels, card.window, 32, 32, dtype=HALF)
        full.evaluate(z, torch.empty(1, card.window))
    assert asked == made == linear


def products_of(net: nn.Module) -> tuple[set[str], set[str]]:
    """The layers that multiply in eight bits, and those of them that have been called, which fills up."""
    made = {name: layer for name, layer in net.named_modules() if isinstance(layer, EightBitProduct)}
    asked: set[str] = set()
    for name, layer in made.items():
        layer.register_forward_hook(lambda *_, name=name: asked.add(name))
    return set(made), asked


@pytest.mark.parametrize("name", ["embedded", "embedded-large", "videocrafter2", "zeroscope"])
@torch.no_grad()
def test_answers_of_products_are_near_and_their_own(name: str, tmp_path: Path) -> None:
    """On a CPU, where layers side by side are one product otherwise."""
    (case,) = named(name)
    weights = case.weights(tmp_path)
    whole, kept, eight = (load(name, CPU, torch.float32, weights) for _ in range(3))
    kept.in_eight_bits(CPU)
    eight.in_eight_bits(CPU, products=True)
    made, asked = products_of(network(eight))
    schedule = whole.schedule(64, "even")
    z = noise(1, whole.channels, 16, case.side, case.side)
    t = schedule.times(torch.linspace(4, 60, 16).long(), z)[None]
    cond = whole.embed(["a red balloon"])
    answer, was, near = (model.denoiser(schedule)(z, t, cond) for model in (eight, whole, kept))
    assert asked == made != set()
    assert float((near - was).norm()) < float((answer - was).norm()) < 0.25 * float(was.norm())


@pytest.mark.parametrize("name", sorted(FULL))
def test_nearly_all_of_a_published_network_is_in_its_blocks(name: str) -> None:
    """But for the modulations of Latte's class-conditional network, a third of it."""
    with torch.device("meta"):
        net = FULL[name]().network
    inside = {name: layer.weight.numel() for name, layer in large_layers(net)}
    assert sum(inside.values()) / sum(p.numel() for p in net.parameters()) > (0.6 if name == "latte-ucf101" else 0.9)
    ends = ("conv_in", "conv_out", "patch_embedding", "proj_out", "pos_embed", "x_embedder", "final_layer")
    assert not any(name.startswith(ends) for name in inside)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("products", [False, True])
@torch.no_grad()
def test_it_can_be_compiled(tmp_path: Path, products: bool) -> None:
    dynamo.reset()
    model = load("wan-1.3b", CPU, torch.float32, tiny_wan.make(tmp_path))
    model.in_eight_bits(CPU, products)
    z, t, cond = torch.randn(1, 16, 8, 4, 4), torch.linspace(10, 900, 8)[None], model.embed(["a red balloon"])
    want = model.denoiser(model.schedule(64, "even"))(z, t, cond)
    model.compile("eager")  # the same kernels, so the same bits
    assert torch.equal(model.denoiser(model.schedule(64, "even"))(z, t, cond), want)
    dynamo.reset()


def test_all_arrives_where_it_computes(tmp_path: Path) -> None:
    """Loaded on the CPU, whatever the device; the autoencoder in the precision that it has there."""
    assert [pictures_in(torch.device(d), torch.bfloat16) for d in ("cuda", "cpu")] == [torch.bfloat16, torch.float32]
    for name in ("wan-1.3b", "latte", "open-sora-plan", "embedded"):
        (case,) = named(name)
        model = load(name, CPU, torch.bfloat16, case.weights(tmp_path / name))
        model.in_eight_bits(torch.device("meta"))
        pictures: nn.Module = getattr(model, "autoencoder", None) or model._pictures  # type: ignore[attr-defined]
        for part in (network(model), pictures):
            assert {p.device.type for p in part.parameters()} == {"meta"}, name
        assert model.device.type == "meta"
        if isinstance(model, LatentModel):
            assert model.reader.where.type == "meta"


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    weights = tiny_wan.make(tmp_path_factory.mktemp("wan"))
    return {"prompt": "a red balloon", "model": "wan-1.3b", "weights": weights, "size": (32, 32), **SMALL}


def test_the_sidecar_says_so_and_makes_the_same_video_again(wan: dict[str, Any], tmp_path: Path) -> None:
    plain = api.make(Run.of(wan), str(tmp_path / "plain.mp4"))
    made = api.make(Run.of({**wan, "fp8": "weights"}), str(tmp_path / "a.mp4"))
    assert made.frames_sha256 != plain.frames_sha256
    assert json.loads((tmp_path / "a.mp4.json").read_text())["run"]["fp8"] == "weights"
    assert json.loads((tmp_path / "plain.mp4.json").read_text())["run"]["fp8"] == "off"
    again = sidecar.again(sidecar.read(tmp_path / "a.mp4.json"), {})
    assert api.make(Run.of(again), str(tmp_path / "again.mp4")).frames_sha256 == made.frames_sha256
    off = api.make(Run.of({**again, "fp8": "off"}), str(tmp_path / "off.mp4"))
    assert off.frames_sha256 == plain.frames_sha256


@pytest.mark.parametrize("fp8", ["weights", "products"])
def test_a_run_goes_on_in_the_precision_that_it_began_with(wan: dict[str, Any], fp8: str, tmp_path: Path) -> None:
    run = Run.of({**wan, "fp8": fp8, "frames": 9})
    straight = api.make(run, str(tmp_path / "straight.mp4"))
    api.make(run.model_copy(update={"frames": 5}), str(tmp_path / "a.mp4"))
    longer = api.resume(str(tmp_path / "a.mp4"), frames="+4")
    assert longer.run.fp8 == fp8
    assert longer.frames_sha256 == straight.frames_sha256


def test_lora_is_added_before_the_weights_are_rounded(wan: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    name = "blocks.0.attn1.to_q"
    width = tiny_wan.transformer().blocks[0].attn1.to_q.weight.shape[0]
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, width, generator=draw), torch.randn(width, 2, generator=draw)
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, tmp_path / "a.safetensors")
    said = {**wan, "lora": (str(tmp_path / "a.safetensors"),)}
    whole, eight = (Session(resolve(Run.of({**said, "fp8": fp8}))).model for fp8 in ("off", "weights"))

    def weight(model: Model) -> Tensor:
        got: Tensor = network(model).get_submodule(name).weight
        return got

    kept, scale = rounded(weight(whole))
    assert torch.equal(weight(eight), kept.float() * scale)


def test_it_is_off_unless_asked_for_and_told_at_the_start() -> None:
    assert resolve(Run.of({"prompt": "a"})).fp8 == "off"
    assert "8 bits" not in told(resolve(Run.of({"prompt": "a", "device": "cpu"})))
    assert "float32, weights in 8 bits, " in told(resolve(Run.of({"prompt": "a", "device": "cpu", "fp8": "weights"})))
    assert "float32, products in 8 bits, " in told(resolve(Run.of({"prompt": "a", "device": "cpu", "fp8": "products"})))


def test_what_cannot_be_is_refused_before_any_work() -> None:
    with pytest.raises(BadInput, match=r"^gauss has no network .*; leave --fp8 out$"):
        resolve(Run.of({"prompt": "0", "model": "gauss", "fp8": "weights"}))
    with pytest.raises(BadInput, match="fp8 is 'on'; it must be 'off', 'weights' or 'products'"):
        Run.of({"prompt": "a", "fp8": "on"})
    with pytest.raises(BadInput, match=r"^Apple's MPS has no eight-bit floats; "):
        MODELS["embedded"].check_fp8("mps")


def test_products_are_refused_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"^products in eight bits are not to be had on xpu; give --fp8 weights, "):
        check_products(torch.device("xpu"))
    old = {"get_device_capability": (8, 6), "get_device_name": "NVIDIA GeForce RTX 3090"}
    for name, value in old.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    with pytest.raises(BadInput, match=r"^NVIDIA GeForce RTX 3090 has no products in eight bits, .*; give --fp8 "):
        check_products(torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    check_products(torch.device("cuda:0"))
    monkeypatch.delattr(torch.nn.functional, "scaled_mm")
    with pytest.raises(BadInput, match=r"^torch .* has no products in eight bits, torch 2.13 has; give "):
        resolve(Run.of({"prompt": "a", "device": "cpu", "fp8": "products"}))


def test_more_windows_fit_and_14_billion_into_24_gib() -> None:
    card = MODELS["wan-14b"]
    assert card.memory is not None
    assert card.memory.least(fp8=True) < 23.5 < card.memory.least()
    assert _room(card, card.size, "bfloat16", 40.0, fp8=True) > _room(card, card.size, "bfloat16", 40.0) == 0
    saved = card.memory.stays - card.memory.eight
    for dtype in ("bfloat16", "float32"):
        assert card.memory.stay(dtype) - card.memory.stay(dtype, fp8=True) >= saved
