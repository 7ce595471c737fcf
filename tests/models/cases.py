"""What the contract needs to know of each model: how its files are made at tiny size, and what the published network
would have said.

Each family writes its cases in a module of its own, `tiny_<family>.py`, and is listed here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tiny_latte
import tiny_opensora_plan
import tiny_videocrafter
import tiny_wan
import tiny_zeroscope
from torch import Tensor

from fifo_diffusion.models.base import Model
from fifo_diffusion.protocols import Cond


@dataclass(frozen=True)
class Case:
    """A model at the size the contract runs it at.

    make: writes tiny files, in the layout the authors publish, into a folder and returns what `--weights` would
        be given; None for a model that ships in the package.
    published: (model, z, t (B,), cond) -> what the published network answers when the whole clip has one time.
    apart: inside it, no frame of the model's network hears another, so that each frame can be compared with the
        published network at that frame's time.
    """

    name: str
    side: int  # latent height and width that the contract uses
    make: Callable[[Path], str] | None = None
    published: Callable[[Model, Tensor, Tensor, Cond], Tensor] | None = None
    apart: Callable[[Model], AbstractContextManager[object]] | None = None
    trained: bool = False  # the weights say something, so that what it denoises must come nearer the truth

    def weights(self, folder: Path) -> str | None:
        """What `--weights` is given, the files made in this folder."""
        return self.make(folder) if self.make else None


CASES = [
    Case("embedded", side=8, trained=True),
    Case("embedded-df", side=8, trained=True),
    Case("gauss", side=8, trained=True),
    Case("embedded-large", side=8, trained=True),
    *(
        Case(
            name,
            side=8,
            make=partial(tiny_videocrafter.make, name),
            published=tiny_videocrafter.published,
            apart=tiny_videocrafter.apart,
        )
        for name in tiny_videocrafter.SWITCHES
    ),
    *(
        Case(name, side=8, make=tiny_zeroscope.make, published=tiny_zeroscope.said, apart=tiny_zeroscope.apart)
        for name in ("zeroscope", "modelscope")
    ),
    Case(
        "latte",
        side=8,
        make=tiny_latte.make_latte,
        published=tiny_latte.said_by_latte,
        apart=tiny_latte.latte_apart,
    ),
    Case(
        "latte-ucf101",
        side=8,
        make=tiny_latte.make_ucf101,
        published=tiny_latte.said_by_ucf101,
        apart=tiny_latte.ucf101_apart,
    ),
    *(
        Case(
            name,
            side=side,
            make=tiny_opensora_plan.maker(window),
            published=tiny_opensora_plan.said,
            apart=tiny_opensora_plan.apart,
        )
        for name, window, side in (("open-sora-plan", 17, 4), ("open-sora-plan-221", 56, 2))
    ),
    *(
        Case(name, side=4, make=tiny_wan.make, published=tiny_wan.said, apart=tiny_wan.apart)
        for name in ("wan-1.3b", "wan-14b")
    ),
]


def named(*names: str) -> list[Case]:
    return [case for case in CASES if case.name in names]
