"""What a video of an embedded world shows, against what its prompt says: subject, colour, scene, motion and speed.

By the judge, which knows real renders only (`judge`); so a number here is of the model, not of a network that was
trained along with it.  Where the prompt changes, how many frames it takes until the video shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fifo_diffusion.evaluate.gates import judge_file, load_judge
from fifo_diffusion.evaluate.judge import JUDGED, LOOK, Judge
from fifo_diffusion.evaluate.metric import Meter, Metric, Quantity, Reading, Video
from fifo_diffusion.models.files import cache_folder
from fifo_diffusion.world.captions import understood
from fifo_diffusion.world.kinds import KINDS, SMALL, Kind

BLOCK = 100  # frames
STEADY = 4  # looks in a row that must see what is new


def folder() -> Path:
    """Where the world's art and the trained judge are kept."""
    return cache_folder() / "world"


class Shown:
    """Hears look by look what is seen; `first` is the number of the first of STEADY looks in a row that saw it."""

    def __init__(self, value: str) -> None:
        self._value, self._run, self._looks = value, 0, 0
        self.first: int | None = None

    def see(self, value: str) -> None:
        self._looks += 1
        self._run = self._run + 1 if value == self._value else 0
        if self.first is None and self._run == STEADY:
            self.first = self._looks - STEADY


class World(Metric):
    """Of videos whose prompt speaks of an embedded world, at the size of the model that is trained on it."""

    name = "world"
    needs = "the judge of the embedded world, which fifo evaluate gates trains once and keeps"
    quantities = tuple(
        Quantity(
            f"{attribute} as told",
            "%",
            f"share of {LOOK} neighbouring frames in which the judge sees the {attribute} that the prompt says",
            "higher",
        )
        for attribute in JUDGED
    )

    def __init__(self) -> None:
        self._judges: dict[str, Judge] = {}

    def missing(self) -> str | None:
        files = [judge_file(folder(), kind=kind) for kind in KINDS.values()]
        if any(file.exists() for file in files):
            return None
        return f"the judge was not trained yet ({files[0]} is missing); train it once with: fifo evaluate gates"

    def suits(self, video: Video) -> bool:
        kind = _world(video)
        there = kind is not None and judge_file(folder(), kind=kind).exists()
        return there and bool(understood(video.prompt or "", kind or SMALL))

    def begin(self, video: Video) -> Meter:
        kind = _world(video)
        if kind is None:
            raise ValueError(f"no world's videos are {video.size}; ask `suits` first")
        if kind.name not in self._judges:
            file = judge_file(folder(), kind=kind)
            self._judges[kind.name] = load_judge(file, kind).to(video.device)
        return Looking(self._judges[kind.name], video)


def _world(video: Video) -> Kind | None:
    """Told by the size alone: each world's pictures have one."""
    return next((kind for kind in KINDS.values() if video.size == (kind.size, kind.size)), None)


class Looking(Meter):
    """Judges every LOOK neighbouring frames."""

    def __init__(self, judge: Judge, video: Video) -> None:
        self._judge, self._device = judge, video.device
        cues = video.cues or ((0, video.prompt or ""),)
        self._told = [(at, understood(prompt, judge.kind)) for at, prompt in cues]  # from which frame on
        self._before: Tensor | None = None  # the last LOOK - 1 frames or fewer
        self._frames = 0
        self._blocks: dict[int, dict[str, Counter[str]]] = {}
        self._changes = [
            (at, cues[i][1], {name: Shown(value) for name, value in now.items() if then.get(name) != value})
            for i, ((_, then), (at, now)) in enumerate(zip(self._told, self._told[1:], strict=False), 1)
        ]

    @torch.no_grad()
    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        known = frames if self._before is None else torch.cat([self._before, frames])
        start = first - (len(known) - len(frames))
        self._frames = first + len(frames)
        self._before = known[-(LOOK - 1) :].clone()
        if len(known) < LOOK:
            return
        x = (known.to(self._device).float() / 127.5 - 1).unfold(0, LOOK, 1)
        x = x.permute(0, 4, 1, 2, 3)  # (looks, LOOK, 3, h, w)
        seen = {name: scores.argmax(1).tolist() for name, scores in self._judge(x).items()}
        for i in range(len(x)):
            verdict = {name: self._judge.judged[name][values[i]] for name, values in seen.items()}
            yield from self._see(start + i, verdict)

    def _see(self, begins: int, verdict: Mapping[str, str]) -> Iterator[Reading]:
        counts = self._blocks.setdefault(begins // BLOCK, {name: Counter() for name in JUDGED})
        for name, value in verdict.items():
            counts[name][value] += 1
        for at, _, awaited in self._changes:
            if begins >= at:
                for name, shown in awaited.items():
                    shown.see(verdict[name])
        told = next(said for at, said in reversed(self._told) if at <= begins or at == self._told[0][0])
        for name, value in told.items():
            yield Reading(f"{name} as told", begins + LOOK - 1, 100.0 * (verdict[name] == value))

    def facts(self) -> Mapping[str, Any]:
        changes = [
            {"at frame": at, "prompt": prompt, "shows after": {name: s.first for name, s in awaited.items()}}
            for at, prompt, awaited in self._changes
            if awaited
        ]
        return {"prompt changes": changes, "seen": [self._block(block, seen) for block, seen in self._blocks.items()]}

    def _block(self, block: int, seen: Mapping[str, Counter[str]]) -> dict[str, str]:
        """What was seen most in it; of what stands still no speed."""
        still = seen["motion"].most_common(1)[0][0] == "still"
        last = min(BLOCK * (block + 1), self._frames) - 1
        told = {name: _most(counts) for name, counts in seen.items() if name != "speed" or not still}
        return {"frames": f"{BLOCK * block}–{last}", **told}


def _most(counts: Counter[str]) -> str:
    """What was seen most, and how often: "balloon 97 %"."""
    ((value, count),) = counts.most_common(1)
    return f"{value or 'neither slow nor quick'} {100 * count / counts.total():.0f} %"


METRICS = (World(),)
