"""The gates of the embedded model: what it must reach before anything is claimed of it.

The judge is trained on real renders only, and its own accuracy on held-out real clips stands beside the
model's; a gate is only as good as that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from fifo_diffusion.baseclip import sample_clip
from fifo_diffusion.decode import psnr, to_frames, to_pixels
from fifo_diffusion.evaluate.judge import (
    JUDGED,
    LOOK,
    Judge,
    Right,
    accuracy,
    held_out,
    judged,
    shares,
    train_judge,
    verdicts,
)
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models import card
from fifo_diffusion.models.embedded.model import Embedded
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.prompts import OnePrompt
from fifo_diffusion.world.art import Art
from fifo_diffusion.world.captions import plain, say
from fifo_diffusion.world.clips import Caption, World
from fifo_diffusion.world.kinds import KINDS, SMALL, Kind
from fifo_diffusion.world.paraphrases import can_be_unheard, unheard

JUDGE_STEPS: Mapping[str, int] = {"small": 2_000, "large": 3_500}  # of 64 looks, by world
AT_ONCE = 16  # clips
WANTED: Mapping[str, Mapping[str, float | None]] = {  # of base clips, by world, in %
    "small": {"motion": 80, "colour": 90, "scene": 90, "subject": None, "speed": None},
    "large": {"motion": 90, "colour": 90, "scene": 95, "subject": 85, "speed": None},
}


BASE = "base clips: "
WITHIN = 5.0  # points: of the base clips, what is said otherwise


@dataclass(frozen=True)
class Gate:
    """One number that was measured, and what it must be at least, or at most (None: for information)."""

    name: str
    value: float
    wanted: float | None
    unit: str
    at_most: bool = False

    @property
    def passed(self) -> bool:
        return self.wanted is None or (self.value <= self.wanted if self.at_most else self.value >= self.wanted)

    def __str__(self) -> str:
        wanted, limit = "", "at most" if self.at_most else "at least"
        if self.wanted is not None:
            wanted = f"  wanted {limit} {self.wanted:g}  {'passed' if self.passed else 'MISSED'}"
        return f"{self.name:56} {self.value:7.2f} {self.unit:3}{wanted}"


@dataclass(frozen=True)
class Sampling:
    """How base clips are sampled."""

    guidance: float
    steps: int
    eta: float


def measure(
    model: Embedded,
    art: Art,
    size: int,
    folder: Path,
    *,
    clips: int,
    sampling: Sampling,
    judge_steps: int | None = None,
) -> Iterator[Gate]:
    """Gate after gate: the autoencoder on held-out frames, the judge on real clips, base clips by the judge.

    Then the same captions said otherwise, and pairs of subject and scene that the model never saw together.
    """
    kind = KINDS[model.world]
    frames = np.stack([clip[0] for _, clip in held_out(art, size, 512, 1, kind)])
    yield Gate("autoencoder PSNR, held-out scenes", psnr(_autoencoded(model, frames), frames), 30.0, "dB")

    judge, window = trained_judge(art, folder, judge_steps, kind), card("embedded").window
    real = accuracy(judge, held_out(art, size, 400, window, kind))
    for name in JUDGED:
        yield Gate(f"judge on real clips: {name}", 100 * real[name], 99.0, "%")
    if kind.unmet:
        real = accuracy(judge, held_out(art, size, 400, window, kind, unmet=True))
        for name in ("subject", "scene"):
            yield Gate(f"judge on real clips, unmet pairs: {name}", 100 * real[name], 99.0, "%")

    def judged_clips(captions: Sequence[Caption], prompts: Sequence[str]) -> list[Right]:
        return verdicts(judge, base_clips(model, captions, prompts, size, sampling))

    captions, rng = drawn(World(art, size, kind=kind), clips), np.random.default_rng(8)
    base = judged_clips(captions, [plain(caption) for caption in captions])
    found = shares(base, JUDGED)
    for name, wanted in WANTED[kind.name].items():
        if not math.isnan(found[name]):  # no caption has it
            yield Gate(f"{BASE}{name}", 100 * found[name], wanted, "%")

    said = judged_clips(captions, [say(caption, rng, leave_out=0, kind=kind) for caption in captions])
    yield from _otherwise("said otherwise", said, base, kind)
    if not kind.unmet:
        return
    other = [i for i, caption in enumerate(captions) if can_be_unheard(caption)]
    said = judged_clips([captions[i] for i in other], [unheard(captions[i], rng) for i in other])
    yield from _otherwise("in words no caption held", said, [base[i] for i in other], kind)

    captions = drawn(World(art, size, kind=kind, unmet=True), clips)
    found = shares(judged_clips(captions, [plain(caption) for caption in captions]), JUDGED)
    for name in WANTED[kind.name]:
        if not math.isnan(found[name]):
            yield Gate(f"base clips, unmet pairs: {name}", 100 * found[name], None, "%")


def _otherwise(how: str, said: Iterable[Right], base: Iterable[Right], kind: Kind) -> Iterator[Gate]:
    """How many points clips of other words have more than those of the canonical sentence."""
    one, other = shares(base, JUDGED), shares(said, JUDGED)
    for name, wanted in WANTED[kind.name].items():
        least = None if wanted is None else -WITHIN
        if not math.isnan(one[name]):
            yield Gate(f"{how}: {name}", 100 * (other[name] - one[name]), least, "pts")


def drawn(world: World, count: int) -> list[Caption]:
    """The captions that the gates ask for."""
    rng = np.random.default_rng(7)
    return [world.draw_caption(rng) for _ in range(count)]


def base_clips(
    model: Embedded, captions: Sequence[Caption], prompts: Sequence[str], size: int, sampling: Sampling
) -> Iterator[tuple[Caption, NDArray[np.uint8]]]:
    """Clips that the model samples plainly, one timestep for all frames, each with the noise of its own place."""
    schedule = model.schedule(sampling.steps, "even")
    own, side = card("embedded"), size // card("embedded").space
    for first in range(0, len(captions), AT_ONCE):
        batch = slice(first, min(first + AT_ONCE, len(captions)))
        text, negative = model.embed(prompts[batch]), model.embed([""] * len(prompts[batch]))
        like = torch.zeros(len(prompts[batch]), model.channels, own.window, side, side, device=model.device)
        denoise = Guided(model.denoiser(schedule), sampling.guidance)
        noise = SeededNoise(tuple(range(batch.start, batch.stop)))
        *_, latents = sample_clip(denoise, schedule, OnePrompt(text, negative), noise, like, sampling.eta)
        (pixels,) = model.decoder()(iter([latents]))
        yield from zip(captions[batch], to_frames(pixels), strict=True)


def _autoencoded(model: Embedded, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    latents = [model.encode(part[:, None]) for part in torch.split(to_pixels(frames).to(model.device), 64)]
    (pixels,) = model.decoder()(iter([torch.cat(latents)]))
    return to_frames(pixels[:, 0])


def judge_file(folder: Path, steps: int | None = None, kind: Kind = SMALL) -> Path:
    """Where a world's judge is kept; one of other attributes, or that has seen something else, has another name.

    steps: `JUDGE_STEPS`.
    """
    seen = "mirrored" + ", wakes of unlike puffs" * kind.wakes
    knows = sha256((json.dumps(judged(kind)) + seen).encode()).hexdigest()[:8]
    return folder / f"judge-{kind.size}-{steps or JUDGE_STEPS[kind.name]}-{knows}.safetensors"


def trained_judge(art: Art, folder: Path, steps: int | None = None, kind: Kind = SMALL) -> Judge:
    """Trained once and kept in the folder.  steps: `JUDGE_STEPS`."""
    file = judge_file(folder, steps, kind)
    if not file.exists():
        save_file(train_judge(art, steps or JUDGE_STEPS[kind.name], kind).state_dict(), file)
        file.chmod(0o644)  # safetensors writes it for its owner alone
    return load_judge(file, kind)


def load_judge(file: Path, kind: Kind = SMALL) -> Judge:
    judge = Judge(kind)
    judge(torch.zeros(2, LOOK, 3, kind.size, kind.size))  # so that the lazy layer knows its width
    judge.load_state_dict(load_file(file))
    return judge.eval()
