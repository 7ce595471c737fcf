"""The evaluation itself: every video read once, as a stream, by all metrics side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fifo_diffusion.errors import BadInput, FifoError, ModelError, in_short
from fifo_diffusion.evaluate.means import means
from fifo_diffusion.evaluate.metric import Gather, Meter, Metric, Quantity, Reading, Score, SetMetric, Video
from fifo_diffusion.evaluate.reading import Found, Opened, open_video
from fifo_diffusion.evaluate.result import About, Distance, Measured, SetResult, VideoResult
from fifo_diffusion.evaluate.series import Series
from fifo_diffusion.evaluate.sheets import Sheet, Watching
from fifo_diffusion.letters import writable

COURSE = 256  # bins that are told of a quantity's course
PICTURED = 60  # videos of a set whose sheets are kept
STOPPED = "stopped by Ctrl-C"

Watch = Callable[[str, int, int], None]  # a video's name, its frames so far, and how many it promises
Read = Callable[[Path, str, str], Opened]  # path, name, device


@dataclass
class Bench:
    """The metrics of an evaluation, and the sets that they have seen."""

    metrics: Sequence[Metric]
    set_metrics: Sequence[SetMetric]
    device: str
    watch: Watch
    ended: Callable[[VideoResult], None]
    read: Read = open_video
    sheets: dict[str, Sheet] = field(default_factory=dict)  # by the video's path
    stopped: bool = False  # by Ctrl-C: what was not read by then is not read any more
    _gathers: dict[str, list[Gather]] = field(default_factory=dict)  # by the set's name

    def measure(self, found: Found) -> SetResult:
        """Every video of a set; one that is broken, or came after Ctrl-C, is a failed row."""
        gathers = self._gathers.setdefault(found.name, [metric.gather() for metric in self.set_metrics])
        names = names_of(found.videos)
        videos: list[VideoResult] = []
        for path in found.videos:
            if self.stopped:
                videos.append(VideoResult(name=names[path], path=writable(path), error=STOPPED))
                continue
            pictured = len(videos) < PICTURED
            videos.append(self._one(path, names[path], self.metrics, gathers, pictured))
            self.ended(videos[-1])
        return SetResult(name=found.name, videos=tuple(videos), means=means(videos))

    def refer(self, found: Found) -> list[Gather]:
        """What the set metrics keep of the reference.  Raises BadInput for a reference that is broken."""
        gathers = [metric.gather() for metric in self.set_metrics]
        for path in found.videos:
            result = self._one(path, path.name, (), gathers, False)
            if self.stopped:
                raise KeyboardInterrupt
            if result.error is not None:
                raise BadInput(f"the reference video {path} cannot be used: {result.error}")
        return gathers

    def compare(self, found: SetResult, reference: Sequence[Gather]) -> SetResult:
        """The set with its distances from the reference."""
        scores = [
            score
            for metric, ours, theirs in zip(self.set_metrics, self._gathers[found.name], reference, strict=True)
            for score in metric.compare(ours, theirs)
        ]
        broken = sum(video.error is not None and video.frames > 0 for video in found.videos)
        more = f"; of {broken} broken video{'s' * (broken > 1)} what could be read" if broken else ""
        scores = [replace(score, of=score.of + more) for score in scores]
        return found.model_copy(update={"distances": tuple(map(_distance, scores))})

    def _one(
        self, path: Path, name: str, metrics: Sequence[Metric], gathers: Iterable[Gather], pictured: bool
    ) -> VideoResult:
        began = time.perf_counter()
        run = _Run(Watching() if pictured else None)
        error: str | None = None
        try:
            source = self.read(path, name, self.device)
            run.video = source.video
            self.watch(name, 0, source.promised)
            run.begin(metrics, gathers)
            for block in source.blocks():
                run.push(block)
                self.watch(name, run.frames, max(source.promised, run.frames) if source.promised else 0)
            run.close()
        except KeyboardInterrupt:
            self.stopped, error = True, STOPPED
        except ModelError:  # weights that are not what they should be are no fault of the video
            raise
        except FifoError as wrong:
            error = str(wrong)
        except Exception as wrong:  # out of memory, what a library meets in a strange file: the others are measured
            error = in_short(wrong)
        if run.looks is not None and (sheet := run.looks.sheet()) is not None:
            self.sheets[writable(path)] = sheet
        video = run.video
        return VideoResult(
            name=name,
            path=writable(path),
            error=error,
            size=None if video is None else video.size,
            fps=None if video is None else video.fps,
            frames=run.frames,
            scale=1 if video is None else video.scale,
            prompt=None if video is None else video.prompt,
            seconds=round(time.perf_counter() - began, 3),
            measured={q: told(series, run.frames) for q, series in run.series.items() if series.count},
            facts=dict(run.facts()) if error is None else {},
            remarks=tuple(run.remarks),
        )


@dataclass
class _Run:
    """One video on its way through the metrics."""

    looks: Watching | None
    video: Video | None = None
    frames: int = 0
    series: dict[str, Series] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    _meters: list[Meter] = field(default_factory=list)
    _gathers: list[Gather] = field(default_factory=list)

    def begin(self, metrics: Sequence[Metric], gathers: Iterable[Gather]) -> None:
        assert self.video is not None
        for metric in metrics:
            if not metric.suits(self.video):
                continue
            try:
                self._meters.append(metric.begin(self.video))
            except BadInput as error:  # too small for this one
                self.remarks.append(f"{metric.name}: {error}")
                continue
            self.series |= {quantity.name: Series() for quantity in metric.quantities}
        for gather in gathers:
            gather.begin(self.video)
            self._gathers.append(gather)

    def push(self, block: Tensor) -> None:
        for meter in self._meters:
            self._take(meter.push(block, self.frames))
        for gather in self._gathers:
            gather.push(block, self.frames)
        if self.looks is not None:
            self.looks.push(block, self.frames)
        self.frames += len(block)

    def close(self) -> None:
        for meter in self._meters:
            self._take(meter.close())

    def _take(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            self.series[reading.quantity].add(reading.frame, reading.value)

    def facts(self) -> Iterator[tuple[str, Any]]:
        for meter in self._meters:
            yield from meter.facts().items()


def names_of(paths: Sequence[Path]) -> Mapping[Path, str]:
    """The shortest names that tell them apart: with as many folders before as that takes."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    return {path: writable("/".join(path.parts[-depth:])) for path in paths}


def told(series: Series, frames: int) -> Measured:
    width, course = series.course(COURSE)
    first, last = series.ends(frames) or (None, None)
    return Measured(
        mean=series.mean,
        spread=series.spread,
        first=first,
        last=last,
        drift=series.drift(frames),
        readings=series.count,
        frames_a_bin=width,
        course=tuple(None if value is None else float(f"{value:.6g}") for value in course),
    )


def about(metric: Metric | SetMetric) -> Iterator[About]:
    for quantity in metric.quantities:
        yield _about(metric.name, quantity)


def _about(metric: str, quantity: Quantity) -> About:
    return About(name=quantity.name, metric=metric, unit=quantity.unit, says=quantity.says, better=quantity.better)


def _distance(score: Score) -> Distance:
    return Distance(quantity=score.quantity.name, value=score.value, of=score.of, floor=score.floor, error=score.error)
