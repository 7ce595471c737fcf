"""The models by name.  A `Card` is what can be known of a model without loading torch; `load` does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from fifo_diffusion.errors import BadInput

if TYPE_CHECKING:
    import torch

    from fifo_diffusion.models.base import Model


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model is, needs, and is best run with."""

    name: str
    summary: str
    needs: str
    loader: str  # "module:function" of (device, dtype) -> Model
    window: int  # latent frames the network was trained on: f in the paper
    space: int  # pixels per latent, each way
    size: tuple[int, int]  # width, height in pixels
    any_size: bool = False  # or any multiple of `space`
    fps: float
    levels: int | None = None  # the most noise levels it can tell apart, where there is a limit
    partitions: int
    lookahead: str
    eta: float
    guidance: float
    scale: int = 1  # each pixel shown as scale x scale

    def check_levels(self, levels: int) -> None:
        """Raises BadInput for more levels than the model can tell apart."""
        if self.levels is not None and levels > self.levels:
            raise BadInput(
                f"{levels} noise levels are more than {self.name} can tell apart; with a window of {self.window} "
                f"it takes at most {self.levels // self.window} partitions"
            )

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises BadInput for a (width, height) that the model cannot make."""
        width, height = size
        if not self.any_size and size != self.size:
            raise BadInput(
                f"size {width}x{height} is not what {self.name} makes; it makes {self.size[0]}x{self.size[1]} "
                f"(use --scale to show each pixel larger)"
            )
        if width < self.space or height < self.space or width % self.space or height % self.space:
            raise BadInput(
                f"size {width}x{height} does not fit {self.name}; width and height must be multiples of {self.space}"
            )


MODELS: Mapping[str, Card] = {
    card.name: card
    for card in (
        Card(
            name="embedded",
            summary="small text-to-video model inside this package: eight subjects, six colours, six scenes",
            needs="nothing more; about 0.5 GB of memory, runs on a laptop CPU",
            loader="fifo_diffusion.models.embedded.model:load",
            window=16,
            space=8,
            size=(64, 64),
            fps=10,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,
            guidance=4.0,
            scale=4,
        ),
        Card(
            name="gauss",
            summary="exact Gaussian video, no weights and no pictures: the instrument the method is tested with",
            needs="nothing more",
            loader="fifo_diffusion.models.gauss:load",
            window=16,
            space=1,
            size=(64, 64),
            any_size=True,
            fps=10,
            partitions=4,
            lookahead="last",
            eta=0.0,
            guidance=1.0,
            scale=4,
        ),
    )
}


def card(name: str) -> Card:
    """Raises BadInput for an unknown name, listing the known ones."""
    if name in MODELS:
        return MODELS[name]
    close = get_close_matches(name, MODELS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise BadInput(f"model {name!r} is unknown; the models are {', '.join(MODELS)}{hint}")


def load(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """Load a model's networks onto a device.  Raises BadInput (unknown name), ModelError (weights)."""
    module, function = card(name).loader.split(":")
    model: Model = getattr(import_module(module), function)(device, dtype)
    return model
