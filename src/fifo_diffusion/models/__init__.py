"""The models by name: `card` tells what can be known of one before it is loaded, `load` makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fifo_diffusion.config import Run
from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.models.card import Card
from fifo_diffusion.models.cards import MODELS

if TYPE_CHECKING:
    import torch

    from fifo_diffusion.models.base import Model


def card(name: str) -> Card:
    """Raises BadInput for an unknown name, listing the known ones."""
    if name in MODELS:
        return MODELS[name]
    close = [known for known in MODELS if name and known.startswith(name)] or get_close_matches(name, MODELS, n=1)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise BadInput(f"model {name!r} is unknown; the models are {', '.join(MODELS)}{hint}")


def pace(said: Mapping[str, Any]) -> float:
    """Frames a second of a run of these settings, which may lack all else.  Raises BadInput."""
    known = Run.of({"prompt": "-", **{name: said[name] for name in ("model", "fps") if name in said}})
    return known.fps or card(known.model).fps


def able(can: Callable[[Card], object]) -> str:
    """The names of the models that can, for a sentence about one that cannot."""
    return ", ".join(card.name for card in MODELS.values() if can(card))


def check_encoder(card: Card) -> None:
    """Raises BadInput for a model that cannot go on from a clip, naming those that can."""
    if not card.encoder:
        raise BadInput(
            f"{card.name} has no encoder, so it cannot go on from a clip; the models that can are "
            f"{able(lambda other: other.encoder)}"
        )


def check_lora(card: Card, given: Sequence[str]) -> None:
    """Raises BadInput for LoRA weights given to a model that takes none, naming those that take them."""
    if given and not card.lora:
        raise BadInput(
            f"{card.name} takes no LoRA weights, so leave --lora {given[0]} out; those that do: "
            f"{able(lambda other: other.lora)}"
        )


def load(name: str, device: torch.device, dtype: torch.dtype, weights: str | None = None) -> Model:
    """Load a model's networks onto a device.

    weights: a Hub id, a folder or a file of another set of weights than the card names.
    Raises BadInput (unknown name, weights where there are none), ModelError (weights that cannot be used, or a package
    that this model needs and this machine lacks).
    """
    import torch

    chosen = card(name)
    chosen.check_weights(weights)
    module, function = chosen.loader.split(":")
    try:
        # Layers draw weights that are then filled from files: not out of the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            model: Model = getattr(import_module(module), function)(device, dtype, weights or chosen.weights)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{name} needs the package {error.name}, which is not installed; pip install '.[models]' in a clone"
        ) from error
    return model
