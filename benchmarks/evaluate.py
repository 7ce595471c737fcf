"""What `fifo evaluate` costs, and what a file keeps of what was made.

    python benchmarks/evaluate.py speed [--side 256] [--metrics motion,flicker]
    python benchmarks/evaluate.py memory [--lengths 500 20000]
    python benchmarks/evaluate.py files

speed: milliseconds a frame of each metric by itself, of one thread's processor time, over a texture that moves; then of
OpenCV's DIS and Farneback flow alone, and how far each is from the true motion.  memory: the peak of a process that
evaluates a video of each length.  files: a texture of 64 x 64 written as fifo writes videos and read back as `fifo
evaluate` reads them: decibels from what was written, and the share of its sharpness.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fifo_diffusion.decode import psnr
from fifo_diffusion.evaluate.choosing import choose
from fifo_diffusion.evaluate.metric import Video
from fifo_diffusion.evaluate.picture import Picture
from fifo_diffusion.evaluate.reading import open_video
from fifo_diffusion.names import Frame
from fifo_diffusion.sinks import open_sink
from report import Row, show


def moving(side: int) -> Iterator[Frame]:
    """Grain of about four pixels, moving by (2, 1) a frame, without end."""
    grain = np.random.default_rng(0).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    still = cv2.resize(grain, (side, side), interpolation=cv2.INTER_CUBIC)
    frame = 0
    while True:
        yield np.roll(still, (frame, 2 * frame), axis=(0, 1))
        frame += 1


def speed(side: int, names: list[str], frames: int = 48) -> Iterator[Row]:
    clip = np.stack(list(islice(moving(side), frames)))
    blocks = torch.split(torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous(), 16)
    for metric in choose(names, False).metrics:
        video = Video("clip", (side, side), prompt="a red balloon")
        if not metric.suits(video):
            continue
        meter = metric.begin(video)
        list(meter.push(blocks[0], 0))  # loads what it needs
        began = time.process_time()
        for number, block in enumerate(blocks[1:], 1):
            list(meter.push(block, 16 * number))
        spent = time.process_time() - began
        yield {"metric": metric.name, "side": side, "ms a frame": 1000 * spent / (frames - 16), "pixels off": ""}
    yield from flows(clip[:16])


def flows(clip: Frame) -> Iterator[Row]:
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip[:16]]
    seeker = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    ways: dict[str, Callable[[Any, Any], Any]] = {
        "DIS alone": lambda before, after: seeker.calc(before, after, None),
        "Farneback alone": lambda before, after: cv2.calcOpticalFlowFarneback(
            before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0
        ),
    }
    for name, seek in ways.items():
        began = time.process_time()
        found = [seek(before, after) for before, after in pairwise(grey)]
        spent = time.process_time() - began
        off = float(np.hypot(*np.moveaxis(np.stack(found) - np.array([2, 1]), -1, 0)).mean())
        side = len(grey[0])
        yield {"metric": name, "side": side, "ms a frame": 1000 * spent / len(found), "pixels off": off}


def memory(lengths: list[int]) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for length in lengths:
            path = Path(folder) / f"{length}.mp4"
            with open_sink(str(path), fps=10, size=(64, 64)) as sink:
                for frame in islice(moving(64), length):
                    sink.write(frame)
            command = [sys.executable, "-m", "fifo_diffusion", "evaluate", str(path), "-q", "-o", f"{folder}/found"]
            subprocess.run(command, check=True)
            found = json.loads(Path(f"{folder}/found.json").read_text())
            yield {"frames": length, "seconds": found["wall_seconds"], "peak MB": found["peak_memory_mb"]}


def files() -> Iterator[Row]:
    clip = np.stack(list(islice(moving(64), 16)))
    with tempfile.TemporaryDirectory() as folder:
        for name, scale in (("pictures", 1), ("a.mp4", 1), ("b.mp4", 3), ("c.mp4", 4), ("d.webm", 4)):
            path = Path(folder) / name
            said = {"comment": json.dumps({"prompt": "-", "size": [64, 64]})}
            with open_sink(str(path), fps=10, size=(64, 64), scale=scale, metadata=said) as sink:
                for frame in clip:
                    sink.write(frame)
            back = torch.cat(list(open_video(path, name, "cpu").blocks())).permute(0, 2, 3, 1).numpy()
            same = np.array_equal(back, clip)
            kept = sharpness(back) / sharpness(clip)
            decibels = "the same" if same else f"{psnr(back, clip):.1f}"
            yield {"file": name, "scale": scale, "PSNR": decibels, "sharpness": kept}


def sharpness(clip: Frame) -> float:
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2)
    meter = Picture().begin(Video("clip", (64, 64)))
    return float(np.mean([value for name, _, value in meter.push(frames, 0) if name == "sharpness"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "memory", "files"))
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--metrics", default="", help="speed: by name, with commas (default: all that are here)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[500, 20_000])
    said = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if said.what == "speed":
        show("evaluate: cost of a frame", list(speed(said.side, said.metrics.split(",") if said.metrics else [])))
    elif said.what == "memory":
        show("evaluate: memory against length", list(memory(said.lengths)))
    else:
        show("evaluate: what files keep", list(files()))


if __name__ == "__main__":
    main()
