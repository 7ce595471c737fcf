"""Weights of the embedded model of the larger world, as its recipe exports them, untrained."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from fifo_diffusion.models.embedded.autoencoder import Autoencoder
from fifo_diffusion.models.embedded.model import networks


def make(folder: Path) -> str:
    torch.manual_seed(0)
    words = ["red", "balloon", "green", "car", "over", "the", "ocean"]
    text, video = networks(12, words, patch=4, vectors=4)
    for weight in video.parameters():
        if not weight.any():  # as training begins: a network that says nothing and attends to nothing
            torch.nn.init.normal_(weight, std=0.02)
    torch.nn.init.normal_(text.embedding.table)  # type: ignore[arg-type]
    for net, name in ((text, "text"), (video, "transformer"), (Autoencoder(12), "autoencoder")):
        save_file(
            {key: value.half().contiguous() for key, value in net.state_dict().items()}, folder / f"{name}.safetensors"
        )
    config = {"channels": 12, "timesteps": 1000, "vocabulary": words, "world": "large", "patch": 4, "vectors": 4}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
