"""Class-conditional Latte on UCF-101 by Frechet video distance and inception score: table 1 of arXiv:2405.11473.

    python benchmarks/ucf101.py --weights LATTE --videos UCF-101 --folder DIR

LATTE: a folder or file as `--weights` of the model latte-ucf101 (`fifo models`); UCF-101: the data set's folder, with a
folder a class.  For each of --clips videos a class is taken, by turns through all of them, and the engine makes
--length frames of it, each video with a seed of its own.  As many real videos are drawn; of each the same number of
frames is taken, --interval apart, from a place that is drawn, cut square and resized
to the model's size.  I3D sees both.  (The network was trained on every third frame.  But 128 of those span 382 frames,
15 seconds, and most of the data set's videos are shorter, so the default is every frame.)

What is seen is kept in DIR, a line a video, and no pictures are: stopped, the same command goes on from there.

The paper's authors have not published their protocol (clips, interval, classifier).  Three things differ from what
others report: I3D is of Kinetics-400 and frames are resized bilinearly; the inception score is of I3D's classes, while
published ones are of a C3D tuned to UCF-101, whose weights are in no package; and every distance stands beside that of
real videos from real videos.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.errors import BadInput, FifoError
from fifo_diffusion.evaluate.distances import Clips, VideoDistance
from fifo_diffusion.evaluate.metric import Video
from fifo_diffusion.evaluate.networks import i3d, obtain
from fifo_diffusion.evaluate.reading import find, open_video
from fifo_diffusion.models import card
from fifo_diffusion.models.latte_classes import CLASSES
from fifo_diffusion.names import Frame
from fifo_diffusion.session import Session
from fifo_diffusion.whole import write_whole
from report import Row, show

MODEL = "latte-ucf101"


@dataclass(frozen=True)
class Kept:
    """What I3D said of videos, a line each; the first line says of which."""

    path: Path
    what: dict[str, Any]

    def lines(self) -> list[dict[str, Any]]:
        """Raises BadInput where the file is of other settings.  A line that a kill cut off is not there."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.what) + "\n", encoding="utf-8")
        *whole, _ = self.path.read_text(encoding="utf-8").split("\n")
        first, *rest = map(json.loads, whole)
        if first != self.what:
            raise BadInput(f"{self.path} is of {json.dumps(first)}; give --folder another one, or the same settings")
        write_whole(self.path, "".join(line + "\n" for line in whole).encode())
        return rest

    def add(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def look(frames: list[Frame], device: str) -> list[float]:
    """I3D's logits of one clip."""
    net = obtain.network("i3d", device)
    assert isinstance(net, i3d.I3D)
    clip = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None]
    said: list[float] = i3d.logits(net, clip.to(device))[0].tolist()
    return said


def real_clip(path: Path, length: int, interval: int, draw: np.random.Generator) -> list[Frame] | None:
    """Frames of one real video, square and of the model's size; None where it is too short."""
    source = open_video(path, path.name, "cpu")
    span = (length - 1) * interval + 1
    if 0 < source.promised < span:
        return None
    first = int(draw.integers(max(1, source.promised - span + 1)))
    frames = (frame for block in source.blocks() for frame in block.permute(0, 2, 3, 1).numpy())
    taken = list(islice(frames, first, first + span, interval))
    if len(taken) < length:
        return None
    pictures = [ImageOps.fit(Image.fromarray(frame), card(MODEL).size, Image.Resampling.LANCZOS) for frame in taken]
    return [np.asarray(picture) for picture in pictures]


def see_real(arguments: argparse.Namespace, kept: Kept) -> int:
    """Look at real videos until there are enough; returns how many were too short."""
    (found,) = find([arguments.videos])
    order = np.random.default_rng(arguments.seed).permutation(len(found.videos))
    known = {line["video"]: line for line in kept.lines()}
    clips = sum("logits" in line for line in known.values())
    for number in map(int, order):
        if clips >= arguments.clips:
            break
        name = str(found.videos[number].relative_to(arguments.videos))
        if name in known:
            continue
        draw = np.random.default_rng([arguments.seed, number])
        frames = real_clip(found.videos[number], arguments.length, arguments.interval, draw)
        known[name] = {"video": name} if frames is None else {"video": name, "logits": look(frames, arguments.device)}
        clips += frames is not None
        kept.add(known[name])
    if clips < 2:
        span = (arguments.length - 1) * arguments.interval + 1
        raise BadInput(
            f"{arguments.videos} holds {clips} videos of {span} frames or more; give a smaller --length or --interval"
        )
    return len(known) - clips


def see_made(arguments: argparse.Namespace, kept: Kept) -> None:
    """Make and look at the videos that are not there yet."""
    done = len(kept.lines())
    for number in range(done, arguments.clips):
        action = CLASSES[number % len(CLASSES)]
        run = resolve(Run.of({**settings_of(arguments), "prompt": action, "seed": arguments.seed + number}))
        frames = list(Session(run).frames())
        kept.add({"class": action, "seed": run.seed, "logits": look(frames, arguments.device)})


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {
        "model": MODEL,
        "weights": arguments.weights,
        "frames": arguments.length,
        "method": arguments.method,
        "device": arguments.device,
        "partitions": arguments.partitions,
        "steps": arguments.steps,
        "guidance": arguments.guidance,
        "eta": arguments.eta,
    }
    return {name: value for name, value in given.items() if value is not None}


def gathered(metric: VideoDistance, lines: list[dict[str, Any]], limit: int) -> Clips:
    out = metric.gather()
    for line in islice((line for line in lines if "logits" in line), limit):
        out.begin(Video(line.get("video", line.get("class", "")), card(MODEL).size))
        out.keep(Tensor(line["logits"])[None])
    return out


def rows(ours: Clips, real: Clips, metric: VideoDistance) -> Iterator[Row]:
    for score in metric.compare(ours, real):
        floor = "-" if score.floor is None else f"{score.floor:.2f}"
        error = "-" if score.error is None else f"{score.error:.2f}"
        yield {"what": score.quantity.name, "value": score.value, "error": error, "real-real": floor, "of": score.of}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--length", type=int, default=128, help="frames of a clip")
    parser.add_argument("--interval", type=int, default=1, help="between the real frames that are taken")
    parser.add_argument("--seed", type=int, default=0, help="of the first video; the next have the next seeds")
    parser.add_argument("--method", help="fifo, plain, chunked, freenoise, ... (default: fifo)")
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--eta", type=float)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    try:
        if arguments.length < i3d.LEAST or arguments.interval < 1 or arguments.clips < 2:
            raise BadInput(
                f"--length {arguments.length}, --interval {arguments.interval}, --clips {arguments.clips}; give "
                f"at least {i3d.LEAST}, 1 and 2"
            )
        obtain.weights("i3d")  # before the long work
        made = settings_of(arguments)
        drawn = {"videos": str(arguments.videos), "length": arguments.length, "interval": arguments.interval}
        real = Kept(arguments.folder / "real.jsonl", {**drawn, "seed": arguments.seed})
        ours = Kept(arguments.folder / "made.jsonl", {**made, "seed": arguments.seed})
        ours.lines()
        short = see_real(arguments, real)
        see_made(arguments, ours)
        metric = VideoDistance(arguments.length)
        both = [gathered(metric, kept.lines(), arguments.clips) for kept in (ours, real)]
        title = f"{MODEL}, {arguments.method or 'fifo'}, {short} real videos were too short"
        show(title, list(rows(both[0], both[1], metric)), arguments.device)
    except FifoError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
