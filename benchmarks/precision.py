"""What half precision costs: the error of bfloat16 and float16 against float32, of one iteration and of 32 frames.

    python benchmarks/precision.py [--frames 32] [--dtypes bfloat16 float16] [--models embedded videocrafter2 ...]

embedded has its own weights; a VideoCrafter is a small network of its structure with random weights, so its figures
tell how rounding grows in such layers and not what a viewer sees.  Error: root mean square of the difference over that
of the float32 answer; of 32 frames, of all that came off, both streams with the same noise.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from torch import Tensor

from fifo_diffusion.engine import Engine, State
from fifo_diffusion.execute import Batched
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models.videocrafter import VARIANTS
from fifo_diffusion.protocols import NEGATIVE
from report import Row, show
from throughput import NOISE, Setting, embedded, unet

CPU = torch.device("cpu")


def made(setting: Setting, dtype: torch.dtype, frames: int) -> tuple[Tensor, Tensor]:
    """The answers to the first iteration's calls, and the latent frames that come off, each along one dimension."""
    model = setting.make(CPU, dtype)
    schedule = model.schedule(setting.plan.levels, "even")
    positive, negative = setting.hear(model)
    cond = {**positive, **{NEGATIVE + name: c for name, c in negative.items()}}
    engine = Engine(
        plan=setting.plan,
        schedule=schedule,
        execute=Batched(Guided(model.denoiser(schedule), setting.guidance), 2),
        condition=lambda frames: cond,
        noise=NOISE,
        eta=1.0,
    )
    shape = (1, model.channels, setting.plan.length, setting.height, setting.width)
    state = State(0, torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        answers = torch.cat(list(engine.execute(engine.calls(state))))
    return answers, torch.cat([out for out, _ in itertools.islice(engine.iterations(state), frames)] or [answers])


def relative(got: Tensor, want: Tensor) -> float:
    """Root mean square of the difference over that of what is wanted."""
    return float((got.double() - want.double()).square().mean().sqrt() / want.double().square().mean().sqrt())


def main() -> None:
    names = ["embedded", *(variant.name for variant in VARIANTS)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=32, help="0: one iteration only")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--dtypes", nargs="+", choices=("bfloat16", "float16"), default=("bfloat16", "float16"))
    given = parser.parse_args()
    rows: list[Row] = []
    for name in given.models:
        setting = embedded(4) if name == "embedded" else unet(4, name)
        one, all_ = made(setting, torch.float32, given.frames)
        for dtype in given.dtypes:
            got, frames = made(setting, getattr(torch, dtype), given.frames)
            row: dict[str, str | float | int] = {
                "model": name if name == "embedded" else f"small {name}, random weights",
                "dtype": dtype,
                "one iteration": relative(got, one),
            }
            rows.append(row | ({f"{given.frames} frames": relative(frames, all_)} if given.frames else {}))
    show("relative error against float32", rows)


if __name__ == "__main__":
    main()
