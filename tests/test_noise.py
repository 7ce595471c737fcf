"""Noise is a function of its name."""

import pytest
import torch

from fifo_diffusion.errors import BadInput
from fifo_diffusion.noise import SeededNoise

LIKE = torch.empty(1, 3, 4, 5)


def test_the_same_name_is_the_same_noise_and_another_is_not() -> None:
    numbers = (0, 1, 11, 64)  # whose digits, side by side, are the same for several names
    names = [(seed, frame, level) for seed in (0, 1, -1) for frame in (-1, *numbers) for level in numbers]
    drawn = [SeededNoise(seed)(frame, level, LIKE) for seed, frame, level in names]
    for (seed, frame, level), want in zip(names, drawn, strict=True):
        assert torch.equal(SeededNoise([seed])(frame, level, LIKE), want)
    assert len({float(x.sum()) for x in drawn}) == len(names)


def test_no_two_of_many_names_share_their_noise() -> None:
    """Not even by chance, as they would if the generator were seeded with few bits of the name."""
    like = torch.empty(1, 1, 2, 2)
    drawn = {tuple(SeededNoise(0)(frame, level, like).flatten().tolist()) for frame in range(60) for level in range(40)}
    assert len(drawn) == 60 * 40


def test_a_stream_draws_in_a_batch_what_it_draws_alone() -> None:
    batch = SeededNoise((5, 9, 5))(2, 3, LIKE.expand(3, -1, -1, -1))
    assert torch.equal(batch[1:2], SeededNoise(9)(2, 3, LIKE))
    assert torch.equal(batch[0], batch[2])


def test_a_number_does_not_depend_on_the_precision() -> None:
    want = SeededNoise(0)(1, 2, LIKE)
    assert torch.equal(SeededNoise(0)(1, 2, LIKE.double()), want.double())
    assert torch.equal(SeededNoise(0)(1, 2, LIKE.bfloat16()), want.bfloat16())


def test_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(1)
    a = SeededNoise(0)(0, 0, LIKE)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(SeededNoise(0)(0, 0, LIKE), a)


def test_whatever_the_defaults_of_torch_are_it_is_the_same() -> None:
    like = torch.zeros(1, 4, 8, 8)
    usual = SeededNoise(3)(5, 2, like)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        made = SeededNoise(3)(5, 2, like)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert torch.equal(made, usual)


def test_it_is_the_unit_normal_and_names_are_independent() -> None:
    like = torch.empty(1, 1, 100, 100)
    names = [(frame, level) for frame in range(4) for level in range(4)]
    x = torch.stack([SeededNoise(3)(*name, like) for name in names]).flatten(1)
    moments = torch.stack([x.mean(), x.var() - 1, (x**3).mean(), (x**4).mean() - 3])
    # 5 standard errors: of 160,000 numbers here, of 10,000 below
    assert bool((moments.abs() < torch.tensor([0.013, 0.018, 0.05, 0.13])).all())
    assert float((torch.corrcoef(x) - torch.eye(16)).abs().max()) < 0.05


def test_a_batch_needs_a_seed_for_each_stream() -> None:
    with pytest.raises(BadInput, match="1 seeds were given for a batch of 2"):
        SeededNoise(0)(0, 0, LIKE.expand(2, -1, -1, -1))
