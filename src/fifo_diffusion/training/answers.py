"""What the video network makes of clips of the world: what the decoder sees of a video, beside what it should show.

A clip is noised a part of the way and denoised again as a video is, with guidance.  It is the same clip then, but for
the network's own slips, and these are unlike the white noise that a decoder is made calm with otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from fifo_diffusion.baseclip import answering, descend
from fifo_diffusion.decode import to_pixels
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models import card
from fifo_diffusion.models.embedded.model import Embedded
from fifo_diffusion.noise import SeededNoise, draw
from fifo_diffusion.prompts import OnePrompt
from fifo_diffusion.training.recipe import Recipe
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.clips import World

AT_ONCE = 4  # clips
KEPT = 6  # frames of each: those of one clip are alike


@torch.no_grad()
def make(model: Embedded, world: World, recipe: Recipe, out: Path) -> Iterator[str]:
    """Write `answers.safetensors`: of each frame that is kept the latents (C, h, w) and the picture (H, W, 3).

    Which level a clip is noised to, and how much fresh noise it hears on the way down (eta), is drawn.
    """
    own, rng = card(recipe.kind.model), np.random.default_rng(recipe.seed + 3)
    schedule = model.schedule(own.window * own.partitions, "even")
    denoise, negative = Guided(model.denoiser(schedule), own.guidance), model.embed([""] * AT_ONCE)
    latents: list[Tensor] = []
    pictures: list[NDArray[np.uint8]] = []
    for first in range(0, recipe.answers, AT_ONCE):
        captions = [world.draw_caption(rng) for _ in range(AT_ONCE)]
        clips = np.stack([world.clip(caption, rng, recipe.frames) for caption in captions])
        said = OnePrompt(model.embed([plain(caption) for caption in captions]), negative)
        z = model.encode(torch.stack([to_pixels(clip) for clip in clips]))
        noise = SeededNoise(tuple(range(first, first + AT_ONCE)))
        begin = int(rng.integers(*recipe.answered))
        z = schedule.add_noise(z, draw(noise, 0, begin, z), torch.full((recipe.frames,), begin))
        *_, z = descend(
            answering(denoise, schedule, said, recipe.frames), schedule, noise, z, rng.random(), begin=begin
        )
        kept = rng.permutation(recipe.frames)[:KEPT]
        latents.append(z[:, :, kept].movedim(1, 2).flatten(0, 1).half())
        pictures.append(clips[:, kept].reshape(-1, *clips.shape[2:]))
        if (first + AT_ONCE) % 40 == 0:
            yield f"answers to {first + AT_ONCE} clips"
    whole = {"latents": torch.cat(latents).contiguous(), "pictures": torch.from_numpy(np.concatenate(pictures))}
    save_file(whole, out / "answers.safetensors")


def read(out: Path) -> tuple[Tensor, NDArray[np.uint8]]:
    """(N, C, h, w) in half precision and (N, H, W, 3)"""
    whole = load_file(out / "answers.safetensors")
    return whole["latents"], whole["pictures"].numpy()
