"""One contract for every model: what the engine relies on, on the real networks."""

import functools

import pytest
import torch

from fifo_diffusion.models import MODELS, load
from fifo_diffusion.models.base import Model

torch.set_num_threads(1)


@functools.cache
def model(name: str) -> Model:
    return load(name, torch.device("cpu"), torch.float32)


def latents(name: str, streams: int = 1, seed: int = 0) -> torch.Tensor:
    card, rng = MODELS[name], torch.Generator().manual_seed(seed)
    side = 64 // card.space
    return torch.randn(streams, model(name).channels, card.window, side, side, generator=rng)


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.no_grad()
def test_each_frame_hears_its_own_time(name: str) -> None:
    """Changing one frame's time changes what is said of that frame most; of a neighbour far less."""
    net = model(name)
    schedule = net.schedule(64, "even")
    z, cond, f = latents(name), net.embed(["a red balloon"]), MODELS[name].window
    diagonal = schedule.time[torch.linspace(8, 56, f).long()].float()[None]
    other = diagonal.clone()
    other[0, f // 2] = schedule.time[8]
    denoise = net.denoiser(schedule)
    change = (denoise(z, diagonal, cond) - denoise(z, other, cond)).square().mean(dim=(0, 1, 3, 4))
    assert int(change.argmax()) == f // 2
    assert change[f // 2] > 2 * change[f // 2 - 1]
    assert change[f // 2] > 2 * change[f // 2 + 1]


@torch.no_grad()
def test_a_batch_of_windows_is_the_windows_alone(name: str) -> None:
    net = model(name)
    schedule = net.schedule(64, "even")
    z, cond = latents(name, streams=2), net.embed(["a red balloon moving left", "a blue fish"])
    t = schedule.time[torch.stack([torch.arange(1, 17), torch.arange(33, 49)])].float()
    denoise = net.denoiser(schedule)
    both = denoise(z, t, cond)
    for i in range(2):
        alone = denoise(z[i : i + 1], t[i : i + 1], {key: value[i : i + 1] for key, value in cond.items()})
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_denoises(name: str) -> None:
    """Given its own decoded-and-noised latents, what it takes for clean is nearer the truth than the input is.

    For the Gaussian model its prior is the truth; the embedded one is asked of clips it sampled itself.
    """
    net = model(name)
    schedule = net.schedule(16, "even")
    denoise, cond = net.denoiser(schedule), net.embed(["a red balloon moving left over snowy mountains"])
    z = latents(name)
    for k in range(16, 0, -1):
        level = torch.full((z.shape[2],), k)
        z = schedule.step(z, denoise(z, schedule.times(level, z)[None], cond), level)
    level = torch.full((z.shape[2],), 8)
    noise = latents(name, seed=1)
    noisy = schedule.add_noise(z, noise, level)
    x0, eps = schedule.split(noisy, denoise(noisy, schedule.times(level, z)[None], cond), level)
    assert (x0 - z).square().mean() < 0.6 * (noisy - z).square().mean()
    assert (eps - noise).square().mean() < 0.6 * noise.square().mean()


@torch.no_grad()
def test_pixels_come_in_the_right_shape(name: str) -> None:
    net = model(name)
    (pixels,) = net.decoder()(iter([latents(name, streams=2)[:, :, :3]]))
    assert pixels.shape == (2, 3, 3, 64, 64)
    assert pixels.isfinite().all()
