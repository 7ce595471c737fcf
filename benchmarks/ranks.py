"""What more ranks bring: an iteration on 1 and on more ranks, measured, and a small model that predicts the rest.

    python benchmarks/ranks.py [--ranks 2] [--iterations 6] [--width 192]

Measured: the embedded model's network at a width heavy enough to matter, random weights, one thread a rank, gloo over
the loopback, real torchrun processes; by rank 0's clock.  Predicted: an iteration takes

    T(R) = ceil(N / R) * call + (R - 1) * ceil(N / R) * kept bytes / bandwidth + rest

N the calls of an iteration: its windows (2n with lookahead), twice that where the halves of guidance are dealt too.
call, kept and rest of the measured network: from the run with one rank; of the published ones: counted on the meta
device at the settings of their cards (TFLOP, two for a multiplication with its addition), at a stated speed, the rest
being the decoder.  Beside the network, on rank 0 which has floor(N / R) calls, it only counts where it is not hidden.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fifo_diffusion.config import Run
from fifo_diffusion.decide import plan_of, resolve
from fifo_diffusion.engine import Engine
from fifo_diffusion.execute import Serial
from fifo_diffusion.guidance import Guided, Halves
from fifo_diffusion.models.embedded.transformer import VideoTransformer
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import Cond
from fifo_diffusion.ranks import Ranks
from fifo_diffusion.schedule import cosine, variance_preserving
from fifo_diffusion.windows import Plan
from need import HALF, full_size
from report import Row, show

CHANNELS, SIDE, WINDOW, TEXT = 12, 16, 16, 64
SECOND = 1e-3  # of measured figures in ms
SENT = Path("/sys/class/net/lo/statistics/tx_bytes")  # of all processes


def predicted(calls: int, ranks: int, call: float, kept: float, bandwidth: float, rest: float, beside: bool) -> float:
    """Seconds of an iteration; call and rest in seconds, kept in bytes, bandwidth in bytes a second."""
    turns = math.ceil(calls / ranks)
    work = max(turns * call, calls // ranks * call + rest) if beside else turns * call + rest
    return work + (ranks - 1) * turns * kept / bandwidth


@dataclass(frozen=True)
class Setting:
    """What is measured: windows of an iteration, and whether guidance's halves are one call, two, or not there."""

    partitions: int
    lookahead: bool
    halves: str  # none, together or apart

    @property
    def plan(self) -> Plan:
        return Plan(WINDOW, self.partitions, "last" if self.lookahead else "all")

    @property
    def calls(self) -> int:
        return len(self.plan.windows) * (2 if self.halves == "apart" else 1)

    @property
    def kept(self) -> int:
        """Bytes of an answer that travel."""
        return CHANNELS * longest(self.plan) * SIDE**2 * 4

    def __str__(self) -> str:
        return f"windows: {len(self.plan.windows)}, halves: {self.halves}"


SETTINGS = (Setting(4, True, "none"), Setting(1, False, "together"), Setting(1, False, "apart"))


def longest(plan: Plan) -> int:
    """Frames of the window that keeps the most."""
    return int(max(window.write.stop - window.write.start for window in plan.windows))


@dataclass(frozen=True)
class Measured:
    """A mean iteration of rank 0, in seconds and bytes; `transfer` of the rank that waited least for the others."""

    seconds: float
    network: float
    exchange: float
    transfer: float
    sent: float  # to each of the others
    loopback: float  # bytes that went over the loopback, from all ranks
    bandwidth: float  # bytes a second of an exchange of 8 MiB
    core: float  # share of the network's time that the ranks had a core each: below 1 where something else ran


def measure(setting: Setting, iterations: int, width: int) -> None:
    """One rank's work; rank 0 prints what was measured."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    net = VideoTransformer(CHANNELS, width=width, text=TEXT).eval().requires_grad_(False)
    inside = [0.0, 0.0]  # the network's seconds, and of them those that the thread had a core

    def denoise(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        began, ran = time.perf_counter(), time.thread_time()
        text = cond["text"][:, None]
        out: Tensor = net(z, t, text, text[:, :, None], torch.ones(len(z), 1, 1, dtype=torch.bool))
        inside[0] += time.perf_counter() - began
        inside[1] += time.thread_time() - ran
        return out

    scale = 1.0 if setting.halves == "none" else 4.0
    ranks = Ranks(Serial(denoise if setting.halves == "apart" else Guided(denoise, scale)))
    engine = Engine(
        plan=setting.plan,
        schedule=variance_preserving(cosine(1000), setting.plan.levels, predicts="velocity"),
        execute=Halves(ranks, scale) if setting.halves == "apart" else ranks,
        condition=lambda frames: {"text": torch.zeros(1, TEXT), "negative_text": torch.ones(1, TEXT)},
        noise=SeededNoise(0),
        eta=1.0,
    )
    state = engine.warm_start(torch.zeros(1, CHANNELS, WINDOW, SIDE, SIDE))
    _, state = engine.advance(state)
    bandwidth = _bandwidth()
    seconds, inside[:], ranks.sent[0] = 0.0, [0.0, 0.0], 0
    exchanges: list[float] = []
    dist.barrier()
    before = _loopback()
    for _ in range(iterations):
        dist.barrier()
        ranks.meter.seconds.clear()
        began = time.perf_counter()
        _, state = engine.advance(state)
        seconds += time.perf_counter() - began
        exchanges.append(ranks.meter.seconds["exchange"])
    dist.barrier()
    after, own, cores = _loopback(), torch.tensor(exchanges), torch.tensor(inside).view(2, 1)
    least = own.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(cores)
    if dist.get_rank() == 0:
        means = (total / iterations for total in (seconds, inside[0], float(own.sum()), float(least.sum())))
        rest = [ranks.sent[0] / iterations, (after - before) / iterations, bandwidth, float(cores[1] / cores[0])]
        print(json.dumps([*means, *rest]))
    dist.destroy_process_group()


def _loopback() -> int:
    return int(SENT.read_text()) if SENT.exists() else 0


def _bandwidth() -> float:
    """Bytes that each rank sends to each other, a second: the fastest of five exchanges."""
    mine = torch.zeros(2**21)
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    times = []
    for _ in range(5):
        dist.barrier()
        began = time.perf_counter()
        dist.all_gather(every, mine)
        times.append(time.perf_counter() - began)
    return 4 * mine.numel() / min(times)


def torchrun(setting: Setting, ranks: int, iterations: int, width: int) -> Measured:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    command += [__file__, "--worker", str(SETTINGS.index(setting)), "--iterations", str(iterations)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, "--width", str(width)], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def measured(ranks: int, iterations: int, width: int) -> Iterator[Row]:
    for setting in SETTINGS:
        longer = iterations * min(4, 8 // len(setting.plan.windows))  # else the short ones are over at once
        alone = torchrun(setting, 1, longer, width)
        many = torchrun(setting, ranks, longer, width)
        turns = math.ceil(setting.calls / ranks)
        call, rest = alone.network / setting.calls, alone.seconds - alone.network
        foreseen = predicted(setting.calls, ranks, call, setting.kept, many.bandwidth, rest, beside=False)
        yield {
            "setting": str(setting),
            "ms, 1 rank": alone.seconds / SECOND,
            f"ms, {ranks}": many.seconds / SECOND,
            "times": alone.seconds / many.seconds,
            "predicted": alone.seconds / foreseen,
            "core %": 100 * min(alone.core, many.core),
            "exchange %": 100 * many.exchange / many.seconds,
            "transfer %": 100 * many.transfer / many.seconds,
            "sent each": round(many.sent),
            "formula": turns * setting.kept,
            "loopback": round(many.loopback),
            "GB/s": many.bandwidth / 1e9,
        }


@dataclass(frozen=True)
class Published:
    """A model at its card's settings."""

    name: str
    windows: int
    both: float  # TFLOP of a window with both halves of guidance, as one call
    half: float  # TFLOP of one half
    decode: float  # TFLOP of the pixels of the latent that comes off
    kept: int  # bytes of the kept part of an answer, in float32

    def seconds(self, ranks: int, dealt: bool, beside: bool, tflops: float, gbytes: float) -> float:
        """On that many devices of `tflops` TFLOP/s joined at `gbytes` GB/s."""
        calls, call = (2 * self.windows, self.half) if dealt else (self.windows, self.both)
        return predicted(calls, ranks, call / tflops, self.kept, gbytes * 1e9, self.decode / tflops, beside)


def count(name: str) -> Published:
    """What the full-size network takes, counted by operator."""
    plan = plan_of(resolve(Run.of({"prompt": "-", "model": name})))
    with torch.device("meta"), torch.no_grad():
        full, z, t = full_size(name)
        half = _tflop(lambda: full.evaluate(z, t))
        if name.startswith("wan"):  # the halves share nothing, and a latent is decoded after others
            both = 2 * half
            stream = full.decode
            assert stream is not None
            decode = _tflop(lambda: stream(z[:, :, :3])) - _tflop(lambda: stream(z[:, :, :2]))
        else:
            both = _tflop(lambda: full.network(z, t, torch.empty(2, 77, 1024, dtype=HALF), torch.empty(1)))
            decode = _tflop(lambda: full.autoencoder.decode(z[:, :, 0]))
    return Published(name, len(plan.windows), both, half, decode, longest(plan) * z[0, :, 0].numel() * 4)


def _tflop(run: Callable[[], object]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops() / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--tflops", type=float, default=400.0, help="of one GPU, for the published models")
    parser.add_argument("--gbytes", type=float, default=20.0, help="GB/s between GPUs, for the published models")
    parser.add_argument("--only-predict", action="store_true", help="measure nothing")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        measure(SETTINGS[arguments.worker], arguments.iterations, arguments.width)
        return
    if not arguments.only_predict:
        rows = list(measured(arguments.ranks, arguments.iterations, arguments.width))
        show(f"{arguments.ranks} ranks against one, measured (1 thread a rank, gloo)", rows)
    published = [count(name) for name in ("videocrafter2", "wan-1.3b", "wan-14b")]
    show(
        "an iteration, counted (TFLOP; MB of an answer that travel)",
        [
            {
                "model": model.name,
                "windows": model.windows,
                "a window": model.both,
                "a half": model.half,
                "decoding": model.decode,
                "MB": model.kept / 1e6,
            }
            for model in published
        ],
    )
    foreseen: list[Row] = []
    for model in published:
        for dealt, beside in ((False, False), (False, True), (True, False), (True, True)):
            times: dict[str, str | float] = {
                "model": model.name,
                "halves": "dealt" if dealt else "together",
                "decoder": "beside" if beside else "in line",
            }
            one = model.seconds(1, False, beside, arguments.tflops, arguments.gbytes)
            for ranks in (1, 2, 4, 8, 16, 32, 64):
                times[f"{ranks}"] = one / model.seconds(ranks, dealt, beside, arguments.tflops, arguments.gbytes)
            foreseen.append(times)
    title = f"times one GPU, predicted for {arguments.tflops:g} TFLOP/s and {arguments.gbytes:g} GB/s (paper: 6.7 on 8)"
    show(title, foreseen)


if __name__ == "__main__":
    main()
