"""Other ways to a long video from the same network, to compare with: each a generator of latent chunks, over the seams
that the engine stands on.  A `Kind` is what can be known of one without torch; `sample` does the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fifo_diffusion.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from fifo_diffusion.config import Decided
    from fifo_diffusion.methods.setting import Setting
    from fifo_diffusion.models.card import Card
    from fifo_diffusion.protocols import Temporal, Turn


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A method by name.

    endless: whether its memory is the same for any length.  longer: it gives the network windows longer than its own.
    windowed: it needs a model that lets attention along frames be windowed.  rotary: one whose positions in time are
    rotary.  options: its own, beside steps.
    eta: where the paper's is not left to the model.
    """

    name: str
    summary: str
    endless: bool = False
    longer: bool = False
    windowed: bool = False
    rotary: bool = False
    options: Collection[str] = ()
    eta: float | None = None


OPTIONS = ("stride", "overlap", "repeats")  # all that any has, beside steps

METHODS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="plain",
            summary="the whole video at once as one long window; memory grows",
            longer=True,
        ),
        Kind(
            name="chunked",
            summary="clip after clip, each held to the last frames of the one before (arXiv:2204.03458)",
            endless=True,
            options=("overlap",),
        ),
        Kind(
            name="genlvideo",
            summary="Gen-L-Video (arXiv:2305.18264): overlapping clips denoised together; all latents stay in memory",
            options=("stride",),
        ),
        Kind(
            name="freenoise",
            summary="FreeNoise (arXiv:2310.15169): noise used again, windowed attention; memory grows",
            longer=True,
            windowed=True,
            options=("stride",),
            eta=0.0,  # as published; fresh noise would undo that frames share their noise
        ),
        Kind(
            name="freelong",
            summary="FreeLong (arXiv:2407.19918): attention's low frequencies over all frames; memory grows",
            longer=True,
            windowed=True,
            options=("stride",),
        ),
        Kind(
            name="riflex",
            summary="RIFLEx (arXiv:2502.15894): one long window, rotary positions slowed in time; memory grows",
            longer=True,
            rotary=True,
            options=("repeats",),
        ),
    )
}


def lacks(kind: Kind, card: Card) -> str | None:
    """Why a method cannot be used with a model, or None where it can."""
    if kind.longer and not card.longer:
        return f"the network of {card.name} takes no windows longer than {card.window} frames"
    if kind.windowed and not card.windowed:
        return f"attention along frames cannot be windowed in {card.name}"
    if kind.rotary and card.repeats is None:
        return f"the positions in time of {card.name} are not rotary"
    return None


def defaults(name: str, card: Card) -> dict[str, float]:
    """Of a method's own settings: as many steps as FIFO has levels, strides of a quarter of a window, half a window of
    overlap, where the card says that it repeats; and eta where the method has one.
    """
    kind = METHODS[name]
    own = {"stride": max(1, card.window // 4), "overlap": card.window // 2, "repeats": card.repeats}
    out: dict[str, float] = {"steps": card.window * card.partitions}
    out |= {option: value for option in kind.options if (value := own[option]) is not None}
    return out if kind.eta is None else {**out, "eta": kind.eta}


def at_once(run: Decided, card: Card) -> int:
    """The most calls that can be answered as one batch."""
    return 1 if run.stride is None or METHODS[run.method].longer else max(1, run.frames // run.stride)


def check(run: Decided, card: Card) -> None:
    """Raises BadInput for what a method cannot do, or not with this model."""
    kind, window = METHODS[run.method], card.window
    if (why := lacks(kind, card)) is not None:
        from fifo_diffusion.models import able

        those = able(lambda other: lacks(kind, other) is None)
        raise BadInput(f"{why}, which method {kind.name} needs; use one of {those}")
    for option in OPTIONS:
        if getattr(run, option) is not None and option not in kind.options:
            raise BadInput(f"{option} means nothing to method {kind.name}; leave it out")
    if run.frames == 0 and not kind.endless:
        endless = ", ".join(["fifo", *(other.name for other in METHODS.values() if other.endless)])
        raise BadInput(
            f"frames is 0 with method {kind.name}, which samples the whole video at once; say how many, or use one "
            f"that never ends ({endless})"
        )
    if kind.longer and card.longest is not None and card.latents(run.frames) > card.longest:
        most = 1 + (card.longest - 1) * card.frames_per_latent
        raise BadInput(
            f"frames is {run.frames}, more than the {most} that {card.name} has positions for in one window, as method "
            f"{kind.name} samples them; give at most {most}, or use method fifo"
        )
    if run.clip is not None:
        raise BadInput(f"method {kind.name} begins from noise and cannot go on from {run.clip}; use method fifo")
    if run.overlap is not None and run.overlap >= window:
        raise BadInput(f"overlap is {run.overlap}; of clips of {window} frames at most {window - 1} can be held")
    if run.stride is not None and run.stride > window:
        raise BadInput(f"stride is {run.stride}; windows of {window} frames would leave gaps, so give at most {window}")


def temporal(run: Decided, card: Card) -> Temporal | None:
    """How the model is to attend along frames; None: as it always does."""
    if not METHODS[run.method].windowed:
        return None
    from fifo_diffusion.methods.overlapping import Windowed

    assert run.stride is not None
    near = Windowed(card.window, run.stride)
    if run.method == "freelong":
        from fifo_diffusion.methods.freelong import SpectralBlend

        return SpectralBlend(near)
    return near


def turn(run: Decided, card: Card, rates: Sequence[float]) -> Turn | None:
    """What of the model's positions in time is to turn otherwise; None: nothing.  rates: as the model has them."""
    if run.repeats is None:
        return None
    from fifo_diffusion.methods.riflex import slower

    return slower(rates, run.repeats, card.window, card.latents(run.frames))


def sample(run: Decided, setting: Setting, length: int) -> Iterator[Tensor]:
    """Chunks (B, C, k, H, W) of `length` latent frames, or without end where the method has none."""
    if run.method in ("plain", "freelong", "riflex"):
        from fifo_diffusion.methods.plain import plain

        return plain(setting, length)
    if run.method == "chunked":
        from fifo_diffusion.methods.chunked import chunked

        assert run.overlap is not None
        return chunked(setting, run.overlap)
    assert run.stride is not None
    if run.method == "genlvideo":
        from fifo_diffusion.methods.genlvideo import genlvideo

        return genlvideo(setting, length, run.stride)
    from fifo_diffusion.methods.freenoise import freenoise

    return freenoise(setting, length, run.stride, run.seed)
