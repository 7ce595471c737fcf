"""After how many latent frames does a network repeat itself when it is asked for more than it was trained on?

    python benchmarks/repeats.py [--model embedded] [--weights FILE] [--frames 96] [--seeds 6] [--steps 32]

That is what RIFLEx (arXiv:2502.15894) must be told, `--repeats`.  Videos are sampled as one long window, by method
plain and by riflex, a prompt of the embedded world a seed.  For each lag: the correlation of latents so many frames
apart, what never changes in the video left out, over all seeds, ± the standard error; a network that repeats itself
comes back up at that lag.  Then the periods of the network's rotary positions.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.evaluate.means import mean_and_error
from fifo_diffusion.models import card
from fifo_diffusion.session import Session
from report import Row, show

PROMPTS = (
    "a red balloon moving right over snowy mountains",
    "a blue whale moving left over the ocean",
    "a green dinosaur moving up over a desert",
    "a yellow car moving slowly right over a city at night",
)


def alike(latents: Tensor) -> Tensor:
    """(F, D) -> (F,): the correlation of frames by how far apart they are, less the mean over all frames."""
    x = (latents - latents.mean(0)).double()
    pairs = x @ x.T / x.square().sum(1).mean()
    return torch.stack([pairs.diagonal(lag).mean() for lag in range(len(x))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--weights")
    parser.add_argument("--frames", type=int, default=96, help="latent frames")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--every", type=int, default=2, help="lags between rows")
    parser.add_argument("--methods", nargs="+", default=["plain", "riflex"])
    said = parser.parse_args()
    torch.set_num_threads(1)
    curves: dict[str, list[Tensor]] = {name: [] for name in said.methods}
    rates: tuple[float, ...] = ()
    for seed in range(said.seeds):
        for name in said.methods:
            run = {"prompt": PROMPTS[seed % len(PROMPTS)], "seed": seed, "model": said.model, "weights": said.weights}
            frames = 1 + (said.frames - 1) * card(said.model).frames_per_latent
            session = Session(resolve(Run.of({**run, "method": name, "steps": said.steps, "frames": frames})))
            video = torch.cat(list(session.sampled()), dim=2)[0].transpose(0, 1).flatten(1)
            curves[name].append(alike(video))
            rates = session.model.rates
    rows: list[Row] = []
    for lag in range(said.every, 3 * said.frames // 4, said.every):
        row: dict[str, str | float | int] = {"lag": lag}
        for name, all_of in curves.items():
            mean, error = mean_and_error([float(curve[lag]) for curve in all_of])
            row[name] = f"{mean:.3f}" + ("" if error is None else f" ±{error:.3f}")
        rows.append(row)
    show("correlation of latents by lag", rows)
    show("periods", [{"component": k, "period": round(2 * math.pi / rate, 1)} for k, rate in enumerate(rates)])


if __name__ == "__main__":
    main()
