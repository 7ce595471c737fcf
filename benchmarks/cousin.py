"""A method without training against a network that was trained for it, at equal budget (docs/method.md).

    python benchmarks/cousin.py --folder DIR --twin WEIGHTS [--cousin WEIGHTS] [--seeds 12] [--only 'n 4 last' ...]

Twin and cousin went on from the same weights for as many steps on the same clips, the twin with one timestep a clip, as
ordinary models are trained, the cousin with one for every frame (diffusion forcing, arXiv:2407.01392; the shipped
`embedded-df` unless --cousin says otherwise).  How both are made: training/further.yaml.

Streams as in `fidelity.py`, with the same prompts, seeds and noise for both, but measured against real renders of their
prompts instead of the network's own clips: two networks have no clips in common.  *clips* are what a network samples
plainly, every frame at the same level.  Frames 16-47; mean over streams ± its standard error; then what each has more
of than the twin under the paper's settings (n 4 last), stream by stream.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from exact import STRETCH
from fidelity import (
    CAPTIONS,
    SETTINGS,
    TABLES,
    Eyes,
    Setting,
    Values,
    latents_of,
    make,
    own_clips,
    paired,
    path,
    summary,
)
from fifo_diffusion import models
from fifo_diffusion.decode import to_pixels
from fifo_diffusion.evaluate.gates import trained_judge
from fifo_diffusion.models.embedded.model import WEIGHTS_DF
from fifo_diffusion.world.clips import Caption, World
from fifo_diffusion.world.kinds import SMALL
from report import show

REAL = 24  # renders of each prompt
CLIPS: Mapping[str, Setting] = {"clips": {}, "guided clips": {"guidance": 4.0}}
FIRST = "twin, n 4 last"
STREAMS: Mapping[str, Setting] = {
    **{name: SETTINGS[name] for name in ("n 4 last", "n 1 off", "n 1 6-14, 4 levels a place", "guided n 4 last")},
    "guided n 1 off": {**SETTINGS["n 1 off"], "guidance": 4.0},
}


def real(eyes: Eyes, caption: Caption) -> Tensor:
    """(REAL, C, 16, h, w)"""
    rngs = [np.random.default_rng([5, i]) for i in range(REAL)]
    return torch.cat([eyes.model.encode(to_pixels(eyes.world.clip(caption, rng, STRETCH))[None]) for rng in rngs])


def values(eyes: Eyes, folder: Path, real: Mapping[int, Tensor], seeds: range) -> Iterator[tuple[str, Values]]:
    """Of the streams of one network that are there, and of its clips, a prompt each."""
    for name in STREAMS:
        files = {seed: path(folder, name, seed) for seed in seeds}
        latents = {seed: load_file(file)["latents"] for seed, file in files.items() if file.exists()}
        of = {s: eyes.stream(x, CAPTIONS[s % len(CAPTIONS)], real[s % len(CAPTIONS)]) for s, x in latents.items()}
        if of:
            yield name, of
    for name in CLIPS:
        yield name, {p: eyes.own(load_file(path(folder, name, p))["latents"], CAPTIONS[p], real[p]) for p in real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where latents, the art and the judge are kept")
    parser.add_argument("--twin", required=True, help="weights of the twin")
    parser.add_argument("--cousin", default=str(WEIGHTS_DF), help="weights of the cousin (default: those that ship)")
    parser.add_argument("--seeds", type=int, default=2 * len(CAPTIONS))
    parser.add_argument("--only", nargs="*", default=list(STREAMS), choices=list(STREAMS))
    arguments = parser.parse_args()
    seeds, networks = range(arguments.seeds), {"twin": arguments.twin, "cousin": arguments.cousin}
    there = {who: latents_of(arguments.folder, weights) for who, weights in networks.items()}
    prompts = range(min(len(CAPTIONS), len(seeds)))
    for who, weights in networks.items():
        for name, setting in CLIPS.items():
            for prompt in prompts:
                if not (file := path(there[who], name, prompt)).exists():
                    own_clips(setting, prompt, weights, file)
    for seed in seeds:
        for who, weights in networks.items():
            for name in arguments.only:
                if not (file := path(there[who], name, seed)).exists():
                    make(STREAMS[name], seed, weights, file)
                    print(file, flush=True)
    torch.set_grad_enabled(False)
    model, size = models.load("embedded", torch.device("cpu"), torch.float32), models.card("embedded").size[0]
    art = SMALL.art(arguments.folder)
    eyes = Eyes(model, trained_judge(art, arguments.folder), World(art, size))
    renders = {prompt: real(eyes, CAPTIONS[prompt]) for prompt in prompts}
    each: dict[str, Values] = {
        "real renders": {s: eyes.real(CAPTIONS[s % len(CAPTIONS)], s) for s in seeds},
        **{f"{who}, {name}": found for who in networks for name, found in values(eyes, there[who], renders, seeds)},
    }
    rows = [summary(name, list(of.values())) for name, of in each.items()]
    for title, names in TABLES.items():
        kept = [{n: row.get(n, "") for n in ("setting", "streams", *names)} for row in rows]
        show(title.replace("fidelity", "cousin"), kept)
    streams = {name: of for name, of in each.items() if name.endswith(tuple(STREAMS))}
    show(f"cousin: more than {FIRST}", list(paired(streams, FIRST)))


if __name__ == "__main__":
    main()
