"""The models by name.  `load` makes one of them; a `Card` is what can be known of it before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.models.card import Card, Need

if TYPE_CHECKING:
    import torch

    from fifo_diffusion.models.base import Model

MODELS: Mapping[str, Card] = {
    card.name: card
    for card in (
        Card(
            name="embedded",
            summary="small text-to-video model inside this package: eight subjects, six colours, six scenes",
            needs="nothing more; about 0.5 GB of memory, runs on a laptop CPU",
            loader="fifo_diffusion.models.embedded.model:load",
            window=16,
            space=8,
            size=(64, 64),
            encoder=True,
            fps=10,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,
            guidance=4.0,
            scale=4,
            longer=True,
            windowed=True,
            repeats=24,  # seen: benchmarks/repeats.py
        ),
        Card(
            name="embedded-large",
            summary="the embedded model at 128 pixels: 24 animated subjects, ten scenes, light and weather, more words",
            needs="nothing more",
            loader="fifo_diffusion.models.embedded.model:load_large",
            window=16,
            space=8,
            size=(128, 128),
            encoder=True,
            fps=10,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,
            guidance=4.0,
            scale=2,
            longer=True,
            windowed=True,
            repeats=24,  # as embedded, whose positions it has; not seen
        ),
        Card(
            name="gauss",
            summary="exact Gaussian video to test the method with: no weights, no pictures; hears a number, its mean",
            needs="nothing more",
            loader="fifo_diffusion.models.gauss:load",
            other_weights=False,
            compiles=False,
            window=16,
            space=1,
            size=(64, 64),
            any_size=True,
            fps=10,
            partitions=4,
            lookahead="last",
            eta=0.0,
            guidance=1.0,
            scale=4,
            longer=True,
        ),
        # VideoCrafter2: window, partitions, lookahead, eta and guidance are those that the authors of arXiv:2405.11473
        # run it with (64 steps); they tell the network 8 frames a second and play at 10, here both are --fps.  They
        # have published none for VideoCrafter1, which takes them over.  The sizes are those that were trained at.
        Card(
            name="videocrafter2",
            summary="VideoCrafter2 (arXiv:2401.09047), 512x320: what the paper shows most",
            needs="diffusers and transformers (the extra `models`), and model.ckpt of VideoCrafter/VideoCrafter2",
            loader="fifo_diffusion.models.videocrafter:load_2",
            weights="VideoCrafter/VideoCrafter2",
            encoder=True,
            window=16,
            space=8,
            size=(512, 320),
            any_size=True,
            multiple=64,
            fps=8,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,
            guidance=12.0,
            memory=Need(stays=2.79, text=1.27, window=0.57, decode=0.23),
            lora=True,
            longer=True,
            windowed=True,
        ),
        Card(
            name="videocrafter1",
            summary="VideoCrafter1 (arXiv:2310.19512), 512x320",
            needs="diffusers and transformers (the extra `models`), and model.ckpt of VideoCrafter/Text2Video-512",
            loader="fifo_diffusion.models.videocrafter:load_1",
            weights="VideoCrafter/Text2Video-512",
            encoder=True,
            window=16,
            space=8,
            size=(512, 320),
            any_size=True,
            multiple=64,
            fps=8,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,
            guidance=12.0,
            memory=Need(stays=2.29, text=1.27, window=0.57, decode=0.23),
            lora=True,
            longer=True,
            windowed=True,
        ),
        Card(
            name="videocrafter1-1024",
            summary="VideoCrafter1 (arXiv:2310.19512), 1024x576",
            needs="diffusers and transformers (the extra `models`), and model.ckpt of VideoCrafter/Text2Video-1024",
            loader="fifo_diffusion.models.videocrafter:load_1_1024",
            weights="VideoCrafter/Text2Video-1024",
            encoder=True,
            window=16,
            space=8,
            size=(1024, 576),
            any_size=True,
            multiple=64,
            fps=8,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,
            guidance=12.0,
            memory=Need(stays=2.29, text=1.27, window=2.06, decode=0.84),
            lora=True,
            longer=True,
            windowed=True,
        ),
        Card(
            name="zeroscope",
            summary="text to video at 576x320, 24 frames a window (zeroscope v2; cc-by-nc-4.0)",
            needs="diffusers and transformers (the extra `models`), and the weights: cerspense/zeroscope_v2_576w",
            loader="fifo_diffusion.models.zeroscope:load",
            weights="cerspense/zeroscope_v2_576w",
            encoder=True,
            window=24,  # of its model card
            space=8,
            size=(576, 320),
            any_size=True,
            fps=8,  # at which diffusers writes it: the weights do not say
            levels=999,
            partitions=4,  # n of arXiv:2405.11473
            lookahead="last",
            eta=0.5,  # the paper says DDIM with eta 0.5 or 1, and has published 1 for VideoCrafter2 only
            guidance=9.0,  # of diffusers' TextToVideoSDPipeline; the paper's configuration is not published
            memory=Need(stays=2.78, text=1.27, window=0.96, decode=0.26),
            lora=True,
            longer=True,
            windowed=True,
        ),
        Card(
            name="modelscope",
            summary="text to video at 256x256, the network zeroscope was made from (ModelScope; cc-by-nc-4.0)",
            needs="diffusers and transformers (the extra `models`), and the weights: ali-vilab/text-to-video-ms-1.7b",
            loader="fifo_diffusion.models.zeroscope:load",
            weights="ali-vilab/text-to-video-ms-1.7b",
            encoder=True,
            window=16,  # arXiv:2308.06571
            space=8,
            size=(256, 256),
            any_size=True,
            fps=8,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=0.5,  # as zeroscope; and 8 frames a second, at which diffusers writes it
            guidance=9.0,
            memory=Need(stays=2.78, text=1.27, window=0.23, decode=0.09),
            lora=True,
            longer=True,
            windowed=True,
        ),
        Card(
            name="latte",
            summary="text to video at 512x512, a transformer (Latte-1; Apache-2.0)",
            needs="diffusers, transformers and sentencepiece (the extra `models`), and the weights: maxin-cn/Latte-1",
            loader="fifo_diffusion.models.latte:load",
            weights="maxin-cn/Latte-1",
            encoder=True,
            window=16,
            space=8,
            size=(512, 512),
            fps=8,  # of the authors' examples
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,  # the paper says 0.5 or 1; 1 as for VideoCrafter2
            guidance=7.5,  # of diffusers' LattePipeline
            memory=Need(stays=2.13, text=8.87, window=0.46, decode=0.38),
            lora=True,
        ),
        Card(
            name="latte-ucf101",
            summary="the 101 actions of UCF-101 at 256x256, the base of the paper's FVD table (Latte; Apache-2.0)",
            needs="diffusers (the extra `models`), and ucf101.pt with its vae folder: maxin-cn/Latte",
            loader="fifo_diffusion.models.latte_classes:load",
            weights="maxin-cn/Latte",
            encoder=True,
            window=16,
            space=8,
            size=(256, 256),
            fps=8,  # as latte
            levels=999,
            partitions=4,  # 64 steps, as in table 1 of arXiv:2405.11473
            lookahead="last",
            eta=1.0,  # as latte
            guidance=7.0,  # of the authors' configs/ucf101/ucf101_sample.yaml; the paper does not say
            memory=Need(stays=1.41, text=0.0, window=0.17, decode=0.09),
            lora=True,
        ),
        Card(
            name="open-sora-plan",
            summary="text to video at 512x512, 65 frames a window (Open-Sora Plan v1.1.0; MIT)",
            needs="diffusers, transformers and sentencepiece (the extra `models`), and the weights: "
            "LanguageBind/Open-Sora-Plan-v1.1.0 and DeepFloyd/t5-v1_1-xxl",
            loader="fifo_diffusion.models.opensora_plan:load",
            weights="LanguageBind/Open-Sora-Plan-v1.1.0",
            encoder=True,
            window=17,  # this, partitions (136 steps) and guidance: the script of arXiv:2405.11473's authors
            space=8,
            frames_per_latent=4,
            size=(512, 512),
            any_size=True,  # trained at 512x512 only
            multiple=16,  # patches of 2x2 latents
            fps=24,  # what both authors write
            levels=999,
            partitions=8,
            lookahead="last",
            eta=1.0,  # DDPM
            guidance=7.5,
            memory=Need(stays=2.43, text=8.87, window=0.5, decode=5.66),
            lora=True,
        ),
        Card(
            name="open-sora-plan-221",
            summary="text to video at 512x512, 221 frames a window (Open-Sora Plan v1.1.0; MIT)",
            needs="as open-sora-plan",
            loader="fifo_diffusion.models.opensora_plan:load_221",
            weights="LanguageBind/Open-Sora-Plan-v1.1.0",
            encoder=True,
            window=56,  # this and partitions (224 steps) are of the authors' script for 221 frames
            space=8,
            frames_per_latent=4,
            size=(512, 512),
            any_size=True,
            multiple=16,
            fps=24,
            levels=999,
            partitions=4,
            lookahead="last",
            eta=1.0,
            guidance=7.5,
            memory=Need(stays=2.43, text=8.87, window=1.64, decode=5.66),
            lora=True,
        ),
        # Wan 2.1: window, size, fps and guidance are of diffusers' examples, which take 50 steps (here 63).  eta 0 is
        # the Euler step of its flow.  The paper's authors did not run it.
        Card(
            name="wan-1.3b",
            summary="text to video at 832x480, 81 frames a window (Wan 2.1, 1.3 billion parameters; Apache-2.0)",
            needs="diffusers, transformers and sentencepiece (the extra `models`), and the weights: "
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            loader="fifo_diffusion.models.wan:load",
            weights="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            encoder=True,
            window=21,
            space=8,
            frames_per_latent=4,
            size=(832, 480),
            any_size=True,
            multiple=16,  # patches of 2x2 latents
            fps=16,
            partitions=3,
            lookahead="last",
            eta=0.0,
            guidance=5.0,
            memory=Need(stays=3.12, text=10.58, window=1.77, decode=7.27),
            splits=(1, 2, 4),  # 12 heads, 8,960 wide
            lora=True,
            longer=True,
            longest=1024,  # as many positions as diffusers makes
            repeats=51,  # as RIFLEx's authors are said to advise (docs/methods.md); not seen here
        ),
        Card(
            name="wan-14b",
            summary="text to video at 832x480 or 1280x720, 81 frames a window (Wan 2.1, 14 billion; Apache-2.0)",
            needs="as wan-1.3b, with Wan-AI/Wan2.1-T2V-14B-Diffusers",
            loader="fifo_diffusion.models.wan:load",
            weights="Wan-AI/Wan2.1-T2V-14B-Diffusers",
            encoder=True,
            window=21,
            space=8,
            frames_per_latent=4,
            size=(832, 480),
            any_size=True,
            multiple=16,
            fps=16,
            partitions=3,
            lookahead="last",
            eta=0.0,
            guidance=5.0,
            memory=Need(stays=27.14, text=10.58, window=3.9, decode=7.27),
            splits=(1, 2, 4, 8),  # 40 heads, 13,824 wide
            lora=True,
            longer=True,
            longest=1024,
            repeats=51,
        ),
    )
}


def card(name: str) -> Card:
    """Raises BadInput for an unknown name, listing the known ones."""
    if name in MODELS:
        return MODELS[name]
    close = get_close_matches(name, MODELS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise BadInput(f"model {name!r} is unknown; the models are {', '.join(MODELS)}{hint}")


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
    chosen = card(name)
    chosen.check_weights(weights)
    module, function = chosen.loader.split(":")
    try:
        model: Model = getattr(import_module(module), function)(device, dtype, weights or chosen.weights)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{name} needs the package {error.name}, which is not installed; pip install 'fifo-diffusion[models]'"
        ) from error
    return model
