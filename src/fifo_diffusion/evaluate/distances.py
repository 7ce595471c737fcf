"""How far a set of videos is from a set of real ones, by what published networks see in them.

Each distance is named for exactly what it is: network, layer, frames of a clip.  Scores of other networks, lengths,
sizes or numbers of clips do not compare.  Beside it stands the distance of one half of the reference from its other
half: what a perfect model would get, with half as many clips.

Frechet distances of few clips are too high; the kernel distance beside them is not, and says its standard error.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from fifo_diffusion.evaluate.frechet import ENOUGH, InceptionScore, Moments, Sample, frechet, kernel_distance
from fifo_diffusion.evaluate.metric import Gather, Quantity, Score, SetMetric, Video
from fifo_diffusion.evaluate.networks import i3d, inception, obtain
from fifo_diffusion.evaluate.networks.published import PUBLISHED

EVERY = 4  # frames between those that the frame distance looks at: neighbours tell it next to nothing new
_AT_ONCE = 8  # frames that Inception sees at a time


class Seen(Gather):
    """The features of a set, as two halves: the videos in turn."""

    def __init__(self, features: int) -> None:
        self.halves = (Moments(features), Moments(features))
        self.samples = (Sample(), Sample())
        self.sample = Sample(2048)  # of all; not the halves together: the shorter one's vectors would count for more
        self.score: InceptionScore | None = None
        self.videos = 0
        self.sizes: set[tuple[int, int]] = set()
        self._device = "cpu"

    def begin(self, video: Video) -> None:
        self.videos += 1
        self.sizes.add(video.size)
        self._device = video.device

    @property
    def all(self) -> Moments:
        return self.halves[0] + self.halves[1]

    @cached_property
    def floor(self) -> tuple[float, float] | None:
        """The Frechet and the kernel distance of one half from the other, once all is seen; None with too few vectors.

        Kept, because every set asks its reference: of Inception's 2,048 features it takes many seconds.
        """
        if min(half.count for half in self.halves) < 2:
            return None
        return frechet(*self.halves), kernel_distance(*(sample.vectors for sample in self.samples))[0]

    def keep(self, vectors: Tensor) -> None:
        """What the network said of the video that was begun, (n, d)."""
        self.halves[self.videos % 2].add(vectors)
        self.samples[self.videos % 2].add(vectors)
        self.sample.add(vectors)
        if self.score is not None:
            self.score.add(vectors)


class _Distance(SetMetric):
    """The Frechet and the kernel distance of what one network sees."""

    network: str
    what: str  # "clips of 16 frames", "frames"

    @property
    def needs(self) -> str:  # type: ignore[override]
        return f"{PUBLISHED[self.network].full} (fifo evaluate fetch {self.network})"

    def missing(self) -> str | None:
        return obtain.missing(self.network)

    @abstractmethod
    def gather(self) -> Seen: ...

    def compare(self, ours: Gather, reference: Gather) -> Iterator[Score]:
        assert isinstance(ours, Seen)
        assert isinstance(reference, Seen)
        a, b = ours.all, reference.all
        if min(a.count, b.count) < 2:
            return
        of = f"{a.count} {self.what} against {b.count}{_sizes(ours, reference)}"
        few = f"; fewer than {ENOUGH}, so it is too high" if min(a.count, b.count) < ENOUGH else ""
        floors = reference.floor or (None, None)
        yield Score(self.quantities[0], frechet(a, b), of + few, floors[0])
        here, there = ours.sample.vectors, reference.sample.vectors
        value, error = kernel_distance(here, there)
        drawn = "" if (len(here), len(there)) == (a.count, b.count) else f", {len(here)} and {len(there)} drawn of them"
        yield Score(self.quantities[1], value, of + drawn, floors[1], error)


def _sizes(ours: Seen, reference: Seen) -> str:
    told = [", ".join(sorted(f"{w}x{h}" for w, h in seen.sizes)) for seen in (ours, reference)]
    return f", {told[0]} pixels" if told[0] == told[1] else f", {told[0]} against {told[1]} pixels"


class VideoDistance(_Distance):
    """Clips of so many frames, one after another, by I3D's logits; what is left of a video at its end is not seen."""

    network = "i3d"

    def __init__(self, length: int) -> None:
        """length: frames of a clip, 9 or more."""
        self.length, self.what = length, f"clips of {length} frames"
        self.name = "fvd" if length == 16 else f"fvd-{length}"
        self.usual = length == 16
        seen = f"I3D Kinetics-400 logits, {length} frames"
        self.quantities = (
            Quantity(
                f"FVD ({seen})",
                "",
                "Frechet video distance (arXiv:1812.01717), at 224 x 224, resized bilinearly",
                "lower",
            ),
            Quantity(
                f"KVD ({seen})",
                "",
                "unbiased kernel distance (KID's kernel) of the same logits; 0 for real; its error takes clips as "
                "independent",
                "lower",
            ),
            Quantity(
                f"inception score ({seen})",
                "",
                "of Kinetics' 400 classes: sure of each clip, and many kinds of clips (arXiv:1606.03498); published "
                "scores of UCF-101 are of C3D and do not compare; the fewer clips the lower; its error takes clips as "
                "independent",
                "higher",
            ),
        )

    def gather(self) -> Clips:
        return Clips(self.length)

    def compare(self, ours: Gather, reference: Gather) -> Iterator[Score]:
        yield from super().compare(ours, reference)
        assert isinstance(ours, Clips)
        assert isinstance(reference, Clips)
        assert ours.score is not None
        assert reference.score is not None
        if ours.score.count:
            value, error = ours.score.score()
            there = reference.score.count
            real = f"; the reference's {there} have {reference.score.score()[0]:.2f}" if there else ""
            yield Score(self.quantities[2], value, f"{ours.score.count} {self.what}{real}", error=error)


class Clips(Seen):
    def __init__(self, length: int) -> None:
        super().__init__(i3d.CLASSES)
        self.score = InceptionScore(i3d.CLASSES)
        self._length, self._held = length, list[Tensor]()  # on the device, of the network's size
        obtain.network("i3d")

    def begin(self, video: Video) -> None:
        super().begin(video)
        self._held = []

    def push(self, frames: Tensor, first: int) -> None:
        for frame in frames:
            self._held.append(i3d.seen(frame[None].to(self._device)))
            if len(self._held) == self._length:
                net = obtain.network("i3d", self._device)
                assert isinstance(net, i3d.I3D)
                self.keep(i3d.said(net, torch.cat(self._held)[None]))
                self._held = []


class FrameDistance(_Distance):
    """Every fourth frame by Inception's features."""

    name, network, what = "fid", "inception", f"frames, every {EVERY}th"
    quantities = (
        Quantity(
            f"FID (Inception 2015-12-05, every {EVERY}th frame)",
            "",
            "Frechet distance of frames (arXiv:1706.08500), its 2,048 features, resized as TensorFlow did; it needs "
            "thousands of frames",
            "lower",
        ),
        Quantity(
            f"KID (Inception 2015-12-05, every {EVERY}th frame)",
            "",
            "unbiased kernel distance (arXiv:1801.01401) of the same features; its error takes frames as independent",
            "lower",
        ),
    )

    def gather(self) -> Seen:
        return _Frames()


class _Frames(Seen):
    def __init__(self) -> None:
        super().__init__(inception.FEATURES)
        obtain.network("inception")

    def push(self, frames: Tensor, first: int) -> None:
        chosen = frames[-first % EVERY :: EVERY]
        net = obtain.network("inception", self._device)
        assert isinstance(net, inception.Inception)
        for part in torch.split(chosen, _AT_ONCE) if len(chosen) else ():
            self.keep(inception.features(net, part.to(self._device)))


METRICS = (VideoDistance(16), VideoDistance(128), FrameDistance())
