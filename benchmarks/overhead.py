"""What does the engine itself cost?  The share of an iteration spent outside the network and the decoder.

    python benchmarks/overhead.py [--frames 20]

The embedded model at its defaults, by the program's own meter, after the start.
"""

from __future__ import annotations

import argparse

from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.devices import choose_device
from fifo_diffusion.session import Session
from report import Row, show


def measure(frames: int, settings: dict[str, object]) -> Row:
    session = Session(resolve(Run.of({"prompt": "a red balloon moving left", "frames": frames, **settings})))
    stream = session.frames()
    next(stream)  # the start and the run-in are not an iteration's usual work
    session.meter.seconds.clear()
    for _ in stream:
        pass
    parts = session.meter.parts()
    whole = session.meter.seconds["pixels"]
    return {
        "setting": ", ".join(f"{k} {v}" for k, v in settings.items()) or "defaults",
        "ms an iteration": 1000 * whole / (frames - 1),
        "network %": 100 * parts["network"] / whole,
        "decode %": 100 * parts["decode"] / whole,
        "outside %": 100 * parts["step"] / whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20)
    frames = parser.parse_args().frames
    every: tuple[dict[str, object], ...] = ({}, {"eta": 0.0}, {"eta": 0.0, "solver": "2m"})
    show("overhead of the engine", [measure(frames, settings) for settings in every], str(choose_device("auto")))


if __name__ == "__main__":
    main()
