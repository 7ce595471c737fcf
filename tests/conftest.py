"""What many tests stand on: an engine around the exact Gaussian video, and clips of that video."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported: no test asks the network

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from fifo_diffusion.engine import Engine, Solver
from fifo_diffusion.execute import Serial
from fifo_diffusion.models.gauss import GaussianVideo
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import Denoiser, Executor
from fifo_diffusion.schedule import NoiseSchedule, rectified_flow, scaled_linear_betas, variance_preserving
from fifo_diffusion.windows import Keep, Plan

torch.set_num_threads(1)  # the tests' tensors are small, and other work may share the machine

# The same examples in every run, and all the time they take: what fails here and what fails for somebody else is the
# change, not the draw or a busy machine.  `--hypothesis-profile search` draws new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None)
settings.load_profile("steady")

RHO = 0.9

SETTINGS: list[dict[str, Any]] = [  # of `make_engine`, that differ in all that the loop does
    {"keep": "last", "eta": 1.0},
    {"keep": "middle", "window": 5, "solver": "2m"},
    {"keep": "all", "frames_per_level": 2, "eta": 0.5},
    {"keep": "middle", "frames_per_level": 2, "solver": "2m", "kind": "vp"},
    {"keep": (1, 3), "kind": "vp"},
]
SMALLEST: dict[str, Any] = {"window": 1, "partitions": 1}


def ids(setting: dict[str, Any]) -> str:
    return "-".join(str(v) for v in setting.values())


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def schedule(kind: str, levels: int) -> NoiseSchedule:
    return rectified_flow(levels) if kind == "flow" else variance_preserving(scaled_linear_betas(), levels)


def make_engine(
    keep: Keep = "last",
    window: int = 4,
    partitions: int = 2,
    frames_per_level: int = 1,
    *,
    kind: str = "flow",
    eta: float = 0.0,
    solver: Solver = "ddim",
    seeds: int | Sequence[int] = 0,
    execute: Callable[[Denoiser], Executor] = Serial,
) -> Engine:
    plan = Plan(window, partitions, keep, frames_per_level)
    table = schedule(kind, plan.levels)
    return Engine(
        plan=plan,
        schedule=table,
        execute=execute(GaussianVideo(table, RHO)),
        condition=lambda frames: {},
        noise=SeededNoise(seeds),
        eta=eta,
        solver=solver,
    )


def make_clip(frames: int, streams: int = 1, side: int = 3, channels: int = 2) -> Tensor:
    """True samples of the Gaussian video, (streams, channels, frames, side, side), float64; each stream
    its own.
    """
    x = [
        torch.randn(channels, frames, side, side, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
        for s in range(streams)
    ]
    clip = torch.stack(x)
    for i in range(1, frames):
        clip[:, :, i] = RHO * clip[:, :, i - 1] + (1 - RHO**2) ** 0.5 * clip[:, :, i]
    return clip


@pytest.fixture
def engine() -> Callable[..., Engine]:
    return make_engine


@pytest.fixture
def clip() -> Callable[..., Tensor]:
    return make_clip
