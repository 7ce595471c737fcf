"""Types that have one name on every floor, of what needs no torch; `protocols` has the rest."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""(H, W, 3), red green blue."""

Watch = Callable[[str, int, int], None]
"""Hears how far work has come: the stage, what is done of it, and of how much (0: it never ends)."""

Warn = Callable[[str], None]
"""Hears a sentence for the user."""
