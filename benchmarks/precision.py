"""What half precision and eight bits cost: the error against float32, of one iteration and of 32 frames.

    python benchmarks/precision.py [--frames 32] [--as bfloat16 float16 float32+weights bfloat16+products …]
        [--models embedded videocrafter2 latte wan ...]

x+y is `--dtype x --fp8 y`.  The embedded models have their own weights; the others are small networks of the
published structures with random weights, so their figures tell how rounding grows in such layers and not what a viewer
sees.  Error: root mean square of the difference over that of the float32 answer; of 32 frames, of all that came off,
both streams with the same noise.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping
from functools import partial

import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, LatteTransformer3DModel, WanTransformer3DModel
from torch import Tensor

from fifo_diffusion.engine import Engine, State
from fifo_diffusion.execute import Batched
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.latent import Table
from fifo_diffusion.models.latte import PUBLISHED, Latte
from fifo_diffusion.models.videocrafter import VARIANTS
from fifo_diffusion.models.wan import SHIFT, SMALL, Wan
from fifo_diffusion.prompts import OnePrompt
from fifo_diffusion.protocols import Cond
from fifo_diffusion.schedule import linear_betas
from fifo_diffusion.windows import Plan
from report import Row, show
from throughput import NOISE, Setting, embedded, unet

CPU = torch.device("cpu")


EIGHT = tuple(f"{dtype}+{fp8}" for fp8 in ("weights", "products") for dtype in ("float32", "bfloat16"))
AS = ("bfloat16", "float16", *EIGHT)
WORDS = 128  # width of the text of a small transformer


def latte_like(device: torch.device, dtype: torch.dtype) -> Model:
    """Latte's and Open-Sora Plan's layers."""
    torch.manual_seed(0)
    small = {"num_attention_heads": 4, "cross_attention_dim": 288, "num_layers": 6, "sample_size": 16}
    net = LatteTransformer3DModel(**{**PUBLISHED, **small, "caption_channels": WORDS})
    pictures = AutoencoderKL(block_out_channels=(32,), latent_channels=4)
    return Latte(net.to(dtype), pictures, Table(linear_betas()), None, device, dtype, [])


def wan_like(device: torch.device, dtype: torch.dtype) -> Model:
    torch.manual_seed(0)
    small = {"num_attention_heads": 2, "ffn_dim": 1536, "num_layers": 6, "text_dim": WORDS}
    net = WanTransformer3DModel(**{**SMALL, **small})
    pictures = AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return Wan(SHIFT, net.to(dtype), pictures, None, None, device, dtype, [])


def hear(model: Model) -> tuple[Cond, Cond]:
    text = torch.randn(2, 40, WORDS, generator=torch.Generator().manual_seed(1))
    heard = {"heard": torch.ones(1, 40, dtype=torch.bool)} if isinstance(model, Latte) else {}
    return {"text": text[:1], **heard}, {"text": text[1:]}


SETTINGS: Mapping[str, Callable[[], Setting]] = {
    "embedded": partial(embedded, 4),
    **{variant.name: partial(unet, 4, variant.name) for variant in VARIANTS},
    "latte": lambda: Setting(latte_like, hear, Plan(16, 4, "last"), 7.5, 16, 16),
    "wan": lambda: Setting(wan_like, hear, Plan(21, 3, "last"), 5.0, 8, 12),
}


def made(setting: Setting, said: str, frames: int) -> tuple[Tensor, Tensor]:
    """The answers to the first iteration's calls, and the latent frames that come off, each along one dimension."""
    dtype, _, fp8 = said.partition("+")
    model = setting.make(CPU, getattr(torch, dtype))
    if fp8:
        model.in_eight_bits(CPU, products=fp8 == "products")
    schedule = model.schedule(setting.plan.levels, "even")
    positive, negative = setting.hear(model)
    engine = Engine(
        plan=setting.plan,
        schedule=schedule,
        execute=Batched(Guided(model.denoiser(schedule), setting.guidance), 2),
        condition=OnePrompt(positive, negative),
        noise=NOISE,
        eta=0.0 if schedule.predicts == "flow" else 1.0,
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=32, help="0: one iteration only")
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--as", nargs="+", choices=AS, default=AS, dest="ways")
    given = parser.parse_args()
    rows: list[Row] = []
    for name in given.models:
        setting = SETTINGS[name]()
        one, all_ = made(setting, "float32", given.frames)
        for way in given.ways:
            got, frames = made(setting, way, given.frames)
            row: dict[str, str | float | int] = {
                "model": name if name == "embedded" else f"small {name}, random weights",
                "as": way,
                "one iteration": relative(got, one),
            }
            rows.append(row | ({f"{given.frames} frames": relative(frames, all_)} if given.frames else {}))
    show("relative error against float32", rows)


if __name__ == "__main__":
    main()
