"""Attention along frames by a rule of one's own: the networks that have the seam, on their real classes."""

from pathlib import Path

import pytest
import torch
from cases import CASES, Case
from tiny_parts import noise

from fifo_diffusion.errors import BadInput
from fifo_diffusion.methods.overlapping import Windowed
from fifo_diffusion.models import load
from fifo_diffusion.models.cards import MODELS

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", [c for c in CASES if MODELS[c.name].windowed], ids=lambda case: case.name)
@torch.no_grad()
def test_attention_goes_by_windows(case: Case, tmp_path: Path) -> None:
    """One window over all is the network itself, longer than it was trained; windows are another answer, and the last
    rule that was given holds.
    """
    net = load(case.name, CPU, torch.float32, case.weights(tmp_path))
    schedule, frames = net.schedule(64, "even"), 2 * MODELS[case.name].window
    z = noise(1, net.channels, frames, case.side, case.side)
    t, cond = schedule.times(torch.full((frames,), 40), z)[None], net.embed(["a red balloon"])
    denoise = net.denoiser(schedule)
    own = denoise(z, t, cond)
    net.attend_over(Windowed(frames // 2, frames // 4))
    cut = denoise(z, t, cond)
    assert float((cut - own).abs().max()) > 1e-4 * float(own.abs().max())
    net.attend_over(Windowed(frames, 1))
    assert torch.equal(denoise(z, t, cond), own)


@torch.no_grad()
def test_frames_of_windows_that_do_not_overlap_do_not_hear_each_other() -> None:
    """In the embedded network nothing but attention goes along frames: two windows apart are two calls."""
    net = load("embedded", CPU, torch.float32)
    net.attend_over(Windowed(16, 16))
    schedule = net.schedule(64, "even")
    z = noise(1, net.channels, 32, 8, 8)
    t, cond = schedule.times(torch.full((32,), 40), z)[None], net.embed(["a red balloon"])
    denoise = net.denoiser(schedule)
    whole, parts = denoise(z, t, cond), [denoise(z[:, :, i : i + 16], t[:, i : i + 16], cond) for i in (0, 16)]
    torch.testing.assert_close(whole, torch.cat(parts, dim=2), rtol=0, atol=1e-4)


def test_a_model_without_the_seam_says_so() -> None:
    with pytest.raises(BadInput, match="no attention along frames that can be windowed"):
        load("gauss", CPU, torch.float32).attend_over(Windowed(4, 2))
