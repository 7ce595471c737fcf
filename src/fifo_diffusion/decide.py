"""A `Run` with every setting decided: by who asks, else by the model's card, else by this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import ceil
from pathlib import Path

import torch

from fifo_diffusion import methods, models
from fifo_diffusion.config import Decided, Halves, Run, span
from fifo_diffusion.devices import check_products, choose_compile, choose_device, choose_dtype, memory_of
from fifo_diffusion.errors import BadInput
from fifo_diffusion.groups import check_split
from fifo_diffusion.letters import can_be_written
from fifo_diffusion.models.card import Card
from fifo_diffusion.models.lora import find_lora
from fifo_diffusion.sources import Clip
from fifo_diffusion.together import check_seats, neighbours, together
from fifo_diffusion.windows import Keep, Plan

PLACE = frozenset({"batch", "memory", "halves", "compile"})
"""What follows from where a run is computed, unless it is said: free memory, the number of ranks, the device."""


def left_open(run: Run) -> frozenset[str]:
    """Of `PLACE`, what the run does not say."""
    return frozenset(name for name in PLACE if getattr(run, name) in (None, "auto"))


def resolve(run: Run, clip_too: bool = True) -> Decided:
    """The run with every setting decided: the model's defaults, this machine's device and dtype.

    clip_too: look at the clip that it goes on from; off where it has gone on already and the clip may be gone.
    Raises BadInput or DeviceError for what this model or this machine cannot do, before any work.
    """
    card, device = models.card(run.model), choose_device(run.device)
    said = run.model_dump(exclude_none=True)
    frames = run.frames
    if frames is None:
        frames = run.table[-1].at + max(1, round(10 * (run.fps or card.fps)))  # 10 s from the last prompt on
    defaults = {
        "weights": card.weights,
        "frames": frames,
        "size": card.size,
        "fps": card.fps,
        "eta": 0.0 if run.solver == "2m" else card.eta,
        "guidance": card.guidance,
    }
    if run.method == "fifo":
        defaults |= {"partitions": card.partitions, "lookahead": card.lookahead}
    else:
        defaults |= methods.defaults(run.method, card)
    here = {"device": str(device), "dtype": choose_dtype(run.dtype, device)}
    ranks = 1 if (group := together()) is None else group.ranks
    if group is not None:
        if device.type == "cuda":  # which of them is torchrun's to say
            device = torch.device(group.device)
            here["device"] = str(device)
        check_seats(device, neighbours(), torch.cuda.device_count())
    check_split(run.split, ranks, card.splits, run.model)
    room = _room(card, run.size or card.size, here["dtype"], memory_of(device), run.split, run.fp8 != "off")
    if run.compile == "on":
        card.check_compile(run.split)
    if run.fp8 != "off":
        card.check_fp8(str(device))
    if run.fp8 == "products":
        check_products(device)
    able = card.network and ranks == 1
    here["memory"] = ("low" if room < 1 else "high") if run.memory == "auto" else run.memory
    compiles = able or run.compile == "on"
    # Where a prompt changes, windows come in shapes of their own, and each is compiled in the midst of the video.
    asked = "off" if run.compile == "auto" and len(run.table) > 1 else run.compile
    here["compile"] = choose_compile(asked, device, frames, here["memory"]) if compiles else "off"
    if device.type == "cpu":
        room = min(room, 2)  # larger batches fall out of its caches: benchmarks/speed.py
    decided = Decided.of({**defaults, "batch": 1, **said, **here})
    plan = plan_of(decided) if run.method == "fifo" else None
    if run.batch is None and here["memory"] == "high" and ranks == 1:
        most = methods.at_once(decided, card) if plan is None else len(plan.windows)
        decided = decided.model_copy(update={"batch": max(1, min(most, room))})
    windows = 0 if plan is None else len(plan.windows)
    decided = decided.model_copy(update={"halves": _halves(run.halves, decided.memory, windows, ranks // run.split)})
    card.check_weights(decided.weights)
    models.check_lora(card, decided.lora)
    for given in decided.lora:
        find_lora(given)
    card.check_size(decided.size)
    if plan is None:
        methods.check(decided, card)
        if group is not None:
            raise BadInput(f"method {run.method} runs in one process; start it without torchrun, or use method fifo")
    if decided.levels not in card.tables:
        raise BadInput(
            f"there is no table of the paper's authors for {card.name}, which they did not run; use --levels even"
        )
    card.check_levels((decided.steps or 1) if plan is None else plan.levels)
    guided_levels_of(decided)
    if clip_too:
        decided = _with_clip(decided, card)
    if decided.solver == "2m" and decided.eta != 0:
        raise BadInput(f"eta is {decided.eta:g} with solver 2m, which adds no noise; use eta 0 or solver ddim")
    return decided


def _halves(said: Halves | None, memory: str, windows: int, groups: int) -> Halves:
    """Guidance's halves: apart where memory is low, else as was said, else together unless dealing them saves time:
    fewer evaluations of the network, one after the other, for the groups of ranks that have the most.

    Raises BadInput where they are to be together and memory is low.
    """
    if memory == "low":
        if said == "together":
            raise BadInput(
                "halves together computes both halves of guidance at once, and memory low, given or chosen for a small "
                "GPU, one after the other; leave halves out, or say memory high"
            )
        return "apart"
    return said or ("apart" if ceil(2 * windows / groups) < 2 * ceil(windows / groups) else "together")


def _with_clip(run: Decided, card: Card) -> Decided:
    """The run with the hash of its clip.  Raises BadInput for a clip that cannot be used, or is not the one meant."""
    clip = clip_of(run)
    if clip is None:
        return run
    models.check_encoder(card)
    if run.start != "clip":
        raise BadInput(f"start {run.start} was given with the clip {clip.path}, which is the start; leave one out")
    clip.check()
    if run.clip_sha256 not in (None, clip.sha256):
        raise BadInput(
            f"{clip.path} is not the clip that this run went on from (its sha256 is {clip.sha256[:12]}..., and was "
            f"{str(run.clip_sha256)[:12]}...); put that one back, or make another video with `fifo extend`"
        )
    if not can_be_written(there := os.path.abspath(clip.path)):
        raise BadInput(f"the clip lies in {there!a}, which is no UTF-8, so no file could name it; move it elsewhere")
    return run.model_copy(update={"clip": there, "clip_sha256": clip.sha256})


def clip_of(run: Decided) -> Clip | None:
    return None if run.clip is None else Clip(Path(run.clip), run.size, run.fps)


def _room(card: Card, size: tuple[int, int], dtype: str, gib: float | None, split: int = 1, fp8: bool = False) -> int:
    """How many windows of this model, each with its guidance, fit into the memory at once; 0 where none does."""
    need = card.memory
    if need is None or gib is None:
        return 64
    grown = (2 if dtype == "float32" else 1) * size[0] * size[1] / (card.size[0] * card.size[1])
    left = gib - need.RESERVE - need.stay(dtype, fp8) / split
    if left < max(need.text, need.decode * grown):
        return 0
    return int((left - need.decode * grown) // (2 * need.window * grown))  # a frame is decoded beside the windows


def plan_of(run: Decided) -> Plan:
    assert run.partitions is not None  # only of a run by another method
    assert run.lookahead is not None
    card = models.card(run.model)
    named: Mapping[str, Keep] = {"off": "all", "last": "last", "middle": "middle"}
    keep = span(run.lookahead) or named[run.lookahead]
    if isinstance(keep, tuple) and not keep[0] < keep[1] <= card.window:
        raise BadInput(
            f"lookahead is {run.lookahead}; {card.name} has windows of {card.windows}, of which LO-HI can be kept "
            f"with 0 <= LO < HI <= {card.window}"
        )
    return Plan(card.window, run.partitions, keep, run.frames_per_level)


def guided_levels_of(run: Decided) -> tuple[int, int] | None:
    """The first and the last level at which there is guidance; None where it is at all of them.

    Raises BadInput for levels that the queue does not have.
    """
    guided = span(run.guidance_levels)
    if guided is not None and guided[1] > (levels := plan_of(run).levels):
        raise BadInput(
            f"guidance_levels is {run.guidance_levels}; this run's queue has {levels} levels, from 1 (nearly clean) to "
            f"{levels} (pure noise)"
        )
    return guided


def told(run: Decided) -> str:
    """How it is computed, and how to have it otherwise, in one line."""
    windows = f"{run.batch} windows at once" if run.batch > 1 else "one window at a time"
    made = "compiled, which takes a while before the first frame" if run.compile == "on" else "not compiled"
    low = ", in little memory" if run.memory == "low" else ""
    kept = {"off": "", "weights": ", weights in 8 bits", "products": ", products in 8 bits"}[run.fp8]
    return f"{run.device}, {run.dtype}{kept}, {windows}, {made}{low} (--device, --dtype, --batch, --compile, --memory)"
