"""Which frames each network call reads, and which of its answers are kept.

The queue is what the engine holds:

    [ context: already clean | level 1 | level 2 | ... | level K ]

Letters: f the window, n the partitions, K the levels, k the frames that share a level.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput

Keep = Literal["all", "last", "middle"] | tuple[int, int]


@dataclass(frozen=True)
class Window:
    """One call: it reads f places, and its answer for the places in `write` (part of `read`) is used."""

    read: slice
    write: slice

    @property
    def kept(self) -> slice:
        """`write`, counted from the first frame of the window."""
        return slice(self.write.start - self.read.start, self.write.stop - self.read.start)


@dataclass(frozen=True)
class Plan:
    """Latent partitioning (sec. 3.3 of arXiv:2405.11473) and lookahead denoising (sec. 3.4).

    window f >= 1 frames, partitions n >= 1.  frames_per_level k >= 1 consecutive frames sit at each level and
    leave together; K = f n / k.  keep, the part of each window that is used:

    - "all": latent partitioning alone, n calls an iteration, no context;
    - "last": the last half, the paper's lookahead: 2n calls, f // 2 clean frames of context;
    - "middle": the middle half: also 2n calls, f // 4 frames of context, and every frame sees noisier
      neighbours as well as cleaner ones;
    - (lo, hi): those frames of each window: ceil(f n / (hi - lo)) calls, lo frames of context.

    The last window reaches the end of the queue, so it also keeps its tail.  A window of one frame has no
    neighbours to look at: every named choice is then "all", at n calls.  Raises BadInput.
    """

    window: int
    partitions: int
    keep: Keep = "last"
    frames_per_level: int = 1

    def __post_init__(self) -> None:
        for name in ("window", "partitions", "frames_per_level"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it must be at least 1")
        if isinstance(self.keep, str):
            if self.keep not in ("all", "last", "middle"):
                raise BadInput(f'keep is {self.keep!r}; it must be "all", "last", "middle" or a pair (lo, hi)')
        elif len(self.keep) != 2 or not 0 <= self.keep[0] < self.keep[1] <= self.window:
            raise BadInput(
                f"keep is {self.keep}; of a window of {self.window}, 0 <= lo < hi <= {self.window} can be kept"
            )
        if self.window * self.partitions % self.frames_per_level:
            raise BadInput(
                f"{self.partitions} windows of {self.window} frames cannot be shared out "
                f"{self.frames_per_level} to a "
                f"level; frames_per_level must divide {self.window * self.partitions}"
            )

    @property
    def kept(self) -> tuple[int, int]:
        """(lo, hi): the frames of a window that are used, but at the ends of the queue."""
        f = self.window
        match self.keep:
            case "all":
                return 0, f
            case "last":
                return f // 2, f
            case "middle":
                return f // 4, f // 4 + (f + 1) // 2
            case lo, hi:
                return lo, hi
        raise AssertionError(self.keep)

    @property
    def levels(self) -> int:
        """K."""
        return self.window * self.partitions // self.frames_per_level

    @property
    def context(self) -> int:
        """How many frames, already clean, stay at the front of the queue to be looked at."""
        return self.kept[0]

    @property
    def length(self) -> int:
        """Places in the queue."""
        return self.context + self.window * self.partitions

    @property
    def cleanest(self) -> int:
        """The level of the first place."""
        return 0 if self.context else 1

    @cached_property
    def level(self) -> Tensor:
        """(length,) the noise level of each place in the queue."""
        noisy = torch.arange(1, self.levels + 1).repeat_interleave(self.frames_per_level)
        return torch.cat([torch.zeros(self.context, dtype=torch.long), noisy])

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The calls of one iteration.  Their `write`s tile the noisy places exactly once, in order.

        The noisy places are shared out as evenly as whole frames allow; for odd f the halves alternate.
        """
        lo, hi = self.kept
        noisy, f = self.window * self.partitions, self.window
        if isinstance(self.keep, str):
            count = self.partitions if self.keep == "all" else 2 * self.partitions
        else:
            count = -(-noisy // (hi - lo))
        ends = [lo + -(-noisy * i // count) for i in range(count + 1)]
        out: list[Window] = []
        for start, stop in pairwise(ends):
            first = min(max(stop - hi, 0), self.length - f)
            if start < stop:  # half of a window of one frame is nothing
                out.append(Window(read=slice(first, first + f), write=slice(start, stop)))
        return tuple(out)
