"""What the method loses with a network that makes no error: exactly, and without sampling.

    python benchmarks/exact.py [--tables NAME ...] [--seeds 6] [--float32]

With the exact Gaussian video (`models/gauss.py`) an iteration of the engine is linear in the queue and in the noise.
One iteration of the real engine on unit vectors therefore gives its whole matrix, and with it the impulse response
of every noise it draws, and the autocovariance of the frames that come off: no seeds, no error bars.  The table
`paper` also makes streams, six seeds each, and puts their figures with standard errors beside.

calls: network calls a frame.  distance: the Wasserstein-2 distance between 16 frames of the stream and of the true
video, squared and divided by 16 (what a Frechet video distance is, of a pixel), in thousandths: 0 is a perfect method,
an empty video has 1,000.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil

import torch
from torch import Tensor

from fifo_diffusion.engine import Engine, Solver, State
from fifo_diffusion.execute import Batched
from fifo_diffusion.models.gauss import Autocovariance, GaussianVideo, ar, mixture, wave
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import Cond, Noise
from fifo_diffusion.schedule import (
    NoiseSchedule,
    cosine,
    linear_betas,
    paper,
    rectified_flow,
    scaled_linear_betas,
    variance_preserving,
)
from fifo_diffusion.windows import Keep, Plan
from report import Row, show

LAGS, STRETCH = (1, 4, 8), 16
SOLVERS: Sequence[Solver] = ("ddim", "2m")
SIDE, WARM, SEEN = 24, 50, 30  # of sampled streams: pixels each way, iterations dropped, frames measured

Spacing = Callable[[int], NoiseSchedule]
SPACINGS: Mapping[str, Spacing] = {
    "flow": rectified_flow,
    "flow, shift 3": lambda levels: rectified_flow(levels, 3),
    "flow, shift 1/3": lambda levels: rectified_flow(levels, 1 / 3),
    "vp": lambda levels: variance_preserving(scaled_linear_betas(), levels),
    "vp, paper's table": lambda levels: paper(scaled_linear_betas(), levels),
    "vp linear": lambda levels: variance_preserving(linear_betas(), levels),
    "vp cosine": lambda levels: variance_preserving(cosine(), levels, "velocity"),
}
VIDEOS: Mapping[str, Autocovariance] = {
    "AR .9": ar(0.9),
    "AR .5": ar(0.5),
    "AR .97": ar(0.97),
    "AR .99": ar(0.99),
    "AR .99 + AR .6": mixture(0.6, ar(0.99), ar(0.6)),
    "wave of 12": wave(12, 0.98),
    "still + wave of 12": mixture(0.5, ar(0.99), wave(12, 0.95)),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting of the method, and the video it is to make."""

    window: int = 16
    partitions: int = 4
    keep: Keep = "last"
    frames_per_level: int = 1
    solver: Solver = "ddim"
    eta: float = 0.0
    spacing: str = "flow"
    video: str = "AR .9"

    @property
    def plan(self) -> Plan:
        return Plan(self.window, self.partitions, self.keep, self.frames_per_level)

    def engine(self, noise: Noise) -> Engine:
        plan = self.plan
        schedule = SPACINGS[self.spacing](plan.levels)
        network = GaussianVideo(schedule, autocovariance=VIDEOS[self.video])
        return Engine(
            plan=plan,
            schedule=schedule,
            execute=Batched(network, 64),
            condition=nothing,
            noise=noise,
            eta=self.eta,
            solver=self.solver,
        )


def nothing(frames: range) -> Cond:
    return {}


@dataclass(eq=False)
class UnitNoise:
    """Every draw is its own unit vector: noise number i is 1 at pixel first + i and 0 elsewhere."""

    first: int
    drawn: int = field(default=0, init=False)

    def __call__(self, frame: int, level: int, like: Tensor, /) -> Tensor:
        out = torch.zeros_like(like)
        out[:, :, self.first + self.drawn] = 1
        self.drawn += 1
        return out


Advance = Callable[[Engine, State], tuple[Tensor, State]]


def plainly(engine: Engine, state: State) -> tuple[Tensor, State]:
    return engine.advance(state)


def impulses(
    make: Callable[[Noise], Engine], advance: Advance = plainly, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, int]:
    """(noises, frames): how each noise that one iteration draws shows in the frames that leave from then on, and how
    many frames leave at a time.  Nothing else is to be known of a linear stream that has run for ever.

    advance: what is taken for one iteration.
    """
    engine = make(SeededNoise(0))
    plan, second = engine.plan, engine.solver == "2m"
    places = plan.length * (2 if second else 1)
    width = places + 4 * plan.length  # room for every noise an iteration may draw
    noise = UnitNoise(places)
    units = torch.eye(places, width, dtype=dtype).view(1, 1, places, width, 1)
    past = units[:, :, plan.length :] if second else None
    off, after = advance(make(noise), State(0, units[:, :, : plan.length], past))
    kept = after.queue if after.past is None else torch.cat([after.queue, after.past], dim=2)
    step, leave = kept.view(places, width).double(), off.view(-1, width).double()
    last = places + noise.drawn
    moves, enters = step[:, :places], step[:, places:last]
    block = [leave[:, :places]]
    for _ in range(31):
        block.append(block[-1] @ moves)
    reads, leap = torch.cat(block), torch.linalg.matrix_power(moves, len(block))  # many iterations at a time
    seen = [leave[:, places:last]]
    while (float(enters.abs().max()) > 1e-6 or len(seen) * len(block) < 2 * plan.levels) and len(seen) < 250:
        seen.append(reads @ enters)
        enters = leap @ enters
    return torch.cat(seen).T.contiguous(), len(leave)


def autocovariance(response: Tensor, together: int) -> Tensor:
    """(STRETCH,) of the frames of a stream, averaged over those that leave together."""
    lags = [(response[:, : response.shape[1] - d] * response[:, d:]).sum() for d in range(STRETCH)]
    return torch.stack(lags) / together


def distance(made: Tensor, true: Tensor) -> float:
    """Wasserstein-2 of two stationary Gaussian stretches of equal mean, by their autocovariances, squared, a frame."""
    place = torch.arange(STRETCH)
    apart = (place[:, None] - place).abs()
    p, q = true[apart], made[apart]
    root = _root(p)
    return float((p.trace() + q.trace() - 2 * _root(root @ q @ root).trace()).clamp(min=0)) / STRETCH


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def truth(case: Case) -> Tensor:
    return VIDEOS[case.video](torch.arange(STRETCH, dtype=torch.float64))


def figures(made: Tensor, true: Tensor) -> dict[str, float]:
    """The distance in thousandths."""
    lags = {f"lag {d}": float(made[d] / made[0]) for d in LAGS}
    return {"variance": float(made[0]), **lags, "distance ‰": 1000 * distance(made, true)}


def calls(case: Case) -> float:
    """Network calls a frame."""
    return len(case.plan.windows) / case.frames_per_level


def measured(case: Case, dtype: torch.dtype) -> dict[str, float]:
    return {"calls": calls(case), **figures(autocovariance(*impulses(case.engine, dtype=dtype)), truth(case))}


def sampled(case: Case, seeds: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Variance and correlations (seeds,) of real streams."""
    engine = case.engine(SeededNoise(tuple(range(seeds))))
    true = GaussianVideo(engine.schedule, autocovariance=VIDEOS[case.video])
    root = torch.linalg.cholesky(true.prior(torch.arange(case.window, dtype=torch.float64)))
    white = torch.randn(seeds, 4, case.window, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).double()
    state = engine.warm_start(torch.einsum("fg,bcghw->bcfhw", root, white).to(dtype))
    frames = [f for f, _ in islice(engine.stream(state), ceil((WARM + SEEN) / case.frames_per_level))]
    v = torch.cat(frames, dim=2)[:, :, WARM:].double().transpose(1, 2).flatten(2)
    variance = v.square().mean(dim=(1, 2))
    lags = {f"lag {d}": (v[:, :-d] * v[:, d:]).mean(dim=(1, 2)) / variance for d in LAGS}
    return {"variance": variance, **lags}


# --- tables ---


HALVES: Sequence[tuple[str, Keep, Solver]] = (
    ("DDIM, last half (the paper)", "last", "ddim"),
    ("DDIM, middle half", "middle", "ddim"),
    ("2M, last half", "last", "2m"),
    ("2M, middle half", "middle", "2m"),
)


def table_paper(seeds: int, dtype: torch.dtype) -> Iterator[Row]:
    for spacing in ("flow", "vp"):
        for n in (4, 2):
            for name, keep, solver in HALVES:
                case = Case(partitions=n, keep=keep, solver=solver, spacing=spacing)
                exact = measured(case, dtype)
                row: dict[str, str | float | int] = {"setting": f"{spacing}, n {n}: {name}", **exact}
                for what, values in sampled(case, seeds, dtype).items():
                    row[f"{what}, {seeds} seeds"] = f"{values.mean():.3f}±{values.std() / seeds**0.5:.3f}"
                yield row


def table_kept(seeds: int, dtype: torch.dtype) -> Iterator[Row]:
    """Every kept range of even bounds, both solvers, on three videos: the distance."""
    for n in (2, 4):
        for lo, hi in ((first, end) for end in range(4, 17, 2) for first in range(0, end - 3, 2)):
            case = Case(partitions=n, keep=(lo, hi))
            row: dict[str, str | float | int] = {"n": n, "kept": f"{lo}-{hi}", "calls": calls(case)}
            for video in ("AR .9", "AR .99 + AR .6", "still + wave of 12"):
                for solver in SOLVERS:
                    row[f"{video}, {solver}"] = measured(replace(case, video=video, solver=solver), dtype)["distance ‰"]
            yield row


def table_videos(seeds: int, dtype: torch.dtype) -> Iterator[Row]:
    """The same choice on other videos: is it the AR(1)'s own?"""
    for video in VIDEOS:
        for n in (2, 4):
            for name, keep, solver in HALVES:
                case = Case(partitions=n, keep=keep, solver=solver, video=video)
                yield {"setting": f"{video}, n {n}: {name}", **measured(case, dtype)}


def table_levels(seeds: int, dtype: torch.dtype) -> Iterator[Row]:
    """Schedules and their spacing, and eta."""
    for spacing in SPACINGS:
        for name, keep, solver in HALVES:
            yield {
                "setting": f"{spacing}: {name}",
                **measured(Case(spacing=spacing, keep=keep, solver=solver), dtype),
            }
    for eta in (0.5, 1.0):
        for spacing in ("flow", "vp", "vp cosine"):
            for keep in ("last", "middle"):
                case = Case(spacing=spacing, keep=keep, eta=eta)
                yield {"setting": f"{spacing}, eta {eta:g}: DDIM, {keep} half", **measured(case, dtype)}


def table_budget(seeds: int, dtype: torch.dtype) -> Iterator[Row]:
    """Window against partitions, and what the calls buy: f n levels at about the same calls."""
    for f, n in ((8, 4), (16, 2), (32, 1), (8, 8), (16, 1), (16, 4), (16, 8), (24, 4)):
        for name, keep, solver in (("paper", "last", "ddim"), ("middle 2M", "middle", "2m"), ("off", "all", "ddim")):
            case = Case(window=f, partitions=n, keep=keep, solver=solver)  # type: ignore[arg-type]
            yield {"setting": f"f {f}, n {n}: {name}", **measured(case, dtype)}


TABLES: Mapping[str, Callable[[int, torch.dtype], Iterator[Row]]] = {
    "paper": table_paper,
    "kept": table_kept,
    "videos": table_videos,
    "levels": table_levels,
    "budget": table_budget,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="default: all of them")
    parser.add_argument("--seeds", type=int, default=6, help="streams sampled in the table `paper`")
    parser.add_argument("--float32", action="store_true", help="compute the iteration in float32 instead of float64")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the matrices are small
    dtype = torch.float32 if arguments.float32 else torch.float64
    for name in arguments.tables:
        show(f"exact: {name}", list(TABLES[name](arguments.seeds, dtype)))


if __name__ == "__main__":
    main()
