"""The model that ships in the package: its networks from safetensors beside this file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fifo_diffusion.decode import PerFrame, encode_each
from fifo_diffusion.errors import ModelError
from fifo_diffusion.models.attend import attention
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.compiled import compiled
from fifo_diffusion.models.eight_bits import in_eight_bits
from fifo_diffusion.models.embedded import packed
from fifo_diffusion.models.embedded.autoencoder import Autoencoder
from fifo_diffusion.models.embedded.text import TextEncoder
from fifo_diffusion.models.embedded.transformer import VideoTransformer, time_rates
from fifo_diffusion.models.once import Once
from fifo_diffusion.protocols import Cond, Denoiser, Temporal, Turn
from fifo_diffusion.schedule import NoiseSchedule, cosine, paper, variance_preserving

WEIGHTS = Path(__file__).parent / "weights"
WEIGHTS_LARGE = Path(__file__).parent / "weights-large"
WEIGHTS_DF = Path(__file__).parent / "weights-df"
SHIPPED = {"embedded": WEIGHTS, "embedded-df": WEIGHTS_DF, "embedded-large": WEIGHTS_LARGE}  # by the model's name


class Embedded(Model):
    """Letters: B streams, C latent channels, F frames, H W latent height and width."""

    per_frame_text = True

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        """Raises ModelError, naming the file, when weights are missing, damaged or of another shape."""
        try:
            config = json.loads((folder / "config.json").read_text())
            # See `--share` of the training.
            rest = (folder / config["rest"]).resolve() if "rest" in config else folder
            config = json.loads((rest / "config.json").read_text()) | config
            self.channels, self.timesteps, vocabulary = (config[k] for k in ("channels", "timesteps", "vocabulary"))
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"the embedded model's {folder / 'config.json'} cannot be read ({error}); {_mend(folder)}"
            ) from error
        self.device, self.dtype = device, dtype
        self._files = {name: _file(folder, rest, name) for name in ("autoencoder", "text", "transformer")}
        self._along: _Along | None = None
        self.world: str = config.get("world", "small")  # which it was trained on, see `fifo_diffusion.world.kinds`
        self._by_lot = frozenset(config.get("by_lot", ()))  # words that it does not tell from each other
        text, video = networks(
            self.channels,
            vocabulary,
            config.get("patch", 2),
            config.get("vectors"),
            config.get("trained"),
            config.get("fine"),
        )
        self._text = _filled(text, self._files["text"]).to(device)
        self._video = _filled(video, self._files["transformer"]).to(device, dtype)
        self._told = Once(self._video.told)
        self._pictures = _filled(Autoencoder(self.channels), self._files["autoencoder"]).to(device)

    def schedule(self, levels: int, table: str) -> NoiseSchedule:
        make = paper if table == "paper" else variance_preserving
        return make(cosine(self.timesteps), levels, predicts="velocity")

    def denoiser(self, schedule: NoiseSchedule) -> Denoiser:
        return self._denoise

    def compile(self, backend: str = "inductor") -> None:
        self._denoise = compiled(self._denoise, self.device, backend)  # type: ignore[method-assign]

    def attend_over(self, temporal: Temporal) -> None:
        """Space is attended to together with time, so a part of the frames is all their tokens."""
        self._along = _Along(temporal)
        for layer in self._video.attentions():
            layer.attend = self._along

    @property
    def rates(self) -> tuple[float, ...]:
        return tuple(time_rates(self._video.head).tolist())

    def turning(self, turn: Turn) -> Denoiser:
        return partial(self._denoise, turn=turn)

    def _denoise(self, z: Tensor, t: Tensor, cond: Cond, /, *, turn: Turn | None = None) -> Tensor:
        """cond["text"] is (B, D), or (B, F, D) where each frame hears its own; so are its words and their mask."""
        text, words, heard = cond["text"].to(self.dtype), cond["words"].to(self.dtype), cond["heard"]
        if text.ndim == 2:
            text, words, heard = text[:, None], words[:, None], heard[:, None]
        if self._along is not None:
            self._along.frames = z.shape[2]
        # Texts of their own pass from frame to frame as the queue moves on, and what is made of them is large.
        told = (self._told if text.shape[1] == 1 else self._video.told)(
            t, text, words, heard, z.shape[3], z.shape[4], turn
        )
        return self._video.answer(z.to(self.dtype), told).to(z.dtype)

    def in_eight_bits(self, device: torch.device, products: bool = False) -> None:
        in_eight_bits(self._video, self.dtype, products)
        for net in (self._text, self._video, self._pictures):
            net.to(device)
        self.device = device

    def save_memory(self) -> None:
        self._told.most = 0

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Cond:
        text, words, heard = self._text(self._text.tokens(prompts))
        return {"text": text, "words": words * heard[..., None], "heard": heard}  # so that words can fade to nothing

    def decoder(self) -> PerFrame:
        return PerFrame(self._pictures.decode)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """(B, F, 3, 8H, 8W) in [-1, 1] -> (B, C, F, H, W)"""
        return encode_each(self._pictures.encode, pixels)

    def remarks(self, prompt: str) -> list[str]:
        said = self._text.remarks(prompt)
        if (word := next((word for word in self._text.heard(prompt) if word in self._by_lot), None)) is not None:
            said.append(f"the model hears in {word!r} that something moves up or down, not which: it may show either")
        return said

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return self._text.vocabulary

    @cached_property
    def weights(self) -> str:
        return sha256(b"".join(sha256(file.read_bytes()).digest() for file in self._files.values())).hexdigest()


def networks(
    channels: int,
    vocabulary: Sequence[str],
    patch: int = 2,
    vectors: int | None = None,
    trained: Sequence[str] | None = None,
    fine: int | None = None,
) -> tuple[TextEncoder, VideoTransformer]:
    """Untrained; patch: latents to a token each way, and fine: see `VideoTransformer`; vectors and trained: see
    `TextEncoder`."""
    video = VideoTransformer(channels, patch=patch, spectral=patch > 2, fine=fine)
    return TextEncoder(vocabulary, vectors=vectors, trained=trained), video


@dataclass
class _Along:
    """Attention of all tokens (B, heads, N, head), frame after frame, by a rule for frames."""

    temporal: Temporal
    frames: int = 1

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        each = q.shape[2] // self.frames

        def attend(part: slice) -> Tensor:
            tokens = slice(part.start * each, part.stop * each)
            mixed = attention(q[:, :, tokens], k[:, :, tokens], v[:, :, tokens])
            return torch.unflatten(mixed.transpose(1, 2), 1, (-1, each))

        return self.temporal(attend, self.frames).flatten(1, 2).transpose(1, 2)


def load(
    device: torch.device, dtype: torch.dtype, weights: str | None, shipped: Path = WEIGHTS, world: str = "small"
) -> Embedded:
    """weights: a folder that `python -m fifo_diffusion.training --export` wrote; None for those in the package.

    Raises ModelError for weights that were trained on the other world: their pictures have another size.
    """
    model = Embedded(shipped if weights is None else Path(weights), device, dtype)
    if model.world != world:
        other = "embedded-large" if world == "small" else "embedded"
        raise ModelError(f"these weights are of the {model.world} world; use them with --model {other}")
    return model


load_df = partial(load, shipped=WEIGHTS_DF)  # trained with a timestep for every frame
load_large = partial(load, shipped=WEIGHTS_LARGE, world="large")


def _file(folder: Path, rest: Path, name: str) -> Path:
    own = folder / f"{name}.safetensors"
    return own if own.exists() else rest / own.name


def _mend(folder: Path) -> str:
    """What to do about weights that cannot be read."""
    ours = folder in SHIPPED.values()
    return "reinstall fifo-diffusion" if ours else "give --weights a folder that the training exported"


Net = TypeVar("Net", bound=nn.Module)


def _filled(net: Net, file: Path) -> Net:
    """Load finished weights into a float32 network."""
    try:
        net.load_state_dict(packed.read(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ModelError(
            f"the embedded model's {file} is missing, damaged or of another version ({first}); {_mend(file.parent)}"
        ) from error
    net.eval().requires_grad_(False)
    return net
