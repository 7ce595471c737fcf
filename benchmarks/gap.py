"""The training-inference gap (table 1 of docs/method.md): how much worse a network guesses where the frames of a window
are not equally noisy, which it was never trained for.

    python benchmarks/gap.py --folder DIR [--clips 16] [--weights FOLDER] [--base FOLDER]
    python benchmarks/gap.py --model NAME --weights W --videos FOLDER

Real clips of the world, of scenes that nothing was trained on, are encoded and noised; the network's error in the
noise of a frame, in the windows of FIFO-Diffusion, is divided by its error in the same frame, noise and level where all
frames of the clip are at that level.  1: no gap.  `relative` is the mean over all levels of the queue, ± its standard
error over clips (jackknife); then the same over quarters of the timesteps.  `to base`: divided by the error that other
weights, of --base, make where all frames are at that level, which compares two networks.  For other models: a folder of
videos, each named for what it shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fifo_diffusion import models
from fifo_diffusion.decode import to_pixels
from fifo_diffusion.evaluate.judge import held_out
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.card import Card
from fifo_diffusion.models.embedded.model import Embedded
from fifo_diffusion.protocols import Cond, Denoiser
from fifo_diffusion.schedule import NoiseSchedule
from fifo_diffusion.sources import Clip
from fifo_diffusion.windows import Keep, Plan
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.kinds import KINDS
from report import Row, show

PARTITIONS = (1, 2, 4, 8)
KEPT: Mapping[str, Keep] = {"all (no lookahead)": "all", "last half": "last", "6-14": (6, 14), "middle half": "middle"}
TIMESTEPS, BANDS = 1000, 4


def real_clips(model: Embedded, folder: Path, size: int, count: int) -> Iterator[tuple[str, Tensor]]:
    """What it shows, and its latents (1, C, f, H, W)."""
    kind = KINDS[model.world]
    for caption, frames in held_out(kind.art(folder), size, count, models.card("embedded").window, kind):
        yield plain(caption), model.encode(to_pixels(frames)[None])


def videos(model: Model, card: Card, folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.iterdir()):
        frames = Clip(file, card.size, card.fps).window(card.frames)
        yield file.stem.replace("-", " ").replace("_", " "), model.encode(to_pixels(frames).to(model.device)[None])


def error(network: Denoiser, schedule: NoiseSchedule, x0: Tensor, eps: Tensor, level: Tensor, heard: Cond) -> Tensor:
    """(f,) mean squared error of each frame's predicted noise, each frame at its level (f,)."""
    z = schedule.add_noise(x0, eps, level)
    out = network(z, schedule.times(level, z)[None], heard)
    return (schedule.split(z, out, level)[1] - eps).square().mean(dim=(0, 1, 3, 4)).double()


def windows_errors(
    network: Denoiser, plan: Plan, schedule: NoiseSchedule, x0: Tensor, eps: Tensor, heard: Cond
) -> Tensor:
    """(2, K): the level's error in the window that settles it, and which frame of the clip that was."""
    answers, frame = [], []
    for w in plan.windows:
        answers.append(error(network, schedule, x0, eps, plan.level[w.read], heard)[w.kept])
        frame.append(torch.arange(plan.window)[w.kept])
    return torch.stack([torch.cat(answers), torch.cat(frame).double()])


@torch.no_grad()
def measure(model: Model, window: int, clips: Iterable[tuple[str, Tensor]]) -> dict[tuple[int, str], Tensor]:
    """(n, kept): (clips, K, 2) errors in the window and at equal levels."""
    most = window * PARTITIONS[-1]  # its levels hold those of all fewer partitions
    finest = model.schedule(most, "even")
    out: dict[tuple[int, str], list[Tensor]] = {}
    for number, (prompt, x0) in enumerate(clips):
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(number)).to(x0)
        heard = model.embed([prompt])
        network = model.denoiser(finest)
        equal = torch.stack(
            [error(network, finest, x0, eps, torch.full((window,), k), heard) for k in range(1, most + 1)]
        )  # (levels, f)
        for n in PARTITIONS:
            schedule = model.schedule(window * n, "even")
            assert torch.equal(schedule.time, finest.time[:: most // (window * n)])
            own = equal[most // (window * n) - 1 :: most // (window * n)]
            for name, keep in KEPT.items():
                there, frame = windows_errors(network, Plan(window, n, keep), schedule, x0, eps, heard)
                same = own.gather(1, frame.long()[:, None])[:, 0]
                out.setdefault((n, name), []).append(torch.stack([there, same], dim=1))
        print(f"clip {number}: {prompt}", flush=True)
    return {key: torch.stack(each) for key, each in out.items()}


def relative(errors: Tensor, where: Tensor) -> tuple[float, float]:
    """The mean over these levels of the ratio of errors, each averaged over clips, ± the jackknife's standard error."""

    def of(some: Tensor) -> float:
        there, same = some.mean(dim=0)[where].unbind(1)
        return float((there / same).mean())

    clips = len(errors)
    without = torch.tensor([of(errors[torch.arange(clips) != i]) for i in range(clips)])
    return of(errors), float(((clips - 1) * without.var(correction=0)).sqrt())


Measured = Mapping[tuple[int, str], Tensor]  # see `measure`


def rows(model: Model, window: int, measured: Measured, base: Measured | None = None) -> Iterator[Row]:
    for (n, kept), errors in measured.items():
        time = model.schedule(window * n, "even").time[1:]
        value, spread = relative(errors, time >= 0)
        row: dict[str, str | float | int] = {"n": n, "kept": kept, "relative": value, "relative ±": spread}
        for band in range(BANDS):
            lo, hi = (TIMESTEPS * (band + i) // BANDS for i in (0, 1))
            row[f"t {lo}-{hi - 1}"] = relative(errors, (time >= lo) & (time < hi))[0]
        if base is not None:
            both = torch.stack([errors[..., 0], base[n, kept][..., 1]], dim=2)
            row["to base"], row["to base ±"] = relative(both, time >= 0)
        yield row


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--weights", help="another set of the model's weights")
    parser.add_argument("--base", help="weights whose error at equal levels these are also divided by")
    parser.add_argument("--folder", type=Path, help="where the world's art is kept; for the embedded model")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument(
        "--videos", type=Path, help="a folder of videos, each named for what it shows; for other models"
    )
    arguments = parser.parse_args(given)
    card = models.card(arguments.model)
    if (arguments.videos is None) == (arguments.folder is None):
        parser.error("give one of --folder (an embedded model, on renders of its world) and --videos")
    model = models.load(card.name, torch.device("cpu"), torch.float32, arguments.weights)
    if arguments.videos is None:
        if not isinstance(model, Embedded):
            parser.error(
                f"--folder is for the embedded models, whose worlds can be rendered; give {card.name} --videos"
            )
        clips = list(real_clips(model, arguments.folder, card.size[0], arguments.clips))
    else:
        clips = list(videos(model, card, arguments.videos))
    measured, base = measure(model, card.window, clips), None
    if arguments.base is not None:
        other = models.load(card.name, torch.device("cpu"), torch.float32, arguments.base)
        base = measure(other, card.window, clips)
        show(f"training-inference gap: {card.name}, {Path(arguments.base).name}", list(rows(other, card.window, base)))
    about = "" if arguments.weights is None else f", {Path(arguments.weights).name}"
    show(f"training-inference gap: {card.name}{about}", list(rows(model, card.window, measured, base)))


if __name__ == "__main__":
    main()
