"""zeroscope (cerspense/zeroscope_v2_576w) and ModelScope (ali-vilab/text-to-video-ms-1.7b, arXiv:2308.06571): one
network, two sets of weights.

The parts of the published diffusers folder are loaded one by one; diffusers' own pipeline for them is deprecated.
Folders of 2023 load as they are: .bin files, CLIP's `text_model.` and `position_ids`, the autoencoder's old attention
names.
"""

from __future__ import annotations

import torch

from fifo_diffusion.models.files import component, locate
from fifo_diffusion.models.latent import FOLDER, autoencoder, table_of
from fifo_diffusion.models.text import clip_reader
from fifo_diffusion.models.unet3d import FrameUNet, UNetModel


def load(device: torch.device, dtype: torch.dtype, weights: str) -> UNetModel:
    """weights: a Hub id or a folder with unet/, vae/, text_encoder/ (CLIP), tokenizer/ and scheduler/.

    Raises ModelError for files that are missing, damaged or another model's.
    """
    folder = locate(weights, FOLDER)
    network = component(FrameUNet, folder / "unet", dtype)
    vae = autoencoder(folder / "vae", device, dtype)
    return UNetModel(network, vae, table_of(folder), clip_reader(folder, device), device, dtype, [folder])
