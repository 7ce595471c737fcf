"""How near the machine's limit is a frame?  The engine, the authors' way and the machine's ceilings, in one run.

    python benchmarks/throughput.py [--model embedded|unet] [--dtype float32] [--batch 2] [-n 4] [--iterations 3]
        [--aside none|decode|encode|both] [--plot throughput.svg]

embedded: the model that ships, at its defaults.  unet: a small network of a VideoCrafter's structure (--variant) with
random weights, f 16, lookahead, guidance, latents of 20x32.  Both start from a queue of noise, which takes as long as
any other.

The authors' way of executing the same network (arXiv:2405.11473): float32, windows one after another, guidance as two
calls, every frame's step by itself, decoding and copying in between.  Products are then torch's own, not oneDNN's; the
layers are otherwise ours.  In float32 its latents must be the engine's to `TOLERANCE`, or the run fails; in bfloat16
the difference depends on the weights and is only told.

TFLOP are those of the authors' way (torch.utils.flop_counter), for both; work that the engine leaves out is counted as
done.  Each way has a process of its own: the engine keeps freed memory, as the command `fifo` does, the authors' way
does not, as their script does not.  Nor does one's peak of main memory hide the other's.

Both ways write an mp4.  Times are the CPU's clock; on CUDA the device's own (events) of network, step and copy, while
decoding is what its thread spent on it, waiting included.  What is done aside (by default as `fifo generate` does it on
this device) runs beside the rest, so the parts may add up to more than the whole.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fifo_diffusion import models
from fifo_diffusion.decode import rounded
from fifo_diffusion.devices import choose_device, fetched, keep_freed_memory
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.execute import Batched
from fifo_diffusion.guidance import Guided
from fifo_diffusion.meter import Meter, peak_memory
from fifo_diffusion.models import linear
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.latent import Table
from fifo_diffusion.models.unet3d import FrameUNet
from fifo_diffusion.models.videocrafter import VARIANTS, VideoCrafter
from fifo_diffusion.names import Frame
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.overlap import beside
from fifo_diffusion.prompts import OnePrompt
from fifo_diffusion.protocols import Cond
from fifo_diffusion.schedule import scaled_linear_betas
from fifo_diffusion.sinks import FrameSink, open_sink
from fifo_diffusion.windows import Plan
from report import bars, show

NOISE = SeededNoise(0)
TOLERANCE = 1e-3
"""The largest difference of a latent from the authors' way, in standard deviations of the queue."""


@dataclass(frozen=True)
class Setting:
    """What is measured; height and width are of latents."""

    make: Callable[[torch.device, torch.dtype], Model]
    hear: Callable[[Model], tuple[Cond, Cond]]  # what the two sides of guidance hear
    plan: Plan
    guidance: float
    height: int
    width: int
    space: int = 8  # pixels a latent

    def sink(self, folder: str) -> FrameSink:
        return open_sink(f"{folder}/a.mp4", fps=8, size=(self.space * self.width, self.space * self.height))


def embedded(partitions: int) -> Setting:
    card = models.card("embedded")

    def make(device: torch.device, dtype: torch.dtype) -> Model:
        return models.load(card.name, device, dtype, None)

    def hear(model: Model) -> tuple[Cond, Cond]:
        return model.embed(["a red balloon moving left"]), model.embed_negative([""])

    plan = Plan(card.window, partitions, "last")
    return Setting(make, hear, plan, card.guidance, card.size[1] // card.space, card.size[0] // card.space)


def unet(partitions: int, variant: str) -> Setting:
    (chosen,) = (v for v in VARIANTS if v.name == variant)
    words = 256

    def make(device: torch.device, dtype: torch.dtype) -> Model:
        torch.manual_seed(0)
        channels = (64, 128, 256, 256)
        net = FrameUNet(block_out_channels=channels, cross_attention_dim=words, attention_head_dim=32, **chosen.options)
        for parameter in net.parameters():  # what training begins at zero would add nothing here
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32, 64, 128, 128),
            layers_per_block=2,
            latent_channels=4,
        )
        vae = vae.to(device).eval().requires_grad_(False)
        table = Table(scaled_linear_betas())
        return VideoCrafter(chosen, net.to(dtype), vae, table, None, device, dtype, [])

    def hear(model: Model) -> tuple[Cond, Cond]:
        text = torch.randn(2, 77, words, generator=torch.Generator().manual_seed(1)).to(model.device)
        return {"text": text[:1]}, {"text": text[1:]}

    return Setting(make, hear, Plan(16, partitions, "last"), 12.0, 20, 32)


@dataclass(frozen=True)
class Measured:
    latents: list[Tensor]  # those that came off
    queue: Tensor
    seconds: float
    meter: Meter
    peak: int  # bytes


def engine(
    setting: Setting, device: torch.device, dtype: torch.dtype, batch: int, iterations: int, aside: set[str]
) -> Measured:
    model, meter = setting.make(device, dtype), Meter()
    schedule = model.schedule(setting.plan.levels, "even")
    positive, negative = setting.hear(model)
    denoise = meter.around("network", Guided(model.denoiser(schedule), setting.guidance), device)
    made = Engine(
        plan=setting.plan,
        schedule=schedule,
        execute=Batched(denoise, batch),
        condition=OnePrompt(positive, negative),
        noise=NOISE,
        eta=1.0,
    )
    queue, latents = _queue(setting, model), []
    with torch.no_grad():  # a first batch, so that nothing is made ready within the time
        made.execute(made.calls(State(0, queue))[:batch])
    _now(device)
    meter.seconds.clear()

    def each() -> Iterator[Tensor]:
        nonlocal queue
        some = itertools.islice(made.iterations(State(0, queue)), iterations)
        for frames, state in meter.each("iteration", some, device):
            latents.append(frames)
            queue = state.queue
            yield frames

    copied = meter.around("copy", fetched, device)

    def decode(latents: Iterator[Tensor]) -> Iterator[Frame]:
        pixels = model.decoder()(meter.each("latents", latents))
        chunks = meter.each("pixels", (copied(rounded(chunk[0])).numpy() for chunk in pixels))
        return (frame for chunk in chunks for frame in chunk)

    began = _now(device)
    with tempfile.TemporaryDirectory() as folder, setting.sink(folder) as sink:

        def encode(frames: Iterator[Frame]) -> Iterator[None]:
            for frame in frames:
                with meter.time("write"):
                    sink.write(frame)
                yield

        frames = beside(decode, each(), last=iterations, device=device) if "decode" in aside else decode(each())
        for _ in beside(encode, frames, ahead=4) if "encode" in aside else encode(frames):
            pass
        with meter.time("write"):
            sink.close()
    return Measured(latents, queue, _now(device) - began, meter, _peak(device))


@torch.no_grad()
def authors(setting: Setting, device: torch.device, iterations: int) -> tuple[Measured, int]:
    """And the FLOP of a frame."""
    model, plan, meter = setting.make(device, torch.float32), setting.plan, Meter()
    schedule = model.schedule(plan.levels, "even")
    positive, negative = setting.hear(model)
    network, decoder = model.denoiser(schedule), model.decoder()
    queue, latents = _queue(setting, model), []
    level = plan.level.tolist()
    time_of = schedule.time[plan.level].float().to(device)[None]
    alpha, sigma = schedule.alpha.tolist(), schedule.sigma.tolist()

    def step(z: Tensor, out: Tensor, k: int, frame: int) -> Tensor:
        """DDIM, eq. 12 and 16 of arXiv:2010.02502, eta 1."""
        a, s, a_next, s_next = alpha[k], sigma[k], alpha[k - 1], sigma[k - 1]
        x0 = (z - s * out) / a if schedule.predicts == "noise" else a * z - s * out
        eps = (z - a * x0) / s
        up = s_next * (1 - (a * s_next / (a_next * s)) ** 2) ** 0.5
        moved: Tensor = a_next * x0 + (s_next**2 - up**2) ** 0.5 * eps + up * NOISE(frame, k - 1, z)
        return moved

    with _plain(), tempfile.TemporaryDirectory() as folder, setting.sink(folder) as sink:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(queue[:, :, : plan.window], time_of[:, : plan.window], positive)
        flop = 2 * len(plan.windows) * counter.get_total_flops()
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            list(decoder(iter([queue[:, :, :1]])))
        flop += counter.get_total_flops()
        began = _now(device)
        for i in range(iterations):
            moved = queue.clone()
            for w in plan.windows:
                z, t = queue[:, :, w.read], time_of[:, w.read]
                with meter.time("network", device):
                    c, u = network(z, t, positive), network(z, t, negative)
                out = u + setting.guidance * (c - u)
                for p in range(w.write.start, w.write.stop):
                    at = p - w.read.start
                    moved[:, :, p] = step(z[:, :, at], out[:, :, at], level[p], i - plan.context + p)
            latents.append(moved[:, :, plan.context : plan.context + 1])
            with meter.time("pixels"):
                frames = [rounded(chunk[0]) for chunk in decoder(iter(latents[-1:]))]
                with meter.time("copy"):
                    host = [chunk.cpu().numpy() for chunk in frames]
            with meter.time("write"):
                for frame in (frame for chunk in host for frame in chunk):
                    sink.write(frame)
            new = NOISE(i - plan.context + plan.length, plan.levels, queue[:, :, 0])
            queue = torch.cat([moved[:, :, 1:], new[:, :, None]], dim=2)
        with meter.time("write"):
            sink.close()
        seconds = _now(device) - began
    meter.seconds["iteration"] = seconds - meter.seconds["pixels"] - meter.seconds["write"]
    return Measured(latents, queue, seconds, meter, _peak(device)), flop


@contextmanager
def _plain() -> Iterator[None]:
    """Products by torch's own library."""
    was = linear.HERE
    linear.HERE = False
    try:
        yield
    finally:
        linear.HERE = was


def _queue(setting: Setting, model: Model) -> Tensor:
    shape = (1, model.channels, setting.plan.length, setting.height, setting.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak(device: torch.device) -> int:
    if device.type != "cuda":
        return peak_memory()
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


def fastest(device: torch.device, work: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of `times`, after one that does not count."""
    best = float("inf")
    for i in range(times + 1):
        began = _now(device)
        work()
        best = min(best, _now(device) - began if i else best)
    return best


@torch.no_grad()
def ceilings(device: torch.device) -> dict[str, float]:
    """TFLOP/s of a square product in each precision, by whichever library is faster, and GB/s of a copy (read and
    written)."""
    size = 8192 if device.type == "cuda" else 3072
    out = {}
    for name in ("float32", "bfloat16"):
        a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, name)) for _ in range(2))
        seconds = min(fastest(device, partial(way, a, b)) for way in (torch.matmul, linear.linear))
        out[f"{name} TFLOP/s"] = 2 * size**3 / seconds / 1e12
    source = torch.zeros(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    out["copy GB/s"] = 2 * source.numel() / fastest(device, lambda: target.copy_(source)) / 1e9
    return out


def parts_of(meter: Meter) -> dict[str, float]:
    """Seconds of network, step, decode, copy and encode."""
    parts, copy = meter.parts(), meter.seconds["copy"]
    return {
        "network": parts["network"],
        "step": parts["step"],
        "decode": parts["decode"] - copy,
        "copy": copy,
        "encode": parts["write"],
    }


def check(ours: Measured, theirs: Measured, dtype: str) -> float:
    """The largest difference, in standard deviations of the queue.  Raises AssertionError beyond TOLERANCE in
    float32."""
    pairs = [(ours.queue, theirs.queue), *zip(ours.latents, theirs.latents, strict=True)]
    apart = max(float((a - b).abs().max()) for a, b in pairs) / float(theirs.queue.std())
    assert dtype != "float32" or apart <= TOLERANCE, (
        f"the engine's latents are {apart:.2g} deviations from the authors' way"
    )
    return apart


def setting_of(given: argparse.Namespace) -> Setting:
    return embedded(given.n) if given.model == "embedded" else unet(given.n, given.variant)


def _authors_alone(given: argparse.Namespace, kept: Path) -> None:
    torch.save(authors(setting_of(given), choose_device("auto"), given.iterations), kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("embedded", "unet"), default="embedded")
    parser.add_argument("--variant", choices=[v.name for v in VARIANTS], default="videocrafter2", help="of the unet")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the engine's network")
    parser.add_argument("--batch", type=int, default=2, help="windows at once, of the engine")
    parser.add_argument("-n", type=int, default=4, help="partitions")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--aside", choices=("none", "decode", "encode", "both"), help="on threads of their own")
    parser.add_argument("--plot", type=Path, help="an .svg of where the time goes")
    given = parser.parse_args()
    device = choose_device("auto")
    usual = {"cpu": "none", "cuda": "both"}.get(device.type, "encode")
    aside = {"none": set(), "both": {"decode", "encode"}}.get(given.aside or usual, {given.aside or usual})
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "authors.pt")
        alone = multiprocessing.get_context("spawn").Process(target=_authors_alone, args=(given, kept))
        alone.start()
        alone.join()
        if alone.exitcode:
            raise SystemExit("the authors' way failed, see above")
        theirs, flop = torch.load(kept, weights_only=False)
    keep_freed_memory()
    ours = engine(setting_of(given), device, getattr(torch, given.dtype), given.batch, given.iterations, aside)
    apart = check(ours, theirs, given.dtype)
    limits = ceilings(device)
    rows: list[dict[str, str | float | int]] = []
    spent: list[dict[str, float]] = []
    for way, dtype, m in (("engine", given.dtype, ours), ("authors' way", "float32", theirs)):
        frame, parts = m.seconds / given.iterations, parts_of(m.meter)
        spent.append({part: seconds / given.iterations for part, seconds in parts.items()})
        rows.append(
            {
                "way": way,
                "dtype": dtype,
                "s a frame": frame,
                **{f"{part} %": 100 * seconds / m.seconds for part, seconds in parts.items()},
                "TFLOP a frame": flop / 1e12,
                "TFLOP/s": flop / 1e12 / frame,
                "% of ceiling": 100 * flop / 1e12 / frame / limits[f"{dtype} TFLOP/s"],
                "peak GB": m.peak / 1e9,
                "times as fast": theirs.seconds / m.seconds,
                "apart": f"{apart:.1e}" if m is ours else "-",
            }
        )
    name = given.model if given.model == "embedded" else f"a small {given.variant}"
    show("the machine's ceilings", [limits], str(device))
    title = f"throughput of {name}, n {given.n}, {given.batch} windows at once, {given.iterations} iterations"
    show(title, rows, str(device))
    if given.plot is not None:
        labels = [
            f"{row['way']}, {row['dtype']}: {row['s a frame']:.3g} s a frame, {row['TFLOP/s']:.3g} TFLOP/s, "
            f"{row['% of ceiling']:.0f} % of the ceiling, {row['peak GB']:.2f} GB"
            for row in rows
        ]
        given.plot.write_text(bars(title, "seconds a frame", dict(zip(labels, spent, strict=True))))


if __name__ == "__main__":
    main()
