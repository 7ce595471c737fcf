"""Distances of feature sets against closed forms and theory."""

import math

import pytest
import torch
from torch import Tensor

from fifo_diffusion.evaluate.frechet import InceptionScore, Moments, Sample, frechet, kernel_distance


def normal(count: int, features: int, seed: int) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(*parts: Tensor) -> Moments:
    out = Moments(parts[0].shape[1])
    for part in parts:
        out.add(part)
    return out


def test_moments_do_not_depend_on_the_blocks() -> None:
    x = 1e4 + normal(50, 6, 0) @ normal(6, 6, 1)  # far from 0, where sums of squares would lose their digits
    for found in (
        moments(*torch.split(x, 7)),
        moments(x[:20]) + moments(*torch.split(x[20:], 9)),
        moments(x) + Moments(6),
    ):
        assert found.count == 50
        assert torch.allclose(found.mean, x.mean(dim=0), rtol=1e-13)
        assert torch.allclose(found.covariance, x.T.cov(), rtol=1e-8)


def exactly(mean: Tensor, covariance: Tensor) -> Moments:
    """Vectors that have just this mean and covariance."""
    d = len(mean)
    cross = torch.cat([torch.eye(d, dtype=torch.float64), -torch.eye(d, dtype=torch.float64)])
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return moments(mean + cross * math.sqrt((2 * d - 1) / 2) @ root)


def test_the_frechet_distance_of_known_gaussians() -> None:
    one = torch.tensor([4.0, 9.0, 1.0], dtype=torch.float64)
    other = torch.tensor([1.0, 16.0, 1.0], dtype=torch.float64)
    shift = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)
    # Covariances that commute: |m|^2 + sum (s1 - s2)^2 = 9 + 1 + 1 + 0, in any common basis.
    basis = torch.linalg.qr(normal(3, 3, 2))[0]
    a = exactly(torch.zeros(3, dtype=torch.float64), basis * one @ basis.T)
    b = exactly(basis @ shift, basis * other @ basis.T)
    assert frechet(a, b) == pytest.approx(11, rel=1e-10)
    assert frechet(b, a) == pytest.approx(11, rel=1e-10)


def test_the_frechet_distance_where_covariances_do_not_commute() -> None:
    a, b = moments(normal(40, 5, 3) @ normal(5, 5, 4)), moments(normal(40, 5, 5) @ normal(5, 5, 6))
    root = torch.linalg.eigvals(a.covariance @ b.covariance).sqrt().sum().real
    apart = (a.mean - b.mean).square().sum()
    assert frechet(a, b) == pytest.approx(
        float(apart + a.covariance.trace() + b.covariance.trace() - 2 * root), rel=1e-9
    )


def test_fewer_vectors_than_features_give_a_distance_still() -> None:
    x, y = normal(8, 100, 7), normal(9, 100, 8)
    assert frechet(moments(x), moments(x)) == pytest.approx(0, abs=1e-6)
    moved = moments(x + 2)
    assert frechet(moments(x), moved) == pytest.approx(400, rel=1e-9)
    # Of the centred vectors' products the trace of the root is the sum of singular values, without any covariance.
    a, b = (part - part.mean(dim=0) for part in (x, y))
    trace = torch.linalg.svdvals(a @ b.T).sum() / math.sqrt(7 * 8)
    wanted = (x.mean(dim=0) - y.mean(dim=0)).square().sum() + a.square().sum() / 7 + b.square().sum() / 8 - 2 * trace
    assert frechet(moments(x), moments(y)) == pytest.approx(float(wanted), rel=1e-7)


def test_the_kernel_distance_is_unbiased_and_knows_its_error() -> None:
    """Of small samples of one distribution the mean is 0 within its error; of two it is seen."""
    same = [kernel_distance(normal(12, 4, seed), normal(16, 4, 1000 + seed))[0] for seed in range(300)]
    mean = sum(same) / 300
    error = torch.tensor(same).std().item() / math.sqrt(300)
    assert abs(mean) < 3 * error
    apart = [kernel_distance(normal(60, 4, seed), 0.8 + normal(60, 4, 1000 + seed)) for seed in range(100)]
    spread = torch.tensor([value for value, _ in apart]).std().item()
    told = sum(error for _, error in apart) / 100
    assert sum(value for value, _ in apart) / 100 > 3 * spread
    assert told == pytest.approx(spread, rel=0.35)


def test_the_kernel_distance_is_that_of_kid() -> None:
    x, y = normal(5, 3, 0), normal(4, 3, 1)

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within = [sum(kernel(a, b) for a in s for b in s if a is not b) / (len(s) * (len(s) - 1)) for s in ([*x], [*y])]
    across = sum(kernel(a, b) for a in x for b in y) / 20
    assert kernel_distance(x, y)[0] == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_a_sample_is_bounded_and_fair() -> None:
    numbers = torch.arange(20_000.0)[:, None]
    sample, again = Sample(most=1000), Sample(most=1000)
    for part in torch.split(numbers, 700):
        sample.add(part)
    again.add(numbers)
    assert torch.equal(sample.vectors, again.vectors)
    held = sample.vectors.flatten()
    assert len(sample) == len(set(held.tolist())) == 1000
    quarters = torch.histc(held, 4, 0, 20_000)
    assert (quarters - 250).abs().max() < 4 * (1000 * 0.25 * 0.75) ** 0.5


def test_the_inception_score_of_known_classes() -> None:
    sure = torch.full((40, 4), -100.0)
    sure[torch.arange(40), torch.arange(40) % 4] = 100
    score = InceptionScore(4)
    score.add(sure[:7])
    score.add(sure[7:])
    assert score.score()[0] == pytest.approx(4)  # sure of each, and of all kinds alike
    unsure = InceptionScore(4)
    unsure.add(torch.zeros(40, 4))
    value, error = unsure.score()
    assert value == pytest.approx(1)
    assert error == pytest.approx(0, abs=1e-9)
    one_kind = InceptionScore(4)
    one_kind.add(sure[:1].expand(40, -1))
    assert one_kind.score()[0] == pytest.approx(1)


def test_the_inception_score_tells_its_error() -> None:
    values, errors = [], []
    for seed in range(40):
        score = InceptionScore(5)
        score.add(2 * normal(400, 5, seed))
        value, error = score.score()
        assert error is not None
        values.append(value)
        errors.append(error)
    assert sum(errors) / 40 == pytest.approx(torch.tensor(values).std().item(), rel=0.4)
    few = InceptionScore(5)
    few.add(normal(19, 5, 0))
    assert few.score()[1] is None
