"""Does the stream look like the model's own clips?  The embedded model, setting by setting (docs/method.md).

    python benchmarks/fidelity.py --folder DIR [--seeds 5] [--only 'n 4 last' ...] [--against 'n 4 last']
        [--weights FOLDER]

Streams are made as `fifo generate` makes them, one prompt and seed after the other, and their latents kept in DIR, so
that it goes on where it was stopped, and a measure added later needs no new streams.  `--measure` only measures what
is there.  The art and the judge are kept in DIR too (or --judge DIR: training it takes minutes).

Of frames 16-47, the mean over streams ± its standard error, each stream a prompt and a seed of its own:

- variance of the latents, and half the mean squared change over d frames, divided by it (0 frozen, 1 unrelated);
- distance: Wasserstein-2 between 16 frames of the stream and of the model's own clips of that prompt, taken as
  Gaussians by their autocovariances, as in `exact.py`;
- right: per attribute, the share of stretches of 16 frames that the judge finds to show what was asked for;
- flicker: mean second over mean first difference of neighbouring pictures (a real render of the prompt has its own);
- sure: the judge's probability of what was asked for, mean over attributes and every four neighbouring frames;
- drift: the change of the variance from the first 15 % of the frames to the last.

--against: what each setting has more of than this one in the streams of the same prompt, seed and noise, mean ± its
standard error over streams.  That tells settings apart that the errors over prompts would hide.  `variance off`,
`change off`: how far the variance, and the change over 4 frames, are from those of the model's own clips of the prompt.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from exact import STRETCH, distance
from fifo_diffusion import models
from fifo_diffusion.baseclip import sample_clip
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.decode import to_frames, to_pixels
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.evaluate.gates import trained_judge
from fifo_diffusion.evaluate.judge import ATTRIBUTES, Judge
from fifo_diffusion.evaluate.means import mean_and_error
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models.base import Model
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.prompts import OnePrompt
from fifo_diffusion.protocols import Call, Noise
from fifo_diffusion.schedule import NoiseSchedule
from fifo_diffusion.session import Session
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.clips import Caption, World
from fifo_diffusion.world.kinds import SMALL
from looks import right
from report import Row, show

FRAMES, DROPPED = 48, 16  # of a stream, and those at its start that were the base clip's own
OWN = 6  # clips of the model for each prompt
CHANGES = (1, 2, 4, 8, 15)
CAPTIONS = (
    Caption("balloon", "red", "snowy mountains", "right"),
    Caption("whale", "blue", "ocean", "left"),
    Caption("dinosaur", "green", "desert", "left"),
    Caption("bird", "yellow", "forest", "right", "quickly"),
    Caption("fish", "purple", "space", "still"),
    Caption("helicopter", "white", "city", "up"),
)

Setting = Mapping[str, Any]
PLAIN: Setting = {"model": "embedded", "guidance": 1.0, "device": "cpu", "batch": 2}
LATE = {"lookahead": "6-14"}
SETTINGS: Mapping[str, Setting] = {  # partitions and kept range; guidance off and eta 1 unless it says otherwise
    "n 4 last": {},
    "n 4 6-14": LATE,
    "n 2 last": {"partitions": 2},
    "n 2 6-14": {"partitions": 2, **LATE},
    "n 1 last": {"partitions": 1},
    "n 1 6-14": {"partitions": 1, **LATE},
    "n 1 off": {"partitions": 1, "lookahead": "off"},
    "n 2 off": {"partitions": 2, "lookahead": "off"},
    "n 4 off": {"lookahead": "off"},
    "n 4 middle": {"lookahead": "middle"},
    "n 2 middle": {"partitions": 2, "lookahead": "middle"},
    "n 2 6-14 eta 0": {"partitions": 2, "eta": 0.0, **LATE},
    "n 2 6-14 2m": {"partitions": 2, "solver": "2m", **LATE},
    "n 1 6-14 2m": {"partitions": 1, "solver": "2m", **LATE},
    "n 1 6-14, 4 levels a place": {"partitions": 1, "levels_a_place": 4, **LATE},
    "n 2 6-14, 2 levels a place": {"partitions": 2, "levels_a_place": 2, **LATE},
    # At eta 1 the first step puts other noise in the place of what entered: nothing would be left of the tail.
    "n 2 last eta 0, tail .1": {"partitions": 2, "eta": 0.0, "tail": 0.1},
    "n 2 6-14 eta 0, tail .05": {"partitions": 2, "eta": 0.0, "tail": 0.05, **LATE},
    "n 2 last eta 0": {"partitions": 2, "eta": 0.0},
    "guided n 2 last": {"partitions": 2, "guidance": 4.0},
    "guided n 2 6-14": {"partitions": 2, "guidance": 4.0, **LATE},
    "guided n 4 last": {"guidance": 4.0},
    "guided n 4 6-14": {"guidance": 4.0, **LATE},
    "guided n 4 middle": {"guidance": 4.0, "lookahead": "middle"},
    **{
        f"guided n 4 last, levels {levels}": {"guidance": 4.0, "guidance_levels": levels}
        for levels in ("17-64", "33-64", "49-64", "1-48", "17-48")
    },
    "guided n 1 last": {"partitions": 1, "guidance": 4.0},
    "guided n 4 last, 2 a level": {"frames_per_level": 2, "guidance": 4.0},
    "guided n 4 last, 4 a level": {"frames_per_level": 4, "guidance": 4.0},
    "guided n 2 last, 2 a level": {"partitions": 2, "frames_per_level": 2, "guidance": 4.0},
}


@dataclass(frozen=True)
class CorrelatedTail:
    """The noise that enters with frame n is  sqrt(1 - c^2) sum over i of c^i e[n - i]:  c between neighbours."""

    noise: Noise
    last: int  # the level that frames enter at
    c: float

    def __call__(self, frame: int, level: int, like: Tensor, /) -> Tensor:
        if level != self.last:
            return self.noise(frame, level, like)
        terms = range(ceil(log(1e-7) / log(self.c)))
        drawn = [self.c**i * self.noise(frame - i, level, like) for i in terms]
        out: Tensor = (1 - self.c**2) ** 0.5 * torch.stack(drawn).sum(dim=0)
        return out


@dataclass(frozen=True)
class FineSteps:
    """Streams that take m steps of a schedule with m times the levels for every frame the queue moves on by."""

    engine: Engine
    schedule: NoiseSchedule
    m: int

    def __call__(self, state: State) -> tuple[Tensor, State]:
        engine, plan, queue = self.engine, self.engine.plan, state.queue.clone()
        first, noisy = state.iteration - plan.context, slice(plan.context, plan.length)
        for done in range(self.m):
            level = (self.m * plan.level - done).clamp(min=0)
            time = self.schedule.times(level, queue)[None]
            calls = [
                Call(queue[:, :, w.read], time[:, w.read], engine.condition(range(first, first + plan.window)))
                for w in plan.windows  # one prompt, so any frames hear it
            ]
            answers = engine.execute(calls)
            out = torch.cat([a[:, :, w.kept] for a, w in zip(answers, plan.windows, strict=True)], dim=2)
            places = range(plan.context, plan.length)
            fresh = [engine.noise(first + p, 10_000 + int(level[p]), queue[:, :, 0]) for p in places]
            z, fresh_noise = queue[:, :, noisy], torch.stack(fresh, dim=2)
            queue[:, :, noisy] = self.schedule.step(z, out, level[noisy], engine.eta, fresh_noise)
        frames = queue[:, :, plan.context : plan.context + 1]
        tail = engine.noise(first + plan.length, plan.levels, frames[:, :, 0])[:, :, None]
        return frames, State(state.iteration + 1, torch.cat([queue[:, :, 1:], tail], dim=2))

    def stream(self, state: State) -> Iterator[Tensor]:
        while True:
            number = state.iteration
            frames, state = self(state)
            if number >= 0:
                yield frames


@torch.no_grad()
def make(setting: Setting, seed: int, weights: str | None, file: Path) -> None:
    """Keeps the latents (1, C, FRAMES, H, W) of one stream."""
    said = {**PLAIN, **setting, "seed": seed, "prompt": plain(CAPTIONS[seed % len(CAPTIONS)]), "frames": 0}
    tail, m = said.pop("tail", 0.0), said.pop("levels_a_place", 1)
    session = Session(resolve(Run.of({**said, "weights": weights})))
    engine, state = session.engine, session.start()
    frames: Iterator[Tensor] = (some for some, _ in engine.stream(state))
    if tail:
        noise = CorrelatedTail(engine.noise, engine.plan.levels, tail)
        frames = (some for some, _ in replace(engine, noise=noise).stream(state))
    elif m > 1:
        schedule = session.model.schedule(m * engine.plan.levels, "even")
        clip = plain_clip(session, schedule, [said["prompt"]], (20_000 + seed,))  # not the queue's noise
        frames = FineSteps(engine, schedule, m).stream(engine.warm_start(clip))
    _keep(torch.cat(list(islice(frames, ceil(FRAMES / engine.plan.frames_per_level))), dim=2), file)


def plain_clip(session: Session, schedule: NoiseSchedule, prompts: Sequence[str], seeds: tuple[int, ...]) -> Tensor:
    """(prompts, C, f, H, W): what the model samples plainly, every frame at the same level."""
    model, run, card = session.model, session.run, models.card(session.run.model)
    like = torch.zeros(len(prompts), model.channels, card.window, run.size[1] // card.space, run.size[0] // card.space)
    denoise = Guided(model.denoiser(schedule), run.guidance)
    heard = OnePrompt(model.embed(prompts), model.embed([""] * len(prompts)))
    *_, latents = sample_clip(denoise, schedule, heard, SeededNoise(seeds), like, run.eta)
    return latents


def own_clips(kind: Setting, prompt: int, weights: str | None, file: Path) -> None:
    """Keeps OWN clips that the model samples plainly."""
    caption = plain(CAPTIONS[prompt])
    session = Session(resolve(Run.of({**PLAIN, **kind, "prompt": caption, "weights": weights})))
    seeds = tuple(range(10_000 + OWN * prompt, 10_000 + OWN * (prompt + 1)))
    _keep(plain_clip(session, session.engine.schedule, [caption] * OWN, seeds), file)


def _keep(latents: Tensor, file: Path) -> None:
    """Beside, then renamed: a file that is there is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    save_file({"latents": latents.contiguous()}, beside)
    os.replace(beside, file)


# --- measures ---


def moments(latents: Tensor, centre: Tensor) -> Tensor:
    """(STRETCH,) second moments of frames d apart, about `centre` (C,); latents (B, C, T, H, W)."""
    x = latents - centre.view(1, -1, 1, 1, 1)
    return torch.stack([(x[:, :, : x.shape[2] - d] * x[:, :, d:]).mean() for d in range(STRETCH)]).double()


def changes(latents: Tensor) -> dict[str, float]:
    x, variance = latents, float(latents.var())
    steps = {f"change {d}": float((x[:, :, d:] - x[:, :, :-d]).square().mean() / 2 / variance) for d in CHANGES}
    return {"variance": variance, **steps}


def flicker(frames: NDArray[np.uint8]) -> float:
    first = np.diff(frames.astype(np.float32), axis=0)
    return float(np.abs(np.diff(first, axis=0)).mean() / np.abs(first).mean())


@dataclass(frozen=True)
class Eyes:
    """What looks at streams: the model's decoder, the judge, and the real world."""

    model: Model
    judge: Judge
    world: World

    def frames(self, latents: Tensor) -> NDArray[np.uint8]:
        (pixels,) = self.model.decoder()(iter([latents]))
        return to_frames(pixels[0])

    def seen(self, frames: NDArray[np.uint8], caption: Caption) -> dict[str, float]:
        """Shares of right verdicts and flicker of frames (T, H, W, 3)."""
        stretches = [frames[i : i + STRETCH] for i in range(0, len(frames) - STRETCH + 1, STRETCH)]
        verdicts = [self.judge.verdict(stretch) for stretch in stretches]
        found = {name: float(np.mean([v[name] == getattr(caption, name) for v in verdicts])) for name in ATTRIBUTES}
        sure = np.mean([values.mean() for values in right(self.judge, frames, caption).values()])
        return {**found, "sure": float(sure), "flicker": flicker(frames)}

    def stream(self, latents: Tensor, caption: Caption, own: Tensor) -> dict[str, float]:
        latents = latents[:, :, DROPPED:FRAMES]
        part, centre = ceil(0.15 * latents.shape[2]), own.mean(dim=(0, 2, 3, 4))
        made, best = changes(latents), changes(own)
        return {
            **made,
            "variance off": abs(made["variance"] - best["variance"]),
            "change off": abs(made["change 4"] - best["change 4"]),
            "distance": distance(moments(latents, centre), moments(own, centre)),
            **self.seen(self.frames(latents), caption),
            "drift": abs(float(latents[:, :, -part:].var()) - float(latents[:, :, :part].var())),
        }

    def own(self, clips: Tensor, caption: Caption, real: Tensor | None = None) -> dict[str, float]:
        """The same of the model's own clips; distance: to real ones, or from one half of them to the other."""
        half = len(clips) // 2
        some, others = (clips[:half], clips[half:]) if real is None else (clips, real)
        centre = (clips if real is None else real).mean(dim=(0, 2, 3, 4))
        seen = [self.seen(self.frames(clip[None]), caption) for clip in clips]
        return {
            **changes(clips),
            "distance": distance(moments(some, centre), moments(others, centre)),
            **{name: float(np.mean([s[name] for s in seen])) for name in seen[0]},
        }

    def real(self, caption: Caption, seed: int) -> dict[str, float]:
        frames = self.world.clip(caption, np.random.default_rng(seed), FRAMES - DROPPED)
        latents = self.model.encode(to_pixels(frames)[None])
        return {**changes(latents), **self.seen(frames, caption)}


def kind_of(setting: Setting) -> str:
    """Which of the model's own clips a stream is compared with: those of its guidance and eta."""
    eta = 0.0 if setting.get("solver") == "2m" else setting.get("eta", 1.0)
    return "own" + (" guided" if "guidance" in setting else "") + (" eta 0" if eta == 0 else "")


KINDS: Mapping[str, Setting] = {
    "own": {},
    "own eta 0": {"eta": 0.0},
    "own guided": {"guidance": 4.0},
}


def latents_of(folder: Path, weights: str | None) -> Path:
    """Where the streams of these weights are kept: of others than the model's own in a folder of their own."""
    if weights is None:
        return folder
    return folder / f"weights-{models.load('embedded', torch.device('cpu'), torch.float32, weights).weights[:8]}"


def path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name.replace(' ', '-')}-{seed}.safetensors"


def summary(setting: str, each: Sequence[Mapping[str, float]]) -> Row:
    """Mean ± standard error over streams, and how many there were."""
    row: dict[str, str | float | int] = {"setting": setting, "streams": len(each)}
    for name in each[0]:
        mean, error = mean_and_error([one[name] for one in each])
        assert mean is not None
        row |= {name: mean, f"{name} ±": float("nan") if error is None else error}
    return row


Values = Mapping[int, Mapping[str, float]]  # by seed


def measure(
    folder: Path, eyes: Eyes, seeds: range, only: Sequence[str], each: dict[str, Values] | None = None
) -> Iterator[Row]:
    """A row a setting; `each` is filled with the values of every stream."""
    yield summary("real renders", [eyes.real(CAPTIONS[s % len(CAPTIONS)], s) for s in seeds])
    prompts = sorted({s % len(CAPTIONS) for s in seeds})
    own = {
        kind: {p: load_file(path(folder, kind, p))["latents"] for p in prompts}
        for kind in dict.fromkeys(kind_of(SETTINGS[name]) for name in only)
    }
    for kind, clips in own.items():
        yield summary(kind, [eyes.own(clips[p], CAPTIONS[p]) for p in prompts])
    for name in only:
        of = {}
        for seed in seeds:
            if (file := path(folder, name, seed)).exists():
                prompt = seed % len(CAPTIONS)
                latents = load_file(file)["latents"]
                of[seed] = eyes.stream(latents, CAPTIONS[prompt], own[kind_of(SETTINGS[name])][prompt])
        if of:
            yield summary(name, list(of.values()))
        if each is not None:
            each[name] = of


def paired(each: Mapping[str, Values], base: str) -> Iterator[Row]:
    """What every other setting has more of than `base`, over the seeds that both have."""
    for name, values in each.items():
        both = sorted(values.keys() & each[base].keys())
        if name != base and both:
            row = summary(name, [{m: values[s][m] - each[base][s][m] for m in PAIRED} for s in both])
            yield {"setting": name, "streams": len(both), **{m: f"{row[m]:+.4f}±{row[f'{m} ±']:.4f}" for m in PAIRED}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the streams' latents are kept")
    parser.add_argument("--judge", type=Path, help="where the art and the judge are kept (default: the folder)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--against", choices=list(SETTINGS), help="also compare with this one, stream by stream")
    parser.add_argument("--weights", help="another set of the embedded model's weights")
    parser.add_argument("--measure", action="store_true", help="make no streams")
    arguments = parser.parse_args()
    weights = arguments.weights
    folder = latents_of(arguments.folder, weights)
    needed = {kind_of(SETTINGS[name]) for name in arguments.only}
    for kind in (kind for kind in KINDS if kind in needed):
        for prompt in range(min(len(CAPTIONS), arguments.seeds)):
            if not (file := path(folder, kind, prompt)).exists():
                own_clips(KINDS[kind], prompt, weights, file)
    for seed in range(0 if arguments.measure else arguments.seeds):
        for name in arguments.only:
            if not (file := path(folder, name, seed)).exists():
                make(SETTINGS[name], seed, weights, file)
                print(file, flush=True)
    torch.set_grad_enabled(False)
    model = models.load("embedded", torch.device("cpu"), torch.float32, weights)
    kept = arguments.judge or arguments.folder
    size = models.card("embedded").size[0]
    art = SMALL.art(kept)
    eyes = Eyes(model, trained_judge(art, kept), World(art, size))
    each: dict[str, Values] = {}
    rows = list(measure(folder, eyes, range(arguments.seeds), arguments.only, each))
    about = "" if arguments.against is None else f", beside {arguments.against}"
    for title, names in TABLES.items():
        show(title + about, [{n: row.get(n, "") for n in ("setting", "streams", *names)} for row in rows])
    if arguments.against is not None:
        show(f"fidelity: more than {arguments.against}", list(paired(each, arguments.against)))


TABLES: Mapping[str, Sequence[str]] = {
    "fidelity: latents": ("distance", "distance ±", "variance", "variance ±", *(f"change {d}" for d in CHANGES)),
    "fidelity: pictures": (*ATTRIBUTES, "sure", "sure ±", "flicker", "flicker ±", "drift", "drift ±"),
}
PAIRED = ("distance", "variance", "variance off", "change 4", "change off", "sure", "subject", "flicker", "drift")


if __name__ == "__main__":
    main()
