"""The gates of the embedded model: what it must reach before anything is claimed of it.

The judge is trained on real renders only, and its own accuracy on held-out real clips stands beside the
model's; a gate is only as good as that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from fifo_diffusion.baseclip import sample_clip
from fifo_diffusion.decode import psnr, to_frames, to_pixels
from fifo_diffusion.evaluate.judge import JUDGED, LOOK, Judge, accuracy, held_out, judged, train_judge
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models import card
from fifo_diffusion.models.embedded.model import Embedded
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.prompts import OnePrompt
from fifo_diffusion.world.art import Sprites
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.clips import Caption, World
from fifo_diffusion.world.kinds import KINDS, SMALL, Kind

JUDGE_STEPS = 2_000  # of 64 looks: right in all of 400 held-out real clips


WANTED: Mapping[str, Mapping[str, float | None]] = {  # of base clips, by world, in %
    "small": {"motion": 80, "colour": 90, "scene": 90, "subject": None, "speed": None},
    "large": {"motion": 90, "colour": 90, "scene": 95, "subject": 85, "speed": None},
}


@dataclass(frozen=True)
class Gate:
    """One number that was measured, and what it must be at least (None: for information)."""

    name: str
    value: float
    wanted: float | None
    unit: str

    @property
    def passed(self) -> bool:
        return self.wanted is None or self.value >= self.wanted


def measure(
    model: Embedded,
    sprites: Sprites,
    size: int,
    folder: Path,
    *,
    clips: int,
    guidance: float,
    steps: int,
    eta: float,
    judge_steps: int = JUDGE_STEPS,
) -> Iterator[Gate]:
    """Measure gate after gate: the autoencoder on held-out frames, the judge on real clips, base clips by the judge."""
    kind = KINDS[model.world]
    frames = np.stack([clip[0] for _, clip in held_out(sprites, size, 512, 1, kind)])
    yield Gate("autoencoder PSNR, held-out scenes", psnr(_autoencoded(model, frames), frames), 30.0, "dB")

    judge = trained_judge(sprites, size, folder, judge_steps, kind)
    real = accuracy(judge, held_out(sprites, size, 400, card("embedded").window, kind))
    for name in JUDGED:
        yield Gate(f"judge on real clips: {name}", 100 * real[name], 99.0, "%")

    base = accuracy(judge, base_clips(model, sprites, size, clips, guidance, steps, eta))
    for name, wanted in WANTED[kind.name].items():
        yield Gate(f"base clips: {name}", 100 * base[name], wanted, "%")


def base_clips(
    model: Embedded,
    sprites: Sprites,
    size: int,
    count: int,
    guidance: float,
    steps: int,
    eta: float,
    at_once: int = 16,
) -> Iterator[tuple[Caption, NDArray[np.uint8]]]:
    """Clips that the model samples plainly, one timestep for all frames, for captions drawn from the world."""
    world, rng = World(sprites, size, kind=KINDS[model.world]), np.random.default_rng(7)
    captions = [world.draw_caption(rng) for _ in range(count)]
    schedule = model.schedule(steps, "even")
    own, side = card("embedded"), size // card("embedded").space
    for first in range(0, count, at_once):
        batch = captions[first : first + at_once]
        text, negative = model.embed([plain(c) for c in batch]), model.embed([""] * len(batch))
        like = torch.zeros(len(batch), model.channels, own.window, side, side, device=model.device)
        noise = SeededNoise(tuple(range(first, first + len(batch))))
        denoise = Guided(model.denoiser(schedule), guidance)
        *_, latents = sample_clip(denoise, schedule, OnePrompt(text, negative), noise, like, eta)
        (pixels,) = model.decoder()(iter([latents]))
        yield from zip(batch, to_frames(pixels), strict=True)


def _autoencoded(model: Embedded, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    latents = [model.encode(part[:, None]) for part in torch.split(to_pixels(frames).to(model.device), 64)]
    (pixels,) = model.decoder()(iter([torch.cat(latents)]))
    return to_frames(pixels[:, 0])


def judge_file(folder: Path, size: int, steps: int = JUDGE_STEPS, kind: Kind = SMALL) -> Path:
    """Where a judge of this size is kept; one of other attributes has another name."""
    knows = sha256(json.dumps(judged(kind)).encode()).hexdigest()[:8]
    return folder / f"judge-{size}-{steps}-{knows}.safetensors"


def trained_judge(sprites: Sprites, size: int, folder: Path, steps: int = JUDGE_STEPS, kind: Kind = SMALL) -> Judge:
    """Trained once and kept in the folder."""
    file = judge_file(folder, size, steps, kind)
    if not file.exists():
        save_file(train_judge(sprites, size, steps, kind).state_dict(), file)
    return load_judge(file, size, kind)


def load_judge(file: Path, size: int, kind: Kind = SMALL) -> Judge:
    judge = Judge(kind)
    judge(torch.zeros(2, LOOK, 3, size, size))  # so that the lazy layer knows its width
    judge.load_state_dict(load_file(file))
    return judge.eval()
