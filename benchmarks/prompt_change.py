"""When the prompt changes, how soon does the video, and how cleanly?  By the judge of the embedded model's gates.

    python benchmarks/prompt_change.py --folder DIR [--seeds 1] [--partitions 4] [--only scene]

Two ways: by frame, where each frame carries its own text through the queue and a new prompt begins at the first frame
that has not entered it; and the whole queue at once, as the authors' code does.  Both are told at the same moment.
The judge looks at four neighbouring frames; the new content shows from the first of four such looks in a row that
see it.  `after said` counts from the next frame to come off when the words were said, `after asked` from the frame
that they were asked for (at once: the same).  `before` and `after` are the looks before and after it shows that see
the old and the new; `rest` are the looks that see what should not have changed.  DIR is the one of
`fifo evaluate gates`: art and judge, made there where they are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.decode import to_frames
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.evaluate.gates import trained_judge
from fifo_diffusion.evaluate.judge import ATTRIBUTES, LOOK, Judge
from fifo_diffusion.evaluate.world import Shown
from fifo_diffusion.models import card
from fifo_diffusion.prompts import Table
from fifo_diffusion.protocols import Cond
from fifo_diffusion.session import Session
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.clips import Caption
from fifo_diffusion.world.kinds import SMALL
from report import Row, show

BALLOON = Caption("balloon", "red", "snowy mountains", "right")
WHALE = Caption("whale", "blue", "ocean", "left")
CHANGES = {
    "scene": ((BALLOON, "city"), (WHALE, "desert")),
    "colour": ((BALLOON, "green"), (WHALE, "yellow")),
    "motion": ((BALLOON, "left"), (WHALE, "right")),
}
WAYS = (("by frame", 0), ("by frame", 10), ("whole queue", 0), ("whole queue", 10))
BEFORE, AFTER = 8, 40  # frames before the words, frames after the asked one


@dataclass(eq=False)
class WholeQueue:
    """The authors' way with several prompts, to compare with: every window hears the same, and the whole queue changes
    at once, also what is nearly clean.

    Frames depend on when it changes: `frame` is set from outside, to the number of the frame that comes off next.
    """

    table: Table
    frame: int = 0

    def __call__(self, frames: range, /) -> Cond:
        """What the frame numbered `frame` hears in the table, whatever the window."""
        return self.table(range(self.frame, self.frame + 1))


@dataclass(frozen=True)
class Seen:
    """One video around its change; frames count from the next to come off when the words were said."""

    asked: int
    shows: int | None  # None: never
    before: float  # shares of looks
    after: float
    rest: float


def watch(
    judge: Judge, session: Session, state: State, first: Tensor, old: Caption, what: str, new: str
) -> Iterator[Seen]:
    """One for each of WAYS, from the same state; first: the BEFORE latents that came off before it."""
    then = replace(old, **{what: new})
    for way, blend in WAYS:
        table = unheard(session)
        said = state.iteration
        if way == "by frame":
            table.begin(session.engine.entered(state))
            asked = table.say(plain(then), blend=blend)
            engine = replace(session.engine, condition=table)
            latents = list(frames_of(engine, state, None))
        else:
            asked = table.say(plain(then), at=said, blend=blend)
            whole = WholeQueue(table)
            latents = list(frames_of(replace(session.engine, condition=whole), state, whole))
        (pixels,) = session.model.decoder()(iter([torch.cat([first, *latents], dim=2)]))
        video = to_frames(pixels[0])
        looks = [judge.verdict(video[i : i + LOOK]) for i in range(len(video) - LOOK + 1)]
        yield weigh(looks, old, what, new, asked - said)


def unheard(session: Session) -> Table:
    """The session's table without what was said or heard."""
    t = session.prompts
    return Table(t.cues, t.embed, t.embed_negative, t.per_frame, negative_prompt=t.negative_prompt, guidance=t.guidance)


def frames_of(engine: Engine, state: State, whole: WholeQueue | None) -> Iterator[Tensor]:
    """The latents that come off from `state` on, as many as it takes to see the change by frame, and AFTER more."""
    for _ in range(engine.plan.length + AFTER):
        if whole is not None:
            whole.frame = state.iteration
        latent, state = engine.advance(state)
        yield latent


def weigh(looks: list[dict[str, str]], old: Caption, what: str, new: str, asked: int) -> Seen:
    """looks[i] begins at frame i - BEFORE."""
    seen = [look[what] for look in looks]
    shows = first_shown(new, seen)
    cut = len(seen) if shows is None else shows
    others = [look[name] == getattr(old, name) for look in looks for name in ATTRIBUTES if name != what]
    return Seen(
        asked=asked,
        shows=None if shows is None else shows - BEFORE,
        before=float(np.mean([value == getattr(old, what) for value in seen[:cut]])) if cut else 0.0,
        after=float(np.mean([value == new for value in seen[cut:]])) if cut < len(seen) else 0.0,
        rest=float(np.mean(others)),
    )


def first_shown(value: str, seen: Iterable[str]) -> int | None:
    """The number of the first of STEADY looks in a row that see the value; None where there are none."""
    shown = Shown(value)
    for one in seen:
        shown.see(one)
    return shown.first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=card("embedded").partitions)
    parser.add_argument("--only", choices=list(CHANGES))
    given = parser.parse_args()
    judge = trained_judge(SMALL.art(given.folder), given.folder)
    rows: list[Row] = []
    for what in CHANGES if given.only is None else (given.only,):
        videos: list[list[Seen]] = []
        for seed in range(given.seeds):
            for old, new in CHANGES[what]:
                session = Session(resolve(Run(prompt=plain(old), seed=seed, partitions=given.partitions, frames=0)))
                made = list(islice(session.engine.stream(session.start()), BEFORE))
                first = torch.cat([latent for latent, _ in made], dim=2)
                videos.append(list(watch(judge, session, made[-1][1], first, old, what, new)))
        rows += (
            row(what, way, blend, list(of)) for (way, blend), of in zip(WAYS, zip(*videos, strict=True), strict=True)
        )
    show(f"prompt change, {given.partitions} partitions", rows)


def row(what: str, way: str, blend: int, of: list[Seen]) -> Row:
    shown = [(seen.shows, seen.shows - seen.asked) for seen in of if seen.shows is not None]
    said, asked = (float(value) for value in np.median(shown, axis=0)) if shown else ("never", "never")
    return {
        "change": what,
        "way": way,
        "blend": blend,
        "shown": f"{len(shown)} of {len(of)}",
        "after said": said,
        "after asked": asked,
        "before %": 100 * float(np.mean([seen.before for seen in of])),
        "after %": 100 * float(np.mean([seen.after for seen in of])),
        "rest %": 100 * float(np.mean([seen.rest for seen in of])),
    }


if __name__ == "__main__":
    main()
