"""What of a caption an embedded model hears: how much worse it guesses a clip whose caption has one thing wrong.

    python benchmarks/hearing.py --folder DIR [--model embedded] [--weights FOLDER] [--clips 48] [--seed 3]

Real clips of scenes that nothing was trained on, a quarter of them moving each way, are noised to four timesteps, the
same noise whatever the caption says.  Each figure is the rise of the squared error of the velocity, in 1e-4, with its
standard error over clips: 0 means that the network does not hear the difference, and a model that does not hear it
cannot be asked for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fifo_diffusion.decode import to_pixels
from fifo_diffusion.evaluate.means import mean_and_error
from fifo_diffusion.models import card
from fifo_diffusion.models.embedded.model import SHIPPED, Embedded
from fifo_diffusion.schedule import cosine
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.clips import HELD_OUT_VARIANTS, Caption, World
from fifo_diffusion.world.kinds import KINDS, Kind
from report import Row, show

TIMES = (500, 700, 850, 930)  # of 1,000
WAYS = ("up", "down", "left", "right")
OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}


def wrong(kind: Kind) -> Mapping[str, Callable[[Caption], Caption | None]]:
    """By what is wrong: the caption with it wrong; None where a clip cannot tell."""

    def other(of: Sequence[str], this: str) -> str:
        return of[(list(of).index(this) + 1) % len(of)]

    def turned(ways: Sequence[str]) -> Callable[[Caption], Caption | None]:
        return lambda c: replace(c, motion=OPPOSITE[c.motion]) if c.motion in ways else None

    return {
        "up for down": turned(WAYS[:2]),
        "left for right": turned(WAYS[2:]),
        "still, of what rises or sinks": lambda c: (
            replace(c, motion="still", speed="") if c.motion in WAYS[:2] else None
        ),
        "still, of what goes sideways": lambda c: (
            replace(c, motion="still", speed="") if c.motion in WAYS[2:] else None
        ),
        "speed": lambda c: replace(c, speed="quickly" if c.speed == "slowly" else "slowly"),
        "subject": lambda c: replace(c, subject=other(list(kind.subjects), c.subject)),
        "colour": lambda c: (
            None if len(own := kind.colours(c.subject)) < 2 else replace(c, colour=other(own, c.colour))
        ),
        "scene": lambda c: replace(c, scene=other(kind.scenes, c.scene)),
    }


@torch.no_grad()
def error(model: Embedded, x: Tensor, noise: Tensor, t: int, caption: Caption) -> float:
    """x and noise (1, C, F, H, W)"""
    alpha = float(cosine(1000)[t].sqrt())
    sigma = (1 - alpha**2) ** 0.5
    times = torch.full((1, x.shape[2]), float(t))
    guess = model.denoiser(model.schedule(64, "even"))(alpha * x + sigma * noise, times, model.embed([plain(caption)]))
    return float((guess - (alpha * noise - sigma * x)).square().mean())


def _told(mean: float | None, error: float | None) -> str:
    """Of few clips nothing may be known, or not how well."""
    return " ± ".join("-" if number is None else f"{number:.1f}" for number in (mean, error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the world's art is kept")
    parser.add_argument("--model", choices=SHIPPED, default="embedded")
    parser.add_argument("--weights", type=Path, help="other weights, of either world")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--seed", type=int, default=3)
    given = parser.parse_args()
    model = Embedded(given.weights or SHIPPED[given.model], torch.device("cpu"), torch.float32)
    kind = KINDS[model.world]
    world = World(kind.art(given.folder), kind.size, HELD_OUT_VARIANTS, kind)
    rng, draw = np.random.default_rng(given.seed), torch.Generator().manual_seed(given.seed)
    rises: dict[tuple[str, int], list[float]] = {(name, t): [] for name in wrong(kind) for t in TIMES}
    for i in range(given.clips):
        caption = replace(world.draw_caption(rng), motion=WAYS[i % 4])
        x = model.encode(to_pixels(world.clip(caption, rng, card("embedded").window))[None])
        noise = torch.randn(x.shape, generator=draw)
        for t in TIMES:
            right = error(model, x, noise, t, caption)
            for name, said in wrong(kind).items():
                if (mistaken := said(caption)) is not None:
                    rises[name, t].append(1e4 * (error(model, x, noise, t, mistaken) - right))
    rows: list[Row] = []
    for name in wrong(kind):
        means = {f"t {t}": _told(*mean_and_error(rises[name, t])) for t in TIMES}
        rows.append({"said wrongly": name, "clips": len(rises[name, TIMES[0]]), **means})
    show(f"rise of the error, in 1e-4, {model.world} world", rows)


if __name__ == "__main__":
    main()
