"""Attention written out for speed says what its formula says, on diffusers' own layers."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from tiny_parts import noise

from fifo_diffusion.models.frame_attention import FrameAttention, RelativeAttention, RelativePosition

HEADS, WIDTH, FRAMES = 2, 6, 5


def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=HEADS * WIDTH, heads=HEADS, dim_head=WIDTH).eval()


@torch.no_grad()
def test_plain_attention_is_the_one_of_diffusers() -> None:
    net, x = attention(), noise(3, FRAMES, HEADS * WIDTH)
    net.set_processor(AttnProcessor())
    want = net(x)
    net.set_processor(FrameAttention())
    torch.testing.assert_close(net(x), want, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_relative_attention_is_its_formula_pair_by_pair() -> None:
    """Equations 1 and 2 of arXiv:1803.02155, one pair of frames after the other; distances above 2 share the last."""
    net, x, most = attention(), noise(3, FRAMES, HEADS * WIDTH), 2
    for name in ("relative_position_k", "relative_position_v"):
        table = RelativePosition(WIDTH, most)
        table.embeddings_table.copy_(torch.randn(table.embeddings_table.shape))
        setattr(net, name, table)
    q, k, v = (f(x).unflatten(-1, (HEADS, WIDTH)) for f in (net.to_q, net.to_k, net.to_v))  # (N, F, h, E)
    out = torch.zeros_like(q)
    for i in range(FRAMES):
        apart = [max(-most, min(most, j - i)) + most for j in range(FRAMES)]
        keys = k + net.relative_position_k.embeddings_table[apart][:, None]
        values = v + net.relative_position_v.embeddings_table[apart][:, None]
        share = (torch.einsum("nhe,nfhe->nhf", q[:, i], keys) / WIDTH**0.5).softmax(dim=-1)
        out[:, i] = torch.einsum("nhf,nfhe->nhe", share, values)
    net.set_processor(RelativeAttention())
    torch.testing.assert_close(net(x), net.to_out[0](out.flatten(2)), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_relative_attention_is_one_graph_when_it_is_compiled(frames: int) -> None:
    """Or a network with thirty of them is compiled in pieces."""
    net, x = attention(), noise(3, frames, HEADS * WIDTH)
    for name in ("relative_position_k", "relative_position_v"):
        setattr(net, name, RelativePosition(WIDTH, 2))
    net.set_processor(RelativeAttention())
    want = net(x)
    net.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(net(x), want, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_relative_attention_holds_what_half_precision_can() -> None:
    """A product of queries and keys of which float16 knows no number, and after the scale one."""
    net, x = Attention(query_dim=128, heads=2, dim_head=64).eval(), torch.full((1, FRAMES, 128), 1.0)
    for name in ("relative_position_k", "relative_position_v"):
        setattr(net, name, RelativePosition(64, 2))
    for layer in (net.to_q, net.to_k):
        layer.weight.fill_(40 / 128)  # 64 times 40 times 40 is above 65,504
    net.set_processor(RelativeAttention())
    torch.testing.assert_close(net.half()(x.half()).float(), net.float()(x), rtol=1e-2, atol=1e-2)
