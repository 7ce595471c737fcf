"""One contract for every model: what the engine relies on, on the real networks."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, Case
from safetensors.torch import load_file, save_file
from tiny_parts import noise

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.models import load
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.protocols import SharedDenoiser

CPU = torch.device("cpu")


@pytest.fixture(params=CASES, ids=lambda case: case.name, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    assert isinstance(request.param, Case)
    return request.param


@pytest.fixture(scope="module")
def weights(case: Case, tmp_path_factory: pytest.TempPathFactory) -> str | None:
    return case.weights(tmp_path_factory.mktemp(case.name))


@pytest.fixture(scope="module")
def net(case: Case, weights: str | None) -> Model:
    return load(case.name, CPU, torch.float32, weights)


def latents(case: Case, net: Model, streams: int = 1, seed: int = 0) -> torch.Tensor:
    shape = (streams, net.channels, MODELS[case.name].window, case.side, case.side)
    return noise(*shape, seed=seed)


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
def test_what_two_texts_share_is_computed_once_and_changes_nothing(case: Case, net: Model) -> None:
    denoise = net.denoiser(schedule := net.schedule(64, "even"))
    if not isinstance(denoise, SharedDenoiser):
        return
    z = latents(case, net, streams=2)
    t = schedule.times(torch.linspace(4, 60, z.shape[2]).long(), z).expand(2, -1)
    conds = [net.embed(["a red balloon", "a blue fish"]), net.embed_negative(["", "blurry"])]
    for got, cond, other in zip(denoise.each(z, t, conds), conds, reversed(conds), strict=True):
        torch.testing.assert_close(got, denoise(z, t, cond), rtol=1e-4, atol=1e-5)
        assert float((got - denoise(z, t, other)).abs().max()) > 1e-4


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
    looked = [0, 1, frames // 2, frames - 2, frames - 1]
    with case.apart(net):
        got = net.denoiser(schedule)(z, t[None], cond)
        said = {i: case.published(net, z, t[i : i + 1], cond) for i in looked}
    own = max(float((got[:, :, i] - said[i][:, :, i]).abs().max()) for i in looked)
    pairs = [(i, i - 1) for i in looked if i - 1 in said]
    neighbour = min(float((got[:, :, i] - said[j][:, :, i]).abs().max()) for i, j in pairs)
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
def test_a_window_of_frames_becomes_a_window_of_latents_or_is_refused(case: Case, net: Model) -> None:
    card = MODELS[case.name]
    side = case.side * card.space
    pixels = torch.rand(2, card.frames, 3, side, side) * 2 - 1
    if not card.encoder:
        with pytest.raises(BadInput, match="no encoder"):
            net.encode(pixels)
        return
    encoded = net.encode(pixels)
    assert encoded.shape == latents(case, net, streams=2).shape
    again = net.encode(pixels[1:])
    torch.testing.assert_close(encoded[1:], again, rtol=1e-4, atol=1e-4)  # streams and frames are not mixed up


@torch.no_grad()
def test_pixels_come_in_the_right_shape(case: Case, net: Model) -> None:
    card = MODELS[case.name]
    pixels = torch.cat(list(net.decoder()(iter([latents(case, net, streams=2)]))), dim=1)
    side = case.side * card.space
    assert pixels.shape == (2, card.frames, 3, side, side)
    assert pixels.isfinite().all()


@torch.no_grad()
def test_loaded_again_it_says_the_same_and_in_half_precision_nearly(
    case: Case, net: Model, weights: str | None
) -> None:
    schedule, z = net.schedule(64, "even"), latents(case, net)
    t = schedule.times(torch.linspace(4, 60, z.shape[2]).long(), z)[None]

    def said(model: Model) -> torch.Tensor:
        return model.denoiser(schedule)(z, t, model.embed(["a red balloon"]))

    want, again = said(net), load(case.name, CPU, torch.float32, weights)
    assert torch.equal(said(again), want)
    assert again.weights == net.weights
    half = said(load(case.name, CPU, torch.bfloat16, weights))
    assert half.dtype == z.dtype
    assert (half - want).square().mean() < 0.05**2 * want.square().mean()


# Files that are not what they should be: one sentence that names the file and, where one is wrong, the key ----------


@pytest.fixture
def copied(case: Case, weights: str | None, tmp_path: Path) -> tuple[str, Path]:
    """A copy of the model's files that may be spoiled: what `--weights` is given, and the largest file."""
    assert weights is not None
    given = Path(weights)
    folder = shutil.copytree(given.parent if given.is_file() else given, tmp_path / "copy")
    return str(folder / given.name if given.is_file() else folder), largest(folder)


def largest(folder: Path) -> Path:
    files = [file for file in folder.rglob("*.*") if file.suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin")]
    return max(files, key=lambda file: file.stat().st_size)


def change(file: Path, how: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a file where they are."""
    if file.suffix == ".safetensors":
        held = load_file(file)
        how(held)
        save_file(held, file, {"format": "pt"})
        return
    whole = torch.load(file, weights_only=True)
    for held in tables(whole):
        how(held)
    torch.save(whole, file)


def tables(held: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """The tables of tensors in a checkpoint: itself, or those inside it (such as the trained and the averaged ones)."""
    if any(isinstance(value, torch.Tensor) for value in held.values()):
        return [held]
    return [table for value in held.values() if isinstance(value, dict) for table in tables(value)]


def refusal(case: Case, weights: str, file: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load(case.name, CPU, torch.float32, weights)
    said = str(refused.value)
    assert str(file) in said or str(file.parent) in said
    assert "\n" not in said
    return said


with_files = pytest.mark.parametrize(
    "case", [case for case in CASES if case.make], ids=lambda case: case.name, indirect=True
)


@with_files
def test_a_file_cut_short_is_refused(case: Case, copied: tuple[str, Path]) -> None:
    weights, file = copied
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    assert file.name in refusal(case, weights, file)


@with_files
def test_a_missing_key_is_named(case: Case, copied: tuple[str, Path]) -> None:
    weights, file = copied
    gone: list[str] = []

    def drop(held: dict[str, torch.Tensor]) -> None:
        gone.append(max(held, key=lambda key: held[key].numel()))
        del held[gone[0]]

    change(file, drop)
    assert ".".join(gone[0].split(".")[-3:]) in refusal(case, weights, file)


@with_files
def test_a_key_too_many_is_named(case: Case, copied: tuple[str, Path]) -> None:
    weights, file = copied
    added: list[str] = []

    def add(held: dict[str, torch.Tensor]) -> None:
        added.append(max(held, key=lambda key: held[key].numel()) + "_too_many")
        held[added[0]] = torch.zeros(1)

    change(file, add)
    assert ".".join(added[0].split(".")[-3:]) in refusal(case, weights, file)


@with_files
def test_another_models_file_is_refused(case: Case, copied: tuple[str, Path]) -> None:
    weights, file = copied

    def replace(held: dict[str, torch.Tensor]) -> None:
        held.clear()
        held["layers.0.weight"] = torch.zeros(2, 2)

    change(file, replace)
    refusal(case, weights, file)


@with_files
def test_a_malicious_pickle_is_not_run(case: Case, copied: tuple[str, Path], tmp_path: Path) -> None:
    weights, file = copied
    done = tmp_path / "the program ran"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(done),)

    if file.suffix == ".safetensors":  # old folders hold a pickle in its place
        file.unlink()
        file = file.with_name({"model": "pytorch_model"}.get(file.stem, file.stem) + ".bin")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": Malicious()}, file)
    refusal(case, weights, file)
    assert not done.exists()
