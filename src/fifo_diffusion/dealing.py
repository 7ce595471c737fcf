"""How the calls of an iteration are answered: guided, in batches, in one process or dealt to ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fifo_diffusion.config import Decided
from fifo_diffusion.execute import Batched
from fifo_diffusion.groups import Agreed, groups
from fifo_diffusion.guidance import Guided, GuidedLevels, Halves
from fifo_diffusion.meter import Meter
from fifo_diffusion.prompts import Table
from fifo_diffusion.protocols import Call, Denoiser, Executor
from fifo_diffusion.ranks import Ranks
from fifo_diffusion.together import Together, in_step


@dataclass(frozen=True, eq=False)
class Dealing:
    """A run's network, and who evaluates it.

    network: the bare one; timed: counts the time of the network that it is given; group: None in one process.
    """

    run: Decided
    network: Denoiser
    timed: Callable[[Denoiser], Denoiser]
    group: Together | None
    meter: Meter

    @property
    def guided(self) -> Denoiser:
        return self.timed(Guided(self.network, self.run.guidance, batched=self.run.halves == "together"))

    @property
    def alone(self) -> Executor:
        return self._batched(self.guided)

    def _batched(self, network: Denoiser) -> Executor:
        compiled, alone = self.run.compile == "on", self.run.split == 1
        return Batched(network, self.run.batch, few_sizes=compiled, gives_way=alone)

    def executor(self, prompts: Table, levels: tuple[int, int] | None) -> Executor:
        """levels: the first and last that are guided; None: all.

        `GuidedLevels` is outermost: it takes the second half of guidance from the calls that need none, and whatever
        deals the halves to ranks must see how many are left.
        """
        answering = self._answering
        if self.group is not None and self.group.rank == 0:
            answering = _Leading(self.group, prompts, answering)
        return answering if levels is None else GuidedLevels(answering, self.run.guidance, *levels)

    @property
    def _answering(self) -> Executor:
        """Halves of guidance that are apart anyway are dealt as calls of their own."""
        if self.group is None:
            return self.alone
        if self.run.halves == "together":
            return self._dealt(self.alone)
        return Halves(self._dealt(self._batched(self.timed(self.network))), self.run.guidance)

    def _dealt(self, alone: Executor) -> Executor:
        if self.run.split == 1:
            return Ranks(alone, meter=self.meter)
        return _Grouped(alone, self.run.split, self.meter)


@dataclass(eq=False)
class _Leading:
    """Rank 0's executor: tells the others which prompts there are, and answers the calls with them."""

    group: Together
    prompts: Table
    execute: Executor
    _told: object = None  # the cues that the others have: of days there may be many

    def __call__(self, calls: Sequence[Call], /) -> Sequence[Tensor]:
        """Whatever these calls heard is among what is shared: a cue only comes to frames not yet heard."""
        with in_step():
            cues = self.prompts.cues
            self.group.say(() if cues is self._told else cues, awaited=True)
            self._told = cues
            answers = self.execute(calls)
            self.group.awaited = False
            return answers


@dataclass(frozen=True, eq=False)
class _Grouped:
    """Calls dealt over groups of ranks, which are made when they are first needed: then all ranks are there."""

    execute: Executor
    size: int
    meter: Meter

    def __call__(self, calls: Sequence[Call], /) -> Sequence[Tensor]:
        made = groups(self.size)
        return Ranks(Agreed(self.execute, made.within), made.across, meter=self.meter)(calls)
