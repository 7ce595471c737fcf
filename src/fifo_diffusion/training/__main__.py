"""Make the embedded model's weights, step by step: art, autoencoder, clips, diffusion, polish, export.

    python -m fifo_diffusion.training --folder training-run

`--config src/fifo_diffusion/training/large.yaml` makes the larger model.

`--begin WEIGHTS` goes on from finished weights of the model that is made, with their words and autoencoder as they
are; the larger model also grows from the small one's.  `--independent` trains with a timestep for every frame.  Both
together make the trained cousin of a training-free method, at the budget that `--steps` says.

A step whose result is already in the folder is not done again, and an interrupted diffusion step goes on from
its last checkpoint; delete a file to make it again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fifo_diffusion.errors import FifoError
from fifo_diffusion.models.embedded.model import WEIGHTS
from fifo_diffusion.training import autoencoder, diffusion, growing, words
from fifo_diffusion.training.recipe import Recipe
from fifo_diffusion.world.captions import vocabulary
from fifo_diffusion.world.clips import World


def export(recipe: Recipe, folder: Path, into: Path) -> None:
    """The three networks in half precision and the numbers that rebuild them."""
    into.mkdir(parents=True, exist_ok=True)
    for source, name in (("polished", "autoencoder"), ("transformer", "transformer"), ("text", "text")):
        weights = {key: value.half().contiguous() for key, value in load_file(folder / f"{source}.safetensors").items()}
        save_file(weights, into / f"{name}.safetensors")
        (into / f"{name}.safetensors").chmod(0o644)  # it is written for its owner alone
    heard = words.known(folder) if recipe.vectors else vocabulary(recipe.kind)
    config = {"channels": recipe.channels, "timesteps": diffusion.TIMESTEPS, "vocabulary": heard}
    if recipe.world != "small":
        config |= {"world": recipe.world, "patch": recipe.patch}
    if recipe.vectors:
        config |= {"vectors": recipe.vectors, "trained": vocabulary(recipe.kind)}
    (into / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def take_over(recipe: Recipe, begin: Path, folder: Path) -> None:
    """What of finished weights is not trained further: autoencoder and words; nothing that is there already."""
    if not (folder / "polished.safetensors").exists():
        weights = {key: value.float() for key, value in load_file(begin / "autoencoder.safetensors").items()}
        for name in ("autoencoder", "polished"):
            save_file(weights, folder / f"{name}.safetensors")
    if recipe.vectors and not (folder / "words.safetensors").exists():
        words.take(begin, folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fifo_diffusion.training", description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints and the log go")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--compile", action="store_true", help="compile the video network; needs a C++ compiler")
    parser.add_argument("--export", type=Path, default=WEIGHTS, help="where the finished weights go")
    parser.add_argument(
        "--config", type=Path, help="a recipe, such as training/large.yaml (default: the small model's)"
    )
    parser.add_argument("--steps", type=int, help="of the video network (default: as many as the recipe says)")
    parser.add_argument("--independent", action="store_true", help="a timestep for every frame, not one a clip")
    parser.add_argument("--begin", type=Path, help="a folder of finished weights to begin with")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder, started = arguments.folder, time.monotonic()
    try:
        recipe = Recipe.read(arguments.config) if arguments.config else Recipe()
    except FifoError as error:
        parser.error(str(error))
    recipe = replace(recipe, steps=arguments.steps or recipe.steps, independent=arguments.independent)
    grown = recipe.patch != 2
    if grown and arguments.export == WEIGHTS:
        parser.error("--export is the package's own folder, which holds the small model; give it another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.begin is not None and not growing.grows(arguments.begin, recipe.patch):
        take_over(recipe, arguments.begin, folder)

    def report(lines: Iterable[str]) -> None:
        with (folder / "log.txt").open("a") as log:
            for line in lines:
                print(text := f"{time.monotonic() - started:8.1f} s  {line}", flush=True)
                log.write(text + "\n")
                log.flush()

    try:
        sprites = recipe.kind.load_sprites(recipe.kind.fetch(folder / "art"), recipe.size)
        if recipe.vectors and not (folder / "words.safetensors").exists():
            words.make(vocabulary(recipe.kind), recipe.vectors, folder)
    except FifoError as error:
        parser.error(str(error))
    if not (folder / "autoencoder.safetensors").exists():
        report(autoencoder.train(recipe, sprites, folder, arguments.begin))
    if not (folder / "clips.safetensors").exists():
        net = diffusion.encoder(recipe, folder)
        report(diffusion.encode_clips(World(sprites, recipe.size, kind=recipe.kind), net, recipe, folder))
    report(diffusion.train(recipe, folder, compiled=arguments.compile, begin=arguments.begin))
    if not (folder / "polished.safetensors").exists():
        report(autoencoder.polish(recipe, sprites, folder))
    export(recipe, folder, arguments.export)


if __name__ == "__main__":
    main()
