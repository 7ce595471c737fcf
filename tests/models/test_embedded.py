"""The shipped model: its files, its words, its per-frame text."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny_parts import noise

from fifo_diffusion.errors import ModelError
from fifo_diffusion.models.embedded.model import WEIGHTS, Embedded
from fifo_diffusion.models.embedded.text import TextEncoder
from fifo_diffusion.models.embedded.transformer import VideoTransformer, _Attention, _Block, _rotary, _waves, patches
from fifo_diffusion.prompts import mix

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def embedded() -> Embedded:
    return Embedded(WEIGHTS, CPU, torch.float32)


def test_the_weights_fit_the_package() -> None:
    sizes = [file.stat().st_size for file in WEIGHTS.parent.glob("weights*/*.safetensors")]
    assert len(sizes) == 7  # three each of two models, and one of the third
    assert sum(sizes) <= 30_000_000
    assert max(sizes) <= 16_000_000
    assert (WEIGHTS.parent / "MODEL_CARD.md").exists()
    assert "Microsoft" in (WEIGHTS.parent / "ART_LICENSE").read_text()


@torch.no_grad()
def test_each_frame_may_hear_its_own_text(embedded: Embedded) -> None:
    schedule = embedded.schedule(64, "even")
    denoise = embedded.denoiser(schedule)
    z, t = noise(1, 12, 16, 8, 8), torch.full((1, 16), 900.0)
    cond = embedded.embed(["a red balloon over the ocean", "a green car over a city at night"])
    one = denoise(z, t, {name: value[:1] for name, value in cond.items()})
    same = denoise(z, t, {name: value[[0] * 16][None] for name, value in cond.items()})
    torch.testing.assert_close(one, same, rtol=1e-4, atol=1e-4)
    mixed = denoise(z, t, {name: value[[0] * 8 + [1] * 8][None] for name, value in cond.items()})
    change = (mixed - one).square().mean(dim=(0, 1, 3, 4))
    assert change[8:].min() > change[:8].max()


@torch.no_grad()
def test_a_text_that_fades_goes_evenly_from_one_to_the_other(embedded: Embedded) -> None:
    """Where one text has a word and the other none, the word itself fades: what stands past a text's end is nothing."""
    cond = embedded.embed(["a red balloon over the ocean", "a car"])
    assert bool((cond["words"][~cond["heard"]] == 0).all())
    schedule = embedded.schedule(64, "even")
    z, t = noise(1, 12, 16, 8, 8), torch.full((1, 16), 900.0)
    one, two = ({name: value[i : i + 1] for name, value in cond.items()} for i in range(2))
    ends = [embedded.denoiser(schedule)(z, t, c) for c in (one, two)]
    apart = (ends[1] - ends[0]).square().mean()
    before = ends[0]
    for share in (0.25, 0.5, 0.75):
        now = embedded.denoiser(schedule)(z, t, mix([(one, 1 - share), (two, share)]))
        assert (now - before).square().mean() < apart
        before = now
    assert (ends[1] - before).square().mean() < apart


def test_what_is_not_heard_is_said(embedded: Embedded) -> None:
    one, two, three = embedded.remarks("A red baloon, drifting over the Eiffel tower")
    assert "'baloon'" in one
    assert "balloon" in one.split(";")[1]
    assert "'eiffel'" in two
    assert "'tower'" in three
    assert embedded.remarks("a red balloon drifting right over snowy mountains") == []
    assert embedded.remarks("") == []
    # Until weights are shipped that hear the difference.
    (lot,) = embedded.remarks("a red balloon rising slowly, up over a desert")
    assert "hears in 'rising' that something moves up or down, not which" in lot
    assert "'шар'" in embedded.remarks("красный шар")[1]
    assert "knows no word" in embedded.remarks("красный шар")[2]
    assert "its first 23 known words" in embedded.remarks("red balloon " * 12)[0]


@torch.no_grad()
def test_words_left_out_and_too_long_prompts_are_still_heard() -> None:
    net = TextEncoder(["red", "balloon"], width=12).eval()
    tokens = net.tokens(["red zebra balloon", "red balloon", "", "red " * 100])
    assert torch.equal(tokens[0], tokens[1])
    assert tokens.shape == (4, net.longest)
    text, states, heard = net(tokens)
    assert text.isfinite().all()
    assert states.shape == (4, net.longest, 12)
    assert heard.sum(dim=1).tolist() == [3, 3, 1, net.longest]


@torch.no_grad()
def test_a_decoded_encoding_is_the_picture(embedded: Embedded) -> None:
    """A smooth picture of a scene's kind: blue above, white below, a red disc between."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    disc = ((x**2 + y**2) < 0.15)[None]
    sky = torch.stack([0.2 + 0.7 * (y > 0.4), 0.5 + 0.4 * (y > 0.4), torch.full_like(y, 0.9)])
    picture = torch.where(disc, torch.tensor([0.9, -0.8, -0.7])[:, None, None], sky)[None]
    (pixels,) = embedded.decoder()(iter([embedded.encode(picture[None])]))
    assert (pixels[:, 0] - picture).square().mean() < 0.05


@pytest.mark.parametrize("file", ["transformer.safetensors", "autoencoder.safetensors", "text.safetensors"])
def test_damaged_weights_are_one_sentence_that_names_the_file(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS, folder)
    (folder / file).write_bytes((folder / file).read_bytes()[:1000])
    with pytest.raises(ModelError, match=file) as broken:
        Embedded(folder, CPU, torch.float32)
    assert "\n" not in str(broken.value)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json"):
        Embedded(folder, CPU, torch.float32)


@torch.no_grad()
def test_attention_is_norm_rotation_and_softmax_written_plainly() -> None:
    """RMSNorm, rotary positions (arXiv:2104.09864) as the weights were trained with them, attention: step by step."""
    torch.manual_seed(0)
    width, heads, shape = 24, 2, (2, 2, 3)
    net = _Attention(width, heads)
    for norm in (net.q_norm, net.k_norm):
        norm.weight.copy_(torch.rand(width // heads) + 0.5)
    x, (cos, sin) = torch.randn(1, math.prod(shape), width), _rotary(*shape, width // heads, CPU, torch.float32)

    def turned(part: torch.Tensor, norm: torch.nn.RMSNorm) -> torch.Tensor:
        a, b = norm(part).chunk(2, dim=-1)
        c, s = (table[:, None, : width // heads // 2] for table in (cos, -sin))  # the first half has minus the sine
        return torch.cat([a * c - b * s, b * c + a * s], dim=-1)

    q, k, v = (x @ net.qkv.weight.T).view(1, -1, 3, heads, width // heads).unbind(2)  # (B, N, h, E)
    q, k = turned(q, net.q_norm), turned(k, net.k_norm)
    share = (torch.einsum("bqhe,bkhe->bhqk", q, k) / (width // heads) ** 0.5).softmax(dim=-1)
    want = torch.einsum("bhqk,bkhe->bqhe", share, v).flatten(2) @ net.out.weight.T
    torch.testing.assert_close(net(x, *net.tables(cos, sin)), want, rtol=1e-5, atol=1e-6)
    # One frame on (6 places here) the first pair has turned by a quarter.
    assert cos[6, 0].item() == pytest.approx(0, abs=1e-6)
    assert [sin[6, i].item() for i in (0, width // heads // 2)] == pytest.approx([-1, 1])


@torch.no_grad()
def test_the_network_is_its_formula() -> None:
    """Equation by equation, every frame at its own time and with a text of its own; attention is looked at above."""
    draw = torch.Generator().manual_seed(0)
    net = VideoTransformer(channels=2, width=24, depth=2, heads=2, text=8).eval()
    for parameter in net.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw) / 4)
    b, f, tokens, words = 2, 3, 4, 5
    z, t = torch.randn(b, 2, f, 4, 4, generator=draw), 1000 * torch.rand(b, f, generator=draw)
    text, said = torch.randn(b, f, 8, generator=draw), torch.randn(b, f, words, 8, generator=draw)
    heard = torch.arange(words) < torch.tensor([[1, 2, 3], [4, 5, 1]])[..., None]

    def norm(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    x = net.enter(patches(z, 2))
    hint = torch.nn.functional.silu(net.time(_waves(t, 24)) + net.text(text))[:, :, None]
    for block in net.blocks:
        assert isinstance(block, _Block)
        shift, scale, gate, *of_mlp = block.modulation(hint).chunk(6, dim=-1)
        turns = block.attention.tables(*_rotary(f, 2, 2, 12, CPU, torch.float32))
        x = x + gate * block.attention((norm(x) * (1 + scale) + shift).flatten(1, 2), *turns).view(x.shape)
        reading = block.reading
        q = reading.q_norm(reading.q(norm(x)).view(b, f, tokens, 2, 12))
        k, v = reading.kv(said).view(b, f, words, 2, 2, 12).unbind(3)
        logits = torch.einsum("bfthe,bfwhe->bfhtw", q, reading.k_norm(k)) / 12**0.5
        share = logits.masked_fill(~heard[:, :, None, None], -torch.inf).softmax(dim=-1)
        x = x + reading.out(torch.einsum("bfhtw,bfwhe->bfthe", share, v).flatten(3))
        shift, scale, gate = of_mlp
        x = x + gate * block.mlp(norm(x) * (1 + scale) + shift)
    shift, scale = net.modulation(hint).chunk(2, dim=-1)
    out = net.leave(norm(x) * (1 + scale) + shift)
    torch.testing.assert_close(patches(net(z, t, text, said, heard), 2), out, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", ["/nope", __file__])
def test_wrong_weights_are_mended_where_they_came_from(weights: str) -> None:
    with pytest.raises(ModelError, match="give --weights a folder that the training exported"):
        Embedded(Path(weights), CPU, torch.float32)
