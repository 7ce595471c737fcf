"""Step one: the picture autoencoder, on single frames of the world; and its decoder once more at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from fifo_diffusion.decode import psnr, to_frames, to_pixels
from fifo_diffusion.models.embedded import packed
from fifo_diffusion.models.embedded.autoencoder import SPACE, Autoencoder
from fifo_diffusion.training import answers
from fifo_diffusion.training.recipe import Recipe
from fifo_diffusion.world.art import Art
from fifo_diffusion.world.clips import HELD_OUT_VARIANTS, TRAIN_VARIANTS, World

Frames = NDArray[np.uint8]
ANSWERED = 0.7  # of a batch, where there are answers


def _pictures(world: World, count: int, seed: int) -> Frames:
    rng = np.random.default_rng(seed)
    return np.stack([next(world.frames(world.draw_caption(rng), rng)) for _ in range(count)])


def _quality(net: Autoencoder, frames: Frames) -> float:
    """PSNR in dB of what is left of the frames."""
    with torch.no_grad():
        parts = torch.split(to_pixels(frames), 64)
        return psnr(np.concatenate([to_frames(net.decode(net.encode(part))) for part in parts]), frames)


def train(recipe: Recipe, art: Art, out: Path, begin: Path | None = None) -> Iterator[str]:
    """Train and write `autoencoder.safetensors`; yields lines for the log.

    begin: the folder of finished weights to begin with; the networks are convolutions, so of any size of picture.
    """
    torch.manual_seed(recipe.seed)
    net, pictures = Autoencoder(recipe.channels), Pictures(recipe, art)
    if begin is not None:
        net.load_state_dict(packed.read(begin / "autoencoder.safetensors"))
    for cycle, (steps, top) in enumerate(recipe.autoencoder_cycles):
        # What PSNR is made of counts more in the later cycles, when edges are already there.
        weights = _Weights(squares=2 + 8 * cycle)
        yield from _cycle(net, pictures, recipe, f"autoencoder cycle {cycle}", steps, top, weights)
    net.fit_scale(to_pixels(pictures.seen[:512]))
    np.save(out / "pictures.npy", pictures.seen[:256])  # some, for those who want to see what latents show
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, out / "autoencoder.safetensors")


def polish(recipe: Recipe, art: Art, out: Path) -> Iterator[str]:
    """Go on with the decoder alone and write `polished.safetensors`: the latents, and so the video network, stay.

    Where the recipe asks for the video network's answers, they are in the folder already (`answers`).
    """
    torch.manual_seed(recipe.seed + 1)
    net = Autoencoder(recipe.channels)
    net.load_state_dict(load_file(out / "autoencoder.safetensors"))
    net.encoder.requires_grad_(False)
    steps, top = recipe.polish
    pictures = Pictures(recipe, art)
    # Squares alone would have an uncertain edge blurred; its slope counts too where the network is uncertain.
    weights = _Weights(squares=4, slopes=1) if recipe.answers else _Weights(squares=20)
    if recipe.answers:
        pictures.answers = answers.read(out)
    yield from _cycle(net, pictures, recipe, "decoder", steps, top, weights)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, out / "polished.safetensors")


@dataclass(frozen=True)
class _Weights:
    """Of the squared error, and of the absolute one of slopes, beside the absolute error."""

    squares: float
    slopes: float = 0.0


class Pictures:
    """Single frames: those that are trained on, and those of held-out scenes."""

    answers: tuple[Tensor, Frames] | None = None  # latents that stand for pictures, see `training.answers`

    def __init__(self, recipe: Recipe, art: Art) -> None:
        worlds = [World(art, recipe.size, tiles, recipe.kind) for tiles in (TRAIN_VARIANTS, HELD_OUT_VARIANTS)]
        self.seen = _pictures(worlds[0], recipe.pictures, recipe.seed)
        self.held_out = _pictures(worlds[1], min(512, recipe.pictures), recipe.seed + 1)

    def batch(self, recipe: Recipe, rng: np.random.Generator) -> tuple[Frames, Tensor]:
        """Pictures, whole or a piece of each somewhere in it, and the latents that stand for the first of them."""
        count = recipe.autoencoder_batch
        taken, latents = 0, torch.zeros(0)
        if self.answers is not None:
            taken = round(ANSWERED * count)
            picked = rng.integers(0, len(self.answers[1]), taken)
            latents, shown = self.answers[0][picked].float(), self.answers[1][picked]
        pictures = self.seen[rng.integers(0, len(self.seen), count - taken)]
        if taken:
            pictures = np.concatenate([shown, pictures])
        if (side := recipe.crop) is None:
            return pictures, latents
        # In whole latents, so that a piece of a picture and of its latents show the same.
        cells = side // SPACE
        corners = rng.integers(0, (recipe.size - side) // SPACE + 1, (count, 2))
        pieces = [p[y : y + side, x : x + side] for p, (y, x) in zip(pictures, SPACE * corners, strict=True)]
        parts = [z[:, y : y + cells, x : x + cells] for z, (y, x) in zip(latents, corners[:taken], strict=True)]
        return np.stack(pieces), torch.stack(parts) if taken else latents


def _cycle(
    net: Autoencoder, pictures: Pictures, recipe: Recipe, name: str, steps: int, top: float, weights: _Weights
) -> Iterator[str]:
    """One rise and fall of the rate."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=top, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, top, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng([recipe.seed, *name.encode()])  # each cycle its own pictures
    for step in range(1, steps + 1):
        shown, latents = pictures.batch(recipe, rng)
        x, known = to_pixels(shown), len(latents)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.in_half):
            z = net.encoder(x[known:].to(memory_format=torch.channels_last))
            heard = z + _deviation(recipe, len(z)) * torch.randn_like(z)
            if known:
                heard = torch.cat([latents * net.deviation + net.mean, heard])
            y = net.decoder(heard).float()
        error = functional.l1_loss(y, x) + weights.squares * functional.mse_loss(y, x)
        if weights.slopes:
            error = error + weights.slopes * (_slopes(y) - _slopes(x)).abs().mean()
        loss = error + 1e-4 * z.float().square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        rate.step()
        if step % 50 == 0:
            yield f"{name} step {step} loss {loss.item():.4f}"
        if step % 300 == 0 or step == steps:
            yield f"{name} step {step} held-out PSNR {_quality(net, pictures.held_out):.2f} dB"


def _slopes(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (2, B, 3, H - 1, W - 1), down and to the right."""
    here = x[..., :-1, :-1]
    return torch.stack([x[..., 1:, :-1] - here, x[..., :-1, 1:] - here])


def _deviation(recipe: Recipe, count: int) -> Tensor:
    """(count, 1, 1, 1)"""
    least, most = recipe.noise
    return least + (most - least) * torch.rand(count, 1, 1, 1)
