"""Whether the metrics with published networks say what they should, of videos whose faults are known.

    python benchmarks/network_metrics.py distances --folder DIR [--clips 64]
    python benchmarks/network_metrics.py consistency --folder DIR

The videos are renders of the embedded world; DIR holds its art, or it is fetched there with npm.

distances: FVD, KVD, FID and KID of clips that nobody spoiled, and of the same clips with their frames shuffled, with
their first frame held, and with noise, from as many others.  Unspoiled must be nearest; shuffled frames are seen by a
video network alone.

consistency: the cosine of subject and background between two frames 16 apart, and between two first frames where the
subject, or the scene, is another: by what `evaluate/consistency.py` takes for the subject, by the middle of the
picture, and by the whole of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fifo_diffusion.errors import FifoError
from fifo_diffusion.evaluate.consistency import apart
from fifo_diffusion.evaluate.distances import FrameDistance, VideoDistance
from fifo_diffusion.evaluate.metric import Gather, SetMetric, Video
from fifo_diffusion.evaluate.networks import efficientnet, obtain
from fifo_diffusion.world.art import SUBJECTS, fetch, load
from fifo_diffusion.world.clips import Caption, World
from fifo_diffusion.world.scenes import SCENES
from report import Row, show

LENGTH = 16


def clips(world: World, count: int, seed: int) -> Iterator[Tensor]:
    """(16, 3, H, W) uint8 each."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield frames_of(world.clip(world.draw_caption(rng), rng, LENGTH))


def frames_of(clip: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()


def noisy(clip: Tensor) -> Tensor:
    noise = 25 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
    return (clip + noise).round().clamp(0, 255).to(torch.uint8)


SPOILED: dict[str, Callable[[Tensor], Tensor]] = {
    "not at all": lambda clip: clip,
    "frames shuffled": lambda clip: clip[torch.randperm(LENGTH, generator=torch.Generator().manual_seed(0))],
    "first frame held": lambda clip: clip[:1].expand_as(clip),
    "noise of 25 grey levels": noisy,
}


def distances(world: World, count: int) -> Iterator[Row]:
    metrics: list[SetMetric] = [VideoDistance(LENGTH), FrameDistance()]
    reference = [seen(metric, clips(world, count, 1)) for metric in metrics]
    for name, spoil in SPOILED.items():
        row: dict[str, str | float | int] = {"spoiled": name}
        for metric, theirs in zip(metrics, reference, strict=True):
            for score in metric.compare(seen(metric, map(spoil, clips(world, count, 2))), theirs):
                if score.floor is not None:
                    error = "" if score.error is None else f" ±{score.error:.2g}"
                    row[score.quantity.name.partition(" (")[0]] = f"{score.value:.4g}{error}"
        yield row


def seen(metric: SetMetric, shown: Iterator[Tensor]) -> Gather:
    gather = metric.gather()
    for number, clip in enumerate(shown):
        gather.begin(Video(str(number), (clip.shape[3], clip.shape[2])))
        gather.push(clip, 0)
    return gather


def middle(features: Tensor) -> tuple[Tensor, Tensor]:
    h, w = features.shape[2:]
    mask = torch.zeros(1, 1, h, w)
    mask[..., h // 4 : h - h // 4, w // 4 : w - w // 4] = 1
    return tuple((features * part).sum(dim=(2, 3)) / part.sum() for part in (mask, 1 - mask))  # type: ignore[return-value]


def whole(features: Tensor) -> tuple[Tensor, Tensor]:
    mean = features.mean(dim=(2, 3))
    return mean, mean


WAYS = {"strong places": apart, "middle": middle, "whole": whole}


def consistency(world: World, count: int) -> Iterator[Row]:
    net = obtain.network("efficientnet")
    assert isinstance(net, efficientnet.EfficientNet)
    subjects, scenes = list(SUBJECTS), list(SCENES)
    features = []
    for i in range(count):

        def first(subject: int, scene: int, at: int = 0, seed: int = i) -> Tensor:
            said = Caption(subjects[subject % len(subjects)], "red", scenes[scene % len(scenes)], "right", "slowly")
            return frames_of(world.clip(said, np.random.default_rng(seed), at + 1))[at]

        shown = [first(i, i), first(i, i, LENGTH), first(i + 3, i), first(i, i + 2)]
        features.append(efficientnet.features(net, torch.stack(shown)))
    for way, split in WAYS.items():
        parts = [torch.stack(split(each)) for each in features]  # (2, 4, C)
        alike = torch.stack([cosine_similarity(part[:, :1], part[:, 1:], dim=2) for part in parts]).mean(dim=0)
        for name, (subject, background) in zip(
            ("16 frames later", "another subject", "another scene"), alike.T.tolist(), strict=True
        ):
            yield {"places": way, "what is compared": name, "subject": subject, "background": background}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("distances", "consistency"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clips", type=int, help="of each kind (default: 64, for consistency 24)")
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    try:
        world = World(load(fetch(arguments.folder), arguments.side), arguments.side)
        if arguments.what == "distances":
            rows = list(distances(world, arguments.clips or 64))
        else:
            rows = list(consistency(world, arguments.clips or 24))
    except FifoError as error:
        parser.error(str(error))
    show(f"{arguments.what} of known faults, {arguments.side} px", rows)


if __name__ == "__main__":
    main()
