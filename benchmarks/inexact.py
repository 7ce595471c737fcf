"""What is faster and not the same: fewer partitions, several frames a level, guidance at a part of the levels.

    python benchmarks/inexact.py exact
    python benchmarks/inexact.py speed [--frames 8]
    python benchmarks/fidelity.py --folder DIR --only 'guided n 4 last' ... --against 'guided n 4 last'

exact: the method's own loss, by the instrument of `exact.py`, on three videos.  It cannot tell of guidance: a perfect
network needs none.

speed: of the embedded model, rows of the network a frame, counted in one iteration of the real engine (a window of f
frames is a row, with guidance two), and frames a second, the fastest of three stretches.  The third line is what a
setting costs its pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from exact import Case, calls, measured
from exact_ideas import SHOWN
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.protocols import Cond, Denoiser
from fifo_diffusion.session import Session
from fifo_diffusion.windows import Keep
from report import Row, show
from speed import measure

PLANS = ((4, 1), (2, 1), (1, 1), (8, 2), (4, 2), (2, 2), (1, 2), (16, 4), (8, 4), (4, 4), (2, 4))  # n, frames a level
KEPT: Sequence[Keep] = ("last", "middle", "all")
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "the defaults (n 4, last half, guidance)": {},
    "n 2": {"partitions": 2},
    "n 1": {"partitions": 1},
    "2 frames a level": {"frames_per_level": 2},
    "4 frames a level": {"frames_per_level": 4},
    "n 2, 2 frames a level": {"partitions": 2, "frames_per_level": 2},
    **{f"guidance at levels {at}": {"guidance_levels": at} for at in ("17-64", "1-48", "33-64", "17-48", "49-64")},
    "no guidance": {"guidance": 1.0},
}


def exactly() -> Iterator[Row]:
    for keep in KEPT:
        for n, k in PLANS:
            case = Case(partitions=n, frames_per_level=k, keep=keep)
            row: dict[str, str | float | int] = {"kept": str(keep), "n": n, "frames a level": k}
            row |= {"levels": case.plan.levels, "calls": calls(case)}
            for name, video in SHOWN.items():
                found = measured(replace(case, video=video), torch.float64)
                row |= {f"{name} {what}": found[what] for what in ("variance", "lag 4", "distance ‰")}
            yield row


def rows_a_frame(settings: Mapping[str, Any]) -> float:
    """Counted: what one iteration of the real engine asks of the network, by the frames that it gives."""
    session, rows = Session(resolve(Run.of({"prompt": "a red balloon", **settings}))), 0
    make = session.model.denoiser

    def counted(schedule: Any) -> Denoiser:
        network = make(schedule)

        def denoise(z: torch.Tensor, t: torch.Tensor, cond: Cond, /) -> torch.Tensor:
            nonlocal rows
            rows += len(z)
            return network(z, t, cond)

        return denoise

    session.model.denoiser = counted  # type: ignore[method-assign]
    engine: Engine = session.engine
    queue = torch.randn(1, session.model.channels, engine.plan.length, 8, 8, generator=torch.Generator().manual_seed(0))
    frames, _ = engine.advance(State(0, queue))
    return rows / frames.shape[2]


def speeds(frames: int) -> Iterator[Row]:
    usual = None
    for name, settings in SETTINGS.items():
        each = settings.get("frames_per_level", 1)
        speed = measure(-(-frames // each), dict(settings)) * each
        usual = usual or speed
        yield {
            "setting": name,
            "rows a frame": rows_a_frame(settings),
            "frames/s": speed,
            "times as fast": speed / usual,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("exact", "speed"))
    parser.add_argument("--frames", type=int, default=8, help="speed: of each stretch")
    said = parser.parse_args()
    if said.what == "exact":
        torch.set_num_threads(1)  # the matrices are small
        show("inexact: exactly", list(exactly()))
    else:
        show("inexact: speed of the embedded model", list(speeds(said.frames)))


if __name__ == "__main__":
    main()
