"""Ideas to make FIFO better, each measured with the exact instrument of `exact.py` at a stated number of calls.

    python benchmarks/exact_ideas.py

They are written here and not in the engine, because none but the kept range earned a place there (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from exact import Case, Row, autocovariance, figures, impulses, measured, plainly, truth
from fifo_diffusion.engine import Engine, State
from fifo_diffusion.execute import Batched
from fifo_diffusion.protocols import Noise
from fifo_diffusion.windows import Plan, Window
from report import show

CASE = Case()
VIDEOS = ("AR .9", "AR .99 + AR .6", "still + wave of 12")


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


def _figures(case: Case, calls: float, make, advance=plainly) -> dict[str, float]:
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
    """The queue cut into pieces of the given lengths, each in the middle of its window; `lead` clean places."""

    lengths: tuple[int, ...] = ()
    lead: int = 0

    @property
    def context(self) -> int:
        return self.lead

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        ends = [self.lead + e for e in accumulate(self.lengths, initial=0)]
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
    f64 = torch.float64
    last, middle = replace(case, keep="last"), replace(case, keep="middle")
    late = replace(case, keep=(6, 14))
    half = replace(case, partitions=2)
    yield "the paper", measured(last, f64)
    for lo in (4, 5, 6, 7):
        yield f"kept {lo}-{lo + 8}", measured(replace(case, keep=(lo, lo + 8)), f64)
        yield f"kept {lo}-{lo + 8}, 2M", measured(replace(case, keep=(lo, lo + 8), solver="2m"), f64)
    for name, base in (("paper", last), ("6-14", late)):
        first = base.plan.context
        for m, spread in ((2, 4), (4, 4), (4, 16)):
            older = m * spread
            guides = [spread * i for i in range(m)]
            for placed in (True, False):
                for longer in (False, True):
                    how = f"{'longer ' if longer else ''}window, {'placed' if placed else 'as neighbours'}"
                    yield (
                        f"{name} + {m} clean frames {spread} apart, {how}",
                        guided(base, older, guides, placed, longer),
                    )
        yield (
            f"{name} + the 4 clean frames nearest, placed",
            guided(base, 0, [first - 4 + i for i in range(4)], True, False),
        )
    for name, base in (("paper", last), ("6-14", late)):
        for c in (0.1, 0.2, 0.3, 0.5):
            yield f"{name}, tail correlated {c}", correlated_tail(base, c)
    for k, n in ((2, 4), (4, 4), (2, 8), (4, 16)):
        for name, keep in (("paper", "last"), ("middle", "middle")):
            yield f"{name}, {k} frames a level, n {n}", measured(replace(case, keep=keep, partitions=n, frames_per_level=k), f64)
    for n in (1, 2, 3, 4):
        for name, keep in (("paper", "last"), ("6-14", (6, 14))):
            for solver in ("ddim", "2m"):
                yield f"{name}, n {n}, {solver}", measured(replace(case, keep=keep, partitions=n, solver=solver), f64)
    for r in (0.02, 0.05, 0.1, 0.2):
        plan = replace(half, keep=(6, 14))
        yield f"6-14, n 2, corrector {r}", _figures(case, 2.0 * len(plan.plan.windows), plan.engine, Corrected(r))
        plan = replace(half, keep="last")
        yield f"paper, n 2, corrector {r}", _figures(case, 2.0 * len(plan.plan.windows), plan.engine, Corrected(r))
    yield "averaged, paper's windows", _figures(case, 8.0, last.engine, averaged)
    yield "averaged, 6-14's windows", _figures(case, 8.0, late.engine, averaged)
    # cuts in turn
    n = case.partitions
    whole, stag = (16,) * n, (8,) + (16,) * (n - 1) + (8,)
    yield "no lookahead", measured(replace(case, keep="all"), f64)
    for lead in (0, 4, 8):
        yield (
            f"cuts in turn, whole windows, context {lead}",
            in_turn(case, [Cut(16, n, lengths=whole, lead=lead), Cut(16, n, lengths=stag, lead=lead)]),
        )
        eights = (8,) * (2 * n)
        shifted = (4,) + (8,) * (2 * n - 1) + (4,)
        yield (
            f"cuts in turn, halves, context {lead}",
            in_turn(case, [Cut(16, n, lengths=eights, lead=lead), Cut(16, n, lengths=shifted, lead=lead)]),
        )
    for lead in (4, 6, 8):
        for name, lengths in {
            "even": (8,) * 8,
            "short at the noisy end": (14, 12, 10, 8, 6, 6, 4, 4),
            "short at the clean end": (4, 4, 6, 6, 8, 10, 12, 14),
            "short in the middle": (12, 8, 6, 4, 4, 6, 10, 14),
        }.items():
            if n == 4:
                yield f"pieces {name}, context {lead}", in_turn(case, [Cut(16, n, lengths=lengths, lead=lead)])


def rows() -> Iterator[Row]:
    results = [dict(ideas(replace(CASE, video=video))) for video in VIDEOS]
    for name, first in results[0].items():
        row: dict[str, str | float | int] = {"idea": name, "calls": first["calls"]}
        for video, result in zip(VIDEOS, results, strict=True):
            row |= {f"{video}: {what}": result[name][what] for what in ("variance", "lag 8", "distance")}
        yield row


def main() -> None:
    show("ideas, exactly", list(rows()))


if __name__ == "__main__":
    main()
