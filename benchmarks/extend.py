"""Does a video that goes on from a clip show what the clip showed, and is the seam smooth?

    python benchmarks/extend.py --folder DIR [--clips 16] [--frames 32] [--partitions 4]

First with the exact Gaussian video, where nothing is lost but by the method: the correlation of the new frames with
the clip's last (a true video's is .9 to the distance), when the queue goes on from the clip, and when the clip is
noised to the tail of the queue and made anew (the start that suits a model's own base clip), its frames dropped.
"calls before" are the network's before the iteration that the first new frame comes off.

Then the embedded model on real clips of held-out scenes: the judge's verdict on the new frames, prompted with the
clip's true caption and with "a", which says nothing.  The rest of the same clip, as rendered, is judged beside them.
`seam` is the change from the clip's last frame to the first new one, over the usual change from frame to frame.
DIR is that of `fifo evaluate gates`: it holds the art and the judge.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import fifo_diffusion as fifo
from exact import nothing
from fifo_diffusion.decode import psnr
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.evaluate.gates import trained_judge
from fifo_diffusion.evaluate.judge import ATTRIBUTES, Judge
from fifo_diffusion.execute import Batched
from fifo_diffusion.models import card
from fifo_diffusion.models.gauss import GaussianVideo
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.schedule import rectified_flow
from fifo_diffusion.sinks import open_sink
from fifo_diffusion.windows import Plan
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.clips import HELD_OUT_VARIANTS, Caption, World
from fifo_diffusion.world.kinds import SMALL
from report import Row, show
from start import Counted

Frames = NDArray[np.uint8]
RHO, SIDE, PART = 0.9, 24, 16  # PART: new frames that are judged together


def exact(partitions: int, eta: float) -> list[Row]:
    window = card("embedded").window
    plan = Plan(window, partitions, "last")
    schedule = rectified_flow(plan.levels)
    network = Counted(GaussianVideo(schedule, RHO))
    execute = Batched(network, 64)
    engine = Engine(plan=plan, schedule=schedule, execute=execute, condition=nothing, noise=SeededNoise(0), eta=eta)
    rng = torch.Generator().manual_seed(1)
    clip = torch.randn(1, 4, window, SIDE, SIDE, generator=rng, dtype=torch.float64)
    for i in range(1, window):
        clip[:, :, i] = RHO * clip[:, :, i - 1] + (1 - RHO**2) ** 0.5 * clip[:, :, i]

    def row(name: str, state: State, drop: int) -> Row:
        stream, last, network.windows = engine.stream(state), clip[:, :, -1], 0
        first = [frame for frame, _ in islice(stream, drop + 1)][-1]
        before = network.windows - len(plan.windows)
        frames = [first, *(frame for frame, _ in islice(stream, 3))]
        held = [float((frame[:, :, 0] * last).mean() / last.square().mean()) for frame in frames]
        kept = {f"frame {i}": h for i, h in enumerate(held)}
        return {"queue": name, "n": partitions, "eta": eta, "calls before": before, **kept}

    return [
        row("goes on from the clip", engine.continue_from(clip), 0),
        row("makes the clip anew", engine.warm_start(clip), window),
    ]


def judged(judge: Judge, caption: Caption, frames: Frames) -> dict[str, float]:
    said = judge.verdict(frames)
    return {name: 100.0 * (said[name] == getattr(caption, name)) for name in ATTRIBUTES}


def extended(folder: Path, clips: int, count: int, partitions: int) -> list[Row]:
    own = card("embedded")
    art = SMALL.art(folder)
    judge = trained_judge(art, folder)
    world, rng = World(art, own.size[0], HELD_OUT_VARIANTS), np.random.default_rng(5)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(clips):
        caption = world.draw_caption(rng)
        whole = world.clip(caption, rng, own.window + count)
        clip, rest = whole[: own.window], whole[own.window :]
        usual = float(np.abs(whole[1:].astype(float) - whole[:-1]).mean())
        with tempfile.TemporaryDirectory() as name:
            with open_sink(f"{name}/clip", fps=own.fps, size=own.size) as sink:
                for frame in clip:
                    sink.write(frame)
            made = {"as rendered": rest}
            for prompt in (plain(caption), "a"):
                stream = fifo.stream(prompt, clip=f"{name}/clip", frames=len(rest), seed=number, partitions=partitions)
                made["true caption" if prompt != "a" else "a"] = np.stack(list(stream))
        for prompt, frames in made.items():
            seam = float(np.abs(frames[0].astype(float) - clip[-1]).mean())
            for part in range(0, count, PART):
                scores = judged(judge, caption, frames[part : part + PART])
                if part == 0:
                    scores |= {"seam": seam / max(usual, 0.1)}
                    scores |= {} if frames is rest else {"PSNR of frame 0": psnr(frames[0], rest[0])}
                found.setdefault((prompt, f"{part}-{part + PART - 1}"), []).append(scores)
            print(f"clip {number + 1}/{clips}, {plain(caption)}: {prompt}, {scores}", flush=True)
    out: list[Row] = []
    for (prompt, span), each in found.items():
        names = [*ATTRIBUTES, "seam", "PSNR of frame 0"]
        row: dict[str, str | float | int] = {"prompt": prompt, "new frames": span, "clips": len(each)}
        for name in names:
            row[name] = float(np.mean([scores[name] for scores in each])) if name in each[0] else ""
        out.append(row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the art and the trained judge are kept")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--frames", type=int, default=2 * PART, help=f"new ones, a multiple of {PART}")
    parser.add_argument("--partitions", "-n", type=int, default=card("embedded").partitions)
    arguments = parser.parse_args()
    show("the first new frames hold on to the clip", [row for eta in (0.0, 1.0) for row in exact(4, eta)])
    rows = extended(arguments.folder, arguments.clips, arguments.frames, arguments.partitions)
    show("real clips continued, by the judge", rows)


if __name__ == "__main__":
    main()
