"""`fifo evaluate gates`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fifo_diffusion.cli.app import console, option
from fifo_diffusion.cli.evaluate import evaluation
from fifo_diffusion.errors import BadInput, OutputError


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
    from fifo_diffusion.evaluate.gates import BASE, Gate, Sampling, measure, trained_judge
    from fifo_diffusion.evaluate.stream_gates import real_jitter, stream_gates
    from fifo_diffusion.evaluate.stream_gates import streams as judged_streams
    from fifo_diffusion.evaluate.world import folder as kept
    from fifo_diffusion.models import card
    from fifo_diffusion.models.embedded.model import SHIPPED, Embedded
    from fifo_diffusion.world.clips import World
    from fifo_diffusion.world.kinds import KINDS

    out = Console(highlight=False)
    torch.set_num_threads(threads or torch.get_num_threads())
    if model not in SHIPPED:
        raise BadInput(f"model {model!r} has no gates; those that have are {', '.join(SHIPPED)}")
    own = card(model)
    if clips < 1 or streams < 0 or frames < own.window:
        raise BadInput(
            f"{clips} clips, {streams} streams of {frames} frames were asked for; give 1 clip or more, 0 streams or "
            f"more, of {own.window} frames or more"
        )
    if partitions is not None and partitions < 1:
        raise BadInput(f"partitions is {partitions}; give 1 or more, or leave it out for {model}'s {own.partitions}")
    folder = folder or kept()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}); name another, --folder") from error
    network = Embedded(weights or SHIPPED[model], torch.device("cpu"), torch.float32)
    kind = KINDS[network.world]
    art = kind.art(folder)
    sampling = Sampling(
        own.guidance if guidance is None else guidance,
        own.window * own.partitions if steps is None else steps,
        own.eta if eta is None else eta,
    )
    found: list[Gate] = []

    def tell(gates: Iterable[Gate]) -> None:
        for gate in gates:
            out.print(str(gate), soft_wrap=True)
            found.append(gate)

    console.print("[dim]the judge is trained first where it is not there yet[/]")
    tell(measure(network, art, kind.size, folder, clips=clips, sampling=sampling))
    if streams:
        world = World(art, kind.size, kind=kind)
        base = {gate.name.removeprefix(BASE): gate.value for gate in found if gate.name.startswith(BASE)}
        settings = {
            "device": "cpu",  # as the base clips are, which they are held against
            "dtype": "float32",
            "model": model if weights is None else kind.model,
            "weights": weights and str(weights),
            "guidance": sampling.guidance,
            "eta": sampling.eta,
            "partitions": partitions or own.partitions,
        }
        made = []
        for one in judged_streams(
            api.stream,
            network,
            trained_judge(art, folder, kind=kind),
            world,
            folder,
            count=streams,
            frames=frames,
            settings=settings,
        ):
            made.append(one)
            console.print(f"[dim]{len(made)} of {streams} streams are judged[/]")
        tell(stream_gates(kind.name, base, made, real_jitter(world, streams, 2 * own.window)))
    typer.echo(json.dumps({gate.name: round(gate.value, 3) for gate in found}))
    if not all(gate.passed for gate in found):
        raise typer.Exit(1)
