"""What memory a published model needs on a GPU, counted on its full-size networks without their weights.

torch's meta device has shapes but no numbers, so networks of billions are built and run in seconds; every tensor that
is alive counts, and the peak is the need.  `fifo models` must not wait for that: the cards hold the figures, and a test
holds the cards to this.

Not counted: what torch's CUDA context takes, workspaces of convolutions, and the allocator's gaps; `RESERVE` is for
them.  Attention and norms are counted as CUDA's kernels do them.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fifo_diffusion.models.card import Need
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.models.eight_bits import in_eight_bits
from fifo_diffusion.models.wan import LARGE, SMALL, TOKENS, Streamed, wan

HALF = torch.float16


class Full(NamedTuple):
    """A model at its published size, on the meta device in half precision."""

    network: nn.Module
    evaluate: Callable[[Tensor, Tensor], object]  # latents (B, C, F, H, W), times (B, F)
    autoencoder: Any
    text: nn.Module | None
    channels: int = 4  # of latents
    decode: Callable[[Tensor], object] | None = None  # a window (B, C, F, H, W); None: the autoencoder, frame by frame


def count(name: str) -> Need:
    """The figures of a card, in GiB, at the size the model makes unless told otherwise."""
    with torch.device("meta"), torch.no_grad():
        full, z, t = full_size(name)
        window = peak(lambda: full.evaluate(z, t))
        stays = _size(full.network)
        decode = peak(lambda: full.decode(z) if full.decode else full.autoencoder.decode(z[:, :, 0]))
        in_eight_bits(full.network, HALF)
        eight = _size(full.network) + peak(lambda: full.evaluate(z, t)) - window
    return Need(
        stays=_gib(stays + _size(full.autoencoder)),
        eight=_gib(eight + _size(full.autoencoder)),
        text=0.0 if full.text is None else _gib(_size(full.text)),
        window=_gib(window),
        decode=_gib(decode),
    )


def full_size(name: str) -> tuple[Full, Tensor, Tensor]:
    """A published network without its weights, and what it is shown: latents (1, C, f, H, W) and times (1, f)."""
    card, full = MODELS[name], FULL[name]()
    width, height = (side // card.space for side in card.size)
    return full, torch.empty(1, full.channels, card.window, height, width, dtype=HALF), torch.empty(1, card.window)


def peak(run: Callable[[], object]) -> int:
    """The most bytes that were alive at once of what `run` made."""
    alive = _Alive()
    with _Fused(), alive:
        run()
    return alive.most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every storage made inside it, until it is let go."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **kwargs)
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given | self._known:
                self._count(made)
        return out

    def _count(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        key = storage._cdata
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


_NORMS = (torch.nn.functional.group_norm, torch.nn.functional.layer_norm, torch.nn.functional.rms_norm)


class _Fused(TorchFunctionMode):
    """Attention and norms that make their answer and nothing else, as CUDA's kernels do.

    Without it torch's meta device takes them apart, into the matrix of all pairs and copies in float32.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, value = (args[i] if len(args) > i else kwargs[name] for i, name in ((0, "query"), (2, "value")))
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        if func in _NORMS:
            return torch.empty_like(args[0])
        return func(*args, **kwargs)


def _clip() -> Any:
    """OpenCLIP ViT-H's text tower without its last layer, as ModelScope and VideoCrafter use it."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16)
    )  # in float32, as `text.clip_reader` keeps it


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu", vocab_size=32128
    )
    return T5EncoderModel(config).to(torch.bfloat16)


def _autoencoder() -> Any:
    """Stable Diffusion's."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    ).to(HALF)


def _zeroscope() -> Full:
    from fifo_diffusion.models.unet3d import FrameUNet

    network = FrameUNet().to(HALF)
    text = torch.empty(1, 77, 1024, dtype=HALF)
    return Full(network, lambda z, t: network(z, t, text), _autoencoder(), _clip())


def _videocrafter(name: str) -> Full:
    from fifo_diffusion.models.unet3d import FrameUNet
    from fifo_diffusion.models.videocrafter import VARIANTS

    variant = next(variant for variant in VARIANTS if variant.name == name)
    network = FrameUNet(**variant.options).to(HALF)
    text, rate = torch.empty(1, 77, 1024, dtype=HALF), torch.empty(1) if variant.fps else None
    return Full(network, lambda z, t: network(z, t, text, rate), _autoencoder(), _clip())


def _latte() -> Full:
    from diffusers import LatteTransformer3DModel

    from fifo_diffusion.models.latte import PUBLISHED, TOKENS, latte

    network = LatteTransformer3DModel(**PUBLISHED).to(HALF)
    text, heard = torch.empty(1, TOKENS, 4096, dtype=HALF), torch.empty(1, TOKENS, dtype=torch.bool)
    return Full(network, lambda z, t: latte(network, z, t, text, heard), _autoencoder(), _t5())


def _latte_ucf101() -> Full:
    from fifo_diffusion.models.latte_classes import ClassLatte

    network = ClassLatte(
        width=1152, depth=28, heads=16, patch=2, patches=256, frames=16, channels=4, out=8, classes=101, hidden=4608
    ).to(HALF)
    told = torch.empty(1, 16, 1152, dtype=HALF)
    return Full(network, lambda z, t: network(z, t, told), _autoencoder(), None)


def _open_sora_plan(window: int) -> Full:
    from fifo_diffusion.models.causal_vae import CausalVAE
    from fifo_diffusion.models.causal_vae_shape import PUBLISHED as VAE
    from fifo_diffusion.models.latte import latte
    from fifo_diffusion.models.opensora_plan import CHUNKS, TILE, TOKENS, PlanTransformer

    network, autoencoder = PlanTransformer(video_length=window).to(HALF), CausalVAE(VAE).to(HALF)
    text, heard = torch.empty(1, TOKENS, 4096, dtype=HALF), torch.empty(1, TOKENS, dtype=torch.bool)
    chunk = max(CHUNKS[window])
    return Full(
        network,
        lambda z, t: latte(network, z, t, text, heard),
        autoencoder,
        _t5(),
        decode=lambda z: autoencoder.decode(z[:, :, :chunk], TILE),
    )


def _wan(options: Mapping[str, Any]) -> Full:
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    network, autoencoder = WanTransformer3DModel(**options).to(HALF), AutoencoderKLWan()
    for name, weight in network.named_parameters():
        if any(part in network._keep_in_fp32_modules for part in name.split(".")):  # as `from_pretrained` does
            weight.data = weight.data.float()
    umt5 = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    text = torch.empty(1, TOKENS, 4096, dtype=HALF)
    return Full(
        network,
        lambda z, t: wan(network, z, t, text),
        autoencoder,
        UMT5EncoderModel(umt5).to(torch.bfloat16),
        channels=16,
        decode=lambda z: deque(Streamed(autoencoder)(iter([z[:, :, :3]])), maxlen=0),
    )


def _size(net: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in (*net.parameters(), *net.buffers()))


def _gib(size: int) -> float:
    return round(size / 2**30, 2)


FULL: Mapping[str, Callable[[], Full]] = {
    **{name: partial(_videocrafter, name) for name in ("videocrafter2", "videocrafter1", "videocrafter1-1024")},
    "zeroscope": _zeroscope,
    "modelscope": _zeroscope,
    "latte": _latte,
    "latte-ucf101": _latte_ucf101,
    "open-sora-plan": partial(_open_sora_plan, 17),
    "open-sora-plan-221": partial(_open_sora_plan, 56),
    "wan-1.3b": partial(_wan, SMALL),
    "wan-14b": partial(_wan, LARGE),
}
