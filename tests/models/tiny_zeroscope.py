"""zeroscope and ModelScope at tiny size: the diffusers folder their authors publish."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tiny_parts import network, scramble, silenced, write_autoencoder, write_clip, write_scheduler
from torch import Tensor

from fifo_diffusion.models.base import Model
from fifo_diffusion.protocols import Cond


def stock_unet() -> Any:
    from diffusers import UNet3DConditionModel

    return UNet3DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=8,
    )


def make(folder: Path) -> str:
    """The layout of cerspense/zeroscope_v2_576w."""
    scramble(stock_unet(), 1).save_pretrained(folder / "unet")
    write_autoencoder(folder / "vae")
    write_clip(folder / "text_encoder", folder / "tokenizer")
    write_scheduler(folder / "scheduler", "scaled_linear", 0.00085, 0.012)
    return str(folder)


def said(model: Model, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """diffusers' own class with the same weights, not our subclass of it."""
    net = stock_unet()
    net.load_state_dict(network(model).state_dict())
    answer: Tensor = net.eval()(z, t, cond["text"]).sample
    return answer


def apart(model: Model) -> AbstractContextManager[None]:
    net = network(model)
    modules = dict(net.named_modules())
    last = [value for name, value in modules.items() if "temp_convs" in name and name.endswith("conv4")]
    across = [value for name, value in modules.items() if "temp_attentions" in name and name.endswith("proj_out")]
    return silenced(net.transformer_in.proj_out, *last, *across)
