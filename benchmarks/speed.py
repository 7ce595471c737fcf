"""Frames a second of the embedded model at its defaults: serial against batched, float32 against bfloat16.

    python benchmarks/speed.py [--frames 4]

All in one run on one machine; read the ratios.  Frames a second are those of the stream, after the start: the queue
holds noise at every level, which takes as long as any other.
"""

from __future__ import annotations

import argparse
import time

import torch

from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.devices import choose_device
from fifo_diffusion.engine import State
from fifo_diffusion.session import Session
from report import Row, show


def measure(frames: int, settings: dict[str, object]) -> float:
    """Frames a second, the fastest of three stretches: what the machine does when nothing else takes its time."""
    session = Session(resolve(Run.of({"prompt": "a red balloon moving left", **settings})))
    model, length = session.model, session.engine.plan.length
    queue = torch.randn(1, model.channels, length, 8, 8, generator=torch.Generator().manual_seed(0))
    stream = model.decoder()(session.latents(State(0, queue)))
    next(stream)
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(frames):
            next(stream)
        best = max(best, frames / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=4)
    frames = parser.parse_args().frames
    every: tuple[dict[str, object], ...] = (
        {"batch": 1},
        {"batch": 2},
        {"batch": 4},
        {"batch": 8},
        {"batch": 1, "dtype": "bfloat16"},
        {"batch": 8, "dtype": "bfloat16"},
        {"batch": 1, "guidance": 1.0},
        {"batch": 1, "guidance": 1.0, "partitions": 2},
    )
    speeds = [measure(frames, settings) for settings in every]
    rows: list[Row] = [
        {
            "setting": ", ".join(f"{k} {v}" for k, v in settings.items()),
            "frames/s": speed,
            "against the first": speed / speeds[0],
        }
        for settings, speed in zip(every, speeds, strict=True)
    ]
    show("speed of the embedded model", rows, str(choose_device("auto")))


if __name__ == "__main__":
    main()
