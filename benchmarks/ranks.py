"""What more ranks bring: an iteration on 1 and on more ranks, measured, and a small model that predicts the rest.

    python benchmarks/ranks.py [--ranks 2] [--iterations 6] [--width 192]

Measured: the embedded model's network at a width heavy enough to matter, random weights, one thread a rank, gloo,
real torchrun processes; by rank 0's clock.  Predicted: an iteration takes

    T(R) = ceil(N / R) * call + (R - 1) * ceil(N / R) * kept bytes / bandwidth + decoding

N the calls of an iteration (2n with lookahead, twice that where the halves of guidance are dealt too); calls and
decoding as counted (TFLOP) at a stated speed, kept bytes by the shape of the latents.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fifo_diffusion.engine import Engine
from fifo_diffusion.execute import Serial
from fifo_diffusion.models.embedded.transformer import VideoTransformer
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import Cond
from fifo_diffusion.ranks import Ranks
from fifo_diffusion.schedule import cosine, variance_preserving
from fifo_diffusion.windows import Plan
from report import Row, show

CHANNELS, SIDE, WINDOW, PARTITIONS, TEXT = 12, 16, 16, 4, 64
SECOND = 1e-3  # of measured figures in ms


@dataclass(frozen=True)
class Published:
    """A model at the paper's settings: its calls, and what travels."""

    name: str
    calls: int  # windows of an iteration
    halves: int  # evaluations of the network a call: 2 with guidance
    tflop: float  # of one evaluation
    decode: float  # TFLOP of decoding the frame that comes off, on rank 0
    kept: int  # bytes of the kept half of an answer, in float32

    def iteration(self, ranks: int, dealt: bool, beside: bool, tflops: float, gbytes: float) -> float:
        """Seconds on that many devices of `tflops` TFLOP/s joined at `gbytes` GB/s.

        dealt: guidance's halves are dealt too; beside: decoding hides behind the next iteration.
        """
        calls = self.calls * (self.halves if dealt else 1)
        each = self.tflop / tflops * (1 if dealt else self.halves)
        turns = math.ceil(calls / ranks)
        after = 0 if beside else self.decode / tflops
        return turns * each + (ranks - 1) * turns * self.kept / (gbytes * 1e9) + after


# Counted by operator on the meta device: 16 frames of 40 x 64 latents, and one frame of 320 x 512 pixels.
PUBLISHED = (Published("VideoCrafter2, 512x320", 8, 2, 12.581, 1.5635, 4 * 8 * 40 * 64 * 4),)


def measure(iterations: int, width: int) -> None:
    """One rank's work; rank 0 prints seconds an iteration, of it in the network, and bytes sent an iteration."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    net = VideoTransformer(CHANNELS, width=width, text=TEXT).eval().requires_grad_(False)
    inside = [0.0]
    text, heard = torch.zeros(1, 1, TEXT), torch.ones(1, 1, 1, dtype=torch.bool)

    def denoise(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        began = time.perf_counter()
        out: Tensor = net(z, t, text, text[:, :, None], heard)
        inside[0] += time.perf_counter() - began
        return out

    plan = Plan(WINDOW, PARTITIONS, "last")
    execute = Ranks(Serial(denoise))
    engine = Engine(
        plan=plan,
        schedule=variance_preserving(cosine(1000), plan.levels, predicts="velocity"),
        execute=execute,
        condition=lambda frames: {},
        noise=SeededNoise(0),
        eta=1.0,
    )
    state = engine.warm_start(torch.zeros(1, CHANNELS, WINDOW, SIDE, SIDE))
    _, state = engine.advance(state)
    times, inside[0], execute.sent[0] = [], 0.0, 0
    for _ in range(iterations):
        dist.barrier()
        began = time.perf_counter()
        _, state = engine.advance(state)
        times.append(time.perf_counter() - began)
    if dist.get_rank() == 0:
        mean = sum(times) / iterations
        print(json.dumps([mean, inside[0] / iterations, execute.sent[0] / iterations]))
    dist.destroy_process_group()


def torchrun(ranks: int, iterations: int, width: int) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    command += [__file__, "--worker", "--iterations", str(iterations), "--width", str(width)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    seconds, network, sent = json.loads(done.stdout.splitlines()[-1])
    return seconds, network, sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--tflops", type=float, default=400.0, help="of one GPU, for the published models")
    parser.add_argument("--gbytes", type=float, default=20.0, help="GB/s between GPUs, for the published models")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        measure(arguments.iterations, arguments.width)
        return
    runs = {r: torchrun(r, arguments.iterations, arguments.width) for r in sorted({1, arguments.ranks})}
    alone, network, _ = runs[1]
    calls = len(Plan(WINDOW, PARTITIONS, "last").windows)
    rows: list[Row] = []
    for ranks, (seconds, inside, sent) in runs.items():
        turns = math.ceil(calls / ranks)
        rows.append(
            {
                "ranks": ranks,
                "ms an iteration": seconds / SECOND,
                "times one rank": alone / seconds,
                "without communication": alone / (turns * network / calls + alone - network),
                "network % (rank 0)": 100 * inside / seconds,
                "bytes to each other rank": sent,
            }
        )
    show("ranks, measured (1 thread a rank, gloo)", rows)
    predicted: list[Row] = []
    for model, dealt, beside in itertools.product(PUBLISHED, (False, True), (False, True)):
        one = model.iteration(1, dealt, beside, arguments.tflops, arguments.gbytes)
        row: dict[str, str | float] = {
            "model": model.name,
            "guidance's halves": "dealt too" if dealt else "together",
            "decoder": "beside" if beside else "in line",
        }
        for ranks in (1, 2, 4, 8, 16, 32, 64):
            row[f"{ranks}"] = one / model.iteration(ranks, dealt, beside, arguments.tflops, arguments.gbytes)
        predicted.append(row)
    title = f"times one GPU, predicted for {arguments.tflops:g} TFLOP/s and {arguments.gbytes:g} GB/s (paper: 6.7 on 8)"
    show(title, predicted)


if __name__ == "__main__":
    main()
