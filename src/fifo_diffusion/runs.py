"""A run beside its video: committing checkpoints while it is made, and choosing one to go on from."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from fifo_diffusion import checkpoint as checkpoints
from fifo_diffusion.checkpoint import Checkpoint, Description
from fifo_diffusion.config import Decided, Run
from fifo_diffusion.digest import NOTHING
from fifo_diffusion.engine import State
from fifo_diffusion.errors import BadInput, OutputError, RankLost
from fifo_diffusion.names import Warn
from fifo_diffusion.sinks import Begun, FrameSink, held, is_folder
from fifo_diffusion.trail import Place


@dataclass(frozen=True)
class At:
    """Where a run is: what goes on from there, and what the file holds by then."""

    place: Place[State]
    clip_frames: int  # in the file, before the run's own
    frames_sha256: str  # of the run's own

    @property
    def frame(self) -> int:
        """How many the file holds."""
        return self.clip_frames + self.place.frame


class Keeper:
    """Commits checkpoints of a running stream, once the frames before them are on the disk.

    Open its sink inside it, let it `begin` with that, and tell it `after` each frame, and in the run-in, what is
    `hidden`.  before: how a run that goes on was described.  every: seconds from one checkpoint to the next (0:
    none before the end); the last place that can be gone on from is committed when the video ends, however it ends.
    keep_all: after a whole video too; else its last one only.
    """

    def __init__(
        self,
        folder: Path,
        description: Description,
        before: Description | None,
        piece: int,
        every: float,
        keep_all: bool,
        described: Callable[[], Decided],
        warn: Warn,
    ) -> None:
        self._folder, self._description, self._before = folder, description, before
        self._piece, self._every, self._keep_all = piece, every or math.inf, keep_all
        self._described, self._warn = described, warn
        self._waiting: deque[Checkpoint] = deque()  # until their frames are on the disk; two or three
        self._next = time.monotonic() + self._every
        self._sink: FrameSink | None = None
        self._warned = False
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        return self

    def begin(self, sink: FrameSink) -> None:
        """Describe the run, so that it can be gone on with whatever happens.

        Raises OutputError, or BadInput where another process has begun a video of this name meanwhile.
        """
        name = self._description.output if sink.partial is None else sink.partial.name
        if self._before is None:  # locked before anything is touched: the other's run is in the same folder
            self._lock.enter_context(checkpoints.locked(self._folder, new=True))
            home = self._folder.parent / self._description.output
            check_free(self._folder, str(home), but=None if sink.partial is None else name)
        self._sink = sink  # from here on the folder is this run's
        if self._before is None:
            checkpoints.set_aside(self._folder)
        self._description = self._description.model_copy(update={"partial": name})
        checkpoints.describe(self._folder, self._description)
        if self._before is not None:
            later = [frame for frame in checkpoints.committed(self._folder) if frame > sink.frames]
            checkpoints.drop(self._folder, later)  # of frames that are made again

    def hidden(self, at: At) -> None:
        """An iteration of the run-in is done."""
        self._describe_anew()
        if time.monotonic() >= self._next:
            self._waiting.clear()
            self._wait(at)
            self._commit_settled()

    def after(self, at: At) -> None:
        """The file holds another frame.  Raises OutputError when the file has gone."""
        self._describe_anew()
        if at.frame % self._piece == 0:
            self._wait(at)
        if time.monotonic() >= self._next:
            self._commit_settled()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The sink is closed.  An OutputError: its file is not whole; another error: it has fewer frames than asked."""
        with self._lock:
            if self._folder.is_dir() and self._sink is not None:
                if isinstance(error, RankLost) and self._waiting and self._waiting[-1].on_device:
                    self._waiting.clear()  # the device may wait for that rank for ever
                self._end(self._sink, isinstance(error, OutputError), error is None)

    def _end(self, sink: FrameSink, failed: bool, finished: bool) -> None:
        if failed:
            with suppress(OutputError):  # what went wrong first is what must be told
                self._commit_settled()
            return
        if sink.dropped or sink.frames == 0:  # what is there is what there was
            assert self._before is not None
            checkpoints.describe(self._folder, self._before)
            return
        sink.sync()
        if self._waiting:
            self._commit(self._waiting.pop())
        if finished and not self._keep_all:
            checkpoints.drop(self._folder, checkpoints.committed(self._folder)[1:])
        whole = {"partial": None, "whole": sink.frames, "coded_sha256": sink.digest, "run": self._described()}
        checkpoints.describe(self._folder, self._description.model_copy(update=whole))
        checkpoints.let_go(self._folder)

    def forget(self) -> None:
        """No frame came of a new run: leave what there was before it."""
        if self._before is None and self._sink is not None:  # else the folder may be another's
            checkpoints.put_back(self._folder)
            self._sink = None  # there is nothing more to say of this run

    def _wait(self, at: At) -> None:
        sink = self._sink
        assert sink is not None
        while len(self._waiting) > 1 and self._waiting[1].frame <= sink.settled:
            self._waiting.popleft()
        self._waiting.append(
            Checkpoint(
                run=self._described(),
                weights=self._description.weights,
                frame=at.frame,
                clip_frames=at.clip_frames,
                skip=at.place.skip,
                frames_sha256=at.frames_sha256,
                coded_sha256=sink.digest,
                tensors=at.place.state.tensors(),
            )
        )

    def _commit_settled(self) -> None:
        """The latest whose frames are on the disk."""
        latest, sink = None, self._sink
        assert sink is not None
        while self._waiting and self._waiting[0].frame <= sink.settled:
            latest = self._waiting.popleft()
        if latest is not None:
            sink.sync()
            self._commit(latest)

    def _commit(self, checkpoint: Checkpoint) -> None:
        self._next = time.monotonic() + self._every
        try:
            checkpoints.commit(self._folder, checkpoint)
        except OSError as error:
            self._unwritten(error)
            return
        self._warned = False
        checkpoints.drop(self._folder, checkpoints.spare(checkpoints.committed(self._folder)))

    def _describe_anew(self) -> None:
        """Where more was said: at once, for a kill before the next checkpoint must not take it.  What was said since a
        checkpoint comes to frames that had not entered the queue there, so the two go together.
        """
        run = self._described()
        if run == self._description.run:
            return
        anew = self._description.model_copy(update={"run": run})
        try:
            checkpoints.describe(self._folder, anew)
        except OSError as error:
            self._unwritten(error)  # and tried again with the next frame
        else:
            self._description = anew

    def _unwritten(self, error: OSError) -> None:
        if not self._warned:
            why = error.strerror or str(error)
            self._warn(f"no checkpoint could be written to {self._folder} ({why}); the video goes on")
        self._warned = True


def check_free(folder: Path, output: str, but: str | None = None) -> None:
    """Raises BadInput where a run of this folder was not finished.  but: a file under way that is not of that run."""
    if checkpoints.under_way(folder, but):
        raise BadInput(
            f"{output} was not finished, or is still being made; `fifo resume {output}` goes on with it, or delete "
            f"{folder} to begin anew"
        )


@dataclass(frozen=True)
class Beginning:
    """Where a run goes on: None of a checkpoint is the very start."""

    checkpoint: Checkpoint | None
    begun: Begun  # what is kept of the video


def choose(folder: Path, description: Description, at: int | None, warn: Warn) -> Beginning:
    """The latest checkpoint, at or before frame `at`, whose frames a file of this run holds.

    Raises BadInput when the video is not the one that this run made, a checkpoint is of another run, or there is
    none at or before `at`.
    """
    frames, whole = checkpoints.committed(folder), description.whole
    output = folder.parent / description.output
    files = [output] if description.partial is None else [folder.parent / description.partial, output]
    count, digests = _found(files, {*frames, whole})
    if (
        description.partial is None
        and whole is not None
        and (count.get(output) != whole or digests[output, whole] != description.coded_sha256)
    ):
        raise BadInput(
            f"{output} is not as the run in {folder} left it (it was changed, replaced or moved); put it back, or make "
            f"the video anew"
        )
    source = max(files, key=lambda file: count.get(file, 0))
    if whole is None and files[0].exists():
        source = files[0]  # this run has finished nothing: what has the name is a video that it was to replace
    nothing = Begun(source, 0, NOTHING, count.get(source, 0))
    unmatched = 0  # the latest checkpoint whose frames are not there
    for frame in frames:
        if at is not None and frame > at:
            continue
        found = checkpoints.load(folder, frame)
        if found is None:
            warn(f"the checkpoint of frame {frame} in {folder} is damaged; an earlier one is taken")
            continue
        if frame == 0 and not unmatched:
            return Beginning(found, nothing)
        for file in files:
            if digests.get((file, frame)) == found.coded_sha256:
                return Beginning(found, Begun(file, frame, found.coded_sha256, count[file]))
        unmatched = unmatched or frame
    if at is not None:
        kept = ", ".join(map(str, reversed(frames))) or "none"
        raise BadInput(
            f"there is no checkpoint at or before frame {at} whose frames are there; those kept are at {kept} "
            f"(--keep-checkpoints keeps more of a finished video)"
        )
    if unmatched:  # to begin again would write over what there is, or forget what can be put back
        raise BadInput(_taken_away(source, folder, unmatched))
    return Beginning(None, nothing)


def _found(files: Sequence[Path], wanted: Set[int | None]) -> tuple[dict[Path, int], dict[tuple[Path, int], str]]:
    """How many frames each file that is there holds, and its digest at those that are wanted."""
    count: dict[Path, int] = {}
    digests: dict[tuple[Path, int], str] = {}
    for file in files:
        for number, digest in enumerate(held(file) if file.exists() else (), 1):
            count[file] = number
            if number in wanted:
                digests[file, number] = digest
    return count, digests


def _taken_away(source: Path, folder: Path, frame: int) -> str:
    if not source.exists():
        return (
            f"{source} is not there, which held the frames up to {frame}; put it back, or delete {folder} and make the "
            "video anew"
        )
    return (
        f"{source} does not hold the frames before its checkpoint of frame {frame}, nor before an earlier one: one of "
        f"them was changed or taken away; put it back, or move {source} and {folder} away and make the video anew"
    )


def lengthened(
    said: Description,
    before: Beginning,
    frames: str | None,
    seconds: str | None,
    *,
    fork: bool,
) -> Run:
    """The run to go on with, of the length by then ("+500" is more than there is); the frames of a clip do not count.

    Raises BadInput for a length that is there already.
    """
    clip = said.clip_frames
    start = 0 if before.checkpoint is None else before.checkpoint.frame - before.checkpoint.clip_frames
    # A video goes on with all that was said of it, a fork with what had been said where it begins.
    run = before.checkpoint.run if fork and before.checkpoint is not None else said.run
    there = start if fork else max(0, before.begun.held - clip)
    total = said.run.frames
    if frames is not None and seconds is not None:
        raise BadInput(f"both --frames {frames} and --seconds {seconds} were given; give one of them")
    if frames is not None:
        total = _length("--frames", frames, there, 1)
    elif seconds is not None:
        total = _length("--seconds", seconds, there, run.fps)
    least = (
        start if fork else max(there - 1, (said.whole or 0) - clip)
    )  # a video cut off at its last frame is not finished
    if total and total <= least:
        has = f"all its {there} frames" if there == total else f"{there} frames already, more than {total}"
        raise BadInput(f"it has {has}; say how many more with --frames +500, or --frames 0 to go on until Ctrl-C")
    return Run.of({**run.model_dump(), "frames": total})


def _length(name: str, text: str, there: int, each: float) -> int:
    """In frames; each: of those in one of what is counted."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    more = text.startswith("+")
    if not 0 <= number < 2**53 or (each == 1 and number % 1) or (number == 0 and (more or name != "--frames")):
        raise BadInput(
            f"{name} is {text!r}; give how many {name[2:]} in all, such as 600, or how many more, such as +500"
        )
    count = max(1, round(number * each)) if number else 0  # 0 is without end
    return count + (there if more else 0)


def same_file(one: str | Path, other: str | Path) -> bool:
    """By name, and by what is there: on many disks A.mp4 and a.mp4 are one file."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def check_fork(home: Path, output: str) -> None:
    """Raises BadInput unless this can begin as a copy of what home, a video or a folder, begins with."""
    if (
        output in ("-", "null")
        or is_folder(output) != home.is_dir()
        or (not home.is_dir() and Path(output).suffix.lower() != home.suffix.lower())
    ):
        kind = "a folder" if home.is_dir() else f"a name that ends in {home.suffix}"
        raise BadInput(f"{output} cannot begin with a copy of the frames of {home}; give {kind}")
    if same_file(output, home):
        raise BadInput(f"{output} is the video to begin from, which is kept as it is; name another")


def check_same(said: Description, weights: str, machine: Mapping[str, str | int], warn: Warn) -> None:
    """Raises BadInput for a model of other weights; warns of what may change the last bit."""
    if weights != said.weights:
        raise BadInput(
            f"the weights of {said.run.model} are {weights[:12]} and were {said.weights[:12]} when {said.output} was "
            f"begun, so it would become another video; go on with those it was begun with"
        )
    other = ", ".join(
        f"{name} was {then}, is {machine.get(name)}" for name, then in said.machine.items() if machine.get(name) != then
    )
    if other:
        warn(f"{other}: the frames from here on may differ in a bit from those of a run that was never stopped")
