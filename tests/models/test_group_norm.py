"""Group norm is torch's, in the places where ours computes it too."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fifo_diffusion.models import group_norm as room
from fifo_diffusion.models.group_norm import group_norm


@torch.no_grad()
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_it_is_torchs(
    dtype: torch.dtype, off: float, at_once: int, silu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pictures at once, one by one, or two and a rest; far from zero, where single-pass sums lose their digits."""
    monkeypatch.setattr(room, "MOST", at_once * 4 * 24 * 5 * 3)
    draw = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(6, 24, eps=0.1)
    for parameter in norm.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw))
    spread = torch.rand(3, 24, 1, 1, generator=draw) + 0.5
    x = (50 + spread * torch.randn(3, 24, 5, 3, generator=draw)).to(dtype).contiguous(memory_format=torch.channels_last)
    want = norm(x.float())
    want = functional.silu(want) if silu else want
    kept = x.clone()
    got = group_norm(norm.to(dtype), x, silu)
    assert got.dtype is dtype
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, kept)
    torch.testing.assert_close(got.float(), want, rtol=off, atol=off)
