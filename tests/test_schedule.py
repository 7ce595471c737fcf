"""The level tables, and one step against the equations it cites."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.schedule import (
    NoiseSchedule,
    Predicts,
    cosine,
    leading,
    paper,
    rectified_flow,
    scaled_linear_betas,
    variance_preserving,
)

PREDICTS: list[Predicts] = ["noise", "velocity", "sample", "flow"]
K = 10
LEVEL = torch.arange(1, K + 1)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frames(seed: int) -> Tensor:
    return randn(2, 3, K, 2, 2, seed=seed)


def wide(x: Tensor) -> Tensor:
    return x.view(1, 1, -1, 1, 1)


def answer(s: NoiseSchedule, x0: Tensor, eps: Tensor, level: Tensor) -> Tensor:
    """What a network that knows x0 and eps says."""
    a, sigma = wide(s.alpha[level]), wide(s.sigma[level])
    return {"noise": eps, "velocity": a * eps - sigma * x0, "sample": x0, "flow": eps - x0}[s.predicts]


def zero_snr(predicts: Predicts) -> NoiseSchedule:
    """A variance-preserving table that ends in nothing but noise."""
    angle = torch.linspace(0, math.pi / 2, K + 1, dtype=torch.float64)
    alpha = angle.cos()
    alpha[-1] = 0
    return NoiseSchedule(alpha=alpha, sigma=angle.sin(), time=torch.arange(K + 1), predicts=predicts)


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("make", [variance_preserving, paper])
def test_split_finds_the_frame_and_the_noise(make: Callable[..., NoiseSchedule], predicts: Predicts) -> None:
    s = make(scaled_linear_betas(), K, predicts)
    x0, eps = frames(0), frames(1)
    z = s.add_noise(x0, eps, LEVEL)
    torch.testing.assert_close(z, wide(s.alpha[LEVEL]) * x0 + wide(s.sigma[LEVEL]) * eps)
    got = s.split(z, answer(s, x0, eps, LEVEL), LEVEL)
    torch.testing.assert_close(got, (x0, eps), rtol=0, atol=1e-10)
    torch.testing.assert_close(s.answer(z, x0, LEVEL), answer(s, x0, eps, LEVEL), rtol=0, atol=1e-10)


def test_what_a_network_predicts_and_the_kind_of_table_are_independent() -> None:
    """Such as velocity on a rectified flow, where alpha^2 + sigma^2 is not 1."""
    flow, x0, eps = rectified_flow(K), frames(0), frames(1)
    for predicts in ("velocity", "sample"):
        s = NoiseSchedule(alpha=flow.alpha, sigma=flow.sigma, time=flow.time, predicts=predicts)
        z = s.add_noise(x0, eps, LEVEL)
        got = s.split(z, answer(s, x0, eps, LEVEL), LEVEL)
        torch.testing.assert_close(got, (x0, eps), rtol=0, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("predicts", PREDICTS)
def test_a_step_is_ddim_as_published(predicts: Predicts, eta: float) -> None:
    s = variance_preserving(scaled_linear_betas(), K, predicts)
    x0, eps, noise = frames(0), frames(1), frames(2)
    z = s.add_noise(x0, eps, LEVEL)
    ac, prev = wide(s.alpha[LEVEL] ** 2), wide(s.alpha[LEVEL - 1] ** 2)
    sigma = eta * ((1 - prev) / (1 - ac)).sqrt() * (1 - ac / prev).sqrt()  # eq. 16
    want = prev.sqrt() * x0 + (1 - prev - sigma**2).sqrt() * eps + sigma * noise  # eq. 12
    got = s.step(z, answer(s, x0, eps, LEVEL), LEVEL, eta, noise)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_without_eta_a_flow_step_is_euler() -> None:
    s = rectified_flow(K, shift=3.0)
    z, v = frames(0), frames(1)
    want = z + wide(s.sigma[LEVEL - 1] - s.sigma[LEVEL]) * v
    torch.testing.assert_close(s.step(z, v, LEVEL), want, rtol=0, atol=1e-12)


def test_the_frames_of_a_step_are_each_at_their_own_level() -> None:
    s = variance_preserving(scaled_linear_betas(), K)
    z, out, order = frames(0), frames(1), torch.tensor([3, 9, 0, 5, 1, 2, 8, 4, 7, 6])
    want = s.step(z, out, LEVEL)[:, :, order]
    assert torch.equal(s.step(z[:, :, order], out[:, :, order], LEVEL[order]), want)


@pytest.mark.parametrize("predicts", PREDICTS)
def test_2m_is_dpm_solver_plus_plus_as_published(predicts: Predicts) -> None:
    s = variance_preserving(scaled_linear_betas(), K, predicts)
    x0, eps, past = frames(0), frames(1), frames(2)
    z = s.add_noise(x0, eps, LEVEL)
    moved, seen = s.step_2m(z, answer(s, x0, eps, LEVEL), LEVEL, past)
    torch.testing.assert_close(seen, x0, rtol=0, atol=1e-10)
    log_snr = (s.alpha / s.sigma).log()
    for k in range(2, K):  # algorithm 2, i - 1 there is k here
        h, h_past = log_snr[k - 1] - log_snr[k], log_snr[k] - log_snr[k + 1]
        r = h_past / h
        d = (1 + 1 / (2 * r)) * x0[:, :, k - 1] - 1 / (2 * r) * past[:, :, k - 1]
        want = s.sigma[k - 1] / s.sigma[k] * z[:, :, k - 1] - s.alpha[k - 1] * torch.expm1(-h) * d
        torch.testing.assert_close(moved[:, :, k - 1], want, rtol=0, atol=1e-10)


def test_2m_is_first_order_where_it_knows_no_past() -> None:
    s = variance_preserving(scaled_linear_betas(), K)
    z, out, past = frames(0), frames(1), frames(2)
    plain = s.step(z, out, LEVEL)
    assert torch.equal(s.step_2m(z, out, LEVEL, None)[0], plain)
    moved, _ = s.step_2m(z, out, LEVEL, past)
    same = [bool(torch.equal(moved[:, :, i], plain[:, :, i])) for i in range(K)]
    assert same == [True] + [False] * (K - 2) + [True]  # the step to clean, and the one from the last level


@pytest.mark.parametrize("predicts", ["velocity", "sample", "flow"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_pure_noise_and_clean_frames_are_exact(predicts: Predicts, eta: float) -> None:
    s = zero_snr(predicts)
    x0, eps, noise = frames(0), frames(1), frames(2)
    z = s.add_noise(x0, eps, LEVEL)
    assert torch.equal(z[:, :, -1], eps[:, :, -1])
    out = answer(s, x0, eps, LEVEL)
    moved = s.step(z, out, LEVEL, eta, noise)
    assert bool(moved.isfinite().all())
    torch.testing.assert_close(moved[:, :, 0], x0[:, :, 0], rtol=0, atol=1e-12)
    last = noise if eta else eps  # at eta 1 nothing of the old noise is left after pure noise
    want = s.alpha[-2] * x0[:, :, -1] + s.sigma[-2] * last[:, :, -1]
    torch.testing.assert_close(moved[:, :, -1], want, rtol=0, atol=1e-12)
    assert all(bool(x.isfinite().all()) for x in s.step_2m(z, out, LEVEL, frames(3)))
    everything = torch.arange(K + 1)
    clean, rest = s.split(randn(2, 3, K + 1, 2, 2), randn(2, 3, K + 1, 2, 2, seed=1), everything)
    assert bool(clean.isfinite().all())
    assert bool(rest.isfinite().all())  # though there is no noise to see at level 0


def test_where_the_frame_is_kept_within_a_limit_the_noise_is_what_is_left() -> None:
    s, everything = leading(scaled_linear_betas(), K, limit=1.0), torch.arange(K + 1)
    z, out = 3 * randn(2, 3, K + 1, 2, 2), randn(2, 3, K + 1, 2, 2, seed=1)
    x0, eps = s.split(z, out, everything)
    assert (float(x0.min()), float(x0.max())) == (-1, 1)
    assert torch.equal(eps[:, :, 0], out[:, :, 0])  # at level 0 there is no noise to see
    again = wide(s.alpha) * x0 + wide(s.sigma) * eps
    torch.testing.assert_close(again[:, :, 1:], z[:, :, 1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_last_evaluation_of_the_papers_table_changes_nothing(eta: float) -> None:
    s = paper(scaled_linear_betas(), K)
    z, out, one = randn(1, 2, 1, 3, 3), 100 * randn(1, 2, 1, 3, 3, seed=1), torch.tensor([1])
    torch.testing.assert_close(s.step(z, out, one, eta, 100 * z), z, rtol=0, atol=1e-12)
    torch.testing.assert_close(s.step_2m(z, out, one, 100 * z)[0], z, rtol=0, atol=1e-12)
    assert (float(s.time[0]), float(s.time[1]), float(s.time[-1])) == (0, 0, 999)


def test_no_evaluation_of_the_default_table_is_wasted() -> None:
    s = variance_preserving(scaled_linear_betas(), K)
    assert float(s.alpha[0]) == 1
    assert float(s.sigma[0]) == 0
    assert bool((s.alpha.diff() < 0).all())
    assert bool((s.time.diff() > 0).all())
    assert float(s.time[-1]) == 999
    assert len(set(variance_preserving(scaled_linear_betas(), 999).time.tolist())) == 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_only_for_storage(dtype: torch.dtype) -> None:
    s = variance_preserving(scaled_linear_betas(), K)
    z, out = frames(0).to(dtype), frames(1).to(dtype)
    want = s.step(z.float(), out.float(), LEVEL).to(dtype)
    assert torch.equal(s.step(z, out, LEVEL), want)
    moved, seen = s.step_2m(z, out, LEVEL, frames(2).float())
    assert (s.add_noise(z, out, LEVEL).dtype, moved.dtype) == (dtype, dtype)  # a queue stays what it is
    assert seen.dtype == torch.float32  # differences of x0 are small
    assert s.times(LEVEL, z).tolist() == s.time[1:].tolist()  # 999 would be 1000 in bfloat16


def test_shift_moves_the_levels_towards_noise_and_leaves_the_ends() -> None:
    even, shifted = rectified_flow(K), rectified_flow(K, shift=5.0)
    torch.testing.assert_close(even.sigma, torch.linspace(0, 1, K + 1, dtype=torch.float64))
    assert bool((shifted.sigma[1:-1] > even.sigma[1:-1]).all())
    assert shifted.sigma[[0, -1]].tolist() == [0, 1]
    assert rectified_flow(K, shift=0.1).sigma[-1] == 1  # 0.1 / (1 + (0.1 - 1)) is a hair above 1
    snr = [float((1 - s.sigma[4]) / s.sigma[4]) for s in (even, shifted)]
    assert snr[0] / snr[1] == pytest.approx(5)  # a shift of 5 is 5 times less signal to noise


def test_training_tables() -> None:
    linear = scaled_linear_betas()
    assert float(linear[0]) == pytest.approx(1 - 0.00085)
    assert float(linear[-1] / linear[-2]) == pytest.approx(1 - 0.012)
    curve = cosine()
    at = torch.arange(1, 900, dtype=torch.float64) / 1000
    want = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(curve[:899], want, rtol=1e-9, atol=0)
    assert float(curve[-1]) > 0
    assert float(curve[-1] / curve[-2]) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("alpha", "sigma", "time", "predicts", "words"),
    [
        ([1, 0.5], [0, 0.5], [0, 1], "energy", "predicts one of"),
        ([1, 0.5], [0, 0.5, 1], [0, 1], "noise", "shapes"),
        ([1], [0], [0], "noise", "at least 1"),
        ([1, math.nan], [0, 0.5], [0, 1], "noise", "finite"),
        ([0.5, 1], [0, 0.5], [0, 1], "noise", "wrong way"),
        ([1, 0.5, 0.2], [0, 0.5, 0.4], [0, 1, 2], "noise", "wrong way"),
        ([1, 0.0, 0.0], [0, 1, 1], [0, 1, 2], "flow", "only the last"),
        ([1, 0.5, 0.2], [0, 0, 1], [0, 1, 2], "flow", "only level 0"),
        ([1, 0.5, -0.2], [0, 0.5, 1], [0, 1, 2], "flow", "none may be negative"),
        ([1, 0.5, 0.2], [-0.1, 0.5, 1], [0, 1, 2], "flow", "none may be negative"),
        ([1, 0.0], [0, 1], [0, 1], "noise", "predicts noise"),
    ],
)
def test_what_is_no_schedule_is_refused(
    alpha: list[float], sigma: list[float], time: list[float], predicts: Predicts, words: str
) -> None:
    a, s, t = torch.tensor(alpha), torch.tensor(sigma), torch.tensor(time)
    with pytest.raises(BadInput, match=words):
        NoiseSchedule(alpha=a, sigma=s, time=t, predicts=predicts)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(BadInput, match="at most 999"):
        variance_preserving(scaled_linear_betas(), 1000)
    with pytest.raises(BadInput, match="1001 levels"):
        leading(scaled_linear_betas(), 1001)
    assert leading(scaled_linear_betas(), 1000).levels == 1000  # every step, and level 0 below them
    with pytest.raises(BadInput, match="at least 1"):
        rectified_flow(0)
    with pytest.raises(BadInput, match="shift"):
        rectified_flow(4, shift=0)
    with pytest.raises(BadInput, match="training steps"):
        paper(torch.ones(3, 3), 4)
    with pytest.raises(BadInput, match="needs noise"):
        rectified_flow(K).step(frames(0), frames(1), LEVEL, eta=0.5)
