"""`fifo evaluate gates`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fifo_diffusion.cli.app import console, option
from fifo_diffusion.cli.evaluate import evaluation
from fifo_diffusion.errors import OutputError


@evaluation.command("gates")
def gates(
    folder: Annotated[Path | None, option("Where the art and the trained judge are kept (default: the cache).")] = None,
    weights: Annotated[Path | None, option("The weights to judge (default: the shipped ones).")] = None,
    clips: Annotated[int, option("Base clips to sample (default: 64).")] = 64,
    guidance: Annotated[float | None, option("Guidance scale (default: the model's).")] = None,
    steps: Annotated[int | None, option("Noise levels (default: as many as FIFO has).")] = None,
    eta: Annotated[float | None, option("Fresh noise while denoising, from 0 to 1 (default: the model's).")] = None,
    threads: Annotated[int | None, option("CPU threads (default: all).")] = None,
) -> None:
    """Measure the embedded model: what of its base clips a judge gets to see that was trained on real renders only.

    The judge is trained once, which takes some minutes, on art that is fetched from npm; its own accuracy on real clips
    is told first.  `fifo evaluate` then judges videos of the embedded world too.

    Exit code: 1 when a gate is missed.
    """
    import torch

    from fifo_diffusion.evaluate.gates import measure
    from fifo_diffusion.evaluate.world import folder as kept
    from fifo_diffusion.models import card
    from fifo_diffusion.models.embedded.model import WEIGHTS, Embedded
    from fifo_diffusion.world.kinds import KINDS

    own, out = card("embedded"), Console(highlight=False)
    torch.set_num_threads(threads or torch.get_num_threads())
    folder = folder or kept()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}); name another, --folder") from error
    model = Embedded(weights or WEIGHTS, torch.device("cpu"), torch.float32)
    kind = KINDS[model.world]
    sprites = kind.load_sprites(kind.fetch(folder / "art"), kind.size)
    found = []
    console.print("[dim]the judge is trained first where it is not there yet[/]")
    for gate in measure(
        model,
        sprites,
        kind.size,
        folder,
        clips=clips,
        guidance=own.guidance if guidance is None else guidance,
        steps=own.window * own.partitions if steps is None else steps,
        eta=own.eta if eta is None else eta,
    ):
        wanted = "" if gate.wanted is None else f"  wanted {gate.wanted:g}  {'passed' if gate.passed else 'MISSED'}"
        out.print(f"{gate.name:40} {gate.value:7.2f} {gate.unit:3}{wanted}")
        found.append(gate)
    typer.echo(json.dumps({gate.name: round(gate.value, 3) for gate in found}))
    if not all(gate.passed for gate in found):
        raise typer.Exit(1)
