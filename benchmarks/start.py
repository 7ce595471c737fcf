"""How should the queue begin?  From a base clip or from noise, measured with the exact Gaussian video.

    python benchmarks/start.py [--seeds 6]

The network is exact, so what is missing is the start's.  A true video has variance 1 and correlation 0.9^8 = .430
over eight frames; both are measured on stretches of the first frames.  Calls are network calls before frame 0.
"""

from __future__ import annotations

import argparse
from itertools import islice

import torch
from torch import Tensor

from exact import nothing
from fifo_diffusion.baseclip import sample_clip
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.execute import Batched
from fifo_diffusion.models.gauss import GaussianVideo
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import Cond
from fifo_diffusion.schedule import rectified_flow
from fifo_diffusion.windows import Keep, Plan
from report import Row, show

WINDOW, SIDE, LAG = 16, 24, 8
STRETCHES = ((0, 24), (24, 48), (48, 72))


class Counted:
    """The exact network, counting the windows it is asked."""

    def __init__(self, network: GaussianVideo) -> None:
        self.network, self.windows = network, 0

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        self.windows += len(z)
        return self.network(z, t, cond)


def measure(start: str, keep: Keep, partitions: int, seeds: int) -> Row:
    plan = Plan(WINDOW, partitions, keep)
    schedule = rectified_flow(plan.levels)
    values: list[Tensor] = []
    before = 0
    for seed in range(seeds):
        network = Counted(GaussianVideo(schedule))
        noise = SeededNoise(seed)
        engine = Engine(plan=plan, schedule=schedule, execute=Batched(network, 64), condition=nothing, noise=noise)
        like = torch.zeros(1, 4, WINDOW, SIDE, SIDE, dtype=torch.float64)
        state: State
        if start == "noise":
            state = engine.cold_start(like[:, :, 0])
        else:
            *_, clip = sample_clip(network, schedule, nothing, SeededNoise(1000 + seed), like)
            state = engine.warm_start(clip)
        stream = engine.stream(state)
        first, _ = next(stream)
        before = network.windows - len(plan.windows)
        rest = [frames for frames, _ in islice(stream, STRETCHES[-1][1] - 1)]
        values.append(torch.cat([first, *rest], dim=2)[0].transpose(0, 1).flatten(1))
    row: dict[str, str | float | int] = {"start": start, "kept": str(keep), "n": partitions, "calls before": before}
    for lo, hi in STRETCHES:
        part = torch.stack([v[lo:hi] for v in values])
        lag = (part[:, :-LAG] * part[:, LAG:]).mean() / part.square().mean()
        row[f"variance {lo}-{hi - 1}"] = float(part.var())
        row[f"lag {LAG} {lo}-{hi - 1}"] = float(lag)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    seeds = parser.parse_args().seeds
    keeps: tuple[Keep, ...] = ("last", "middle")
    rows = [measure(s, keep, n, seeds) for keep in keeps for n in (2, 4) for s in ("clip", "noise")]
    show("start of the queue", rows)


if __name__ == "__main__":
    main()
