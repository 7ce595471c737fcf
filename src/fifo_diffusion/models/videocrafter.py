"""VideoCrafter1 (arXiv:2310.19512) and VideoCrafter2 (arXiv:2401.09047), from the checkpoints their authors publish.

The file holds three networks: the UNet, which becomes `unet3d.FrameUNet` by renaming; Stable Diffusion's autoencoder;
and OpenCLIP's ViT-H text tower, of which the last layer but one is heard, through the final norm.  All sizes are read
from the shapes.

Letters: B windows, C channels, F frames, H W latent height and width, P prompts, L tokens, D text width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint, convert_open_clip_checkpoint
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from fifo_diffusion.errors import ModelError
from fifo_diffusion.models import files
from fifo_diffusion.models.files import Tensors
from fifo_diffusion.models.latent import FOLDER, Table, autoencoder
from fifo_diffusion.models.text import open_clip_reader, plain_clip_tokenizer
from fifo_diffusion.models.unet3d import FrameUNet, UNetModel
from fifo_diffusion.schedule import NoiseSchedule, scaled_linear_betas

LATENT_SCALE = 0.18215  # of Stable Diffusion's autoencoder
TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
VERSION = 1  # of the conversion: to be counted up when it comes out otherwise
_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."
_UNUSED = re.compile(
    r"(betas|alphas_cumprod|sqrt_|log_one_minus_|posterior_|scale_arr|lvlb_weights|logvar|model_ema\.)"
    rf"|{re.escape(_TEXT)}(text_projection|logit_scale|attn_mask)$"
)


@dataclass(frozen=True)
class Variant:
    """What one published model has that another has not.

    signal: what is left of the clean signal at the noisy end (`use_scale` in their configurations); 1: all of it.
    """

    name: str
    fps: bool
    temporal_convolutions: bool
    relative_positions: bool
    signal: float

    @property
    def options(self) -> dict[str, Any]:
        """Of FrameUNet.  Their temporal attention has 16 distances each way."""
        return {
            "fps_condition": self.fps,
            "temporal_convolutions": self.temporal_convolutions,
            "relative_positions": 16 if self.relative_positions else 0,
        }


VARIANTS = (
    Variant("videocrafter2", fps=True, temporal_convolutions=True, relative_positions=False, signal=0.7),
    Variant("videocrafter1", fps=False, temporal_convolutions=False, relative_positions=True, signal=1.0),
    Variant("videocrafter1-1024", fps=True, temporal_convolutions=False, relative_positions=True, signal=0.3),
)


class VideoCrafter(UNetModel):
    """One of the three.

    fps: the network is told the rate that the video is played at.  The default is 8, which the authors' FIFO tells it
    (it plays the frames at 10; their plain sampling script says 28 for VideoCrafter2); a higher rate means less motion
    from frame to frame.
    """

    def __init__(self, variant: Variant, *parts: Any) -> None:
        super().__init__(*parts)
        self.variant = variant

    def schedule(self, levels: int, table: str) -> NoiseSchedule:
        """ "even": the process that the network was trained for, its shrinking signal (`use_scale`) included.
        "paper": the authors' FIFO, which leaves that out, though their plain sampling has it.

        Leaving it out takes every frame for fainter than it is: with an exact network of frames with deviation 1,
        plain sampling at 64 levels then gives 0.74, where this table gives 0.96 (0.50 and 0.94 for the 0.3 of
        VideoCrafter1-1024).  So it is left out only where the authors' results are wanted.
        """
        made = super().schedule(levels, table)
        return made if table == "paper" else shrunk(made, self.variant.signal)


def shrunk(schedule: NoiseSchedule, signal: float) -> NoiseSchedule:
    """The same levels with the signal falling evenly from 1 to `signal` over the first 400 of 1,000 training steps and
    staying there: x_t = alpha_t s_t x_0 + sigma_t eps, as VideoCrafter was trained."""
    share = torch.cat([torch.linspace(1, signal, 400), torch.full((600,), signal)]).double()
    alpha = schedule.alpha * share[schedule.time.long()]
    return NoiseSchedule(alpha=alpha, sigma=schedule.sigma, time=schedule.time, predicts=schedule.predicts)


def load(variant: Variant, device: torch.device, dtype: torch.dtype, weights: str) -> VideoCrafter:
    """weights: model.ckpt (or its tensors as .safetensors), a folder that holds it, a converted folder, or a Hub id.

    Raises ModelError for files that are missing, damaged or another model's.
    """
    found = files.locate(weights, ["model.ckpt", *FOLDER])
    if (found / "unet").is_dir():
        source = folder = found
    else:
        source = files.single_file(found, ["model.safetensors", "model.ckpt"])
        folder = files.converted(source, f"{variant.name}-{VERSION}", partial(convert, variant))
    network = files.component(FrameUNet, folder / "unet", dtype, **variant.options)
    vae, reader = autoencoder(folder / "vae", device, dtype), open_clip_reader(folder, device)
    return VideoCrafter(variant, network, vae, Table(scaled_linear_betas()), reader, device, dtype, [source])


load_2, load_1, load_1_1024 = (partial(load, variant) for variant in VARIANTS)


# The conversion ---------------------------------------------------------------------------------------------------


def convert(variant: Variant, tensors: Tensors, folder: Path) -> None:
    """The published checkpoint -> a folder in the layout of diffusers.  Raises ModelError naming file and key."""
    parts: dict[str, Tensors] = {head: Tensors(tensors.path, {}) for head in (_UNET, _VAE, _TEXT)}
    for key, value in tensors.items():
        head = next((head for head in parts if key.startswith(head)), None)
        if _UNUSED.match(key):
            continue
        if head is None:
            raise ModelError(
                f"the weights {tensors.path} hold {key}, which {variant.name} lacks; they are of another model"
            )
        parts[head][key] = value
    _check_variant(variant, parts[_UNET])
    left = float(tensors["scale_arr"][-1]) if "scale_arr" in tensors else variant.signal
    if abs(left - variant.signal) > 1e-3:
        raise ModelError(
            f"scale_arr in the weights {tensors.path} ends at {left:g}, that of {variant.name} at {variant.signal:g}; "
            "they are of another model"
        )
    find_tokenizer(tensors.path.parent).save_pretrained(folder / "tokenizer")
    _save(*convert_unet(parts[_UNET]), folder / "unet", "diffusion_pytorch_model")
    _save(*convert_autoencoder(parts[_VAE]), folder / "vae", "diffusion_pytorch_model")
    _save(*convert_text(parts[_TEXT]), folder / "text_encoder", "model")


def find_tokenizer(folder: Path) -> Any:
    """CLIP's, from the folder `tokenizer` beside the weights, or from the Hub; every CLIP has the same.

    Raises ModelError.
    """
    beside = folder / "tokenizer"
    if not beside.is_dir():
        try:
            beside = files.locate(TOKENIZER, ["vocab.json", "merges.txt", "tokenizer*.json"])
        except ModelError as error:
            raise ModelError(
                f"there is no CLIP tokenizer in {beside}, and {TOKENIZER} is not to be had from the Hub; put "
                "vocab.json and merges.txt of any CLIP or Stable Diffusion model there"
            ) from error
    return plain_clip_tokenizer(beside)


def _save(net: Any, state: dict[str, Tensor], folder: Path, name: str) -> None:
    write = net.save_config if hasattr(net, "save_config") else net.config.save_pretrained  # diffusers, transformers
    write(folder)
    save_file(state, folder / f"{name}.safetensors", metadata={"format": "pt"})


def _check_variant(variant: Variant, unet: Tensors) -> None:
    """Raises ModelError when the file is plainly another of the three."""
    has = Variant(
        "",
        fps=f"{_UNET}fps_embedding.0.weight" in unet,
        temporal_convolutions=f"{_UNET}middle_block.0.temopral_conv.conv1.0.weight" in unet,
        relative_positions=any("relative_position" in key for key in unet),
        signal=0,
    )
    for other in VARIANTS:
        if has.options == other.options and other != variant:
            raise ModelError(
                f"the weights {unet.path} are of {other.name}, not {variant.name}; use --model {other.name}"
            )


def convert_unet(tensors: Tensors) -> tuple[nn.Module, dict[str, Tensor]]:
    """The lvdm UNet's tensors, with their prefix -> the network without weights, and its weights."""
    table = tensors.get(f"{_UNET}init_attn.0.transformer_blocks.0.attn1.relative_position_k.embeddings_table")
    with init_empty_weights():
        net = FrameUNet(
            in_channels=tensors[f"{_UNET}input_blocks.0.0.weight"].shape[1],
            out_channels=tensors[f"{_UNET}out.2.weight"].shape[0],
            block_out_channels=tuple(
                tensors[f"{_UNET}input_blocks.{1 + 3 * level}.0.out_layers.3.weight"].shape[0] for level in range(4)
            ),
            cross_attention_dim=tensors[f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
            attention_head_dim=tensors[f"{_UNET}init_attn.0.proj_in.weight"].shape[0] // 8,  # it has 8 heads
            fps_condition=f"{_UNET}fps_embedding.0.weight" in tensors,
            temporal_convolutions=any(".temopral_conv." in key for key in tensors),
            relative_positions=0 if table is None else len(table) // 2,
        )
    names = {_UNET + lvdm_key(key): key for key in net.state_dict()}
    state = {}
    for theirs, ours in names.items():
        value = tensors[theirs]
        # Two of the projections are convolutions over a single frame.
        state[ours] = value.squeeze(-1) if value.ndim == 3 else value
    for key in (key for key in tensors if key not in names):
        raise ModelError(f"the weights {tensors.path} hold {key}, which this model lacks; they are of another model")
    return net, files.fit(net, tensors.path, state)


_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "fps_embedding.linear_1": "fps_embedding.0",
    "fps_embedding.linear_2": "fps_embedding.2",
    "conv_in": "input_blocks.0.0",
    "transformer_in": "init_attn.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.temp_convs.0": "middle_block.0.temopral_conv",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.temp_attentions.0": "middle_block.2",
    "mid_block.resnets.1": "middle_block.3",
    "mid_block.temp_convs.1": "middle_block.3.temopral_conv",
}
_PART = {"resnets": "0", "temp_convs": "0.temopral_conv", "attentions": "1", "temp_attentions": "2"}  # sic
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def lvdm_key(key: str) -> str:
    """What VideoCrafter's UNet calls a weight of FrameUNet: 4 levels of 2 layers, numbered through on the way down, and
    of 3 on the way up."""
    if found := re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", key):
        way, level, part, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        if part == "downsamplers":
            return f"input_blocks.{3 + 3 * level}.0.{rest.replace('conv', 'op')}"
        if part == "upsamplers":
            return f"output_blocks.{3 * level + 2}.{1 if level == 0 else 3}.{rest}"  # the first level has no attention
        place = f"input_blocks.{1 + 3 * level + layer}" if way == "down" else f"output_blocks.{3 * level + layer}"
        name = f"{place}.{_PART[part]}"
    else:
        ours = next(name for name in _TOP if key.startswith(name + "."))
        name, part, rest = _TOP[ours], "resnets" if ".resnets." in ours else "", key.removeprefix(ours + ".")
    if part != "resnets":
        return f"{name}.{rest}"
    layer_name, kind = rest.rsplit(".", 1)
    return f"{name}.{_RESNET[layer_name]}.{kind}"


def convert_autoencoder(tensors: Tensors) -> tuple[nn.Module, dict[str, Tensor]]:
    """Stable Diffusion's autoencoder, with its prefix -> the network without weights, and its weights."""

    def count(pattern: str) -> int:
        return len({found[1] for key in tensors if (found := re.match(re.escape(_VAE) + pattern, key))})

    levels, layers = count(r"encoder\.down\.(\d+)\."), count(r"encoder\.down\.0\.block\.(\d+)\.")
    with init_empty_weights():
        net = AutoencoderKL(
            in_channels=tensors[f"{_VAE}encoder.conv_in.weight"].shape[1],
            out_channels=tensors[f"{_VAE}decoder.conv_out.weight"].shape[0],
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(
                tensors[f"{_VAE}encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)
            ),
            layers_per_block=layers,
            latent_channels=tensors[f"{_VAE}decoder.conv_in.weight"].shape[1],
            scaling_factor=LATENT_SCALE,
        )
    state = convert_ldm_vae_checkpoint(dict(tensors), net.config)
    return net, files.fit(net, tensors.path, state)


def convert_text(tensors: Tensors) -> tuple[nn.Module, dict[str, Tensor]]:
    """OpenCLIP's text tower, with its prefix -> a CLIPTextModel without its last layer, which is never heard."""
    block = re.compile(re.escape(_TEXT) + r"transformer\.resblocks\.(\d+)\.")
    numbers = {key: int(found[1]) for key in tensors if (found := block.match(key))}
    last = max(numbers.values(), default=0)
    words, width = tensors[f"{_TEXT}token_embedding.weight"].shape
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=tensors[f"{_TEXT}transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        num_hidden_layers=last,
        num_attention_heads=max(1, width // 64),  # every OpenCLIP tower has heads of 64
        max_position_embeddings=len(tensors[f"{_TEXT}positional_embedding"]),
        hidden_act="gelu",
        bos_token_id=words - 2,
        eos_token_id=words - 1,
    )
    with init_empty_weights():
        net = CLIPTextModel(config)
    kept = {key: value for key, value in tensors.items() if numbers.get(key) != last}
    state: Mapping[str, Tensor] = convert_open_clip_checkpoint(net, kept, prefix=_TEXT)
    ours = net.state_dict().keys()
    state = {key if key in ours else key.removeprefix("text_model."): value for key, value in state.items()}
    return net, files.fit(net, tensors.path, state)
