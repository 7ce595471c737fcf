"""The config.json of the causal autoencoder: what was published, and what of it can be built here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fifo_diffusion.errors import ModelError

PUBLISHED: Mapping[str, Any] = {  # vae/config.json, without what only its training used
    "attn_resolutions": [], "decoder_attention": "AttnBlock3DFix", "decoder_conv_in": "CausalConv3d",
    "decoder_conv_out": "CausalConv3d", "decoder_mid_resnet": "ResnetBlock3D",
    "decoder_resnet_blocks": ["ResnetBlock3D"] * 4, "decoder_spatial_upsample": ["", *["SpatialUpsample2x"] * 3],
    "decoder_temporal_upsample": ["", "", "TimeUpsampleRes2x", "TimeUpsampleRes2x"], "double_z": True, "embed_dim": 4,
    "encoder_attention": "AttnBlock3DFix", "encoder_conv_in": "Conv2d", "encoder_conv_out": "CausalConv3d",
    "encoder_mid_resnet": "ResnetBlock3D",
    "encoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock2D", "ResnetBlock3D", "ResnetBlock3D"],
    "encoder_spatial_downsample": ["Downsample", "Downsample", "Downsample", ""],
    "encoder_temporal_downsample": ["", "TimeDownsampleRes2x", "TimeDownsampleRes2x", ""], "hidden_size": 128,
    "hidden_size_mult": [1, 2, 4, 4], "num_res_blocks": 2, "q_conv": "CausalConv3d", "z_channels": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a config says, by level from the pixels down."""

    widths: tuple[int, ...]
    blocks: int
    latent: int
    embedded: int
    picture_in: bool
    down_video: tuple[bool, ...]
    down_space: tuple[bool, ...]
    down_time: tuple[bool, ...]
    up_video: tuple[bool, ...]
    up_space: tuple[bool, ...]
    up_time: tuple[bool, ...]


_RESNETS = {"ResnetBlock2D": False, "ResnetBlock3D": True}


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Raises ModelError for a block, or numbers, that are not known here."""

    def one(name: str, blocks: Mapping[str, bool]) -> bool:
        return _known(name, config[name], blocks)

    def each(name: str, blocks: Mapping[str, bool]) -> tuple[bool, ...]:
        if len(config[name]) != len(config["hidden_size_mult"]):
            raise ModelError(
                f"the autoencoder's config.json lists {len(config[name])} blocks as {name} and "
                f"{len(config['hidden_size_mult'])} as hidden_size_mult; both must name every level"
            )
        return tuple(_known(name, block, blocks) for block in config[name])

    try:
        for name in ("encoder_attention", "decoder_attention"):
            # AttnBlock3D has the same keys and says something else, so the name must be looked at.
            one(name, {"AttnBlock3DFix": True})
        for name in ("encoder_mid_resnet", "decoder_mid_resnet"):
            one(name, {"ResnetBlock3D": True})
        for name in ("encoder_conv_out", "decoder_conv_in", "decoder_conv_out", "q_conv"):
            one(name, {"CausalConv3d": True})
        if config["attn_resolutions"] or not config["double_z"]:
            raise ModelError(
                f"the autoencoder's config.json has attn_resolutions {config['attn_resolutions']} and double_z "
                f"{config['double_z']}; only [] and true, as in Open-Sora Plan v1.1.0, are known here"
            )
        shape = Shape(
            widths=tuple(config["hidden_size"] * times for times in config["hidden_size_mult"]),
            blocks=config["num_res_blocks"],
            latent=config["z_channels"],
            embedded=config["embed_dim"],
            picture_in=one("encoder_conv_in", {"Conv2d": True, "CausalConv3d": False}),
            down_video=each("encoder_resnet_blocks", _RESNETS),
            down_space=each("encoder_spatial_downsample", {"": False, "Downsample": True}),
            down_time=each("encoder_temporal_downsample", {"": False, "TimeDownsampleRes2x": True}),
            up_video=each("decoder_resnet_blocks", _RESNETS),
            up_space=each("decoder_spatial_upsample", {"": False, "SpatialUpsample2x": True}),
            up_time=each("decoder_temporal_upsample", {"": False, "TimeUpsampleRes2x": True}),
        )
    except KeyError as error:
        raise ModelError(
            f"the autoencoder's config.json has no {error}; it must be that of Open-Sora Plan v1.1.0's vae folder"
        ) from error
    steps = tuple(sum(level) for level in (shape.down_time, shape.up_time, shape.down_space, shape.up_space))
    if steps != (2, 2, 3, 3):
        raise ModelError(
            f"the autoencoder's config.json halves and doubles time {steps[0]} and {steps[1]} times, space {steps[2]} "
            f"and {steps[3]} times; 2 and 3 are those of Open-Sora Plan v1.1.0"
        )
    return shape


def _known(name: str, block: str, blocks: Mapping[str, bool]) -> bool:
    if block not in blocks:
        raise ModelError(
            f"the autoencoder's config.json names {block!r} as {name}, which is not known here; "
            f"known are {', '.join(repr(one) for one in blocks)}"
        )
    return blocks[block]
