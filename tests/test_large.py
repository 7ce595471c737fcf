"""The larger model: its world, its words, its patches, and its recipe end to end at toy size.  No art is fetched."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fifo_diffusion import api
from fifo_diffusion.decode import to_pixels
from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.evaluate.gates import WANTED, Gate, Sampling, base_clips, drawn, judge_file
from fifo_diffusion.evaluate.judge import JUDGED, LOOK, Judge, accuracy, judged, mirrored
from fifo_diffusion.evaluate.stream_gates import Found, found, real_jitter, stream_gates, streams
from fifo_diffusion.models.embedded import packed
from fifo_diffusion.models.embedded.model import WEIGHTS, WEIGHTS_LARGE, load, load_large
from fifo_diffusion.models.embedded.text import TextEncoder, WordVectors
from fifo_diffusion.models.embedded.transformer import Spectrum, VideoTransformer, patches
from fifo_diffusion.schedule import cosine
from fifo_diffusion.training import answers, autoencoder, diffusion
from fifo_diffusion.training import recipe as recipes
from fifo_diffusion.training.__main__ import export, main, take_over
from fifo_diffusion.training.recipe import Recipe
from fifo_diffusion.world import animated
from fifo_diffusion.world.art import Art
from fifo_diffusion.world.backdrops import PAINTINGS
from fifo_diffusion.world.captions import plain, say, vocabulary
from fifo_diffusion.world.clips import MOTIONS, Caption, World
from fifo_diffusion.world.kinds import KINDS, LARGE, SMALL
from fifo_diffusion.world.paraphrases import UNHEARD, can_be_unheard, unheard

RECIPE = Path(recipes.__file__).parent / "large.yaml"
CPU = torch.device("cpu")
TOY = dataclasses.replace(
    Recipe.read(RECIPE),
    vectors=8,
    pictures=6,
    autoencoder_batch=4,
    autoencoder_cycles=((2, 1e-3),),
    polish=(2, 1e-3),
    answers=4,
    answered=(1, 2),
    clips=2,
    batch=2,
    steps=3,
    cooldown=2,
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Animations of the art's kind: a block that begins at the left of the picture and grows to the right."""
    folder = tmp_path_factory.mktemp("art")
    frames = []
    for width in (20, 30, 40):
        frame = np.zeros((64, 64, 4), np.uint8)
        frame[20:44, 10 : 10 + width] = (200, 30, 40, 255)
        frames.append(Image.fromarray(frame))
    for subject in animated.SUBJECTS.values():
        frames[0].save(
            folder / subject.file, save_all=True, append_images=frames[1:], lossless=True, duration=40, kmax=1
        )
    for painting in PAINTINGS.values():
        for file in painting.files:
            background().save(folder / file)
    return folder


def background() -> Image.Image:
    """A painted one's kind: a wall of other colours from left to right, and below the horizon a lighter ground."""
    wide, high = 220, 120
    y, x = np.mgrid[:high, :wide]
    ground = y > 0.3 * high
    rgb = np.stack([40 + 150 * ((x // 22) % 2), 60 + 40 * ground, 90 + 100 * ground], axis=2)
    return Image.fromarray(rgb.astype(np.uint8))


@pytest.fixture(scope="module")
def art(pictures: Path) -> Iterator[Art]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(animated, "LOOP", 3)
        yield LARGE.load(pictures, 128)


def test_subjects_move_by_themselves_face_left_and_take_colours(art: Art) -> None:
    assert len(LARGE.subjects) >= 24
    car, rocket = art.sprites["car", animated.NATURAL], art.sprites["rocket", animated.NATURAL]
    assert car.shape == (3, 60, 60, 4)
    covered = car[..., 3].sum(axis=(1, 2))
    assert covered[0] < covered[-1]
    assert car[0, 30, :10, 3].mean() > 0.9 > 0.1 > car[0, 30, -10:, 3].mean()
    assert rocket[0, 30, :10, 3].mean() < 0.1 < 0.9 < rocket[0, 30, -10:, 3].mean()  # drawn facing right
    assert art.sprites["car", "blue"][0, 30, 5, 2] > 0.8 > car[0, 30, 5, 2]
    assert ("pig", "blue") not in art.sprites


def test_captions_hold_known_words_and_what_is_drawn(art: Art) -> None:
    known, rng, world = set(vocabulary(LARGE)), np.random.default_rng(0), World(Art({}), 128, kind=LARGE)
    drawn = [world.draw_caption(rng) for _ in range(400)]
    for caption in drawn:
        assert (caption.subject, caption.colour) in art.sprites
        assert set(say(caption, rng, kind=LARGE).split()) | set(plain(caption).split()) <= known
        assert not (caption.scene in ("space", "city", "reef", "castle") and (caption.light or caption.weather))
    for name, values in (("scene", 13), ("light", 3), ("weather", 4), ("subject", 24), ("colour", 7)):
        assert len({getattr(caption, name) for caption in drawn}) == values
    grey, blue = (Caption("elephant", colour, "meadow", "up") for colour in ("", "blue"))
    assert plain(grey) == "an elephant moving up over a meadow"
    assert plain(blue) == "a blue elephant moving up over a meadow"


def test_light_dims_fog_greys_and_what_falls_falls(art: Art) -> None:
    def clip(light: str = "", weather: str = "") -> np.ndarray:
        caption = Caption("pig", "", "desert", "still", "", light, weather)
        return World(art, 128, kind=LARGE).clip(caption, np.random.default_rng(3), 4).astype(float)

    day, night, fog = clip(), clip("night"), clip("", "fog")
    assert night.mean() < 0.6 * day.mean()
    assert np.ptp(fog[0, :30], axis=-1).mean() < np.ptp(day[0, :30], axis=-1).mean()
    for weather, step in (("rain", 0.16), ("snow", 0.035)):
        drops = np.abs(clip("", weather) - day).sum(axis=-1)
        down, right = round(step * 128), round({"rain": 0.02, "snow": -0.012}[weather] * 128)
        moved = np.roll(drops[0], (down, right), axis=(0, 1))
        assert (
            np.corrcoef(moved.ravel(), drops[1].ravel())[0, 1] > np.corrcoef(drops[0].ravel(), drops[1].ravel())[0, 1]
        )


def test_the_first_world_is_as_it_was() -> None:
    """The judge, the gap and the fidelity tables are of these pictures."""
    art = Art({(s, c): np.zeros((30, 30, 4), np.float32) for s in SMALL.subjects for c in SMALL.colours(s)})
    clip = World(art).clip(Caption("car", "red", "city", "right", "quickly"), np.random.default_rng(5), 3)
    assert clip.shape == (3, 64, 64, 3)
    assert int(clip.astype(np.int64).sum()) == FIRST_WORLD


FIRST_WORLD = 2_286_818  # the sum of its numbers before there was a second world


@torch.no_grad()
def test_a_spectrum_predicts_what_follows_from_a_component_alone() -> None:
    """For Gaussian patches the skip is the posterior mean of the velocity, and what is left has variance gain^2."""
    torch.manual_seed(0)
    own = torch.tensor([4.0, 0.5, 0.01])
    mixing, _ = torch.linalg.qr(torch.randn(3, 3))
    x = (torch.randn(200_000, 3) * own.sqrt()) @ mixing.T
    spectrum = Spectrum(3)
    spectrum.fit(x)
    torch.testing.assert_close(spectrum.variance, own, rtol=0.03, atol=1e-3)
    for t in (100.0, 500.0, 900.0):
        kept = cosine(1000)[int(t)].float()
        noise = torch.randn_like(x)
        velocity = (kept.sqrt() * noise - (1 - kept).sqrt() * x) @ spectrum.basis
        seen = (kept.sqrt() * x + (1 - kept).sqrt() * noise) @ spectrum.basis
        skip, gain = (value.flatten() for value in spectrum.known(torch.tensor([[t]]), torch.float32))
        left = velocity - skip * seen
        small = own < 1
        torch.testing.assert_close(left.var(dim=0)[small], (gain**2)[small], rtol=0.03, atol=1e-3)
        assert ((left * seen).mean(dim=0)[small].abs() < 0.01).all()
        assert (skip[~small] == 0).all()
        assert (gain[~small] == 1).all()


@torch.no_grad()
def test_a_network_in_half_precision_knows_the_noise_of_the_last_levels() -> None:
    """Where so little is left that half precision would take what is kept for all."""
    spectrum = Spectrum(3)
    spectrum.fit(torch.randn(500, 3) * torch.tensor([1.0, 0.5, 0.1]))
    t = torch.tensor([[4.0, 16.0, 500.0]])
    wanted = spectrum.known(t, torch.float32)
    for half, whole in zip(spectrum.bfloat16().known(t, torch.bfloat16), wanted, strict=True):
        torch.testing.assert_close(half.float(), whole, rtol=0.01, atol=1e-6)


@torch.no_grad()
def test_a_spectral_network_gives_the_linear_guess_until_it_is_trained() -> None:
    torch.manual_seed(0)
    net = VideoTransformer(channels=2, width=24, depth=1, heads=2, patch=4, text=24, spectral=True)
    assert net.spectrum is not None
    net.spectrum.fit(torch.randn(500, 32) * torch.linspace(0.1, 2, 32))
    z, t = torch.randn(1, 2, 3, 8, 8), torch.tensor([[10.0, 500.0, 990.0]])
    text = torch.randn(1, 1, 24), torch.randn(1, 1, 5, 24), torch.ones(1, 1, 5, dtype=torch.bool)
    skip, _ = net.spectrum.known(t, z.dtype)
    wanted = skip * (patches(z, 4) @ net.spectrum.basis) @ net.spectrum.basis.T
    torch.testing.assert_close(patches(net(z, t, *text), 4), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_words_never_trained_on_are_heard_as_the_nearest_that_was() -> None:
    listed = ["bunny", "rabbit", "train", "tower", "through"]
    net = TextEncoder(listed, width=12, vectors=4, trained=["train", "rabbit"]).eval()
    assert isinstance(net.embedding, WordVectors)
    vectors = torch.tensor([[0.1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0.5, 0, 1], [0, 0, 1, 0]])
    net.embedding.table.copy_(torch.nn.functional.normalize(vectors, dim=-1))
    bunny, rabbit, train, tower = net.tokens(["a bunny through it", "a rabbit", "a train", "a tower rabbit"])
    assert torch.equal(bunny, rabbit)  # and a filler, though "through" lies on "train", is left out
    assert torch.equal(tower, rabbit)
    assert not torch.equal(train, rabbit)
    (said,) = net.remarks("a bunny")
    assert "never shown the word 'bunny' and hears 'rabbit'" in said
    (said,) = net.remarks("a rabbit by the tower")
    assert "does not know the word 'tower' and leaves it out; the closest words it knows: rabbit" in said
    assert "'zebra'" in net.remarks("a zebra and a train")[0]


@torch.no_grad()
def _answers_stand_for_pictures(art: Art, folder: Path) -> None:
    """Of clips that were hardly noised the latents are near those of the pictures beside them, and of no others."""
    export(TOY, folder, folder / "unpolished", "autoencoder")
    model = load_large(CPU, torch.float32, str(folder / "unpolished"))
    list(answers.make(model, World(art, 128, kind=LARGE), TOY, folder))
    latents, shown = answers.read(folder)
    assert latents.shape == (24, 12, 16, 16)
    assert shown.shape == (24, 128, 128, 3)
    true = model.encode(to_pixels(shown)[:, None])[:, :, 0]
    assert 0 < (latents - true).square().mean() < 0.2 * (latents - true.roll(6, dims=0)).square().mean()


def test_a_piece_of_a_picture_comes_with_that_piece_of_its_latents(art: Art) -> None:
    pictures = autoencoder.Pictures(TOY, art)
    where = torch.arange(256.0).view(1, 1, 16, 16)
    shown = (
        where.byte().repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
    )
    pictures.answers = (where, shown.numpy())
    pieces, latents = pictures.batch(TOY, np.random.default_rng(0))
    assert pieces.shape == (4, 64, 64, 3)
    assert latents.shape == (3, 1, 8, 8)
    assert (pieces[:3, 3::8, 3::8, 0] == latents[:, 0].numpy()).all()
    assert len({float(piece[0, 0, 0]) for piece in latents}) > 1


def test_answers_are_in_the_scale_of_latents(art: Art, tmp_path: Path) -> None:
    """An autoencoder that tells its latents one deviation lower, and answers that do too, are polished to the same."""
    rng, polished = np.random.default_rng(0), []
    latents = torch.from_numpy(rng.integers(-128, 128, (4, 12, 16, 16)) / 64)
    shown = torch.from_numpy(rng.integers(0, 255, (4, 128, 128, 3), dtype=np.uint8))
    weights = packed.read(WEIGHTS_LARGE / "autoencoder.safetensors")
    for lower in (0.0, 1.0):
        mean = {"mean": torch.full((12, 1, 1), 0.5 * lower), "deviation": torch.full((12, 1, 1), 0.5)}
        save_file(weights | mean, tmp_path / "autoencoder.safetensors")
        save_file({"latents": (latents - lower).half(), "pictures": shown}, tmp_path / "answers.safetensors")
        list(autoencoder.polish(TOY, art, tmp_path))
        polished.append(load_file(tmp_path / "polished.safetensors"))
    one, other = ({name: value for name, value in made.items() if name.startswith("decoder")} for made in polished)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def _is_polished_once_more(weights: Path, art: Art, clips: Path) -> None:
    """The decoder alone is another one."""
    (folder := clips / "polish").mkdir()
    take_over(TOY, weights, folder, polish=True)
    shutil.copy(clips / "answers.safetensors", folder)
    list(autoencoder.polish(TOY, art, folder))
    export(TOY, folder, folder / "weights")
    changed = set()
    for name in ("autoencoder", "text", "transformer"):
        before, after = (packed.read(made / f"{name}.safetensors") for made in (weights, folder / "weights"))
        changed |= {f"{name}.{key}" for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(name.startswith("autoencoder.decoder.") for name in changed)


def test_only_finished_weights_can_be_polished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["training", "--folder", str(tmp_path / "run"), "--polish"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "give --begin the weights" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def _goes_on_from(weights: Path, clips: Path) -> None:
    """What was exported is what `--begin` begins with: trained at no rate and exported again it is the same."""
    (folder := clips / "again").mkdir()
    take_over(TOY, weights, folder)
    for name in ("clips.safetensors", "captions.npy"):
        shutil.copy(clips / name, folder)
    list(diffusion.train(dataclasses.replace(TOY, muon_rate=0.0, adam_rate=0.0, steps=1), folder, begin=weights))
    export(TOY, folder, folder / "weights")
    for name in ("autoencoder", "text", "transformer"):
        before, after = (load_file(made / f"{name}.safetensors") for made in (weights, folder / "weights"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name
    assert (folder / "weights" / "config.json").read_text() == (weights / "config.json").read_text()


def _sharpening_is_added_to(weights: Path, clips: Path) -> None:
    """Finished weights without what sharpens are gone on from with it: at first it adds nothing."""
    shutil.copytree(weights, coarse := clips / "coarse")
    before = packed.read(coarse / "transformer.safetensors")
    before = {key: value for key, value in before.items() if not key.startswith("detail.")}
    packed.write(before, coarse / "transformer.safetensors")
    folder = clips / "again"
    (folder / "diffusion.pt").unlink()
    list(diffusion.train(dataclasses.replace(TOY, muon_rate=0.0, adam_rate=0.0, steps=1), folder, begin=coarse))
    after = load_file(folder / "transformer.safetensors")
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not after["detail.leave.weight"].any()
    assert after["detail.enter.weight"].any()


def test_the_recipe_grows_the_small_model_and_exports_one_that_loads(art: Art, tmp_path: Path) -> None:
    listed = sorted({*vocabulary(LARGE), "tower"})
    (tmp_path / "words.txt").write_text("\n".join(listed))
    torch.manual_seed(0)
    vectors = torch.randn(len(listed), 8) * (torch.arange(8) > 0)
    vectors[listed.index("tower")] = torch.eye(8)[0]  # like nothing else
    save_file({"table": torch.nn.functional.normalize(vectors, dim=-1).half()}, tmp_path / "words.safetensors")
    assert "dB" in list(autoencoder.train(TOY, art, tmp_path, WEIGHTS))[-1]
    net = diffusion.encoder(TOY, tmp_path)
    list(diffusion.encode_clips(World(art, 128, kind=LARGE), net, TOY, tmp_path))
    assert load_file(tmp_path / "clips.safetensors")["latents"].shape == (2, 12, 16, 16, 16)

    still = dataclasses.replace(TOY, muon_rate=0.0, adam_rate=0.0, steps=1)
    list(diffusion.train(still, tmp_path, begin=WEIGHTS))
    begun, small = load_file(tmp_path / "transformer.safetensors"), packed.read(WEIGHTS / "transformer.safetensors")
    assert torch.equal(begun["blocks.3.attention.qkv.weight"], small["blocks.3.attention.qkv.weight"])
    # Noise that enters both networks is turned, not stretched.
    enter = begun["enter.weight"]
    assert torch.linalg.matrix_norm(enter).item() == pytest.approx(small["enter.weight"].norm().item(), rel=1e-2)

    (tmp_path / "diffusion.pt").unlink()
    list(diffusion.train(TOY, tmp_path, begin=WEIGHTS))
    _answers_stand_for_pictures(art, tmp_path)
    list(autoencoder.polish(TOY, art, tmp_path))
    export(TOY, tmp_path, tmp_path / "weights")
    _goes_on_from(tmp_path / "weights", tmp_path)
    _sharpening_is_added_to(tmp_path / "weights", tmp_path)
    _is_polished_once_more(tmp_path / "weights", art, tmp_path)
    weights = str(tmp_path / "weights")
    model = load_large(CPU, torch.float32, weights)
    with pytest.raises(ModelError, match="--model embedded-large"):
        load(CPU, torch.float32, weights)
    with pytest.raises(ModelError, match=r"--model embedded$"):
        load_large(CPU, torch.float32, str(WEIGHTS))
    assert load_large(CPU, torch.float32, None).weights != model.weights  # those in the package
    assert "'tower' and leaves it out" in model.remarks("a red balloon over a tower")[0]
    with torch.no_grad():
        z = torch.randn(1, 12, 16, 16, 16)
        out = model.denoiser(model.schedule(64, "even"))(z, torch.full((1, 16), 500.0), model.embed(["a pig"]))
    assert out.shape == z.shape
    assert out.isfinite().all()
    world = World(art, 128, kind=LARGE)
    (asked,) = drawn(world, 1)
    ((caption, clip),) = base_clips(model, [asked], [plain(asked)], 128, Sampling(1.0, 1, 1.0))
    assert caption == asked
    assert clip.shape == (16, 128, 128, 3)

    settings = {"model": "embedded-large", "weights": weights, "partitions": 1, "lookahead": "off", "guidance": 1.0}

    def judged_by(judge: Judge) -> list[Found]:
        judge(torch.zeros(2, LOOK, 3, 128, 128))  # so that the lazy layer knows its width
        told = streams(api.stream, model, judge.eval(), world, tmp_path, count=1, frames=20, settings=settings)
        return list(told)

    one = judged_by(judge := Judge(LARGE).eval())
    assert [len(block) for block in one[0]["right"]] == [1]
    assert set(one[0]["right"][0][0]) >= {"subject", "scene", "motion"}
    assert 0 < one[0]["jitter"] < 2
    # A last block without a stretch is not judged; else there would be one of which nothing can be said.
    quiet = iter(np.zeros((105, 128, 128, 3), np.uint8))
    assert [len(block) for block in found(judge, asked, quiet, 105)["right"]] == [6]
    (kept,) = (tmp_path / "streams").iterdir()
    kept.write_text(kept.read_text().replace('"jitter": ', '"jitter": 1'))  # it is read again, not made again
    assert judged_by(judge)[0]["jitter"] > 2
    judged_by(Judge(LARGE).eval())
    assert len(list((tmp_path / "streams").iterdir())) == 2  # another judge judges anew
    assert 0 < real_jitter(world, 1, 4) < 2


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("sise: 3", "says sise"),
        ("[1, 2]", "is no mapping"),
        ("world: flat", "'flat'; the worlds are small, large"),
        ("{", "cannot be read"),
    ],
)
def test_a_recipe_that_is_wrong_is_refused(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(BadInput, match=wrong):
        Recipe.read(tmp_path / "r.yaml")


@torch.no_grad()
def test_the_judge_of_each_world_knows_its_values_and_counts_what_is_there(art: Art, tmp_path: Path) -> None:
    assert judged(SMALL) == JUDGED
    assert judge_file(tmp_path, 2, LARGE) != judge_file(tmp_path, 2, SMALL)
    assert judge_file(tmp_path, 2, LARGE) != judge_file(tmp_path, 2, dataclasses.replace(LARGE, wakes=False))
    assert set(WANTED) == set(KINDS)
    judge = Judge(LARGE).eval()
    clip = np.random.default_rng(0).integers(0, 255, (6, 128, 128, 3), dtype=np.uint8)
    verdict = judge.verdict(clip)
    assert all(verdict[name] in values for name, values in judged(LARGE).items())
    assert len(judge.judged["subject"]) == 24
    assert len(judge.judged["scene"]) == 13
    # Fine detail is averaged away before it looks: pictures of 64 pixels and the same ones doubled are the same to it.
    little = clip[:, :64, :64]
    assert judge.verdict(little) == judge.verdict(little.repeat(2, axis=1).repeat(2, axis=2))
    own_colour, still = Caption("pig", "", "farm", "left"), Caption("car", verdict["colour"], "farm", "still")
    told = accuracy(judge, iter([(own_colour, clip), (still, clip)]))
    assert told["colour"] == 1.0  # of the car alone
    assert np.isnan(accuracy(judge, iter([(still, clip)]))["speed"])


def test_a_mirrored_look_moves_the_other_way() -> None:
    names = list(MOTIONS)
    frames, motion = torch.rand(3, 4, 3, 6, 8), torch.tensor([names.index(name) for name in ("left", "up", "right")])
    turned, told = mirrored(frames, motion, torch.tensor([True, True, False]))
    assert [names[i] for i in told] == ["right", "up", "right"]
    assert torch.equal(turned[:2], frames[:2].flip(-1))
    assert torch.equal(turned[2], frames[2])


def test_words_no_caption_held_are_unheard_and_none_is_warned_of() -> None:
    heard = set(vocabulary(LARGE))
    assert set(UNHEARD) <= set(LARGE.subjects) | set(LARGE.scenes)
    for ways in UNHEARD.values():
        assert all(set(words.split()) - heard for words in ways)
    rng, world = np.random.default_rng(0), World(Art({}), 128, kind=LARGE)
    drawn = [caption for _ in range(60) if can_be_unheard(caption := world.draw_caption(rng))]
    assert 20 < len(drawn) < 60
    for caption in drawn:
        said, first = unheard(caption, rng).split(), caption.subject
        assert any(word in said for words in UNHEARD[first] for word in words.split())
        assert not set(said) & set(LARGE.subjects[first].words)
        assert any(all(word in said for word in words.split()) for words in UNHEARD[caption.scene])


def test_a_subject_is_asked_for_where_it_was_never_shown() -> None:
    rng = np.random.default_rng(0)
    met = {(c.subject, c.scene) for _ in range(3000) if (c := World(Art({}), 128, kind=LARGE).draw_caption(rng))}
    unmet = {
        (c.subject, c.scene) for _ in range(300) if (c := World(Art({}), 128, kind=LARGE, unmet=True).draw_caption(rng))
    }
    assert unmet == LARGE.unmet
    assert {subject for subject, _ in unmet} == set(LARGE.subjects)
    assert {scene for _, scene in unmet} == set(LARGE.scenes)
    both = {(subject, scene) for subject in LARGE.subjects for scene in LARGE.scenes}
    assert met == both - unmet
    every = World(Art({}), 128, kind=LARGE, unmet=None)
    captions = [every.draw_caption(rng) for _ in range(3000)]
    assert {(caption.subject, caption.scene) for caption in captions} == both


def _stream(shares_of_ten: list[int], jitter: float = 1.0) -> Found:
    """Ten stretches a block of which so many move as told."""
    right = [[{"motion": i < count, "subject": True, "scene": True, "colour": True} for i in range(10)]
             for count in shares_of_ten]  # fmt: skip
    return {"right": right, "jitter": jitter}


def test_stream_gates_find_the_worst_block_a_fall_and_a_flicker() -> None:
    base = {"motion": 90.0, "subject": 100.0, "scene": 100.0, "colour": 100.0}

    def gates(*seen: Found, real: float = 1.0) -> dict[str, Gate]:
        told = stream_gates("large", base, seen, real)
        return {gate.name.removeprefix("streams, "): gate for gate in told}

    steady = gates(_stream([9, 9, 9, 9]), _stream([10, 8, 8, 10]))
    assert all(gate.passed for gate in steady.values())
    assert steady["worst 100 frames beside base clips: motion"].value == pytest.approx(-5)
    assert steady["change over the video at most: motion"].value == pytest.approx(0, abs=1e-9)
    falling = gates(_stream([10, 9, 9, 8]), _stream([10, 10, 9, 8]))
    assert not falling["worst 100 frames beside base clips: motion"].passed
    assert not falling["change over the video at most: motion"].passed
    assert falling["change over the video at most: scene"].passed
    ten = gates(_stream([9] * 10), _stream([9] * 10))  # a line through equal points is level but for rounding
    assert all(gate.passed for gate in ten.values())
    colourless = _stream([9, 9])
    for clip in (clip for block in colourless["right"] for clip in block):
        del clip["colour"]
    assert not [name for name in gates(colourless) if "colour" in name]
    flicker = "jitter, off that of real renders by"
    assert gates(_stream([9, 9], 1.14))[flicker].passed
    assert not gates(_stream([9, 9], 1.16))[flicker].passed
    assert not gates(_stream([9, 9], 0.84))[flicker].passed
    assert "at most 15" in str(steady[flicker])
    assert "MISSED" in str(gates(_stream([9, 9], 1.16))[flicker])


def test_the_weights_in_the_package_are_small_enough_and_of_this_world() -> None:
    sizes = [file.stat().st_size for file in WEIGHTS_LARGE.iterdir()]
    assert sum(sizes) < 30e6
    assert max(sizes) < 16e6
    model = load_large(CPU, torch.float32, None)
    assert not model.remarks("a yellow car moving left over the ocean in falling snow")
    assert not model.remarks("a yellow car moving up over the ocean")
    assert [said.split()[-1] for said in model.remarks("a yellow sedan over the seaside")] == ["'car'", "'beach'"]
    said = model.embed(["a yellow sedan moving left over the seaside", "a yellow car moving left over the beach"])
    assert torch.equal(*said["words"])
    assert "'parliament' and leaves it out" in model.remarks("a red balloon over a parliament")[0]
