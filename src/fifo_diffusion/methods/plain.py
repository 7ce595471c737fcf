"""Plain sampling of the whole video as one long window, all its frames at one level: what is done to a network that
was trained on f frames and is asked for more.  Letters as in `setting`."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fifo_diffusion.methods.setting import Setting


def plain(setting: Setting, length: int) -> Iterator[Tensor]:
    """Yields `length` frames (B, C, 1, H, W).  One evaluation of all a level; attention grows as F squared."""

    def answer(z: Tensor, level: Tensor) -> Tensor:
        return setting.execute([setting.call(z, level, range(z.shape[2]))])[0]

    return setting.whole(answer, length)
