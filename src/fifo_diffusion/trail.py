"""Where a running stream can be begun again: which state gives which frame.

Knows no state and no decoder, only their numbers.  S is whatever can carry the stream on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True)
class Place(Generic[S]):
    """A state, and what of the frames that it gives has been before."""

    state: S
    skip: int  # frames to leave out
    frame: int  # the number of the one after them


@dataclass
class Trail(Generic[S]):
    """The last states of a stream that it could be begun again from; two of them, mostly.

    A decoder may hold frames back and remember latents, so a new one can only begin where the running one begins
    anew: every `period` latents (None: never, then all is made again from the start, and left out).  Its first
    frame there is left out where a latent stands for several, for without a past it is another one.
    """

    period: int | None = 1
    per_latent: int = 1  # frames; a video's first latent is one frame all the same
    given: int = 0  # frames that came out so far
    lead: int = 0  # latents of a clip that the decoder saw before number 0
    _states: list[tuple[int, S]] = field(default_factory=list)

    def begin(self, period: int | None, per_latent: int, given: int, lead: int = 0) -> None:
        """Another stream, or the same one somewhere else."""
        self.period, self.per_latent, self.given, self.lead, self._states = period, per_latent, given, lead, []

    def passes(self, latent: int, state: S) -> None:
        """The state whose next latent to be seen has this number."""
        if latent and (self.period is None or (self.lead + latent) % self.period):
            return
        kept = [(at, before) for at, before in self._states if at != latent]  # the run-in gives no latent
        while len(kept) > 1 and self._first(kept[1][0]) <= self.given:
            del kept[0]
        self._states = [*kept, (latent, state)]

    def place(self) -> Place[S]:
        """Where to begin again so that the next frame is the one that is next now."""
        latent, state = next(pair for pair in reversed(self._states) if self._first(pair[0]) <= self.given)
        return Place(state, self.given - self._at(latent), self.given)

    def _first(self, latent: int) -> int:
        """The first frame that a decoder begun at this latent gets right."""
        return self._at(latent) + (1 if self.per_latent > 1 and latent else 0)

    def _at(self, latent: int) -> int:
        """The frame that a decoder begun at this latent gives first; behind a clip no latent is one frame alone."""
        return latent * self.per_latent + (self.per_latent - 1 if self.lead and latent else 0)
