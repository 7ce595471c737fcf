"""What follows from the same arguments is made once, and never taken for what follows from others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fifo_diffusion.models.embedded.model import WEIGHTS, Embedded
from fifo_diffusion.models.once import Once


@pytest.fixture
def counted() -> tuple[list[int], Callable[[Tensor, int], Tensor]]:
    calls: list[int] = []

    def make(x: Tensor, n: int) -> Tensor:
        calls.append(n)
        return x * n

    return calls, make


@torch.no_grad()
def test_equal_arguments_are_answered_once(counted: tuple[list[int], Callable[[Tensor, int], Tensor]]) -> None:
    calls, make = counted
    once, x = Once(make), torch.ones(3)
    once.most = 2
    assert once(x, 2) is once(x.clone(), 2)
    assert calls == [2]
    assert once(x, 3).tolist() == [3, 3, 3]  # another number,
    x.add_(1)  # another tensor, be it in the same place,
    assert once(x, 2).tolist() == [4, 4, 4]
    assert once(x.double(), 2).dtype is torch.float64  # another precision,
    assert once(x[:2], 2).shape == (2,)  # another shape
    assert calls == [2, 3, 2, 2, 2]


@torch.no_grad()
def test_the_last_that_were_asked_for_are_kept(counted: tuple[list[int], Callable[[Tensor, int], Tensor]]) -> None:
    calls, make = counted
    once, x = Once(make), torch.ones(1)
    once.most = 2
    for n in (1, 2, 1, 3, 1, 2):  # 3 takes the place of 2, for 1 was asked for after it
        once(x, n)
    assert calls == [1, 2, 3, 2]
    once.most = 0
    once(x, 1)
    once(x, 1)
    assert calls == [1, 2, 3, 2, 1, 1]


def test_with_gradients_nothing_is_kept(counted: tuple[list[int], Callable[[Tensor, int], Tensor]]) -> None:
    calls, make = counted
    once, x = Once(make), torch.ones(1, requires_grad=True)
    assert once(x, 2).requires_grad
    once(x, 2)
    assert calls == [2, 2]


@torch.no_grad()
def test_the_embedded_model_answers_the_same_with_what_it_kept() -> None:
    """Bit for bit: other latents at the same times, then other times, another text, another size."""
    model, fresh = (Embedded(WEIGHTS, torch.device("cpu"), torch.float32) for _ in range(2))
    fresh.save_memory()
    texts = [model.embed([prompt]) for prompt in ("a red balloon", "a green car over a city at night")]
    draw = torch.Generator().manual_seed(0)
    for text, start, size in ((0, 100.0, 8), (0, 100.0, 8), (0, 200.0, 8), (1, 200.0, 8), (0, 100.0, 4), (0, 100.0, 8)):
        z, t = torch.randn(1, 12, 4, size, size, generator=draw), start + torch.arange(4.0)[None]
        got, want = (m.denoiser(m.schedule(64, "even"))(z, t, texts[text]) for m in (model, fresh))
        assert torch.equal(got, want)
    kept = len(model._told._kept)
    each = {name: torch.stack([c[name][0] for c in texts * 2])[None] for name in texts[0]}  # a text for every frame
    got, want = (m.denoiser(m.schedule(64, "even"))(z, t, each) for m in (model, fresh))
    assert torch.equal(got, want)
    assert len(model._told._kept) == kept == 4  # it is not kept, for the next iteration has it a frame further on
