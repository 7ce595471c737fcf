"""Open-Sora Plan v1.1.0 (LanguageBind/Open-Sora-Plan-v1.1.0 on the Hub): 512x512 at 24 frames a second.

A Latte transformer over latents of a causal video autoencoder (4 frames and 8x8 pixels each), T5 text.  Two networks
are published, of 65 frames (17 latents) and of 221 (56 latents); they differ in how far apart their frames lie.

Files, in a folder or a Hub repository: `65x512x512/` or `221x512x512/` (or `transformer/`) and `vae/`, each with a
config.json and its weights; and T5's encoder, which is not in that repository: `t5-v1_1-xxl/` (or `text_encoder/` with
`tokenizer/`) beside them if there is one, else DeepFloyd/t5-v1_1-xxl from the Hub.

Letters: B streams, C latent channels, F latent frames, H W latent height and width, L text tokens, D text width.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import LatteTransformer3DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from torch import Tensor, nn

from fifo_diffusion.errors import ModelError
from fifo_diffusion.models.causal_vae import CausalVAE, ChunkedDecoder
from fifo_diffusion.models.files import fit, locate, read_tensors, single_file
from fifo_diffusion.models.latent import pictures_in
from fifo_diffusion.models.latte import Latte
from fifo_diffusion.models.text import Reader, t5_reader
from fifo_diffusion.schedule import NoiseSchedule, leading, linear_betas, variance_preserving

T5 = "DeepFloyd/t5-v1_1-xxl"
TOKENS = 300  # the authors' model_max_length
TILE = 32  # latents; the authors' decoding squares (--enable_tiling), the size their autoencoder was trained at
CHUNKS = {17: (17,), 56: (17, 17, 17, 8)}  # latents decoded together, by window: what the authors' script comes to
_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin", "model.safetensors", "checkpoint.ckpt")


class PlanTransformer(LatteTransformer3DModel):
    """diffusers' Latte but for the positions of its frames, which lie closer together in a long window, so that they
    reach about as far as Latte's 16: 1 apart for 17 latents, 1/3 for 56.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int = 8,
        num_layers: int = 28,
        dropout: float = 0.0,
        cross_attention_dim: int = 1152,
        attention_bias: bool = True,
        sample_size: int = 64,
        patch_size: int = 2,
        activation_fn: str = "gelu-approximate",
        num_embeds_ada_norm: int = 1000,
        norm_type: str = "ada_norm_single",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-6,
        caption_channels: int = 4096,
        video_length: int = 17,
        interpolation_scale_1d: float | None = None,
    ) -> None:
        super().__init__(
            num_attention_heads, attention_head_dim, in_channels, out_channels, num_layers, dropout,
            cross_attention_dim, attention_bias, sample_size, patch_size, activation_fn, num_embeds_ada_norm, norm_type,
            norm_elementwise_affine, norm_eps, caption_channels, video_length,
        )  # fmt: skip
        closer = interpolation_scale_1d or max(video_length // 16, 1)
        places = torch.arange(video_length)[:, None] / closer
        positions = get_1d_sincos_pos_embed_from_grid(
            num_attention_heads * attention_head_dim, places, output_type="pt"
        )
        self.register_buffer("temp_pos_embed", positions.float()[None], persistent=False)


class OpenSoraPlan(Latte):
    """Its network and a CausalVAE."""

    def schedule(self, levels: int, table: str) -> NoiseSchedule:
        """ "paper" is the sampler of the authors' script: DDPM (with eta 1), leading spacing, x0 kept within +-1.

        "even", the default, does not keep x0 there.  Latents have deviation 1, so a third of the numbers of a true
        clip lie outside; the network was not trained to be cut, and every step would pull all contrast towards grey.
        The script has it only because diffusers' DDPM scheduler, made for pixels, does so unless told not to; Open-Sora
        Plan's own samples were drawn without.
        """
        kept = linear_betas()
        return leading(kept, levels, limit=1.0) if table == "paper" else variance_preserving(kept, levels)

    def decoder(self) -> ChunkedDecoder:
        return ChunkedDecoder(self._decode, CHUNKS[self.network.config.video_length])

    def _decode(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.autoencoder.decode(latents.to(next(self.autoencoder.parameters()).dtype), TILE)
        return pixels

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 1 + 4 (F - 1), 3, 8H, 8W) in [-1, 1] -> (B, C, F, H, W).  Raises BadInput for other numbers of frames."""
        like = next(self.autoencoder.parameters())
        latents: Tensor = self.autoencoder.encode(pixels.transpose(1, 2).to(like), TILE)
        return latents.to(torch.float32)


def load(device: torch.device, dtype: torch.dtype, weights: str, window: int = 17) -> OpenSoraPlan:
    """weights: a folder or a Hub id with the files named above.

    Raises ModelError for files that are missing, damaged, or another model's.
    """
    names = ("transformer", f"{4 * window - 3}x512x512")
    folder = locate(weights, [f"{name}/*" for name in (*names, "vae")])
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file; give the folder that holds {names[1]}/ and vae/")
    inside = next((folder / name for name in names if (folder / name).is_dir()), folder / names[1])
    network, network_file = _transformer(inside, window, device, dtype)
    autoencoder, autoencoder_file = _autoencoder(folder / "vae", device, pictures_in(device, dtype))
    reader = _reader(folder, device, dtype)
    return OpenSoraPlan(network, autoencoder, None, reader, device, dtype, [network_file, autoencoder_file])


load_221 = partial(load, window=56)


def _transformer(folder: Path, window: int, device: torch.device, dtype: torch.dtype) -> tuple[PlanTransformer, Path]:
    config = convert_config(_config(folder), folder / "config.json")
    if config.get("video_length") != window:
        raise ModelError(
            f"{folder / 'config.json'} has video_length {config.get('video_length')}, and this model's windows are of "
            f"{window} latents; use --model open-sora-plan for 17, open-sora-plan-221 for 56"
        )
    try:
        with init_empty_weights():
            net = PlanTransformer(**config)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} describes no network that can be built ({error})") from error
    return net, _fill(net, folder, device, dtype, but=("caption_projection.y_embedding",))  # a guess at no text


def _autoencoder(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[CausalVAE, Path]:
    config = _config(folder)
    with init_empty_weights():
        net = CausalVAE(config)
    return net, _fill(net, folder, device, dtype, but=("loss.",))


def _fill(net: nn.Module, folder: Path, device: torch.device, dtype: torch.dtype, but: tuple[str, ...]) -> Path:
    """Every weight from the folder's file, none made up; keys that begin with one of `but` are not looked at."""
    path = single_file(folder, _FILES)
    found = {name: value for name, value in read_tensors(path).items() if not name.startswith(but)}
    net.load_state_dict({name: value.to(device, dtype) for name, value in fit(net, path, found).items()}, assign=True)
    net.to(device).eval().requires_grad_(False)
    return path


def _reader(folder: Path, device: torch.device, dtype: torch.dtype) -> Reader:
    if (folder / "text_encoder").is_dir():
        return t5_reader(folder, device, dtype, TOKENS)
    beside = folder / T5.split("/")[1]
    try:
        one = beside if beside.is_dir() else locate(T5, ["*.json", "*.model", "*.bin", "*.safetensors"])
    except ModelError as error:
        raise ModelError(
            f"there is no {beside}, and {T5} is not to be had from the Hub; fetch it where that is possible "
            f"(hf download {T5}) and put it there"
        ) from error
    return t5_reader(one, device, dtype, TOKENS, text=".", words=".")


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
        if not isinstance(config, dict):
            raise ValueError("it is no table of settings")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / 'config.json'} is missing or damaged ({error}); give a folder with {folder.name}/ as published"
        ) from error
    return config


# What the published config says beyond diffusers' own settings, and the only values under which that changes nothing.
_MEANS_NOTHING = {
    "patch_size_t", "norm_num_groups", "num_vector_embeds", "use_linear_projection", "only_cross_attention",
    "double_self_attention", "upcast_attention", "attention_type", "attention_mode", "model_max_length",
    "rope_scaling_type",
}  # fmt: skip
_MUST_BE: Mapping[str, Any] = {"use_rope": False, "compress_kv_factor": 1}


def convert_config(said: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The settings of `PlanTransformer` in a published config.json.

    Raises ModelError, naming the file and the key, for one that would make another network.
    """
    known = inspect.signature(PlanTransformer).parameters
    out: dict[str, Any] = {}
    for name, value in said.items():
        if name == "sample_size" and isinstance(value, list):
            if len(set(value)) != 1:
                raise ModelError(f"{file} has sample_size {value}; only square ones are known here")
            out[name] = value[0]
        elif name in known:
            out[name] = value
        elif name in _MUST_BE and value not in (_MUST_BE[name], None):
            raise ModelError(
                f"{file} has {name} {value}, which is another network than v1.1.0's ({_MUST_BE[name]}); use its weights"
            )
        elif not name.startswith("_") and name not in _MEANS_NOTHING | _MUST_BE.keys() and value:
            raise ModelError(f"{file} has {name} {value}, which is not known here; use the weights of v1.1.0")
    return out
