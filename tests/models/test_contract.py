"""One contract for every model: what the engine relies on, on the real networks."""

import pytest
import torch
from cases import CASES, Case

from fifo_diffusion.models import MODELS, load
from fifo_diffusion.models.base import Model

torch.set_num_threads(1)


@pytest.fixture(params=CASES, ids=lambda case: case.name, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    assert isinstance(request.param, Case)
    return request.param


@pytest.fixture(scope="module")
def net(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Model:
    weights = case.make(tmp_path_factory.mktemp(case.name)) if case.make else None
    return load(case.name, torch.device("cpu"), torch.float32, weights)


def latents(case: Case, net: Model, streams: int = 1, seed: int = 0) -> torch.Tensor:
    shape = (streams, net.channels, MODELS[case.name].window, case.side, case.side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_model_has_a_case() -> None:
    assert {case.name for case in CASES} == set(MODELS)


@torch.no_grad()
def test_one_time_for_all_frames_is_the_published_network(case: Case, net: Model) -> None:
    if case.published is None:
        return  # the model is ours: nobody else published it
    z, cond = latents(case, net, streams=2), net.embed(["a red balloon", "a blue fish"])
    schedule = net.schedule(64, "even")
    t = schedule.times(torch.tensor([20, 50]), z)
    want = case.published(net, z, t, cond)
    got = net.denoiser(schedule)(z, t[:, None].expand(-1, z.shape[2]), cond)
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * max(1, float(want.abs().max())))


@torch.no_grad()
def test_every_frame_is_at_its_own_time(case: Case, net: Model) -> None:
    """With the frames kept from hearing each other, each is what the published network says at that frame's time, and
    far from what it says at a neighbour's.
    """
    if case.published is None or case.apart is None:
        return
    z, cond = latents(case, net), net.embed(["a red balloon"])
    schedule, frames = net.schedule(64, "even"), z.shape[2]
    t = schedule.times(torch.linspace(4, 60, frames).long(), z)
    with case.apart(net):
        got = net.denoiser(schedule)(z, t[None], cond)
        said = [case.published(net, z, t[i : i + 1], cond) for i in range(frames)]
    own = max(float((got[:, :, i] - said[i][:, :, i]).abs().max()) for i in range(frames))
    neighbour = min(float((got[:, :, i] - said[i - 1][:, :, i]).abs().max()) for i in range(1, frames))
    assert own < 5e-5 * max(1, float(got.abs().max()))
    assert neighbour > 20 * own


@torch.no_grad()
def test_each_frame_hears_its_own_time(case: Case, net: Model) -> None:
    """Changing one frame's time changes what is said of that frame most; of a neighbour far less."""
    schedule = net.schedule(64, "even")
    z, cond, f = latents(case, net), net.embed(["a red balloon"]), MODELS[case.name].window
    diagonal = schedule.time[torch.linspace(8, 56, f).long()].float()[None]
    other = diagonal.clone()
    other[0, f // 2] = schedule.time[8]
    denoise = net.denoiser(schedule)
    change = (denoise(z, diagonal, cond) - denoise(z, other, cond)).square().mean(dim=(0, 1, 3, 4))
    assert int(change.argmax()) == f // 2
    assert change[f // 2] > 2 * change[f // 2 - 1]
    assert change[f // 2] > 2 * change[f // 2 + 1]


@torch.no_grad()
def test_a_batch_of_windows_is_the_windows_alone(case: Case, net: Model) -> None:
    schedule = net.schedule(64, "even")
    z, cond = latents(case, net, streams=2), net.embed(["a red balloon moving left", "a blue fish"])
    f = z.shape[2]
    t = schedule.time[torch.stack([torch.linspace(1, 40, f), torch.linspace(20, 64, f)]).long()].float()
    denoise = net.denoiser(schedule)
    both = denoise(z, t, cond)
    for i in range(2):
        alone = denoise(z[i : i + 1], t[i : i + 1], {key: value[i : i + 1] for key, value in cond.items()})
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_denoises(case: Case, net: Model) -> None:
    """Given its own decoded-and-noised latents, what it takes for clean is nearer the truth than the input is.

    For the Gaussian model its prior is the truth; the embedded one is asked of clips it sampled itself.
    """
    if not case.trained:
        return  # random weights say nothing
    schedule = net.schedule(16, "even")
    denoise, cond = net.denoiser(schedule), net.embed(["a red balloon moving left over snowy mountains"])
    z = latents(case, net)
    for k in range(16, 0, -1):
        level = torch.full((z.shape[2],), k)
        z = schedule.step(z, denoise(z, schedule.times(level, z)[None], cond), level)
    level = torch.full((z.shape[2],), 8)
    noise = latents(case, net, seed=1)
    noisy = schedule.add_noise(z, noise, level)
    x0, eps = schedule.split(noisy, denoise(noisy, schedule.times(level, z)[None], cond), level)
    assert (x0 - z).square().mean() < 0.6 * (noisy - z).square().mean()
    assert (eps - noise).square().mean() < 0.6 * noise.square().mean()


@torch.no_grad()
def test_pixels_come_in_the_right_shape(case: Case, net: Model) -> None:
    card = MODELS[case.name]
    pixels = torch.cat(list(net.decoder()(iter([latents(case, net, streams=2)]))), dim=1)
    side, frames = case.side * card.space, 1 + (card.window - 1) * card.frames_per_latent
    assert pixels.shape == (2, frames, 3, side, side)
    assert pixels.isfinite().all()
