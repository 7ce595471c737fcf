"""Step two: the video network, on encoded clips; ONE timestep a clip, as ordinary text-to-video models are trained.

Or, as `Recipe.independent` asks, one for every frame: what diagonal denoising would train if it trained anything.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import astuple
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, autocast, nn

from fifo_diffusion.decode import to_pixels
from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.embedded import packed
from fifo_diffusion.models.embedded.autoencoder import Autoencoder
from fifo_diffusion.models.embedded.model import networks
from fifo_diffusion.models.embedded.transformer import patches
from fifo_diffusion.schedule import cosine
from fifo_diffusion.training import words
from fifo_diffusion.training.growing import grow, grows
from fifo_diffusion.training.muon import Muon
from fifo_diffusion.training.recipe import Recipe
from fifo_diffusion.world.captions import say, vocabulary
from fifo_diffusion.world.clips import Caption, World

TIMESTEPS = 1000


class EmbeddedNetworks(nn.Module):
    """What is trained together: the text encoder and the video network."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        """folder: where the word vectors are, if the recipe has some."""
        super().__init__()
        known = words.known(folder) if recipe.vectors else vocabulary(recipe.kind)
        self.text, self.video = networks(recipe.channels, known, recipe.patch, recipe.vectors, fine=recipe.fine)
        if recipe.vectors:
            self.text.embedding.table.copy_(words.table(folder))  # type: ignore[operator]


def encoder(recipe: Recipe, out: Path) -> Autoencoder:
    """The trained autoencoder of the folder."""
    net = Autoencoder(recipe.channels)
    net.load_state_dict(load_file(out / "autoencoder.safetensors"))
    return net.eval()


def encode_clips(world: World, net: Autoencoder, recipe: Recipe, out: Path) -> Iterator[str]:
    """Render and encode the clips once: `clips.safetensors` and the captions' attributes in `captions.npy`.

    Beside the `latents` lies where the subject is: `subject`, (clips, F, h, w) in uint8, 255 where it covers a pixel of
    a latent's patch wholly.
    """
    rng = np.random.default_rng(recipe.seed + 2)
    latents, subject, captions = [], [], []
    for i in range(recipe.clips):
        caption = world.draw_caption(rng)
        frames, covers = zip(*islice(world.covered(caption, rng), recipe.frames), strict=True)
        with torch.inference_mode():
            latents.append(encoded(np.stack(frames), net, recipe))
        cover = nn.functional.adaptive_max_pool2d(torch.from_numpy(np.stack(covers)), latents[-1].shape[-2:])
        subject.append((cover * 255).round().byte())
        captions.append(astuple(caption))
        if (i + 1) % 1000 == 0:
            yield f"clips {i + 1}"
    np.save(out / "captions.npy", np.array(captions))
    stacks = {"latents": torch.stack(latents), "subject": torch.stack(subject)}
    save_file(stacks, out / "clips.safetensors")  # last: it says that the step is done


def encoded(clip: NDArray[np.uint8], net: Autoencoder, recipe: Recipe) -> Tensor:
    """(F, H, W, 3) -> (C, F, h, w), in half precision"""
    with autocast("cpu", torch.bfloat16, enabled=recipe.in_half):
        return net.encode(to_pixels(clip)).half().movedim(0, 1)


def velocity_error(nets: EmbeddedNetworks, x: Tensor, tokens: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the velocity alpha * noise - sigma * x0 (arXiv:2202.00512), of each latent; t (B, F)"""
    kept = cosine(TIMESTEPS)[t].float()[:, None, :, None, None]
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    text, words, heard = (said[:, None] for said in nets.text(tokens))
    guess: Tensor = nets.video(alpha * x + sigma * noise, t.float(), text, words, heard)
    return (guess.float() - (alpha * noise - sigma * x)).square()


def train(
    recipe: Recipe, out: Path, save_every: int = 100, compiled: bool = False, begin: Path | None = None
) -> Generator[str]:
    """Train, or go on from `diffusion.pt`, and write `transformer.safetensors` and `text.safetensors`.

    begin: the folder of finished weights to begin with, instead of random ones.
    compiled: with `torch.compile`, which takes half a minute to begin with and a third off every step.
    """
    torch.manual_seed(recipe.seed)
    clips = load_file(out / "clips.safetensors")
    latents, weights = clips["latents"], _weights(clips, recipe)
    captions = [Caption(*row) for row in np.load(out / "captions.npy").tolist()]
    nets = EmbeddedNetworks(recipe, out)
    if begin is not None and not grows(begin, recipe.patch):
        for net, name in ((nets.video, "transformer"), (nets.text, "text")):
            _begin(net, begin / f"{name}.safetensors")
    elif nets.video.spectrum is not None:
        some = latents[:: max(1, len(latents) // 256), :, ::4].float()
        nets.video.spectrum.fit(patches(some, recipe.patch).flatten(0, 2))
        if begin is not None:
            grow(begin, nets.video, nets.text, np.load(out / "pictures.npy"), encoder(recipe, out))
    average = copy.deepcopy(nets).eval().requires_grad_(False)
    nets.text.requires_grad_(recipe.text)
    optimisers = _optimisers(nets, recipe)
    if compiled:
        for block in nets.video.blocks:
            block.compile()
        if nets.video.detail is not None:
            nets.video.detail.compile()
    done = 0
    if (out / "diffusion.pt").exists():
        saved = torch.load(out / "diffusion.pt", weights_only=True)
        nets.load_state_dict(saved["nets"])
        average.load_state_dict(saved["average"])
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        done = saved["step"]
        yield f"diffusion goes on from step {done}"
    started, recent = time.monotonic(), []
    for step in range(done + 1, recipe.steps + 1):
        rng = np.random.default_rng([recipe.seed, step])  # so that a resumed run draws what it would have drawn
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        scale = min(1.0, step / recipe.rise, (recipe.steps - step + 1) / recipe.cooldown)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["top"] * scale
        picked = drawn(captions, recipe, rng)
        said = ["" if rng.random() < recipe.unconditional else say(captions[i], rng, kind=recipe.kind) for i in picked]
        x = latents[torch.from_numpy(picked)].float()
        t = timesteps(recipe)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss, tokens, noise = 0.0, nets.text.tokens(said), torch.randn_like(x)
        weight = weights[torch.from_numpy(picked)]
        for first in range(0, recipe.batch, size := recipe.at_once or recipe.batch):
            part = slice(first, first + size)
            with autocast("cpu", torch.bfloat16, enabled=recipe.in_half):
                error = velocity_error(nets, x[part], tokens[part], t[part], noise[part])
            share = (error * weight[part]).sum() / x.numel()
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.item()
        torch.nn.utils.clip_grad_norm_(nets.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            keep = min(recipe.average, (1 + step) / (10 + step))
            for slow, fast in zip(average.parameters(), nets.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        recent.append(loss)
        if step % save_every == 0 or step == recipe.steps:
            _save(nets, average, optimisers, step, out)
        if step % min(50, save_every) == 0:
            pace = (time.monotonic() - started) / len(recent)
            yield f"diffusion step {step} loss {np.mean(recent[-50:]):.4f} {pace:.3f} s/step"
    save_file(average.video.state_dict(), out / "transformer.safetensors")
    save_file(average.text.state_dict(), out / "text.safetensors")


def _weights(clips: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """(clips, 1, F, h, w) of mean 1: what the error of each latent counts, more where the subject is.

    Raises:
        BadInput: the clips do not say where it is.
    """
    if not recipe.subject:
        return torch.ones(1).expand(len(clips["latents"]), 1, 1, 1, 1)
    if "subject" not in clips:
        raise BadInput("clips.safetensors does not say where the subjects are; remove it, so that it is made again")
    weights = 1 + recipe.subject / 255 * clips["subject"][:, None].half()
    return weights / weights.float().mean()


def _begin(net: nn.Module, file: Path) -> None:
    """Fill it from finished weights; what sharpens (`Recipe.fine`) may be new.

    Raises:
        BadInput: they are of another network.
    """
    found = packed.read(file)
    new = net.load_state_dict(found, strict=False)
    if new.unexpected_keys or any(not key.startswith("detail.") for key in new.missing_keys):
        other = ", ".join(sorted({key.split(".")[0] for key in (*new.unexpected_keys, *new.missing_keys)}))
        raise BadInput(
            f"{file} is of a network with other layers ({other}) than the recipe's; give --config its recipe"
        )


def drawn(captions: Sequence[Caption], recipe: Recipe, rng: np.random.Generator) -> NDArray[np.int64]:
    """(B,) which clips a step is trained on, those without a way to the side as often as `Recipe.upright` says."""
    edges = np.cumsum([1.0 if caption.motion in ("left", "right") else recipe.upright for caption in captions])
    places: NDArray[np.int64] = np.searchsorted(edges, rng.random(recipe.batch) * edges[-1], side="right")
    return places


def timesteps(recipe: Recipe) -> Tensor:
    """(B, F), spread evenly over the batch: less noise in the loss than independent draws.

    Each is as often in every place of 0 .. 999; more often in the noisy ones, for `noisy_share` of the clips: of these,
    by frame as by clip, no frame tells what the text is needed for.
    """
    noisy = int(recipe.noisy_share * recipe.batch + torch.rand(()).item())
    parts = ((recipe.batch - noisy, 0.0), (noisy, recipe.noisy / TIMESTEPS))
    spread = torch.cat([low + (1 - low) * _spread(clips, recipe) for clips, low in parts])
    return (spread * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)  # in float32 a place just below 1 may be 1


def _spread(clips: int, recipe: Recipe) -> Tensor:
    """(clips, F) in 0 .. 1, evenly"""
    count = clips * (recipe.frames if recipe.independent else 1)
    even = (torch.arange(count) + torch.rand(count)) / count
    if recipe.independent:
        even = even[torch.randperm(count)]
    return even.view(clips, recipe.frames if recipe.independent else 1).expand(-1, recipe.frames)


def _optimisers(nets: EmbeddedNetworks, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest."""
    matrices = [p for n, p in nets.video.blocks.named_parameters() if p.ndim == 2 and "modulation" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in nets.parameters() if p.requires_grad and id(p) not in chosen]
    return [
        Muon([{"params": matrices, "top": recipe.muon_rate}], lr=recipe.muon_rate, weight_decay=0.01),
        torch.optim.AdamW(
            [{"params": rest, "top": recipe.adam_rate}],
            lr=recipe.adam_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
        ),
    ]


def _save(
    nets: EmbeddedNetworks,
    average: EmbeddedNetworks,
    optimisers: list[torch.optim.Optimizer],
    step: int,
    out: Path,
) -> None:
    """Write beside and rename, so that an interrupted run always has a whole checkpoint."""
    beside = out / "diffusion.pt.new"
    states = [optimiser.state_dict() for optimiser in optimisers]
    torch.save(
        {"nets": nets.state_dict(), "average": average.state_dict(), "optimisers": states, "step": step},
        beside,
    )
    os.replace(beside, out / "diffusion.pt")
