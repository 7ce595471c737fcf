"""Print the embedded model's gates: `python -m fifo_diffusion.evaluate --folder DIR`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from fifo_diffusion.errors import FifoError
from fifo_diffusion.evaluate.gates import measure
from fifo_diffusion.models import card
from fifo_diffusion.models.embedded.model import WEIGHTS, Embedded
from fifo_diffusion.world.art import fetch, load_sprites


def main() -> None:
    own = card("embedded")
    parser = argparse.ArgumentParser(
        prog="python -m fifo_diffusion.evaluate", description="The embedded model's gates."
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the art and the trained judge are kept")
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="the weights to judge (default: the shipped ones)"
    )
    parser.add_argument("--clips", type=int, default=64, help="base clips to sample")
    parser.add_argument("--guidance", type=float, default=own.guidance)
    parser.add_argument("--steps", type=int, default=own.window * own.partitions)
    parser.add_argument("--eta", type=float, default=own.eta)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        sprites = load_sprites(fetch(arguments.folder / "art"), own.size[0])
        model = Embedded(arguments.weights, torch.device("cpu"), torch.float32)
    except FifoError as error:
        parser.error(str(error))
    gates = []
    for gate in measure(
        model,
        sprites,
        own.size[0],
        arguments.folder,
        clips=arguments.clips,
        guidance=arguments.guidance,
        steps=arguments.steps,
        eta=arguments.eta,
    ):
        wanted = "" if gate.wanted is None else f"  wanted {gate.wanted:g}  {'passed' if gate.passed else 'MISSED'}"
        print(f"{gate.name:40} {gate.value:7.2f} {gate.unit:3}{wanted}", flush=True)
        gates.append(gate)
    print(json.dumps({gate.name: round(gate.value, 3) for gate in gates}))
    sys.exit(0 if all(gate.passed for gate in gates) else 1)


if __name__ == "__main__":
    main()
