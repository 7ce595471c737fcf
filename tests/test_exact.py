"""The method against theory, with a network that is exact: every loss measured here is the method's own."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fifo_diffusion.engine import Engine, Solver
from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Batched
from fifo_diffusion.models.gauss import GaussianVideo, ar, mixture, wave
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.schedule import (
    NoiseSchedule,
    Predicts,
    paper,
    rectified_flow,
    scaled_linear_betas,
    variance_preserving,
)

Make = Callable[..., Engine]
Clip = Callable[..., Tensor]
RHO, STREAMS = 0.9, 6
PREDICTS: list[Predicts] = ["noise", "velocity", "sample", "flow"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the instrument ---


def covariance(frames: int) -> Tensor:
    return torch.tensor([[RHO ** abs(i - j) for j in range(frames)] for i in range(frames)], dtype=torch.float64)


def posterior(s: NoiseSchedule, z: Tensor, level: Tensor, mean: float) -> Tensor:
    """E[x0 | z] by adding precisions, frame by frame and pixel by pixel; -> as z (B, C, F, H, W)."""
    precision = torch.linalg.inv(covariance(z.shape[2]))
    a, sigma = s.alpha[level], s.sigma[level]
    seen = precision + torch.diag(a**2 / sigma**2)
    out = torch.empty_like(z)
    for b, c, h, w in itertools.product(*(range(z.shape[d]) for d in (0, 1, 3, 4))):
        pull = precision @ torch.full((z.shape[2],), mean).double() + a / sigma**2 * z[b, c, :, h, w]
        out[b, c, :, h, w] = torch.linalg.inv(seen) @ pull
    return out


@pytest.mark.parametrize("level", [[4, 4, 4, 4, 4], [1, 2, 3, 4, 5], [8, 1, 8, 2, 3]])
@pytest.mark.parametrize("predicts", PREDICTS)
def test_the_network_is_the_true_posterior(predicts: Predicts, level: list[int]) -> None:
    s = variance_preserving(scaled_linear_betas(), 8, predicts)
    at, z, mean = torch.tensor(level), randn(2, 2, 5, 2, 2), torch.tensor([0.0, 3.0])
    out = GaussianVideo(s, RHO)(z, s.time[at].expand(2, -1), {"mean": mean})
    x0, eps = s.split(z, out, at)
    for b in range(2):
        want = posterior(s, z[b : b + 1], at, float(mean[b]))
        torch.testing.assert_close(x0[b : b + 1], want, rtol=0, atol=1e-8)
    a, sigma = (x[at].view(1, 1, -1, 1, 1) for x in (s.alpha, s.sigma))
    torch.testing.assert_close(a * x0 + sigma * eps, z, rtol=0, atol=1e-8)


def test_any_stationary_video_and_any_places_of_it() -> None:
    """By adding precisions again: a sum of a slow video and a wave, three of its frames with gaps between."""
    video = mixture(0.3, ar(0.9), wave(7, 0.95))
    s, at, frame = rectified_flow(8), torch.tensor([1, 3, 6]), torch.tensor([0, 4, 5])
    z = randn(1, 1, 3, 2, 2)
    out = GaussianVideo(s, autocovariance=video)(z, s.time[at][None], {"frame": frame[None]})
    d = (frame[:, None] - frame).abs().double()
    prior = 0.3 * 0.9**d + 0.7 * 0.95**d * torch.cos(2 * torch.pi / 7 * d)
    a, sigma = s.alpha[at], s.sigma[at]
    seen = torch.linalg.inv(torch.linalg.inv(prior) + torch.diag(a**2 / sigma**2))
    want = torch.einsum("fg,bcghw->bcfhw", seen, (a / sigma**2).view(1, 1, -1, 1, 1) * z)
    torch.testing.assert_close(s.split(z, out, at)[0], want, rtol=0, atol=1e-10)


def test_what_is_no_autocovariance_is_refused() -> None:
    with pytest.raises(BadInput, match="eigenvalue"):
        GaussianVideo(rectified_flow(2), autocovariance=lambda d: (d < 3).to(d))


def test_clean_frames_are_believed_and_pure_noise_is_not() -> None:
    s = rectified_flow(4)
    z, level = randn(1, 1, 3, 2, 2), torch.tensor([0, 4, 4])
    out = GaussianVideo(s, RHO)(z, s.time[level][None], {})
    x0, _ = s.split(z, out, level)
    clean = z[:, :, 0]  # the flow of a clean frame is eps - x0 with nothing known of eps
    torch.testing.assert_close(x0, torch.stack([clean, RHO * clean, RHO**2 * clean], dim=2), rtol=0, atol=1e-12)


def test_times_that_do_not_tell_the_level_are_refused() -> None:
    GaussianVideo(paper(scaled_linear_betas(), 4))  # repeats a time, but the level with it
    s = rectified_flow(2)
    with pytest.raises(BadInput, match="same time"):
        GaussianVideo(NoiseSchedule(alpha=s.alpha, sigma=s.sigma, time=torch.tensor([0, 0, 1]), predicts="flow"))
    with pytest.raises(BadInput, match="rho is 1"):
        GaussianVideo(s, rho=1.0)


# --- the order of the solvers ---


def descend(z: Tensor, levels: int, solver: Solver) -> Tensor:
    """One frame, alone, from noise to clean in the plainest loop."""
    s, past = rectified_flow(levels), None
    net = GaussianVideo(s)
    for k in range(levels, 0, -1):
        level = torch.tensor([k])
        out = net(z, s.time[level][None], {})
        if solver == "ddim":
            z = s.step(z, out, level)
        else:
            z, past = s.step_2m(z, out, level, past)
    return z


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("2m", 2)])
def test_order_of_convergence(solver: Solver, order: int) -> None:
    """Twice the levels, 2^order times nearer to the exact solution of the frame's flow.

    That is z_K -> z_K sd(0) / sd(K), and the frame's standard deviation is 1 at either end.
    """
    z = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    error = [abs(float(descend(z, levels, solver)) - 1) for levels in (128, 256, 512)]
    for coarse, fine in itertools.pairwise(error):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("solver", ["ddim", "2m"])
def test_a_frame_takes_the_same_way_down_the_queue(engine: Make, solver: Solver) -> None:
    """With windows of one frame the engine is that loop; each frame's past prediction travels with it."""
    levels, like = 6, torch.empty(1, 1, 4, 4, dtype=torch.float64)
    e = engine("all", 1, levels, solver=solver)
    for i, (frames, _) in enumerate(itertools.islice(e.stream(e.cold_start(like)), 3 * levels)):
        want = descend(SeededNoise(0)(i, levels, like)[:, :, None], levels, solver)
        torch.testing.assert_close(frames, want, rtol=0, atol=1e-12)


# --- what the method keeps of the video ---


def measure(make: Make, clip: Clip, *, drop: int | None = None, cold: bool = False, **setting: Any) -> Tensor:
    """(streams, 4): variance and correlation at lags 1, 4 and 8 of 24 frames; the streams are independent."""
    e = make(**setting, seeds=tuple(range(STREAMS)), execute=lambda d: Batched(d, 64))
    x = clip(e.plan.window, STREAMS, 12)
    drop = e.plan.window if drop is None else drop  # the clip's own frames are not the method's
    state = e.cold_start(x[:, :, 0]) if cold else e.warm_start(x)
    out = [f for f, _ in itertools.islice(e.stream(state), drop + 24)]
    v = torch.cat(out, dim=2)[:, :, drop:].transpose(1, 2).flatten(2)
    variance = v.square().mean(dim=(1, 2))
    return torch.stack([variance, *((v[:, :-d] * v[:, d:]).mean(dim=(1, 2)) / variance for d in (1, 4, 8))], dim=1)


def gain(better: Tensor, worse: Tensor) -> tuple[Tensor, Tensor]:
    """How much nearer to the true video, and three standard errors of it, the streams paired; (4,) each."""
    true = torch.tensor([1, RHO, RHO**4, RHO**8], dtype=torch.float64)
    nearer = (worse - true).abs() - (better - true).abs()
    return nearer.mean(dim=0), 3 * nearer.std(dim=0) / STREAMS**0.5


VARIANCE, LAG1, LAG4 = 0, 1, 2


def test_lookahead_keeps_more_of_the_correlation(engine: Make, clip: Clip) -> None:
    better = measure(engine, clip, keep="last", window=8)
    nearer, margin = gain(better, measure(engine, clip, keep="all", window=8))
    assert nearer[LAG4] > margin[LAG4]


@pytest.mark.parametrize("kind", ["flow", "vp"])
def test_the_middle_half_keeps_more_than_the_last(engine: Make, clip: Clip, kind: str) -> None:
    better = measure(engine, clip, keep="middle", window=16, kind=kind)
    nearer, margin = gain(better, measure(engine, clip, keep="last", window=16, kind=kind))
    for what in (VARIANCE, LAG4):
        assert nearer[what] > margin[what]


@pytest.mark.parametrize("keep", ["last", "middle"])
@pytest.mark.parametrize("kind", ["flow", "vp"])
def test_2m_keeps_more_of_the_variance(engine: Make, clip: Clip, kind: str, keep: str) -> None:
    better = measure(engine, clip, keep=keep, window=8, kind=kind, solver="2m")
    nearer, margin = gain(better, measure(engine, clip, keep=keep, window=8, kind=kind))
    assert nearer[VARIANCE] > margin[VARIANCE]


def test_a_longer_window_keeps_more_than_more_partitions(engine: Make, clip: Clip) -> None:
    better = measure(engine, clip, keep="last", window=16, partitions=2)
    nearer, margin = gain(better, measure(engine, clip, keep="last", window=8, partitions=4))
    for what in (VARIANCE, LAG1, LAG4):
        assert nearer[what] > margin[what]


def test_one_window_over_the_whole_queue_keeps_every_correlation(engine: Make, clip: Clip) -> None:
    """Diagonal denoising is not where the method loses: cutting the queue is."""
    got = measure(engine, clip, keep="all", window=32, partitions=1)
    want = torch.tensor([RHO, RHO**4, RHO**8], dtype=torch.float64)
    error = 3 * got.std(dim=0)[1:] / STREAMS**0.5
    assert bool(((got.mean(dim=0)[1:] - want).abs() < error).all())
    assert bool((error < torch.tensor([0.01, 0.03, 0.05])).all())  # and the measurement is one


def test_the_best_of_both_is_near_the_true_video(engine: Make, clip: Clip) -> None:
    variance, lag1, lag4, _ = measure(engine, clip, keep="middle", window=16, solver="2m").mean(0)
    assert float(variance) == pytest.approx(1, abs=0.05)
    assert float(lag1) == pytest.approx(RHO, abs=0.01)
    assert float(lag4) == pytest.approx(RHO**4, abs=0.03)


def test_a_cold_start_in_one_window_is_true_from_its_first_frame(engine: Make, clip: Clip) -> None:
    got = measure(engine, clip, keep="all", window=32, partitions=1, cold=True, drop=0, solver="2m")
    want = torch.tensor([1, RHO, RHO**4, RHO**8], dtype=torch.float64)
    assert bool(((got.mean(dim=0) - want).abs() < 3 * got.std(dim=0) / STREAMS**0.5 + 0.01).all())


@pytest.mark.parametrize("keep", ["last", "middle"])
def test_a_cold_start_becomes_the_stream_of_a_warm_start(engine: Make, clip: Clip, keep: str) -> None:
    """In a cut queue its first frames hold together less over long lags: in the ramp the windows have
    nothing clean to agree by.  Once the frames of the ramp have left, how the stream was started is
    forgotten.
    """
    cold = measure(engine, clip, keep=keep, window=8, cold=True, drop=40)
    warm = measure(engine, clip, keep=keep, window=8, cold=False, drop=40)
    error = 3 * ((cold - warm).std(dim=0) / STREAMS**0.5) + 0.01
    assert bool(((cold.mean(dim=0) - warm.mean(dim=0)).abs() < error).all())
    first = measure(engine, clip, keep=keep, window=8, cold=True, drop=0)
    assert float(first.mean(dim=0)[LAG1]) == pytest.approx(float(cold.mean(dim=0)[LAG1]), abs=0.02)
