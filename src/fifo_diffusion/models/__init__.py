"""The models by name.  A `Card` is what can be known of a model without loading torch; `load` does the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from fifo_diffusion.errors import BadInput, ModelError

if TYPE_CHECKING:
    import torch

    from fifo_diffusion.models.base import Model


@dataclass(frozen=True)
class Need:
    """Memory on a GPU in half precision, in GiB, at the card's size, as `models.need` counts it."""

    stays: float  # network and autoencoder
    text: float  # the text encoder, while it reads
    window: float  # one evaluation of one window
    decode: float  # one latent frame to pixels

    RESERVE: ClassVar[float] = 0.8  # CUDA's own, workspaces and gaps: what is not counted

    def least(self) -> float:
        """GiB with `--memory low`: one window at a time, guidance apart, text read on the CPU."""
        return self.stays + max(self.window, self.decode) + self.RESERVE

    def most(self, batch: int) -> float:
        """GiB with `--memory high` for a batch of windows, each with its guidance, and a frame decoded beside them."""
        return self.stays + max(2 * batch * self.window + self.decode, self.text) + self.RESERVE


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model is, needs, and is best run with."""

    name: str
    summary: str
    needs: str
    loader: str  # "module:function" of (device, dtype, weights) -> Model
    weights: str | None = None  # where they are published (a Hub id); None: in the package, or there are none
    other_weights: bool = True  # whether `--weights` may name others
    window: int  # latent frames the network was trained on: f in the paper
    space: int  # pixels per latent, each way
    frames_per_latent: int = 1  # of the decoder; a video's first latent is one frame all the same
    size: tuple[int, int]  # width, height in pixels
    encoder: bool = False  # whether it can go on from a clip
    any_size: bool = False  # or any multiple of `multiple`
    multiple: int | None = None  # of pixels, each way, that the network takes; None: `space`
    fps: float
    levels: int | None = None  # the most noise levels it can tell apart, where there is a limit
    partitions: int
    lookahead: str
    eta: float
    guidance: float
    scale: int = 1  # each pixel shown as scale x scale
    memory: Need | None = None  # None: little
    splits: tuple[int, ...] = (1,)  # over how many ranks its network can be split
    lora: bool = False  # whether it takes LoRA weights
    compiles: bool = True  # whether there is a network that can be compiled
    longer: bool = False  # whether its network takes windows longer than its own
    longest: int | None = None  # latent frames of the longest, where there is a limit
    windowed: bool = False  # whether its attention along frames can be windowed
    repeats: int | None = None  # where its positions in time are rotary: after how many latent frames it repeats itself

    def check_weights(self, weights: str | None) -> None:
        """Raises BadInput for weights given to a model that has none."""
        if weights is not None and not self.other_weights:
            raise BadInput(f"{self.name} has no weights, so --weights {weights} cannot be used; leave it out")

    @property
    def frames(self) -> int:
        """Frames of video that one window shows."""
        return 1 + (self.window - 1) * self.frames_per_latent

    def latents(self, frames: int) -> int:
        """Latent frames that so many frames of video are made of."""
        return 1 + -(-(frames - 1) // self.frames_per_latent)

    def check_encoder(self) -> None:
        """Raises BadInput for a model that cannot go on from a clip, naming those that can."""
        if not self.encoder:
            able = ", ".join(card.name for card in MODELS.values() if card.encoder)
            raise BadInput(
                f"{self.name} has no encoder, so it cannot go on from a clip; the models that can are {able}"
            )

    def check_lora(self, given: Sequence[str]) -> None:
        """Raises BadInput for LoRA weights given to a model that takes none."""
        if given and not self.lora:
            able = ", ".join(card.name for card in MODELS.values() if card.lora)
            raise BadInput(f"{self.name} takes no LoRA weights, so leave --lora {given[0]} out; those that do: {able}")

    def check_compile(self, split: int) -> None:
        """Raises BadInput where there is no network that could be compiled."""
        if not self.compiles:
            raise BadInput(f"{self.name} has no network to compile; leave --compile out")
        if split > 1:
            raise BadInput(f"a network that is shared by {split} ranks is not compiled; leave --compile or --split out")

    def check_levels(self, levels: int) -> None:
        """Raises BadInput for more levels than the model can tell apart."""
        if self.levels is not None and levels > self.levels:
            raise BadInput(
                f"{levels} noise levels are more than {self.name} can tell apart; with a window of {self.window} "
                f"it takes at most {self.levels // self.window} partitions"
            )

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises BadInput for a (width, height) that the model cannot make."""
        width, height = size
        if not self.any_size and size != self.size:
            raise BadInput(
                f"size {width}x{height} is not what {self.name} makes; it makes {self.size[0]}x{self.size[1]} "
                f"(use --scale to show each pixel larger)"
            )
        step = self.multiple or self.space
        if width < step or height < step or width % step or height % step:
            raise BadInput(
                f"size {width}x{height} does not fit {self.name}; width and height must be multiples of {step}"
            )


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
            repeats=24,
        ),
        Card(
            name="embedded-large",
            summary="the embedded model at 128 pixels: 24 animated subjects, ten scenes, light and weather, more words",
            needs="weights: none are in the package yet, python -m fifo_diffusion.training makes them (docs/large.md)",
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
            repeats=24,
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
            longest=1024,
            repeats=51,
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
