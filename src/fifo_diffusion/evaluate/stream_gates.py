"""The gates of long streams: does FIFO hold, block after block, what the model's own clips reach?

A stream is judged in stretches as long as a base clip, so that its share of right ones and theirs are the same
measure.  What was found of a stream is kept in the folder, so that hours of streams can be stopped and gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fifo_diffusion.evaluate.gates import WANTED, WITHIN, Gate, drawn
from fifo_diffusion.evaluate.judge import Judge, Right, shares, verdicts
from fifo_diffusion.evaluate.means import mean_and_error, student
from fifo_diffusion.evaluate.metric import Video
from fifo_diffusion.evaluate.temporal import Flicker
from fifo_diffusion.models import card
from fifo_diffusion.models.embedded.model import Embedded
from fifo_diffusion.whole import write_whole
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.clips import Caption, World

BLOCK = 100  # frames
STEADY = 15.0  # %: of real renders' jitter, how far a stream's may be away

Found = Mapping[str, Any]  # "right": by block, what is right of every stretch; "jitter": the mean, see `Flicker`


def streams(
    make: Callable[..., Iterator[NDArray[np.uint8]]],
    model: Embedded,
    judge: Judge,
    world: World,
    folder: Path,
    *,
    count: int,
    frames: int,
    settings: Mapping[str, Any],
) -> Iterator[Found]:
    """What is found of each stream, of the prompts and seeds that the base clips have.

    make: `fifo_diffusion.stream`, of this model in its settings.  What another judge found is not taken for this one's.
    """
    judged_by = sha256(b"".join(value.numpy().tobytes() for value in judge.state_dict().values())).hexdigest()
    what = [model.weights, judged_by, frames, dict(settings)]
    key = sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    (folder / "streams").mkdir(parents=True, exist_ok=True)
    for seed, caption in enumerate(drawn(world, count)):
        file = folder / "streams" / f"{key}-{seed}.json"
        if not file.exists():
            made = make(plain(caption), seed=seed, frames=frames, **settings)
            write_whole(file, json.dumps(found(judge, caption, made, frames)).encode())
        yield json.loads(file.read_text())


def found(judge: Judge, caption: Caption, made: Iterator[NDArray[np.uint8]], frames: int) -> Found:
    """Takes the frames block by block; a last block that is not whole is judged too if it holds a stretch."""
    window, right = card("embedded").window, []
    jitter: list[float] = []
    meter = None
    for first in range(0, frames, BLOCK):
        block = np.stack(list(islice(made, min(BLOCK, frames - first))))
        meter = meter or Flicker().begin(Video("", (block.shape[2], block.shape[1])))
        readings = meter.push(torch.from_numpy(block).permute(0, 3, 1, 2), first)
        jitter += [value for name, _, value in readings if name == "jitter"]
        stretches = [block[at : at + window] for at in range(0, len(block) - window + 1, window)]
        if stretches:
            right.append(verdicts(judge, ((caption, stretch) for stretch in stretches)))
    return {"right": right, "jitter": float(np.mean(jitter))}


def stream_gates(kind: str, base: Mapping[str, float], seen: Sequence[Found], real: float) -> Iterator[Gate]:
    """base: what base clips reached, in %; real: the jitter of real renders.

    Of every attribute the worst block beside the base clips, and the change from the first block to the last by a
    straight line through each stream: the upper end of its 95 % interval over streams must not lie below 0.
    """
    blocks = range(min(len(one["right"]) for one in seen))
    for name in (name for name, wanted in WANTED[kind].items() if wanted is not None):
        shown = [shares((clip for one in seen for clip in one["right"][block]), [name])[name] for block in blocks]
        if np.isnan(shown).all() or name not in base:  # no stream's caption has it, or no clip's
            continue
        worst = 100 * min(shown) - base[name]
        yield Gate(f"streams, worst {BLOCK} frames beside base clips: {name}", worst, -WITHIN, "pts")
        trends = [trend for one in seen if (trend := _trend(one["right"], name)) is not None]
        mean, error = mean_and_error(trends)
        if mean is not None and error is not None:
            most = mean + student(len(trends) - 1) * error
            yield Gate(f"streams, change over the video at most: {name}", round(most, 6) + 0.0, 0.0, "pts")
    jitter = float(np.mean([one["jitter"] for one in seen]))
    yield Gate(
        "streams, jitter, off that of real renders by", abs(100 * (jitter / real - 1)), STEADY, "%", at_most=True
    )


def _trend(right: Sequence[Sequence[Right]], name: str) -> float | None:
    """Points from the first block to the last by least squares; None of one block, or without the attribute."""
    shown = [100 * shares(block, [name])[name] for block in right]
    if len(shown) == 1 or np.isnan(shown).any():
        return None
    slope: float = np.polynomial.polynomial.polyfit(range(len(shown)), shown, 1)[1]
    return slope * (len(shown) - 1)


def real_jitter(world: World, count: int, frames: int) -> float:
    """Of real renders of the same captions."""
    rng, jitter = np.random.default_rng(9), []
    for caption in drawn(world, count):
        clip = torch.from_numpy(world.clip(caption, rng, frames)).permute(0, 3, 1, 2)
        meter = Flicker().begin(Video("", (world.size, world.size)))
        jitter.append(np.mean([value for name, _, value in meter.push(clip, 0) if name == "jitter"]))
    return float(np.mean(jitter))
