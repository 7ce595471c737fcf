"""Driven with the same noise, the engine gives what the authors' code gave (tests/data/golden/README.md)."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fifo_diffusion.engine import Engine
from fifo_diffusion.execute import Batched, Serial
from fifo_diffusion.guidance import Guided
from fifo_diffusion.protocols import Cond
from fifo_diffusion.schedule import paper, scaled_linear_betas
from fifo_diffusion.windows import Plan

GOLDEN = Path(__file__).parent / "data" / "golden"
CASES = {  # name: (f, n, lookahead, eta, guidance scale, tolerance)
    "f4_n1_la1_eta0_cfg1.0": (4, 1, True, 0.0, 1.0, 1e-4),
    "f4_n2_la0_eta1_cfg7.5": (4, 2, False, 1.0, 7.5, 1e-4),
    "f4_n2_la1_eta1_cfg7.5": (4, 2, True, 1.0, 7.5, 1e-4),
    "f8_n2_la1_eta0_cfg7.5": (8, 2, True, 0.0, 7.5, 1e-4),
    "f16_n4_la1_eta1_cfg7.5": (16, 4, True, 1.0, 7.5, 1e-4),
    "f64_f4_n4_la1_eta1_cfg7.5": (4, 4, True, 1.0, 7.5, 2e-6),
}


@dataclass(frozen=True)
class RecordedNoise:
    """The recorded draws under our names.  `run_in` is how many frames lie before frame 0 among the noisy
    places.
    """

    arrays: dict[str, Tensor]
    window: int
    levels: int
    run_in: int

    def __call__(self, frame: int, level: int, like: Tensor) -> Tensor:
        place = frame + self.run_in  # among the noisy places, at the first iteration
        if level == self.levels and place >= self.levels:
            out = self.arrays["tail_noise"][place - self.levels]
        elif place < 0 or level == place + 1:
            out = self.arrays["init_noise"][self.window // 2 + place]
        else:
            out = self.arrays["eta_noise"][place - level, level]
        return out[None].to(like)


def toy_denoiser(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """The analytic network of the recordings: it hears neighbours, the window's mean and the place in the
    window.
    """
    z = z.transpose(1, 2)  # (B, F, C, H, W)
    table = scaled_linear_betas().float().to(z)
    a = table[t.long()][..., None, None, None]
    m = cond["text"].to(z).view(-1, 1, 4, 2, 2)
    before = torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1]], dim=1)
    after = torch.cat([z[:, 1:], torch.zeros_like(z[:, :1])], dim=1)
    place = torch.arange(z.shape[1]).view(1, -1, 1, 1, 1).to(z)
    channel = torch.arange(4).view(1, 1, -1, 1, 1).to(z)
    wave = 0.1 * torch.sin(0.9 * place + channel + 0.01 * 8)
    mix = 0.5 * before - 0.3 * z + 0.4 * after + 0.25 * z.mean(dim=1, keepdim=True) + wave + 0.3 * m
    eps = (1 - a).sqrt() * (z - a.sqrt() * m) / (1 - 0.75 * a) + 0.2 * torch.tanh(mix)
    return eps.transpose(1, 2)


def images(latents: Tensor) -> Tensor:
    """(I, C, h, w) -> (I, h, w, 3) uint8, as the recordings were decoded; kept in float for comparing."""
    return ((latents[:, :3].clamp(-1, 1) + 1) / 2 * 255).permute(0, 2, 3, 1)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_authors_frames(name: str, batch: bool) -> None:
    f, n, lookahead, eta, scale, tolerance = CASES[name]
    want = load_file(GOLDEN / "toy" / f"{name}.safetensors")
    noise = load_file(GOLDEN / "noise" / f"f{f}_n{n}.safetensors")
    text = load_file(GOLDEN / "toy_embeddings.safetensors")
    cond = {"text": text["emb_A"][None], "negative_text": text["emb_uncond"][None]}
    guided = Guided(toy_denoiser, scale, batched=batch)
    engine = Engine(
        plan=Plan(f, n, "last" if lookahead else "all"),
        schedule=paper(scaled_linear_betas(), f * n),
        execute=Batched(guided, 3) if batch else Serial(guided),
        condition=lambda frames: cond,
        noise=RecordedNoise(noise, f, f * n, f * n - f),
        eta=eta,
    )
    dtype = want["queue_init"].dtype
    state = engine.warm_start(noise["video"].to(dtype))
    off = engine.plan.context
    torch.testing.assert_close(state.queue[0].transpose(0, 1), want["queue_init"], rtol=0, atol=tolerance)

    frames, posts = [], []
    for _ in range(len(want["dequeued"])):
        before = state.queue
        frame, state = engine.advance(state)
        frames.append(frame[0, :, 0])
        # After the windows and before the shift: the new state, but for the place that the shift dropped.
        # With lookahead that is context, which no window writes.
        dropped = before[:, :, :1] if off else frame
        posts.append(torch.cat([dropped, state.queue[:, :, :-1]], dim=2)[0].transpose(0, 1))
    got = torch.stack(frames)
    torch.testing.assert_close(got, want["dequeued"], rtol=0, atol=tolerance)
    torch.testing.assert_close(torch.stack(posts), want["queue_post"], rtol=0, atol=tolerance)
    pixels = images(got)
    # A rounding at the edge of truncation may tip a value by one step of 256.
    assert bool(((pixels - 255 * tolerance).floor() <= want["images_u8"]).all())
    assert bool(((pixels + 255 * tolerance).floor() >= want["images_u8"]).all())


@pytest.mark.parametrize("levels", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_authors_tables(levels: int, eta: float) -> None:
    want = load_file(GOLDEN / "schedules.safetensors")
    table = paper(scaled_linear_betas(), levels)

    def at(name: str) -> Tensor:
        return want[f"S{levels}_eta{eta:.0f}.{name}"]

    assert torch.equal(table.time[1:], at("timesteps"))
    torch.testing.assert_close(table.alpha[1:] ** 2, at("alphas"), rtol=0, atol=1e-12)
    torch.testing.assert_close(table.alpha[:-1] ** 2, at("alphas_prev"), rtol=0, atol=1e-12)
    torch.testing.assert_close(table.sigma[1:], at("sqrt_one_minus_alphas"), rtol=0, atol=1e-7)
    # sigma of their step is the share of fresh noise: what a step adds to nothing
    zero, one = torch.zeros(1, 1, levels, 1, 1).double(), torch.ones(1, 1, levels, 1, 1).double()
    level = torch.arange(1, levels + 1)
    fresh = table.step(zero, zero, level, eta, one).flatten()
    torch.testing.assert_close(fresh, at("sigmas"), rtol=0, atol=1e-6)
