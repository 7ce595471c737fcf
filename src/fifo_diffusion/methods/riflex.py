"""RIFLEx (Zhao et al. 2025, arXiv:2502.15894): a longer video from rotary positions, one of which turns slower.

Component k of rotary positions comes back to where it was after N_k = 2 pi / rate_k frames.  Asked for more frames
than it was trained on, a network repeats itself after N of them, and the component whose period is nearest to N is what
makes it (eq. 7: the intrinsic frequency).  It is slowed down so that the whole video stays within one period (eq. 8);
all else is plain sampling.  N is seen, not computed: a model's card tells it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fifo_diffusion.protocols import Turn

PART = 0.9
"""Of one period, what the video fills: eq. 8 has 1, the authors' code .9, since some videos repeated at their end."""


def slower(rates: Sequence[float], repeats: int, window: int, length: int) -> Turn | None:
    """What is to turn slower for a video of `length` latent frames; None where nothing is: a video no longer than the
    window that the network was trained on, or than the period (where the authors begin, too).

    rates: radians a latent frame; repeats: N.
    """
    periods = [2 * math.pi / rate for rate in rates]
    k = min(range(len(periods)), key=lambda j: abs(periods[j] - repeats))
    if length <= max(window, periods[k]):
        return None
    return Turn(k, PART * 2 * math.pi / length)
