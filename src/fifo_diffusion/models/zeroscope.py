"""zeroscope (cerspense/zeroscope_v2_576w) and ModelScope (ali-vilab/text-to-video-ms-1.7b, arXiv:2308.06571): one
network, two sets of weights.

The parts of the published diffusers folder are loaded one by one; diffusers' own pipeline for them is deprecated.
Folders of 2023 load as they are: .bin files, CLIP's `text_model.` and `position_ids`, the autoencoder's old attention
names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fifo_diffusion.models.files import component, locate
from fifo_diffusion.models.latent import FOLDER, autoencoder, table_of
from fifo_diffusion.models.text import clip_reader
from fifo_diffusion.models.unet3d import FrameUNet, UNetModel
from fifo_diffusion.protocols import Cond


class Zeroscope(UNetModel):
    """Text to video with CLIP text (77 tokens of 1024)."""

    def _denoise(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """z (B, C, F, H, W), t (B, F), cond["text"] (B, L, D), or (B, F, L, D) where each frame hears its own."""
        noise: Tensor = self.network(z.to(self.dtype), t, cond["text"].to(self.dtype))
        return noise.to(z.dtype)

    def embed(self, prompts: Sequence[str]) -> Cond:
        return {"text": self.reader(prompts)[0].to(self.device)}


def load(device: torch.device, dtype: torch.dtype, weights: str | None) -> Zeroscope:
    """weights: a Hub id or a folder with unet/, vae/, text_encoder/ (CLIP), tokenizer/ and scheduler/.

    Raises ModelError for files that are missing, damaged or another model's.
    """
    folder = locate(weights or "cerspense/zeroscope_v2_576w", FOLDER)
    network = component(FrameUNet, folder / "unet", dtype)
    vae = autoencoder(folder / "vae", device, dtype)
    return Zeroscope(network, vae, table_of(folder), clip_reader(folder, device), device, dtype, source=folder)
