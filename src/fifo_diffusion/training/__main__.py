"""Make the embedded model's weights, step by step: art, autoencoder, clips, diffusion, polish, export.

    python -m fifo_diffusion.training --folder training-run

`--config src/fifo_diffusion/training/large.yaml` makes the larger model.

`--begin WEIGHTS` goes on from finished weights of the model that is made, with their words and autoencoder as they
are; the larger model also grows from the small one's.  With `--polish` nothing but their decoder is trained once
more.  `--independent` trains with a timestep for every frame.  `embedded-df` was made so, from the small model:

    M=src/fifo_diffusion/models/embedded
    python -m fifo_diffusion.training --config src/fifo_diffusion/training/further.yaml --folder DIR --independent
        --begin $M/weights --export $M/weights-df --share

A step whose result is already in the folder is not done again, and an interrupted diffusion step goes on from
its last checkpoint; delete a file to make it again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fifo_diffusion.errors import FifoError
from fifo_diffusion.models.embedded import packed
from fifo_diffusion.models.embedded.model import WEIGHTS, Embedded
from fifo_diffusion.training import answers, autoencoder, diffusion, growing, words
from fifo_diffusion.training.recipe import Recipe
from fifo_diffusion.world.captions import vocabulary
from fifo_diffusion.world.clips import World


def export(recipe: Recipe, folder: Path, into: Path, pictures: str = "polished", rest: Path | None = None) -> None:
    """The three networks and the numbers that rebuild them; pictures: which autoencoder.

    rest: the weights whose autoencoder, text encoder and numbers these have too; they are read from there."""
    into.mkdir(parents=True, exist_ok=True)
    parts = {"transformer": "transformer"}
    if rest is None:
        parts |= {"autoencoder": pictures, "text": "text"}
    for name, source in parts.items():
        packed.write(load_file(folder / f"{source}.safetensors"), into / f"{name}.safetensors", recipe.bits)
    config = _numbers(recipe, folder) if rest is None else {"rest": os.path.relpath(rest, into)}
    (into / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def _numbers(recipe: Recipe, folder: Path) -> dict[str, Any]:
    heard = words.known(folder) if recipe.vectors else vocabulary(recipe.kind)
    config = {"channels": recipe.channels, "timesteps": diffusion.TIMESTEPS, "vocabulary": heard}
    if recipe.world != "small":
        config |= {"world": recipe.world, "patch": recipe.patch}
    if recipe.by_lot:
        config |= {"by_lot": list(recipe.by_lot)}
    if recipe.fine:
        config |= {"fine": recipe.fine}
    if recipe.vectors:
        config |= {"vectors": recipe.vectors, "trained": vocabulary(recipe.kind)}
    return config


def take_over(recipe: Recipe, begin: Path, folder: Path, polish: bool = False) -> None:
    """What of finished weights is not trained further; nothing that is there already.

    That is the autoencoder and the words; or, where the decoder shall be polished once more, all but the decoder.
    """
    taken = {"autoencoder": "autoencoder"}
    taken |= {name: name for name in ("transformer", "text")} if polish else {"polished": "autoencoder"}
    for name, source in taken.items():
        if not (folder / f"{name}.safetensors").exists():
            save_file(packed.read(begin / f"{source}.safetensors"), folder / f"{name}.safetensors")
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
    parser.add_argument("--polish", action="store_true", help="train nothing but the decoder of --begin once more")
    parser.add_argument(
        "--share", action="store_true", help="export the video network alone; the rest stays where --begin has it"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder, started = arguments.folder, time.monotonic()
    try:
        recipe = Recipe.read(arguments.config) if arguments.config else Recipe()
        recipe = replace(recipe, steps=arguments.steps or recipe.steps, independent=arguments.independent)
        goes_on = arguments.begin is not None and not growing.grows(arguments.begin, recipe.patch)
    except FifoError as error:
        parser.error(str(error))
    if recipe.patch != 2 and arguments.export == WEIGHTS:
        parser.error("--export is the package's own folder, which holds the small model; give it another folder")
    if arguments.polish and not goes_on:
        parser.error("--polish trains a finished decoder once more; give --begin the weights of the model that is made")
    if arguments.share and (not goes_on or recipe.text or arguments.polish):
        parser.error("--share is for a video network trained alone; give --begin, and a recipe that says text: false")
    folder.mkdir(parents=True, exist_ok=True)
    if goes_on:
        take_over(recipe, arguments.begin, folder, arguments.polish)

    def report(lines: Iterable[str]) -> None:
        with (folder / "log.txt").open("a") as log:
            for line in lines:
                print(text := f"{time.monotonic() - started:8.1f} s  {line}", flush=True)
                log.write(text + "\n")
                log.flush()

    try:
        _make(recipe, folder, arguments, report)
    except FifoError as error:
        parser.error(str(error))


def _make(recipe: Recipe, folder: Path, arguments: argparse.Namespace, report: Callable[[Iterable[str]], None]) -> None:
    """Step after step, those whose result is there left out."""
    art = recipe.kind.art(folder)
    if recipe.vectors and not (folder / "words.safetensors").exists():
        words.make(vocabulary(recipe.kind), recipe.vectors, folder)
    if not (folder / "autoencoder.safetensors").exists():
        report(autoencoder.train(recipe, art, folder, arguments.begin))
    world = World(art, recipe.size, kind=recipe.kind)
    if not arguments.polish:
        if not (folder / "clips.safetensors").exists():
            report(diffusion.encode_clips(world, diffusion.encoder(recipe, folder), recipe, folder))
        report(diffusion.train(recipe, folder, compiled=arguments.compile, begin=arguments.begin))
    if not (folder / "polished.safetensors").exists():
        if recipe.answers and not (folder / "answers.safetensors").exists():
            export(recipe, folder, folder / "unpolished", "autoencoder")
            model = Embedded(folder / "unpolished", torch.device("cpu"), torch.float32)
            report(answers.make(model, world, recipe, folder))
        report(autoencoder.polish(recipe, art, folder))
    export(recipe, folder, arguments.export, rest=arguments.begin if arguments.share else None)


if __name__ == "__main__":
    main()
