"""What models made of diffusers' parts have in common: a network over the latents of single pictures, an AutoencoderKL,
a noise table, LoRA.

Letters: B streams, C latent channels, F frames, H W latent height and width.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fifo_diffusion.decode import PerFrame
from fifo_diffusion.errors import ModelError
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.compiled import compiled
from fifo_diffusion.models.eight_bits import in_eight_bits
from fifo_diffusion.models.files import component, fingerprint, weights_of
from fifo_diffusion.models.linear import quick
from fifo_diffusion.models.lora import add_lora
from fifo_diffusion.models.text import Reader
from fifo_diffusion.protocols import Cond, Decoder, Denoiser
from fifo_diffusion.schedule import (
    NoiseSchedule,
    Predicts,
    cosine,
    linear_betas,
    paper,
    scaled_linear_betas,
    variance_preserving,
)

_PARTS = ("unet", "transformer", "vae", "text_encoder", "tokenizer", "scheduler")
# What of a diffusers folder on the Hub is fetched: weights as safetensors and .bin alike, since old folders hold one.
FOLDER = tuple(f"{part}/*.{kind}" for part in _PARTS for kind in ("json", "txt", "model", "safetensors", "bin"))

MOST_ROWS = 65535
"""CUDA's attention kernels count the batch in 16 bits, and temporal attention has a row for each place of a frame."""


@dataclass(frozen=True)
class Table:
    """What the network was trained with: alphas_cumprod (T,), and what it predicts."""

    alphas_cumprod: Tensor
    predicts: Predicts = "noise"


class LatentModel(Model):
    """A Model over a network, an AutoencoderKL and a noise table.  A family adds what its network hears.

    network: in the run's precision, moved to the device here; table: None where a family has another kind of schedule;
    reader: None where the network hears no text; sources: the files and folders the weights came from.
    """

    per_frame_text = True  # each frame of a window may hear its own

    def __init__(
        self,
        network: Any,
        autoencoder: Any,
        table: Table | None,
        reader: Reader | None,
        device: torch.device,
        dtype: torch.dtype,
        sources: Sequence[Path],
    ) -> None:
        self.network = quick(network.to(device).eval().requires_grad_(False))
        self.autoencoder, self.table, self._reader, self._sources = autoencoder, table, reader, [*sources]
        self.device, self.dtype = device, dtype
        self.channels = int(autoencoder.config.get("latent_channels") or autoencoder.config.z_dim)  # z_dim: Wan's

    @property
    def reader(self) -> Reader:
        """The text encoder; only for families that have one."""
        assert self._reader is not None
        return self._reader

    def schedule(self, levels: int, table: str) -> NoiseSchedule:
        assert self.table is not None
        make = paper if table == "paper" else variance_preserving
        return make(self.table.alphas_cumprod, levels, self.table.predicts)

    def denoiser(self, schedule: NoiseSchedule) -> Denoiser:
        return self._denoise

    @abstractmethod
    def _denoise(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor: ...

    def compile(self, backend: str = "inductor") -> None:
        self._denoise = compiled(self._denoise, self.device, backend)  # type: ignore[method-assign]

    def decoder(self) -> Decoder:
        return PerFrame(self._decode)

    def _decode(self, z: Tensor) -> Tensor:
        """(k, C, H, W) -> (k, 3, height, width), one picture at a time: the same pixels for the least memory."""
        vae = self.autoencoder
        z = z.to(vae.dtype) / vae.config.scaling_factor
        return torch.cat([vae.decode(one, return_dict=False)[0] for one in torch.split(z, 1)])

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """(B, F, 3, height, width) in [-1, 1] -> (B, C, F, H, W), the mean of what the autoencoder says."""
        vae = self.autoencoder
        flat = pixels.to(self.device, vae.dtype).flatten(0, 1)
        latents: Any = torch.cat([vae.encode(one).latent_dist.mode() for one in torch.split(flat, 1)])
        scaled: Tensor = latents.unflatten(0, pixels.shape[:2]).transpose(1, 2).float() * vae.config.scaling_factor
        return scaled

    def remarks(self, prompt: str) -> list[str]:
        return [] if self._reader is None else self._reader.remarks(prompt)

    def add_lora(self, file: Path, scale: float) -> None:
        add_lora(self.network, file, scale)
        self._sources.append(file)

    def in_eight_bits(self, device: torch.device, products: bool = False) -> None:
        in_eight_bits(self.network, self.dtype, products)
        self._arrive(device)

    def _arrive(self, device: torch.device) -> None:
        """All to the device, from the CPU that it was loaded on."""
        self.network.to(device)
        # Its own `to` warns of layers that should stay in float32, also where it knows of none.
        nn.Module.to(self.autoencoder, device, self._pictures_in(device))
        self.device = device
        if self._reader is not None:
            self._reader.where = device

    def _pictures_in(self, device: torch.device) -> torch.dtype:
        return pictures_in(device, self.dtype)

    def save_memory(self) -> None:
        if self._reader is not None:
            self._reader.where = torch.device("cpu")

    @cached_property
    def weights(self) -> str:
        return fingerprint(file for source in self._sources for file in weights_of(source))


def pictures_in(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """An autoencoder's precision: the run's on CUDA; elsewhere float32, since half precision is slow there."""
    return dtype if device.type == "cuda" else torch.float32


def autoencoder(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """An AutoencoderKL, in the precision of `pictures_in`."""
    from diffusers import AutoencoderKL

    return component(AutoencoderKL, folder, pictures_in(device, dtype)).to(device)


def table_of(folder: Path) -> Table:
    """Read scheduler/scheduler_config.json.  Raises ModelError, naming the file and the key."""
    file = folder / "scheduler" / "scheduler_config.json"
    try:
        said = json.loads(file.read_text())
        steps, first, last = (said[key] for key in ("num_train_timesteps", "beta_start", "beta_end"))
        shape, predicts = said["beta_schedule"], said.get("prediction_type", "epsilon")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} is missing or no scheduler_config.json ({error}); fetch the folder again") from error
    tables = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}
    predictions: dict[str, Predicts] = {"epsilon": "noise", "v_prediction": "velocity", "sample": "sample"}
    if shape == "squaredcos_cap_v2":
        alphas_cumprod = cosine(steps)
    elif shape in tables and said.get("trained_betas") is None and not said.get("rescale_betas_zero_snr"):
        alphas_cumprod = tables[shape](steps, first, last)
    else:
        raise ModelError(
            f"{file} asks for beta_schedule {shape!r} in a form that is not known here; use another folder"
        )
    if predicts not in predictions:
        raise ModelError(f"{file} has prediction_type {predicts!r}; known are {', '.join(predictions)}")
    return Table(alphas_cumprod, predictions[predicts])
