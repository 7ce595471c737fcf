"""Where a stream can be begun again, with decoders that hold frames back and remember latents."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fifo_diffusion import models
from fifo_diffusion.config import Cue, Decided, Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.models.gauss import Gauss
from fifo_diffusion.names import Frame
from fifo_diffusion.session import Session
from fifo_diffusion.trail import Trail

PER_LATENT = 4


@dataclass(frozen=True)
class Chunked:
    """Like a causal video autoencoder decoded in chunks that overlap by one latent: the first latent of a chunk is
    one frame, each later one four, and all remember what was before them in the chunk.  A chunk's first frame is
    left out where the chunk before has given it."""

    period: int | None
    memory: int = 0

    def __call__(self, latents: Iterator[Tensor], /) -> Iterator[Tensor]:
        memory, last = None, None
        for number, latent in enumerate(chunk[:, :, i] for chunk in latents for i in range(chunk.shape[2])):
            if number == 0:
                memory = latent
                yield (memory / 3)[:, None]
            else:
                if self.period and (number - 1) % self.period == 0:
                    memory = last  # the overlap, begun with anew
                assert memory is not None
                parts = []
                for _ in range(PER_LATENT):
                    memory = 0.7 * memory + 0.3 * latent
                    parts.append(memory / 3)
                yield torch.stack(parts, dim=1)
            last = latent


RUN = {"prompt": "-", "model": "gauss", "size": (8, 8), "partitions": 1, "frames": 90}


def causal(period: int | None, clip: bool, patch: pytest.MonkeyPatch, folder: Path) -> Decided:
    """A run of a model whose decoder is such a one."""
    patch.setattr(Gauss, "decoder", lambda self: Chunked(period))
    patch.setattr(Gauss, "encode", lambda self, pixels: pixels[:, ::PER_LATENT].transpose(1, 2).float())
    card = replace(MODELS["gauss"], frames_per_latent=PER_LATENT, encoder=True)
    patch.setattr(models, "MODELS", {**MODELS, "gauss": card})
    Image.effect_noise((8, 8), 80).convert("RGB").save(folder / "still.png")
    return resolve(Run.of({**RUN, "clip": str(folder / "still.png")} if clip else RUN))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("period", [3, 1, None])
def test_a_stream_goes_on_from_any_frame_whatever_its_decoder_remembers(
    period: int | None, clip: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a clip too, whose latents the decoder sees before those that are new; and decoded on another thread."""
    run = causal(period, clip, monkeypatch, tmp_path)
    straight = list(Session(run).frames())
    assert len(straight) == 90
    monkeypatch.setattr(Session, "decodes_aside", True)
    session, frames = Session(run), []
    for frame in session.frames():
        frames.append(frame)
        place = session.trail.place()
        assert place.frame == len(frames)
        if period:  # no more than a chunk is made again, and the frame at its seam
            assert place.skip <= period * PER_LATENT + (PER_LATENT - 1 if clip else 0)
        if len(frames) % 13 == 0:
            on: list[Frame] = list(islice(Session(run).frames(place), 20))
            np.testing.assert_array_equal(on, straight[len(frames) : len(frames) + 20])
    np.testing.assert_array_equal(frames, straight)


@pytest.mark.parametrize(("clip", "reaches"), [(False, 9), (True, 8)])
def test_a_prompt_comes_with_the_latent_of_its_frame(
    clip: bool, reaches: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Latents are the frames 0 | 1-4 | 5-8 | 9-12, behind a clip 0-3 | 4-7 | 8-11, and hear what their last does."""
    run = causal(4, clip, monkeypatch, tmp_path).model_copy(update={"prompt": "0", "frames": 14})
    cues = (Cue(at=0, prompt="0"), Cue(at=11, prompt="3"))
    runs = (run, run.model_copy(update={"cues": cues}))
    one, other = (np.stack(list(Session(run).frames())).astype(int) for run in runs)
    apart = np.abs(one - other).max(axis=(1, 2, 3))  # of other frames a bit may be, by rounding
    assert [number for number, by in enumerate(apart) if by > 1] == list(range(reaches, 14))


@pytest.mark.parametrize("held", [0, 16])
def test_no_more_states_are_kept_than_are_needed(held: int) -> None:
    """Those of the latents that a decoder holds back, the one before and the one that is made."""
    trail: Trail[int] = Trail()
    trail.begin(period=1, per_latent=1, given=0)
    for latent in range(1000):
        trail.passes(latent, latent)
        trail.given = max(0, latent - held)
        assert trail.place().state == trail.given
        assert len(trail._states) <= held + 2


def test_in_the_run_in_the_latest_state_is_the_place() -> None:
    trail: Trail[str] = Trail()
    trail.begin(period=4, per_latent=4, given=0)
    for state in ("first", "second", "third"):
        trail.passes(0, state)
    assert trail.place().state == "third"
    assert len(trail._states) == 1
