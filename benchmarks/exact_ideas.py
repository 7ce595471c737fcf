"""Ideas to make FIFO better, each measured with the exact instrument of `exact.py` at a stated number of calls.

    python benchmarks/exact_ideas.py

They are written here and not in the engine, because none but the kept range earned a place there (docs/method.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from exact import (
    SOLVERS,
    SPACINGS,
    VIDEOS,
    Advance,
    Case,
    autocovariance,
    calls,
    figures,
    impulses,
    measured,
    plainly,
    truth,
)
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.execute import Batched
from fifo_diffusion.models.gauss import GaussianVideo
from fifo_diffusion.protocols import Noise
from fifo_diffusion.schedule import NoiseSchedule
from fifo_diffusion.windows import Plan, Window
from report import Row, show

SHOWN = {"AR": "AR .9", "sum": "AR .99 + AR .6", "wave": "still + wave of 12"}


# --- a few clean frames from before, in front of every window (MIGA, arXiv:2605.18233) ---


@dataclass(frozen=True)
class Remembering(Plan):
    """A plan whose queue keeps `older` more clean frames in front."""

    older: int = 0

    @property
    def context(self) -> int:
        return self.kept[0] + self.older

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        plain = Plan(self.window, self.partitions, self.keep, self.frames_per_level).windows
        return tuple(Window(_later(w.read, self.older), _later(w.write, self.older)) for w in plain)


def _later(places: slice, by: int) -> slice:
    return slice(places.start + by, places.stop + by)


@dataclass(frozen=True)
class WithGuides:
    """An iteration whose windows also read the clean places `guides`, in front.

    placed: the network is told where they really lie; otherwise it takes them for the neighbours, as a network that
    was trained on whole clips does.  longer: the window grows by them; otherwise it gives up as many of its own.
    """

    guides: Sequence[int]
    placed: bool
    longer: bool

    def __call__(self, engine: Engine, state: State) -> tuple[Tensor, State]:
        assert isinstance(engine.execute, Batched)
        network, level = engine.execute.denoise, engine.plan.level
        time = engine.schedule.times(level, state.queue)
        answers = []
        for w in engine.plan.windows:
            own = list(range(w.read.start, w.read.stop))
            guides = [g for g in self.guides if g < w.read.start]
            if not self.longer:  # what the window gives up lies before what it writes, then behind
                spare = [p for p in own if p < w.write.start] + [p for p in own if p >= w.write.stop][::-1]
                own = [p for p in own if p not in spare[: len(guides)]]
            places = torch.tensor([*guides, *own])
            cond = {"frame": places[None]} if self.placed else {}
            out = network(state.queue[:, :, places], time[places][None], cond)
            answer = torch.zeros_like(state.queue[:, :, w.read])
            answer[:, :, torch.tensor(own) - w.read.start] = out[:, :, len(guides) :]
            answers.append(answer)
        return engine.settle(state, answers)


def guided(case: Case, older: int, guides: Sequence[int], placed: bool, longer: bool) -> dict[str, float]:
    plan = Remembering(case.window, case.partitions, case.keep, older=older)
    advance = WithGuides(guides, placed, longer)
    return _figures(case, len(plan.windows), lambda noise: replace(case.engine(noise), plan=plan), advance)


def _figures(case: Case, calls: float, make: Callable[[Noise], Engine], advance: Advance = plainly) -> dict[str, float]:
    return {"calls": calls, **figures(autocovariance(*impulses(make, advance)), truth(case))}


# --- the noise that enters is correlated with what entered before (after Ouroboros, arXiv:2501.09019) ---


def correlated_tail(case: Case, c: float) -> dict[str, float]:
    """The noise of frame n is  sqrt(1 - c^2) sum over i of c^i e[n - i],  so c between neighbours; eta is 0."""
    response, together = impulses(case.engine)
    out, share = torch.zeros_like(response), (1 - c**2) ** 0.5
    for i in range(60):
        out[:, i:] += share * c**i * response[:, : response.shape[1] - i]
    return {"calls": float(len(case.plan.windows)), **figures(autocovariance(out, together), truth(case))}


# --- one Langevin step at the same level before each step down: twice the calls ---


@dataclass(frozen=True)
class Corrected:
    """z + r sigma^2 score + sqrt(2 r) sigma noise for every noisy place, then the step."""

    r: float

    def __call__(self, engine: Engine, state: State) -> tuple[Tensor, State]:
        _, out, level = engine._answered(state, engine.execute(engine.calls(state)))
        queue, moving = state.queue.clone(), engine._moving(state)
        z = queue[:, :, moving]
        _, eps = engine.schedule.split(z, out, level)
        sigma = engine.schedule.sigma[level].to(z).view(1, 1, -1, 1, 1)
        fresh = torch.stack([engine.noise(i, -1, z[:, :, 0]) for i in range(z.shape[2])], dim=2)
        queue[:, :, moving] = z - self.r * sigma * eps + (2 * self.r) ** 0.5 * sigma * fresh
        return engine.advance(replace(state, queue=queue))


# --- the cuts lie elsewhere in every other iteration ---


@dataclass(frozen=True)
class Cut(Plan):
    """The queue cut into pieces of the given lengths, each in the middle of its window; f // 4 clean places."""

    lengths: tuple[int, ...] = ()

    @property
    def context(self) -> int:
        return self.window // 4

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        ends = [self.context + e for e in accumulate(self.lengths, initial=0)]
        out = []
        for start, stop in pairwise(ends):
            first = start - (self.window - (stop - start)) // 2
            first = min(max(first, 0), self.length - self.window)
            out.append(Window(slice(first, first + self.window), slice(start, stop)))
        return tuple(out)


@dataclass(frozen=True)
class InTurn:
    """As many iterations as there are plans, each with its own; they share length and levels."""

    plans: Sequence[Plan]

    def __call__(self, engine: Engine, state: State) -> tuple[Tensor, State]:
        frames = []
        for plan in self.plans:
            some, state = replace(engine, plan=plan).advance(state)
            frames.append(some)
        return torch.cat(frames, dim=2), state


def in_turn(case: Case, plans: Sequence[Plan]) -> dict[str, float]:
    calls = sum(len(plan.windows) for plan in plans) / len(plans)
    return _figures(case, calls, lambda noise: replace(case.engine(noise), plan=plans[0]), InTurn(plans))


# --- several levels a place: a short queue in fine steps, the other way round than several frames a level ---


@dataclass(frozen=True)
class Fine:
    """m steps of a schedule with m times the levels, and only then does the queue move on by a frame."""

    m: int
    schedule: NoiseSchedule

    def __call__(self, engine: Engine, state: State) -> tuple[Tensor, State]:
        assert isinstance(engine.execute, Batched)
        plan, fine, network = engine.plan, self.schedule, engine.execute.denoise
        queue, past, noisy = state.queue, state.past, slice(engine.plan.context, None)
        for done in range(self.m):
            level = (self.m * plan.level - done).clamp(min=0)
            time = fine.times(level, queue)[None]
            out = [network(queue[:, :, w.read], time[:, w.read], {})[:, :, w.kept] for w in plan.windows]
            z, answer = queue[:, :, noisy], torch.cat(out, dim=2)
            if past is None:
                z = fine.step(z, answer, level[noisy])
            else:
                z, x0 = fine.step_2m(z, answer, level[noisy], past[:, :, noisy])
                past = torch.cat([past[:, :, : plan.context], x0], dim=2)
            queue = torch.cat([queue[:, :, : plan.context], z], dim=2)
        off = queue[:, :, plan.context : plan.context + 1]
        tail = engine.noise(0, plan.levels, off[:, :, 0])[:, :, None]
        queue = torch.cat([queue[:, :, 1:], tail], dim=2)
        if past is not None:
            past = torch.cat([past[:, :, 1:], torch.zeros_like(off)], dim=2)
        return off, State(state.iteration + 1, queue, past)


def fine(case: Case, m: int) -> dict[str, float]:
    schedule = SPACINGS[case.spacing](m * case.plan.levels)
    network = GaussianVideo(schedule, autocovariance=VIDEOS[case.video])

    def make(noise: Noise) -> Engine:
        return replace(case.engine(noise), execute=Batched(network, 64))

    return _figures(case, m * calls(case), make, Fine(m, schedule))


# --- overlapping windows averaged ---


def averaged(engine: Engine, state: State) -> tuple[Tensor, State]:
    """Every place hears all windows that read it, weighted by how far it is from their ends."""
    answers = engine.execute(engine.calls(state))
    f = engine.plan.window
    weight = torch.minimum(torch.arange(f), torch.arange(f).flip(0)).to(state.queue) + 0.5
    total, shares = torch.zeros_like(state.queue), torch.zeros_like(state.queue)
    for w, answer in zip(engine.plan.windows, answers, strict=True):
        total[:, :, w.read] += answer * weight.view(1, 1, -1, 1, 1)
        shares[:, :, w.read] += weight.view(1, 1, -1, 1, 1)
    mean = total / shares
    return engine.settle(state, [mean[:, :, w.read] for w in engine.plan.windows])


def ideas(case: Case) -> Iterator[tuple[str, dict[str, float]]]:
    """Case by case; `paper` is n 4 with the last half kept, `late` keeps 6-14; DDIM unless it says 2M."""
    exactly = torch.float64
    paper, late = replace(case, keep="last"), replace(case, keep=(6, 14))
    bases = {"paper": paper, "late": late}

    def both(**changed: Any) -> Iterator[tuple[str, Case]]:
        yield from ((name, replace(base, **changed)) for name, base in bases.items())

    for lo in (8, 7, 6, 5, 4):
        for solver in SOLVERS:
            kept = replace(case, keep=(lo, lo + 8), solver=solver)
            yield f"kept {lo}-{lo + 8}{'' if solver == 'ddim' else ', 2M'}", measured(kept, exactly)
    for n in (3, 2, 1):
        for solver in SOLVERS:
            for name, some in both(partitions=n, solver=solver):
                yield f"{name}, n {n}{'' if solver == 'ddim' else ', 2M'}", measured(some, exactly)
    for n, m in ((2, 2), (1, 2), (1, 4)):
        for solver in SOLVERS:
            for name, some in both(partitions=n, solver=solver):
                yield f"{name}, n {n}, {m} levels a place{'' if solver == 'ddim' else ', 2M'}", fine(some, m)
    for k, n in ((2, 4), (4, 4), (2, 8), (4, 16)):
        for name, some in both(partitions=n, frames_per_level=k):
            yield f"{name}, {k} frames a level, n {n}", measured(some, exactly)
    for name, base in bases.items():
        for spread in (1, 4, 16):
            for placed in (True, False):
                for longer in (True, False):
                    how = f"{'longer' if longer else 'same'} window, {'placed' if placed else 'as neighbours'}"
                    guides = range(0, 4 * spread, spread)
                    yield (
                        f"{name}, 4 clean frames {spread} apart, {how}",
                        guided(base, guides.stop, guides, placed, longer),
                    )
    for c in (0.05, 0.1, 0.2, 0.3):
        for name, base in bases.items():
            yield f"{name}, tail correlated {c}", correlated_tail(base, c)
        yield f"late, n 2, 2M, tail correlated {c}", correlated_tail(replace(late, partitions=2, solver="2m"), c)
    for r in (0.05, 0.2, 0.4):
        for name, some in both(partitions=2):
            yield f"{name}, n 2, corrector {r}", _figures(case, 2 * calls(some), some.engine, Corrected(r))
    for name, base in bases.items():
        yield f"{name}, windows averaged", _figures(case, calls(base), base.engine, averaged)
    yield "no lookahead", measured(replace(case, keep="all"), exactly)
    for name, one, other in (
        ("no lookahead", (16, 16, 16, 16), (8, 16, 16, 16, 8)),
        ("middle half", (8,) * 8, (4, *(8,) * 7, 4)),
    ):
        yield f"{name}, cuts in turn", in_turn(case, [Cut(16, 4, lengths=one), Cut(16, 4, lengths=other)])
    for name, lengths in (
        ("short at the noisy end", (14, 12, 10, 8, 6, 6, 4, 4)),
        ("short at the clean end", (4, 4, 6, 6, 8, 10, 12, 14)),
    ):
        yield f"centred pieces {name}", in_turn(case, [Cut(16, 4, lengths=lengths)])


def rows() -> Iterator[Row]:
    results = [dict(ideas(Case(video=video))) for video in SHOWN.values()]
    for name, first in results[0].items():
        row: dict[str, str | float | int] = {"idea": name, "calls": first["calls"]}
        for video, result in zip(SHOWN, results, strict=True):
            row |= {f"{video} {what}": result[name][what] for what in ("variance", "lag 8", "distance ‰")}
        yield row


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()  # --help, and no flags
    torch.set_num_threads(1)  # the matrices are small
    show("ideas, exactly", list(rows()))


if __name__ == "__main__":
    main()
