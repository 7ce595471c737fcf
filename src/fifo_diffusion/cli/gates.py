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
    model: Annotated[
        str, option("The model whose shipped weights are judged: embedded, embedded-df or embedded-large.")
    ] = "embedded",
    weights: Annotated[Path | None, option("Other weights to judge, of either world.")] = None,
    clips: Annotated[int, option("Base clips to sample (default: 64).")] = 64,
    guidance: Annotated[float | None, option("Guidance scale (default: the model's).")] = None,
    steps: Annotated[int | None, option("Noise levels (default: as many as FIFO has).")] = None,
    eta: Annotated[float | None, option("Fresh noise while denoising, from 0 to 1 (default: the model's).")] = None,
    streams: Annotated[
        int, option("FIFO streams to judge too, each a prompt of its own; 32 are the gate, and take hours.")
    ] = 0,
    frames: Annotated[int, option("Frames of a stream (default: 1000).")] = 1000,
    partitions: Annotated[
        int | None, option("Windows a stream's queue is cut into (default: the model's).", "--partitions", "-n")
    ] = None,
    threads: Annotated[int | None, option("CPU threads (default: all).")] = None,
) -> None:
    """Measure the embedded model: what of its base clips a judge gets to see that was trained on real renders only.

    The judge is trained once, which takes some minutes, on art that npm fetches, and pip for the larger world; its
    accuracy on real clips is told first.  `fifo evaluate` then judges videos of the embedded worlds too.

    Exit code: 1 when a gate is missed.
    """
    import torch

    from fifo_diffusion import api
    from fifo_diffusion.evaluate.experiment import Experiment
    from fifo_diffusion.evaluate.world import folder as kept

    torch.set_num_threads(threads or torch.get_num_threads())
    asked = Experiment(model, weights, clips, guidance, steps, eta, streams, frames, partitions)
    folder = folder or kept()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}); name another, --folder") from error
    out, found = Console(highlight=False), []
    for gate in asked.gates(folder, api.stream, lambda text: console.print(f"[dim]{text}[/]")):
        out.print(str(gate), soft_wrap=True)
        found.append(gate)
    typer.echo(json.dumps({gate.name: round(gate.value, 3) for gate in found}))
    if not all(gate.passed for gate in found):
        raise typer.Exit(1)
