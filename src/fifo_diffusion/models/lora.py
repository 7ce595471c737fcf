"""LoRA weights (arXiv:2106.09685) added into a network: W + scale alpha / rank B A, once, when it is loaded.

So a network with LoRA is as fast as one without, and every layer that has a weight can take one.  Read are the files
that peft writes (adapter_model.safetensors beside adapter_config.json), diffusers
(pytorch_lora_weights.safetensors) and kohya's scripts (lora_unet_..., with .alpha).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fifo_diffusion.errors import BadInput, ModelError

_DOWN = (".lora_A.default.weight", ".lora_A.weight", ".lora_down.weight", ".lora.down.weight", "_lora.down.weight")
_UP = tuple(name.replace("_A", "_B").replace("down", "up") for name in _DOWN)
_PREFIXES = ("base_model.model.", "unet.", "transformer.", "diffusion_model.", "lora_unet_", "lora_transformer_")
_OTHERS = ("text_encoder.", "text_encoder_2.", "lora_te_", "lora_te1_", "lora_te2_")  # not the video network's
_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")


@dataclass
class _Pair:
    """What a file says of one layer: up @ down is its change, times alpha / rank."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


def find_lora(given: str) -> tuple[Path, float]:
    """`FILE` or `FOLDER`, or either with `:scale` behind it -> the .safetensors that is meant, and the scale (or 1).

    Raises BadInput for one that is not there.
    """
    path, scale = Path(given), 1.0
    before, colon, number = given.rpartition(":")
    if colon and before and not os.path.exists(path):
        with suppress(ValueError):  # a colon in the name
            path, scale = Path(before), float(number)
        if path == Path(given) and before.endswith(".safetensors"):
            raise BadInput(f"the LoRA {before} has scale {number!r}; give a number, such as {before}:0.8")
    if not math.isfinite(scale):
        raise BadInput(f"the LoRA {given} has scale {number}; give a number, such as {before}:0.8")
    if not os.path.isdir(path):
        if path.suffix != ".safetensors" or not os.path.isfile(path):
            raise BadInput(
                f"the LoRA {path} is not there or no .safetensors file; give such a file, or a folder that holds one"
            )
        return path, scale
    found = [path / name for name in _FILES if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise BadInput(f"the folder {path} holds {len(found)} .safetensors files; name the one that is the LoRA")
    return found[0], scale


@torch.no_grad()
def add_lora(network: nn.Module, file: Path, scale: float) -> None:
    """Add a file to the network's weights; scale 0 leaves them as they are, bit for bit.

    What a file also has for a text encoder is left out.

    Raises ModelError when it cannot be read or a key of it has no place in the network.
    """
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(getattr(layer, "weight", None), Tensor)
    }
    changes = []
    for name, pair in _pairs(file, layers).items():
        if pair.down is None or pair.up is None:
            raise ModelError(
                f"{file} has only half of the LoRA of {name} (lora_{'B' if pair.down is None else 'A'}); "
                "it was cut short, so fetch it again"
            )
        layer: Any = layers[name]
        down, up, rank = pair.down.float(), pair.up.float(), pair.down.shape[0]
        if (up.shape[0], down[0].numel()) != (layer.weight.shape[0], layer.weight[0].numel()) or up[0].numel() != rank:
            raise ModelError(
                f"the LoRA {file} has shapes {tuple(up.shape)} and {tuple(down.shape)} for {name}, whose weight is "
                f"{tuple(layer.weight.shape)}; it was made for another model"
            )
        strength = scale * (rank if pair.alpha is None else pair.alpha) / rank
        changes.append((layer.weight, strength, up.flatten(1), down.flatten(1)))
    if not changes:
        raise ModelError(
            f"{file} holds no LoRA weights for this model's video network; give one that was trained on the same model"
        )
    if scale == 0:
        return
    for weight, strength, up, down in changes:  # only now: a file that does not fit leaves the network alone
        change = strength * (up.to(weight.device) @ down.to(weight.device))
        weight.copy_((weight.float() + change.view_as(weight)).to(weight.dtype))


def _pairs(file: Path, layers: Mapping[str, nn.Module]) -> dict[str, _Pair]:
    """By the layer's name in the network.  Raises ModelError for a key that has no place there."""
    by_underscores = {name.replace(".", "_"): name for name in layers}
    pairs: dict[str, _Pair] = {}
    for key, value in _tensors(file).items():
        if key.startswith(_OTHERS):
            continue
        stem, part = _part(file, key)
        for prefix in _PREFIXES:
            stem = stem.removeprefix(prefix)
        stem = stem.replace(".processor.", ".")  # diffusers before 0.22
        name = stem if stem in layers else by_underscores.get(stem.replace(".", "_"))
        if name is None:
            name = by_underscores.get(stem.replace("to_out", "to_out_0").replace(".", "_"))  # diffusers before 0.22
        if name is None:
            raise ModelError(
                f"the LoRA {file} has {key}, which has no place in this model; give one trained on the same model, "
                "with the names of diffusers (its load_lora_weights and save_lora_weights turn others into them)"
            )
        pair = pairs.setdefault(name, _Pair())
        if part == "alpha":
            pair.alpha = float(value)
        else:
            setattr(pair, part, value)
    alpha, rooted, each = _settings(file)
    for name, pair in pairs.items():
        if pair.alpha is None and pair.down is not None:
            # As peft reads its patterns: against the end of a layer's name.
            said = next((a for pattern, a in each.items() if re.fullmatch(rf"(.*\.)?({pattern})", name)), alpha)
            rank = pair.down.shape[0]
            pair.alpha = None if said is None else said * (rank**0.5 if rooted else 1)
    return pairs


def _part(file: Path, key: str) -> tuple[str, str]:
    """A key -> the layer's name as written, and which part of the pair it is."""
    for endings, part in ((_DOWN, "down"), (_UP, "up"), ((".alpha",), "alpha")):
        for ending in endings:
            if key.endswith(ending):
                return key.removesuffix(ending), part
    raise ModelError(
        f"{file} has {key}, which is no plain LoRA weight (DoRA and others are not supported); give a LoRA file"
    )


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the LoRA {file} cannot be read ({error}); it is damaged, so fetch it again") from error


def _settings(file: Path) -> tuple[float | None, bool, dict[str, float]]:
    """alpha for all layers, whether it goes by the root of the rank (rsLoRA), alpha of single layers."""
    beside = file.with_name("adapter_config.json")
    try:
        if beside.is_file() and file.name == _FILES[0]:
            said = json.loads(beside.read_text())
        else:
            with safe_open(file, "pt") as opened:
                kept = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
            said = {key.removeprefix("unet.").removeprefix("transformer."): value for key, value in kept.items()}
        alpha, each = said.get("lora_alpha"), said.get("alpha_pattern") or {}
        return (
            None if alpha is None else float(alpha),
            bool(said.get("use_rslora")),
            {k: float(v) for k, v in each.items()},
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"the settings of the LoRA {file} cannot be read ({error}); fetch it again") from error
