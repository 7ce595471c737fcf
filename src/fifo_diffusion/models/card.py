"""What can be known of a model without loading torch: what it needs, what it can do, what it is best run with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fifo_diffusion.errors import BadInput


@dataclass(frozen=True)
class Need:
    """Memory on a GPU in half precision, in GiB, at the card's size, as `benchmarks/need.py` counts it."""

    stays: float  # network and autoencoder
    eight: float  # the same with --fp8, and a weight in half precision while it is used
    text: float  # the text encoder, while it reads
    window: float  # one evaluation of one window
    decode: float  # one latent frame to pixels

    RESERVE: ClassVar[float] = 0.8  # CUDA's own, workspaces and gaps: what is not counted

    def stay(self, dtype: str = "bfloat16", fp8: bool = False) -> float:
        """GiB that network and autoencoder take in this precision, with or without --fp8."""
        if dtype != "float32":
            return self.eight if fp8 else self.stays
        saved = self.stays - self.eight  # what is in eight bits takes this, in any precision; the rest doubles
        return self.eight + (self.eight - saved) if fp8 else 2 * self.stays

    def least(self, fp8: bool = False) -> float:
        """GiB with `--memory low`: one window at a time, guidance apart, text read on the CPU."""
        return self.stay(fp8=fp8) + max(self.window, self.decode) + self.RESERVE

    def most(self, batch: int, fp8: bool = False) -> float:
        """GiB with `--memory high` for a batch of windows, each with its guidance, and a frame decoded beside them."""
        return self.stay(fp8=fp8) + max(2 * batch * self.window + self.decode, self.text) + self.RESERVE


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
    tables: tuple[str, ...] = ("even", "paper")  # of noise levels
    lora: bool = False  # whether it takes LoRA weights
    network: bool = True  # whether there is one: it can be compiled, and kept in eight bits
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

    @property
    def windows(self) -> str:
        """How long one is, in words."""
        if self.frames_per_latent == 1:
            return f"{self.window} frames"
        return f"{self.window} latents ({self.frames} frames)"

    def latents(self, frames: int) -> int:
        """Latent frames that so many frames of video are made of."""
        return 1 + -(-(frames - 1) // self.frames_per_latent)

    def check_compile(self, split: int) -> None:
        """Raises BadInput where there is no network that could be compiled."""
        if not self.network:
            raise BadInput(f"{self.name} has no network to compile; leave --compile out")
        if split > 1:
            raise BadInput(f"a network that is shared by {split} ranks is not compiled; leave --compile or --split out")

    def check_fp8(self, device: str) -> None:
        """Raises BadInput where there is no network whose weights could be kept in eight bits, or no such numbers."""
        if not self.network:
            raise BadInput(f"{self.name} has no network whose weights could be kept in eight bits; leave --fp8 out")
        if device.startswith("mps"):
            raise BadInput("Apple's MPS has no eight-bit floats; leave --fp8 out, or say --device cpu")

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
