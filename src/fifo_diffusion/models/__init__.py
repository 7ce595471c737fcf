"""The models by name.  A `Card` is what can be known of a model without loading torch; `load` does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from fifo_diffusion.errors import BadInput, ModelError

if TYPE_CHECKING:
    import torch

    from fifo_diffusion.models.base import Model


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model is, needs, and is best run with."""

    name: str
    summary: str
    needs: str
    loader: str  # "module:function" of (device, dtype, weights) -> Model
    weights: str | None = None  # where they are published (a Hub id); None: in the package, or there are none
    other_weights: bool = True  # whether `--weights` may name others
    window: int  # latent frames the network was trained on: f in the paper
    space: int  # pixels per latent, each way
    frames_per_latent: int = 1  # of the decoder; a video's first latent is one frame all the same
    size: tuple[int, int]  # width, height in pixels
    any_size: bool = False  # or any multiple of `multiple`
    multiple: int | None = None  # of pixels, each way, that the network takes; None: `space`
    fps: float
    levels: int | None = None  # the most noise levels it can tell apart, where there is a limit
    partitions: int
    lookahead: str
    eta: float
    guidance: float
    scale: int = 1  # each pixel shown as scale x scale

    def check_weights(self, weights: str | None) -> None:
        """Raises BadInput for weights given to a model that has none."""
        if weights is not None and not self.other_weights:
            raise BadInput(f"{self.name} has no weights, so --weights {weights} cannot be used; leave it out")

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
        step = self.multiple or self.space
        if width < step or height < step or width % step or height % step:
            raise BadInput(
                f"size {width}x{height} does not fit {self.name}; width and height must be multiples of {step}"
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
            other_weights=False,
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
        Card(
            name="open-sora-plan",
            summary="text to video at 512x512, 65 frames a window (Open-Sora Plan v1.1.0; MIT)",
            needs="diffusers, transformers and sentencepiece (the extra `models`), and the weights: "
            "LanguageBind/Open-Sora-Plan-v1.1.0 and DeepFloyd/t5-v1_1-xxl",
            loader="fifo_diffusion.models.opensora_plan:load",
            weights="LanguageBind/Open-Sora-Plan-v1.1.0",
            window=17,  # this, partitions (136 steps) and guidance: the script of arXiv:2405.11473's authors
            space=8,
            frames_per_latent=4,
            size=(512, 512),
            any_size=True,  # trained at 512x512 only
            multiple=16,  # patches of 2x2 latents
            fps=24,  # what both authors write
            levels=999,
            partitions=8,
            lookahead="last",
            eta=1.0,  # DDPM
            guidance=7.5,
        ),
        Card(
            name="open-sora-plan-221",
            summary="text to video at 512x512, 221 frames a window (Open-Sora Plan v1.1.0; MIT)",
            needs="as open-sora-plan",
            loader="fifo_diffusion.models.opensora_plan:load_221",
            weights="LanguageBind/Open-Sora-Plan-v1.1.0",
            window=56,  # this and partitions (224 steps) are of the authors' script for 221 frames
            space=8,
            frames_per_latent=4,
            size=(512, 512),
            any_size=True,
            multiple=16,
            fps=24,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,
            guidance=7.5,
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


def load(name: str, device: torch.device, dtype: torch.dtype, weights: str | None = None) -> Model:
    """Load a model's networks onto a device.

    weights: a Hub id, a folder or a file of another set of weights than the card names.
    Raises BadInput (unknown name, weights where there are none), ModelError (weights that cannot be used, or a package
    that this model needs and this machine lacks).
    """
    chosen = card(name)
    chosen.check_weights(weights)
    module, function = chosen.loader.split(":")
    try:
        model: Model = getattr(import_module(module), function)(device, dtype, weights or chosen.weights)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{name} needs the package {error.name}, which is not installed; pip install 'fifo-diffusion[models]'"
        ) from error
    return model
