"""Latte and its class-conditional form: what a frame hears, what a prompt names, which files are refused."""

from pathlib import Path

import pytest
import tiny_latte
import torch
from tiny_parts import noise

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models import load
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.latte_classes import CLASSES, named
from fifo_diffusion.prompts import OnePrompt

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_latte.make_latte(tmp_path_factory.mktemp("latte")))


@pytest.fixture(scope="module")
def text_model(folder: Path) -> Model:
    return load("latte", CPU, torch.float32, str(folder))


@pytest.fixture(scope="module")
def class_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load("latte-ucf101", CPU, torch.float32, tiny_latte.make_ucf101(tmp_path_factory.mktemp("ucf101")))


def window() -> tuple[torch.Tensor, torch.Tensor]:
    return noise(1, 4, 16, 8, 8), torch.linspace(100, 900, 16)[None]


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "prompts"),
    [("text_model", ["a red balloon", "a blue fish moving left"]), ("class_model", ["playing cello", "yo-yo"])],
)
def test_each_frame_may_hear_its_own(name: str, prompts: list[str], request: pytest.FixtureRequest) -> None:
    """The same for all frames is one for the clip; half and half moves the half that changed most."""
    model: Model = request.getfixturevalue(name)
    (z, t), cond = window(), model.embed(prompts)
    denoise = model.denoiser(model.schedule(64, "even"))
    one = denoise(z, t, {key: value[:1] for key, value in cond.items()})
    same = denoise(z, t, {key: value[[0] * 16][None] for key, value in cond.items()})
    torch.testing.assert_close(one, same, rtol=1e-5, atol=1e-5)
    mixed = denoise(z, t, {key: value[[0] * 8 + [1] * 8][None] for key, value in cond.items()})
    change = (mixed - one).square().mean(dim=(0, 1, 3, 4))
    assert change[8:].min() > change[:8].max()


def test_padding_is_not_heard(text_model: Model) -> None:
    """What stands behind a prompt's own tokens changes nothing."""
    (z, t), cond = window(), dict(text_model.embed(["a red balloon"]))
    denoise = text_model.denoiser(text_model.schedule(64, "even"))
    heard = int(cond["heard"].sum())
    assert 0 < heard < 20
    before = denoise(z, t, cond)
    cond["text"] = cond["text"].clone()
    cond["text"][:, heard:] += 3
    torch.testing.assert_close(denoise(z, t, cond), before)
    cond["text"][:, heard - 1] += 3
    assert (denoise(z, t, cond) - before).abs().max() > 1e-3


@torch.no_grad()
def test_guidance_hears_what_diffusers_pipeline_hears(folder: Path, text_model: Model) -> None:
    """The prompt cut to its tokens, and the negative prompt to as many, however few are its own."""
    from diffusers import AutoencoderKL, DDIMScheduler, LatteTransformer3DModel
    from diffusers.pipelines.latte.pipeline_latte import LattePipeline
    from transformers import T5EncoderModel, T5TokenizerFast

    net = LatteTransformer3DModel.from_pretrained(folder / "transformer").eval()
    pipeline = LattePipeline(
        T5TokenizerFast.from_pretrained(folder / "tokenizer"),
        T5EncoderModel.from_pretrained(folder / "text_encoder").eval(),
        AutoencoderKL.from_pretrained(folder / "vae"),
        net,
        DDIMScheduler.from_pretrained(folder / "scheduler"),
    )
    text, negative = pipeline.encode_prompt("a red balloon", True, "old")
    z, t = window()[0], torch.tensor([500])
    c, u = net(z, t, text).sample[:, :4], net(z, t, negative).sample[:, :4]
    cond = OnePrompt(text_model.embed(["a red balloon"]), text_model.embed_negative(["old"]))(range(16))
    for batched in (True, False):
        guided = Guided(text_model.denoiser(text_model.schedule(64, "even")), 7.5, batched)
        got = guided(z, t[:, None].expand(1, 16), cond)
        torch.testing.assert_close(got, u + 7.5 * (c - u), rtol=1e-3, atol=1e-4)


def test_a_window_of_another_length_is_refused(text_model: Model) -> None:
    z, t = window()
    denoise = text_model.denoiser(text_model.schedule(64, "even"))
    with pytest.raises(BadInput, match="window of 15"):
        denoise(z[:, :, :15], t[:, :15], text_model.embed(["a"]))


def test_the_noise_table_is_the_folders(text_model: Model) -> None:
    from diffusers import DDIMScheduler

    want = DDIMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02).alphas_cumprod
    schedule = text_model.schedule(999, "even")
    torch.testing.assert_close(schedule.alpha[1:].square().float(), want[1:], rtol=1e-5, atol=1e-6)
    assert schedule.predicts == "noise"


def test_the_end_of_a_long_prompt_is_told(text_model: Model) -> None:
    assert text_model.remarks("a red balloon") == []
    (remark,) = text_model.remarks("a red balloon " * 60 + "over snowy mountains")
    assert "120 tokens" in remark
    assert "snowy mountains" in remark


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Playing Cello", "PlayingCello"),
        ("a man playing cello on a stage", "PlayingCello"),
        ("HammerThrow", "HammerThrow"),
        ("yo-yo", "YoYo"),
        ("golf swing", "GolfSwing"),  # and not Swing
        ("throw discus", "ThrowDiscus"),
        ("throwing a discus", None),  # not Rowing
        ("", None),
    ],
)
def test_a_prompt_names_a_class(prompt: str, name: str | None) -> None:
    assert named(prompt) == (None if name is None else CLASSES.index(name))


def test_the_classes_stand_in_the_order_of_the_folders() -> None:
    """Capitals sort before small letters: not the order of the data set's own classInd.txt."""
    assert len(set(CLASSES)) == 101
    assert CLASSES[0] == "ApplyEyeMakeup"
    assert CLASSES[100] == "YoYo"
    assert CLASSES.index("HammerThrow") < CLASSES.index("Hammering")
    assert CLASSES.index("JumpRope") < CLASSES.index("JumpingJack")


def test_what_names_no_class_hears_none_and_is_told(class_model: Model) -> None:
    heard = class_model.embed(["a red balloon", "", "bowling"])["text"]
    assert torch.equal(heard[0], heard[1])
    assert not torch.equal(heard[0], heard[2])
    (remark,) = class_model.remarks("bowlling")
    assert "bowling" in remark
    assert class_model.remarks("bowling") == class_model.remarks("") == []


@pytest.mark.parametrize("key", ["temp_embed", "blocks.3.attn.qkv.bias"])
def test_a_checkpoint_that_lacks_a_key_is_refused(tmp_path: Path, key: str) -> None:
    file = Path(tiny_latte.make_ucf101(tmp_path))
    weights = torch.load(file)["ema"]
    del weights[key]
    torch.save(weights, file)
    with pytest.raises(ModelError, match=key) as broken:
        load("latte-ucf101", CPU, torch.float32, str(file))
    assert str(file) in str(broken.value)


def test_the_averaged_weights_are_taken(tmp_path: Path) -> None:
    """A checkpoint of training holds two sets; one saved alone is the same model."""
    file = Path(tiny_latte.make_ucf101(tmp_path))
    both = load("latte-ucf101", CPU, torch.float32, str(file)).embed(["bowling"])["text"]
    torch.save(torch.load(file)["ema"], file)
    assert torch.equal(load("latte-ucf101", CPU, torch.float32, str(file)).embed(["bowling"])["text"], both)
