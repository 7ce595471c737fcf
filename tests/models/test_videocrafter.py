"""VideoCrafter's checkpoints: what the authors' own modules said, the conversion, and a video from a model.ckpt."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_videocrafter as tiny
import torch
from recorded import GOLDEN, recorded_weight
from safetensors.torch import load_file
from torch import nn

from fifo_diffusion.baseclip import sample_clip
from fifo_diffusion.errors import ModelError
from fifo_diffusion.models import load
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.models.files import Tensors
from fifo_diffusion.models.frame_attention import RelativePosition
from fifo_diffusion.models.gauss import GaussianVideo
from fifo_diffusion.models.videocrafter import (
    VARIANTS,
    VideoCrafter,
    convert_autoencoder,
    convert_text,
    convert_unet,
    shrunk,
)
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.schedule import paper, scaled_linear_betas, variance_preserving
from fifo_diffusion.sinks import read_frames

CPU = torch.device("cpu")
UNET, VAE = "model.diffusion_model.", "first_stage_model."


def filled(converted: tuple[nn.Module, dict[str, torch.Tensor]]) -> nn.Module:
    net, state = converted
    net.load_state_dict(state, assign=True)
    return net.eval()


def tensors(head: str, keys: tiny.Keys) -> Tensors:
    """A file's tensors with the recorded runs' weights."""
    return Tensors(Path("x.ckpt"), {head + k: recorded_weight(k, shape) for k, shape in keys.shapes.items()})


@torch.no_grad()
def test_the_authors_unet_said_the_same() -> None:
    """Recorded from the authors' module at 4 levels (tests/data/golden/README.md), through the converter."""
    keys = tiny.UNetKeys(32, (1, 2, 4, 4), 16, 16, fps=True, convs=True, relative=False)
    given = tensors(UNET, keys)
    assert len(given) == 1484
    assert sum(float(value.double().abs().sum()) for value in given.values()) == pytest.approx(696688.1218706575)
    net, seen = filled(convert_unet(given)), load_file(GOLDEN / "tiny" / "unet4_forward.safetensors")
    x, text, fps = seen["x"], seen["context"], seen["fps"]
    each = net(x, seen["t_fifo"][None], text, fps)
    torch.testing.assert_close(each, seen["eps_fifo"], rtol=0, atol=1e-4)
    one = net(x, seen["t_base"][:, None].expand(-1, x.shape[2]), text, fps)
    torch.testing.assert_close(one, seen["eps_base"], rtol=0, atol=1e-4)
    other = net(x, seen["t_fifo"][None].flip(1), text, fps)
    assert (other - seen["eps_fifo"]).abs().max() > 0.01


@torch.no_grad()
def test_the_authors_autoencoder_decoded_the_same() -> None:
    given = tensors(VAE, tiny.AutoencoderKeys(32, (1, 2, 4, 4)))
    assert len(given) == 248
    assert sum(float(value.double().abs().sum()) for value in given.values()) == pytest.approx(143816.2940301783)
    net, seen = filled(convert_autoencoder(given)), load_file(GOLDEN / "tiny" / "vae_decode.safetensors")
    decoded = net.decode(seen["z"]).sample  # type: ignore[operator]
    torch.testing.assert_close(decoded, seen["image"].float(), rtol=0, atol=2e-3)  # recorded in half precision


@pytest.mark.parametrize(
    ("name", "keys", "millions"),
    [("videocrafter2", 1484, 1413.28), ("videocrafter1", 1196, 1144.49), ("videocrafter1-1024", 1200, 1146.54)],
)
def test_the_published_sizes_convert(name: str, keys: int, millions: float) -> None:
    """Full size, on the meta device: every key finds its place and every shape fits."""
    fps, convs, relative, _, _ = tiny.SWITCHES[name]
    shapes = tiny.UNetKeys(320, (1, 2, 4, 4), 64, 1024, fps, convs, relative).shapes
    assert len(shapes) == keys
    given = {UNET + key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    net, state = convert_unet(Tensors(Path("x.ckpt"), given))
    assert len(state) == keys
    assert sum(value.numel() for value in state.values()) / 1e6 == pytest.approx(millions, abs=0.01)
    (variant,) = (variant for variant in VARIANTS if variant.name == name)
    assert {key: net.config[key] for key in variant.options} == variant.options  # type: ignore[index]


@torch.no_grad()
def test_the_text_is_the_last_layer_but_one_through_the_last_norm() -> None:
    """Against the tower computed from its tensors with torch's own attention: causal, every token heard."""
    width, words, layers = 128, 514, 4
    shapes = tiny.TextKeys(width, layers, words).shapes
    raw = {key: tiny.weight(key, shape) for key, shape in shapes.items()}
    kept = {k: v for k, v in raw.items() if k not in ("text_projection", "logit_scale")}
    head = "cond_stage_model.model."
    net = filled(convert_text(Tensors(Path("x.ckpt"), {head + key: value for key, value in kept.items()})))
    ids = torch.tensor([[512, 5, 9, 300, 513, *[0] * 72]])

    x = raw["token_embedding.weight"][ids] + raw["positional_embedding"]
    mask = torch.full((77, 77), -torch.inf).triu(1)
    for i in range(layers - 1):
        part = {k.removeprefix(f"transformer.resblocks.{i}."): v for k, v in raw.items() if f"resblocks.{i}." in k}
        y = nn.functional.layer_norm(x, (width,), part["ln_1.weight"], part["ln_1.bias"])
        attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
        own = {k.removeprefix("attn."): v for k, v in part.items() if k.startswith("attn.")}
        attention.load_state_dict(own)
        x = x + attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        y = nn.functional.layer_norm(x, (width,), part["ln_2.weight"], part["ln_2.bias"])
        y = nn.functional.gelu(y @ part["mlp.c_fc.weight"].T + part["mlp.c_fc.bias"])
        x = x + y @ part["mlp.c_proj.weight"].T + part["mlp.c_proj.bias"]
    want = nn.functional.layer_norm(x, (width,), raw["ln_final.weight"], raw["ln_final.bias"])
    torch.testing.assert_close(net(ids).last_hidden_state, want, rtol=0, atol=1e-5)


def test_relative_positions_are_clamped() -> None:
    table = RelativePosition(1, most=2)
    table.embeddings_table.data = torch.arange(5.0)[:, None]
    assert table(5)[:, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 4, 4]  # distances -4 to 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny.make("videocrafter2", tmp_path_factory.mktemp("vc2")))


@pytest.fixture(scope="module")
def model(weights: Path) -> VideoCrafter:
    loaded = load("videocrafter2", CPU, torch.float32, str(weights))
    assert isinstance(loaded, VideoCrafter)
    return loaded


def test_the_even_table_is_the_trained_process_and_the_papers_is_the_authors(model: VideoCrafter) -> None:
    table = scaled_linear_betas()
    even, plain = model.schedule(64, "even"), variance_preserving(table, 64)
    assert torch.equal(even.alpha, shrunk(plain, 0.7).alpha)
    assert torch.equal(even.sigma, plain.sigma)
    assert float(even.alpha[0]) == 1
    assert torch.equal(model.schedule(64, "paper").alpha, paper(table, 64).alpha)


@pytest.mark.parametrize("levels", [4, 8, 64])
def test_the_signal_shrinks_as_in_the_authors_plain_sampling(levels: int) -> None:
    want = load_file(GOLDEN / "schedules.safetensors")[f"S{levels}_eta0.scale_arr_BASE_ONLY"]
    plain = paper(scaled_linear_betas(), levels)
    torch.testing.assert_close((shrunk(plain, 0.7).alpha / plain.alpha)[1:], want, rtol=0, atol=1e-6)


@torch.no_grad()
def test_leaving_the_shrinking_out_makes_frames_faint() -> None:
    """An exact network of frames with deviation 1, sampled as it was trained and as if the signal did not shrink."""
    plain = variance_preserving(scaled_linear_betas(), 64)
    trained = shrunk(plain, 0.7)
    made = []
    for table in (trained, plain):
        like = torch.zeros(1, 4, 8, 16, 16)
        *_, clip = sample_clip(GaussianVideo(trained), table, lambda frames: {}, SeededNoise(1), like, eta=1.0)
        made.append(float(clip.std()))
    assert made[0] > 0.9
    assert made[1] < 0.8


def test_prompts_become_open_clips_tokens(model: VideoCrafter) -> None:
    """Letters inside and at the end of words, "!" like any other although its token also fills up; entities read."""
    heard = []
    hook = model.reader.net.register_forward_pre_hook(lambda net, given: heard.append(given[0]))
    model.embed(["Wow!  &amp; a"])
    hook.remove()
    alphabet = model.reader.tokenizer.get_vocab()
    words = ["<|startoftext|>", "w", "o", "w</w>", "!</w>", "&</w>", "a</w>", "<|endoftext|>"]
    assert alphabet["!"] == 0
    assert heard[0].tolist() == [[alphabet[word] for word in words] + [0] * (77 - len(words))]


def test_what_a_prompt_is_too_long_for_is_said(model: VideoCrafter) -> None:
    assert model.remarks("a cat") == []
    (remark,) = model.remarks("x " * 75 + "lost words")
    assert "lost words" in remark


@torch.no_grad()
def test_the_frame_rate_is_heard(model: VideoCrafter) -> None:
    z, schedule, cond = torch.randn(1, 4, 16, 8, 8), model.schedule(16, "even"), model.embed(["a cat"])
    t = schedule.times(torch.arange(1, 17), z)[None]
    denoise = model.denoiser(schedule)
    eight = denoise(z, t, cond)
    model.fps = 24.0
    assert not torch.allclose(denoise(z, t, cond), eight, atol=1e-3)
    model.fps = 8.0
    assert torch.equal(denoise(z, t, cond), eight)


def test_it_is_converted_once_and_the_converted_folder_is_weights_too(
    weights: Path, model: VideoCrafter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path
    monkeypatch.setenv("FIFO_CACHE", str(cache))
    load("videocrafter2", CPU, torch.float32, str(weights))
    folders = sorted(cache.iterdir())
    assert not [folder for folder in folders if "partial" in folder.name]
    marks = {file: file.stat().st_mtime_ns for file in cache.rglob("*.safetensors")}
    words = weights.parent / "tokenizer"
    words.rename(words.with_name("away"))  # only a conversion needs it
    load("videocrafter2", CPU, torch.float32, str(weights))
    load("videocrafter2", CPU, torch.float32, str(weights.parent))
    words.with_name("away").rename(words)
    assert sorted(cache.iterdir()) == folders
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*.safetensors")} == marks
    (mine,) = (folder for folder in folders if folder.name.startswith("videocrafter2-"))
    again = load("videocrafter2", CPU, torch.float32, str(mine))
    assert isinstance(again, VideoCrafter)
    assert torch.equal(again.network.conv_in.weight, model.network.conv_in.weight)


def test_a_conversion_that_fails_leaves_nothing(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFO_CACHE", str(tmp_path / "cache"))
    held = torch.load(weights, weights_only=True)
    held["state_dict"].pop("first_stage_model.decoder.conv_out.bias")
    tiny.write_tokenizer(tmp_path)
    torch.save(held, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match=r"decoder\.conv_out\.bias"):
        load("videocrafter2", CPU, torch.float32, str(tmp_path / "model.ckpt"))
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("FIFO_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="FIFO_CACHE"):
        load("videocrafter2", CPU, torch.float32, str(weights))


def test_another_of_the_three_is_named(weights: Path) -> None:
    with pytest.raises(ModelError, match="use --model videocrafter2"):
        load("videocrafter1", CPU, torch.float32, str(weights))


def test_what_this_model_lacks_is_named(weights: Path, tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    held = torch.load(weights, weights_only=True)
    for key in ("image_proj_model.latents", UNET + "input_blocks.1.1.to_ip.weight"):
        torch.save({"state_dict": {**held["state_dict"], key: torch.zeros(1)}}, tmp_path / "model.ckpt")
        with pytest.raises(ModelError, match=key):
            load("videocrafter2", CPU, torch.float32, str(tmp_path / "model.ckpt"))


def test_another_signal_than_the_models_is_refused(weights: Path, tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    held = torch.load(weights, weights_only=True)
    held["state_dict"]["scale_arr"] = torch.linspace(1, 0.5, 1000)
    torch.save(held, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="scale_arr"):
        load("videocrafter2", CPU, torch.float32, str(tmp_path / "model.ckpt"))


def test_without_a_tokenizer_it_says_which_to_put_where(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIFO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.ckpt").symlink_to(weights)
    with pytest.raises(ModelError, match=r"vocab\.json") as refused:
        load("videocrafter2", CPU, torch.float32, str(tmp_path))
    assert str(tmp_path / "tokenizer") in str(refused.value)


def test_a_model_ckpt_becomes_a_video(weights: Path, tmp_path: Path) -> None:
    """As a person would run it, at the smallest size and one partition."""
    command = [sys.executable, "-m", "fifo_diffusion", "generate", "a red balloon", "--model", "videocrafter2"]
    small = ["--weights", str(weights), "--frames", "3", "--size", "64x64", "-n", "1", "-o", "a.mp4"]
    done = subprocess.run([*command, *small], cwd=tmp_path, capture_output=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert [frame.shape for frame in read_frames(tmp_path / "a.mp4")] == [(64, 64, 3)] * 3
    assert b"Loading weights" not in done.stderr
    assert (tmp_path / "a.mp4.json").exists()


def test_the_cards_take_what_the_networks_take() -> None:
    for variant in VARIANTS:
        card = MODELS[variant.name]
        card.check_size(card.size)
        card.check_size((64, 128))
        with pytest.raises(ValueError, match="multiples of 64"):
            card.check_size((520, 320))
