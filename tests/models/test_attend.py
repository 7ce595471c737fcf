"""Attention says what its formula says, whichever way it is computed."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from tiny_parts import noise

from fifo_diffusion.models import attend
from fifo_diffusion.models.attend import MANY, attention
from fifo_diffusion.models.place_attention import PlaceAttention


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize(("asking", "answering"), [(MANY, MANY + 3), (MANY, 7), (5, 5), (5, 64)])
@pytest.mark.parametrize("at_once", [0.3, 1, 2, 100])
def test_it_is_its_formula(
    dtype: torch.dtype, off: float, asking: int, answering: int, at_once: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads as a layer makes them: strided; all of a window at once, one by one, some and a rest, or in parts."""
    monkeypatch.setattr(attend, "MOST", int(at_once * asking * answering) * dtype.itemsize)
    q, k, v = (
        noise(2, tokens, 3, 16, seed=seed).to(dtype).transpose(1, 2)
        for seed, tokens in enumerate((asking, answering, answering))
    )
    weights = torch.einsum("nhle,nhse->nhls", q.double(), k.double()).div(4).exp()
    want = torch.einsum("nhls,nhse->nhle", weights / weights.sum(-1, keepdim=True), v.double())
    got = attention(q, k, v)
    assert got.dtype is dtype
    torch.testing.assert_close(got.double(), want, rtol=off, atol=off)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_window_is_asked_in_parts(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits of one head over 1,024 frames of the embedded model were 1 GB, and their softmax as much again."""
    q, k, v = (noise(2, 2, 3 * MANY, 16, seed=seed).to(dtype) for seed in range(3))
    sizes = []
    softmax = torch.Tensor.softmax

    def watched(logits: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        sizes.append(logits.nbytes)
        return softmax(logits, dim, dtype=dtype)

    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    monkeypatch.setattr(attend, "MOST", most := 500 * 3 * MANY * dtype.itemsize)
    attention(q, k, v)
    assert max(sizes) == most
    assert len(sizes) == 2 * 2 * 3  # 500, 500 and 200 of 1,200 tokens for each head


@torch.no_grad()
@pytest.mark.parametrize("text", [None, noise(2, 7, 10)])
def test_the_layer_is_the_one_of_diffusers(text: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    net = Attention(query_dim=12, cross_attention_dim=None if text is None else 10, heads=2, dim_head=6).eval()
    x = noise(2, MANY, 12)
    net.set_processor(AttnProcessor())
    want = net(x, text)
    net.set_processor(PlaceAttention())
    torch.testing.assert_close(net(x, text), want, rtol=1e-5, atol=1e-6)
