"""Step one: the picture autoencoder, on single frames of the world; and its decoder once more at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from fifo_diffusion.decode import psnr, to_frames, to_pixels
from fifo_diffusion.models.embedded.autoencoder import Autoencoder
from fifo_diffusion.training.recipe import Recipe
from fifo_diffusion.world.art import Sprites
from fifo_diffusion.world.clips import HELD_OUT_VARIANTS, TRAIN_VARIANTS, World

Frames = NDArray[np.uint8]


def _pictures(world: World, count: int, seed: int) -> Frames:
    rng = np.random.default_rng(seed)
    return np.stack([next(world.frames(world.draw_caption(rng), rng)) for _ in range(count)])


def _quality(net: Autoencoder, frames: Frames) -> float:
    """PSNR in dB of what is left of the frames."""
    with torch.no_grad():
        parts = torch.split(to_pixels(frames), 64)
        return psnr(np.concatenate([to_frames(net.decode(net.encode(part))) for part in parts]), frames)


def train(recipe: Recipe, sprites: Sprites, out: Path, begin: Path | None = None) -> Iterator[str]:
    """Train and write `autoencoder.safetensors`; yields lines for the log.

    begin: the folder of finished weights to begin with; the networks are convolutions, so of any size of picture.
    """
    torch.manual_seed(recipe.seed)
    net, pictures = Autoencoder(recipe.channels), _Pictures(recipe, sprites)
    if begin is not None:
        net.load_state_dict(load_file(begin / "autoencoder.safetensors"))
    for cycle, (steps, top) in enumerate(recipe.autoencoder_cycles):
        # What PSNR is made of counts more in the later cycles, when edges are already there.
        yield from _cycle(net, pictures, recipe, f"autoencoder cycle {cycle}", steps, top, squares=2 + 8 * cycle)
    net.fit_scale(to_pixels(pictures.seen[:512]))
    np.save(out / "pictures.npy", pictures.seen[:256])  # some, for those who want to see what latents show
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, out / "autoencoder.safetensors")


def polish(recipe: Recipe, sprites: Sprites, out: Path) -> Iterator[str]:
    """Go on with the decoder alone and write `polished.safetensors`: the latents, and so the video network, stay."""
    torch.manual_seed(recipe.seed + 1)
    net = Autoencoder(recipe.channels)
    net.load_state_dict(load_file(out / "autoencoder.safetensors"))
    net.encoder.requires_grad_(False)
    steps, top = recipe.polish
    yield from _cycle(net, _Pictures(recipe, sprites), recipe, "decoder", steps, top, squares=20)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, out / "polished.safetensors")


class _Pictures:
    """Single frames: those that are trained on, and those of held-out scenes."""

    def __init__(self, recipe: Recipe, sprites: Sprites) -> None:
        worlds = [World(sprites, recipe.size, tiles, recipe.kind) for tiles in (TRAIN_VARIANTS, HELD_OUT_VARIANTS)]
        self.seen = _pictures(worlds[0], recipe.pictures, recipe.seed)
        self.held_out = _pictures(worlds[1], min(512, recipe.pictures), recipe.seed + 1)

    def batch(self, recipe: Recipe, rng: np.random.Generator) -> Frames:
        """Whole pictures, or a piece of each somewhere in it."""
        picked = self.seen[rng.integers(0, len(self.seen), recipe.autoencoder_batch)]
        if recipe.crop is None:
            return picked
        corners = rng.integers(0, recipe.size - recipe.crop + 1, (len(picked), 2))
        side = recipe.crop
        return np.stack([p[y : y + side, x : x + side] for p, (y, x) in zip(picked, corners, strict=True)])


def _cycle(
    net: Autoencoder, pictures: _Pictures, recipe: Recipe, name: str, steps: int, top: float, squares: float
) -> Iterator[str]:
    """One rise and fall of the rate; squares: the weight of the squared error beside the absolute one."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=top, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, top, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng([recipe.seed, *name.encode()])  # each cycle its own pictures
    for step in range(1, steps + 1):
        x = to_pixels(pictures.batch(recipe, rng))
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
            z = net.encoder(x.to(memory_format=torch.channels_last))
            y = net.decoder(z + _deviation(recipe, len(z)) * torch.randn_like(z))
        error = functional.l1_loss(y.float(), x) + squares * functional.mse_loss(y.float(), x)
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


def _deviation(recipe: Recipe, count: int) -> Tensor:
    """(count, 1, 1, 1)"""
    least, most = recipe.noise
    return least + (most - least) * torch.rand(count, 1, 1, 1)
