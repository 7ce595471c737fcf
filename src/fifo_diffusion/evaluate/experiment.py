"""All gates of a model of an embedded world: those of its base clips and, if asked for, of its streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fifo_diffusion.errors import BadInput
from fifo_diffusion.evaluate.gates import BASE, Gate, Sampling, measure, trained_judge
from fifo_diffusion.evaluate.stream_gates import real_jitter, stream_gates, streams
from fifo_diffusion.models import card
from fifo_diffusion.models.embedded.model import SHIPPED, Embedded
from fifo_diffusion.world.clips import World
from fifo_diffusion.world.kinds import KINDS


@dataclass(frozen=True)
class Experiment:
    """What is judged, and how it is run.  None: the model's own.  Raises BadInput."""

    model: str
    weights: Path | None  # of either world
    clips: int
    guidance: float | None
    steps: int | None  # noise levels of a base clip; None: as many as FIFO has
    eta: float | None
    streams: int
    frames: int  # of a stream
    partitions: int | None  # of a stream

    def __post_init__(self) -> None:
        if self.model not in SHIPPED:
            raise BadInput(f"model {self.model!r} has no gates; those that have are {', '.join(SHIPPED)}")
        own = card(self.model)
        if self.clips < 1 or self.streams < 0 or self.frames < own.window:
            raise BadInput(
                f"{self.clips} clips, {self.streams} streams of {self.frames} frames were asked for; give 1 clip or "
                f"more, 0 streams or more, of {own.window} frames or more"
            )
        if self.partitions is not None and self.partitions < 1:
            raise BadInput(
                f"partitions is {self.partitions}; give 1 or more, or leave it out for {self.model}'s {own.partitions}"
            )

    def gates(
        self, folder: Path, make: Callable[..., Iterator[NDArray[np.uint8]]], say: Callable[[str], None]
    ) -> Iterator[Gate]:
        """Gate after gate, on the CPU.

        folder: of the art, the trained judge and what was found of streams.  make: `fifo_diffusion.stream`.  say: hears
        what takes so long.
        """
        own = card(self.model)
        network = Embedded(self.weights or SHIPPED[self.model], torch.device("cpu"), torch.float32)
        kind = KINDS[network.world]
        art = kind.art(folder)
        sampling = Sampling(
            own.guidance if self.guidance is None else self.guidance,
            own.window * own.partitions if self.steps is None else self.steps,
            own.eta if self.eta is None else self.eta,
        )
        say("the judge is trained first where it is not there yet")
        base: dict[str, float] = {}
        for gate in measure(network, art, kind.size, folder, clips=self.clips, sampling=sampling):
            yield gate
            if gate.name.startswith(BASE):
                base[gate.name.removeprefix(BASE)] = gate.value
        if not self.streams:
            return
        judge, world, seen = trained_judge(art, folder, kind=kind), World(art, kind.size, kind=kind), []
        settings = {
            "device": "cpu",  # as the base clips are, which they are held against
            "dtype": "float32",
            "model": self.model if self.weights is None else kind.model,
            "weights": self.weights and str(self.weights),
            "guidance": sampling.guidance,
            "eta": sampling.eta,
            "partitions": self.partitions or own.partitions,
        }
        for one in streams(
            make, network, judge, world, folder, count=self.streams, frames=self.frames, settings=settings
        ):
            seen.append(one)
            say(f"{len(seen)} of {self.streams} streams are judged")
        yield from stream_gates(kind.name, base, seen, real_jitter(world, self.streams, 2 * own.window))
