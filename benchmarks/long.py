"""One long video, block by block of 500 frames: is the last block as good as the first, and as cheap?

    python benchmarks/long.py --folder DIR [--frames 9600] [--partitions 4] [--guidance 4] [--seed 0] [--measure]

Ten minutes at 16 frames a second are 9,600 frames.  The video is a folder of pictures, DIR/frames, which is exact;
stopped, the same command goes on with it, and with more --frames it becomes longer.  Every block that was made without
a stop says in DIR/blocks.jsonl what it took: milliseconds of the processor a frame, and the resident set after memory
that was freed is handed back.

--measure makes nothing and tells of what is there, also of a video that is under way: for each whole block the mean of
every quantity of `fifo evaluate` that needs no published weights; the world's own where DIR holds the judge.
Then each quantity's drift, |M(first 15 %) - M(last 15 %)|, and beside it what such a difference is by chance: √2 times
the spread of stretches of that length over the middle of the video.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fifo_diffusion import api, checkpoint
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.evaluate.flow import Motion
from fifo_diffusion.evaluate.gates import judge_file, load_judge
from fifo_diffusion.evaluate.metric import Meter, Video
from fifo_diffusion.evaluate.picture import Picture
from fifo_diffusion.evaluate.temporal import Flicker, Standing
from fifo_diffusion.evaluate.world import Looking
from fifo_diffusion.models import card
from fifo_diffusion.sinks import picture_files
from fifo_diffusion.world.kinds import KINDS
from memory import hand_back, resident
from report import Row, show

PROMPT = "a red balloon moving left over the ocean"
BLOCK = 500  # frames
PART = 0.15  # of the video, at each end
AT_ONCE = 32  # frames


def make(folder: Path, run: Run) -> None:
    """Begin or go on with the video; a line for every block that was made without a stop."""
    began: dict[int, float] = {}  # by block, processor seconds at its first frame

    def look(stage: str, done: int, total: int) -> None:
        if stage != "streaming" or done % BLOCK:
            return
        block, now = done // BLOCK, time.process_time()
        began[block] = now
        if block - 1 in began:
            hand_back()
            took = {"block": block - 1, "ms": 1000 * (now - began[block - 1]) / BLOCK, "MB": resident()}
            with (folder / "blocks.jsonl").open("a") as file:
                file.write(json.dumps(took) + "\n")

    (video := folder / "frames").mkdir(parents=True, exist_ok=True)
    if not any(video.glob("*.png")):
        api.make(run, f"{video}/", scale=1, watch=look)
        return
    said = checkpoint.description(checkpoint.find(str(video)))
    if other := checkpoint.differences(said.run, full := resolve(run)):
        raise SystemExit(f"{video} is a video of another {', '.join(other)}; name another folder")
    if (said.whole or 0) < full.frames:
        api.resume(f"{video}/", frames=full.frames, watch=look)


def measured(folder: Path, prompt: str) -> Mapping[str, NDArray[np.float64]]:
    """By quantity, its value at every frame; not a number where there is none."""
    pictures = picture_files(folder / "frames")
    pictures = pictures[: len(pictures) // BLOCK * BLOCK]  # the last may be half written
    if not pictures:
        raise SystemExit(f"{folder / 'frames'} holds no {BLOCK} frames yet")
    with Image.open(pictures[0]) as first:
        video = Video("", first.size, prompt=prompt)
    meters: list[Meter] = [metric.begin(video) for metric in (Motion(), Flicker(), Standing(), Picture())]
    for kind in KINDS.values():
        if video.size == (kind.size, kind.size) and (judge := judge_file(folder, kind=kind)).exists():
            meters.insert(0, Looking(load_judge(judge, kind), video))
    found: dict[str, NDArray[np.float64]] = {}

    def take(meter: Meter, frames: torch.Tensor | None, number: int) -> None:
        for quantity, frame, value in meter.close() if frames is None else meter.push(frames, number):
            found.setdefault(quantity, np.full(len(pictures), np.nan))[frame] = value

    for number in range(0, len(pictures), AT_ONCE):
        shown = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in pictures[number : number + AT_ONCE]])
        for meter in meters:
            take(meter, torch.from_numpy(shown).permute(0, 3, 1, 2).contiguous(), number)
    for meter in meters:
        take(meter, None, len(pictures))
    return found


def blocks(found: Mapping[str, NDArray[np.float64]], folder: Path) -> Iterator[Row]:
    lines = (folder / "blocks.jsonl").read_text().splitlines() if (folder / "blocks.jsonl").exists() else []
    took = {line["block"]: line for line in map(json.loads, lines)}
    for block in range(len(next(iter(found.values()))) // BLOCK):
        at = slice(block * BLOCK, (block + 1) * BLOCK)
        row: dict[str, str | float | int] = {"frames": f"{at.start}-{at.stop - 1}"}
        for name, unit in (("ms", "ms a frame"), ("MB", "MB")):
            row[unit] = took[block][name] if block in took else ""
        yield {**row, **{name: float(np.nanmean(values[at])) for name, values in found.items()}}


def drifts(found: Mapping[str, NDArray[np.float64]]) -> Iterator[Row]:
    for name, values in found.items():
        part = max(1, round(PART * len(values)))
        middle = [np.nanmean(values[at : at + part]) for at in range(part, len(values) - 2 * part + 1, part)]
        chance = 2**0.5 * float(np.std(middle, ddof=1)) if len(middle) > 1 else ""
        first, last = float(np.nanmean(values[:part])), float(np.nanmean(values[-part:]))
        yield {
            "quantity": name,
            "first 15 %": first,
            "last 15 %": last,
            "drift": abs(last - first),
            "by chance": chance,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the video is, or will be")
    parser.add_argument("--model", choices=[kind.model for kind in KINDS.values()], default="embedded")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--frames", type=int, default=9600)
    parser.add_argument("--partitions", "-n", type=int, default=card("embedded").partitions)
    parser.add_argument("--guidance", type=float, default=card("embedded").guidance)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", action="store_true", help="make nothing, tell of what is there")
    said = parser.parse_args()
    torch.set_num_threads(1)
    if not said.measure:
        names = ("model", "prompt", "frames", "partitions", "guidance", "seed")
        make(said.folder, Run.of({name: getattr(said, name) for name in names}))
    found = measured(said.folder, said.prompt)
    plan = f"n {said.partitions}, guidance {said.guidance:g}"
    plan += f", seed {said.seed}" if said.seed else ""
    plan += f", {said.model}" if said.model != "embedded" else ""
    show(f"a long video, {plan}: blocks of {BLOCK} frames", list(blocks(found, said.folder)))
    show(f"a long video, {plan}: drift", list(drifts(found)))


if __name__ == "__main__":
    main()
