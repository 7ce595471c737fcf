"""The recipe end to end at toy size: every step makes what the next one reads, and a stopped run goes on."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.evaluate.gates import Sampling, measure
from fifo_diffusion.evaluate.judge import ATTRIBUTES, Judge
from fifo_diffusion.models.embedded import packed
from fifo_diffusion.models.embedded.autoencoder import Autoencoder
from fifo_diffusion.models.embedded.model import WEIGHTS, WEIGHTS_DF, Embedded, load
from fifo_diffusion.training import autoencoder, diffusion
from fifo_diffusion.training.__main__ import export, main
from fifo_diffusion.training.muon import Muon
from fifo_diffusion.training.recipe import Recipe
from fifo_diffusion.world.art import SUBJECTS, Art
from fifo_diffusion.world.art import load as load_art
from fifo_diffusion.world.clips import Caption, World

CAPTIONS = np.array([["car", "red", "forest", "left", ""]] * 4)  # of four clips
TOY = dataclasses.replace(
    Recipe(),
    pictures=32,
    autoencoder_batch=4,
    autoencoder_cycles=((3, 1e-3),),
    polish=(2, 1e-3),
    clips=4,
    batch=4,
    steps=4,
    cooldown=2,
)


@pytest.fixture(scope="module")
def art(tmp_path_factory: pytest.TempPathFactory) -> Art:
    """Pictures of the art's kind, drawn here: a disc in the hue that takes the colour, with a grey rim."""
    folder = tmp_path_factory.mktemp("art")
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    for subject in SUBJECTS.values():
        hsv = np.full((64, 64, 3), (round(subject.hue * 255 / 360), 200, 220), np.uint8)
        hsv[np.hypot(x, y) > 0.7] = (0, 0, 128)
        picture = Image.fromarray(hsv, "HSV").convert("RGBA")
        picture.putalpha(Image.fromarray((np.hypot(x, y) < 0.95).astype(np.uint8) * 255))
        picture.save(folder / subject.file, lossless=True)
    return load_art(folder, TOY.size)


def test_sprites_take_their_colours(art: Art) -> None:
    for subject in SUBJECTS:
        red, green, blue = (art.sprites[subject, colour][15, 15, :3] for colour in ("red", "green", "blue"))
        assert [int(c.argmax()) for c in (red, green, blue)] == [0, 1, 2]
        assert art.sprites[subject, "white"][15, 15, :3].min() > 0.8
        rim = art.sprites[subject, "red"][15, 2, :3]
        assert np.ptp(rim) < 0.05


def test_the_recipe_runs_stops_goes_on_and_exports_a_model_that_loads(art: Art, tmp_path: Path) -> None:
    assert "dB" in list(autoencoder.train(TOY, art, tmp_path))[-1]
    list(autoencoder.polish(TOY, art, tmp_path))
    first, polished = (load_file(tmp_path / f"{name}.safetensors") for name in ("autoencoder", "polished"))
    same = {name for name in first if torch.equal(first[name], polished[name])}
    assert {name for name in first if not name.startswith("decoder")} <= same
    assert not {name for name in first if name.startswith("decoder") and name.endswith("weight")} <= same
    net = Autoencoder(TOY.channels)
    net.load_state_dict(load_file(tmp_path / "autoencoder.safetensors"))
    list(diffusion.encode_clips(World(art, TOY.size), net.eval(), TOY, tmp_path))
    latents = load_file(tmp_path / "clips.safetensors")["latents"].float()
    assert latents.shape == (4, 12, 16, 8, 8)
    assert 0.3 < latents.std() < 3

    # The schedule of the rate depends on where the recipe ends, so a stop is a run cut short, not a shorter recipe.
    straight = tmp_path / "straight"
    straight.mkdir()
    for name in ("clips.safetensors", "captions.npy"):
        (straight / name).write_bytes((tmp_path / name).read_bytes())
    list(diffusion.train(TOY, straight))
    stopping = diffusion.train(TOY, tmp_path, save_every=2)
    assert "step 2" in next(stopping)
    stopping.close()
    assert "goes on from step 2" in next(iter(resumed := list(diffusion.train(TOY, tmp_path)))), resumed
    for name, value in load_file(straight / "transformer.safetensors").items():
        assert torch.equal(value, load_file(tmp_path / "transformer.safetensors")[name]), name

    export(TOY, tmp_path, tmp_path / "weights")
    shipped, made = (json.loads((folder / "config.json").read_text()) for folder in (WEIGHTS, tmp_path / "weights"))
    assert made == shipped
    model = Embedded(tmp_path / "weights", torch.device("cpu"), torch.float32)
    gates = list(measure(model, art, TOY.size, tmp_path, clips=2, sampling=Sampling(2.0, 2, 1.0), judge_steps=2))
    assert len(gates) == 16
    assert not all(gate.passed for gate in gates)


def test_no_timestep_lies_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 the last place of a spread may come out as 1, once in a few thousand hours of training."""
    monkeypatch.setattr(diffusion, "_spread", lambda clips, recipe: torch.ones(clips, recipe.frames))
    assert int(diffusion.timesteps(Recipe()).max()) == diffusion.TIMESTEPS - 1


@pytest.mark.parametrize("independent", [False, True])
def test_timesteps_lie_as_the_recipe_says_by_clip_or_by_frame(independent: bool) -> None:
    torch.manual_seed(0)
    recipe = dataclasses.replace(Recipe(), independent=independent)
    drawn = torch.stack([diffusion.timesteps(recipe) for _ in range(20)])
    assert drawn.shape == (20, recipe.batch, recipe.frames)
    assert 0 <= drawn.min() <= drawn.max() < diffusion.TIMESTEPS
    above = recipe.noisy_share + (1 - recipe.noisy_share) * (1 - recipe.noisy / diffusion.TIMESTEPS)
    assert (drawn >= recipe.noisy).float().mean().item() == pytest.approx(above, abs=0.02)
    # Of clips, by frame too: a frame that is not noisy would tell what the text is needed for.
    noisy = (drawn >= recipe.noisy).all(dim=2)
    every = recipe.noisy_share if independent else above
    assert noisy.float().mean().item() == pytest.approx(every, abs=0.02)
    if independent:  # neighbours know nothing of each other
        for some in (drawn[noisy], drawn[~noisy]):
            assert abs(torch.corrcoef(some[:, :2].T.float())[0, 1].item()) < 0.15
    else:
        assert bool((drawn == drawn[..., :1]).all())


def test_clips_are_drawn_as_often_as_the_recipe_says() -> None:
    captions = [Caption("balloon", "red", "desert", motion) for motion in ("left", "up", "right", "still", "down")]
    recipe = Recipe(upright=3.0, batch=20_000)
    found = np.bincount(diffusion.drawn(captions, recipe, np.random.default_rng(0)), minlength=5) / recipe.batch
    np.testing.assert_allclose(found, np.array([1, 3, 1, 3, 3]) / 11, atol=0.02)


def test_training_begins_with_finished_weights(tmp_path: Path) -> None:
    """A step at rate 0 leaves the shipped weights as they were."""
    recipe = dataclasses.replace(TOY, steps=1, muon_rate=0.0, adam_rate=0.0, independent=True)
    save_file({"latents": torch.zeros(4, 12, 16, 8, 8)}, tmp_path / "clips.safetensors")
    np.save(tmp_path / "captions.npy", CAPTIONS)
    list(diffusion.train(recipe, tmp_path, begin=WEIGHTS))
    for name in ("transformer", "text"):
        begun, shipped = load_file(tmp_path / f"{name}.safetensors"), packed.read(WEIGHTS / f"{name}.safetensors")
        assert all(torch.equal(value, shipped[key]) for key, value in begun.items())


def test_a_video_network_trained_alone_shares_the_rest(tmp_path: Path) -> None:
    """As `embedded-df` does: one file in six bits, and the place of the weights that it began with."""
    torch.manual_seed(0)
    folder, begin, into = tmp_path / "run", tmp_path / "begun", tmp_path / "made" / "weights"
    recipe = dataclasses.replace(TOY, text=False, bits=6, steps=1, rise=1, cooldown=1, average=0.0)
    shutil.copytree(WEIGHTS, begin)
    folder.mkdir()
    save_file({"latents": torch.randn(4, 12, 16, 8, 8)}, folder / "clips.safetensors")
    np.save(folder / "captions.npy", CAPTIONS)
    list(diffusion.train(recipe, folder, begin=begin))
    export(recipe, folder, into, rest=begin)
    assert sorted(file.name for file in into.iterdir()) == ["config.json", "transformer.safetensors"]
    assert (into / "transformer.safetensors").stat().st_size < 0.8 * (begin / "transformer.safetensors").stat().st_size

    def same(name: str, one: Path, other: Path) -> bool:
        one_of, other_of = (packed.read(made / f"{name}.safetensors") for made in (one, other))
        return all(torch.equal(value, other_of[key]) for key, value in one_of.items())

    eight = dataclasses.replace(recipe, bits=8)
    export(eight, folder, whole := tmp_path / "whole", pictures="text")  # no autoencoder was made here
    assert same("text", whole, begin)
    assert not same("transformer", whole, begin)
    model = load(torch.device("cpu"), torch.float32, str(into))
    before = load(torch.device("cpu"), torch.float32, str(begin))
    assert model.weights != before.weights
    said, heard = model.embed(["a red car"]), before.embed(["a red car"])
    assert all(torch.equal(said[key], heard[key]) for key in said)
    shutil.copy(WEIGHTS / "autoencoder.safetensors", begin / "text.safetensors")
    with pytest.raises(ModelError, match="is missing, damaged or of another version"):
        load(torch.device("cpu"), torch.float32, str(into))


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ("adam_rate: fast", "says adam_rate 'fast'"),
        ("batch: [8]", r"says batch \[8\]"),
        ("autoencoder_cycles: [[3]]", "says autoencoder_cycles.0"),
        ("world: large", "is for 64 pixels; the world large has 128"),
        ("crop: 65", "says crop 65; give at most its size, 64"),
        ("world: huge", "the worlds are small, large"),
        ("stepps: 3", "says stepps"),
        ("[1, 2]", "is no mapping"),
    ],
)
def test_a_recipe_that_is_mistyped_is_refused(tmp_path: Path, said: str, about: str) -> None:
    (file := tmp_path / "recipe.yaml").write_text(said)
    with pytest.raises(BadInput, match=about):
        Recipe.read(file)


def test_numbers_of_a_recipe_are_numbers(tmp_path: Path) -> None:
    """YAML takes 1e-3 for a word, as it has no point."""
    (file := tmp_path / "recipe.yaml").write_text("adam_rate: 1e-3\nautoencoder_cycles: [[3, 1e-2]]\nnoise: [0, 0.3]")
    recipe = Recipe.read(file)
    assert (recipe.adam_rate, recipe.autoencoder_cycles, recipe.noise) == (0.001, ((3, 0.01),), (0.0, 0.3))


@pytest.mark.parametrize("begin", [WEIGHTS_DF, Path("nowhere")], ids=["shares", "nowhere"])
def test_what_training_cannot_begin_with_is_refused(
    begin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["training", "--folder", str(tmp_path / "run"), "--begin", str(begin)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "give --begin the folder of a whole model" in said or "give the folder of a finished model" in said
    assert not (tmp_path / "run").exists()


def test_what_is_trained_shares_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["training", "--folder", str(tmp_path / "run"), "--begin", str(WEIGHTS), "--share"]
    monkeypatch.setattr("sys.argv", said)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "a recipe that says text: false" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_clips_computed_a_few_at_once_are_the_same_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file({"latents": torch.randn(4, 12, 16, 8, 8)}, tmp_path / "clips.safetensors")
    np.save(tmp_path / "captions.npy", CAPTIONS)
    begun, trained = packed.read(WEIGHTS / "transformer.safetensors")["leave.weight"], []
    for at_once in (None, 1):
        recipe = dataclasses.replace(TOY, batch=3, at_once=at_once, steps=1, rise=1, cooldown=1)
        list(diffusion.train(recipe, tmp_path, begin=WEIGHTS))
        (tmp_path / "diffusion.pt").unlink()
        trained.append(load_file(tmp_path / "transformer.safetensors")["leave.weight"] - begun)
    together, apart = trained
    assert together.abs().max() > 1e-4
    # Adam's first step is the gradient's sign, so where the gradient is next to nothing it may go either way.
    assert ((together - apart).abs() < 0.02 * together.abs().max()).float().mean() > 0.99


def test_errors_where_the_subject_is_count_as_often_as_the_recipe_says(tmp_path: Path) -> None:
    """A half and the other half: with mean 1, what the one gains the other loses."""
    torch.manual_seed(0)
    half = torch.zeros(4, 16, 8, 8, dtype=torch.uint8)
    half[..., :4] = 255
    clips = {"latents": torch.randn(4, 12, 16, 8, 8) * torch.linspace(0, 3, 8)}
    np.save(tmp_path / "captions.npy", CAPTIONS)

    def loss(more: float, **where: torch.Tensor) -> float:
        folder = tmp_path / "run"
        folder.mkdir()
        save_file(clips | where, folder / "clips.safetensors")
        shutil.copy(tmp_path / "captions.npy", folder)
        recipe = dataclasses.replace(TOY, subject=more, steps=1, muon_rate=0.0, adam_rate=0.0)
        try:
            (line,) = diffusion.train(recipe, folder, save_every=1, begin=WEIGHTS)
        finally:
            shutil.rmtree(folder)
        return float(line.split("loss ")[1].split()[0])

    even, left, right = loss(0.0), loss(4.0, subject=half), loss(4.0, subject=255 - half)
    assert loss(4.0, subject=torch.full_like(half, 255)) == pytest.approx(even, rel=1e-3)
    assert left + right == pytest.approx(2 * even, rel=1e-3)
    assert left - right == pytest.approx(4 / 6 * (loss(1e4, subject=half) - loss(1e4, subject=255 - half)), rel=0.01)
    assert abs(left - right) > 0.05
    with pytest.raises(BadInput, match="does not say where the subjects are"):
        loss(4.0)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"latents": torch.zeros(4, 12, 16, 16, 16)}, tmp_path / "clips.safetensors")
    np.save(tmp_path / "captions.npy", CAPTIONS)
    weights = packed.read(WEIGHTS / "transformer.safetensors")
    del weights["enter.weight"]
    (begin := tmp_path / "weights").mkdir()
    (begin / "config.json").write_text("{}")
    save_file(weights | {"other.weight": torch.zeros(1)}, begin / "transformer.safetensors")
    with pytest.raises(BadInput, match=r"other layers \(enter, other\) than the recipe's; give --config its recipe"):
        list(diffusion.train(TOY, tmp_path, begin=begin))


def test_muon_steps_are_orthogonal() -> None:
    """All singular values of a step are about the rate, whatever the gradient's are."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(8, 24))
    weight.grad = torch.randn(8, 24) * torch.logspace(0, -1, 8)[:, None]
    Muon([{"params": [weight]}], lr=0.1).step()
    values = torch.linalg.svdvals(weight.detach())
    assert 0.06 < values.min() <= values.max() < 0.13


@torch.no_grad()
def test_the_judge_names_one_value_of_every_attribute() -> None:
    judge = Judge().eval()
    verdict = judge.verdict(np.zeros((6, 64, 64, 3), np.uint8))
    assert all(verdict[name] in values for name, values in ATTRIBUTES.items())


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("independent", [False, True])
def test_all_clips_may_be_noisy_and_none(share: float, independent: bool) -> None:
    torch.manual_seed(1)
    times = diffusion.timesteps(dataclasses.replace(TOY, noisy_share=share, independent=independent, batch=3))
    assert times.shape == (3, TOY.frames)
    assert (times >= TOY.noisy).all() if share else (times < TOY.noisy).any()
