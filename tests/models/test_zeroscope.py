"""zeroscope: folders as they were written in 2023, half-precision folders, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_zeroscope
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import noise

from fifo_diffusion.errors import ModelError
from fifo_diffusion.models import load
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.latent import LatentModel
from fifo_diffusion.models.text import clip_reader

CPU = torch.device("cpu")
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(tiny_zeroscope.make(tmp_path / "zeroscope"))


@torch.no_grad()
def makes(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network answers, and the pixels of it."""
    z = noise(1, 4, 24, 8, 8)
    schedule = model.schedule(96, "even")
    out = model.denoiser(schedule)(z, schedule.time[1:25].float()[None], model.embed(["a red balloon"]))
    return out, torch.cat(list(model.decoder()(iter([out[:, :, :2]]))))


def rewritten(part: Path, name: str, change: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """A part's .safetensors made into the .bin of its time, every key changed."""
    (new,) = part.glob("*.safetensors")
    weights = {change(key): value for key, value in load_file(new).items()}
    new.unlink()
    torch.save(weights, part / name)
    return weights


def old_attention(key: str) -> str:
    for now, then in OLD_ATTENTION.items():
        key = key.replace(f"attentions.0.{now}.", f"attentions.0.{then}.")
    return key


def test_folders_of_2023_load_as_they_are(folder: Path) -> None:
    """.bin files, the autoencoder's attention under its old names, CLIP's `text_model.` and its table of positions."""
    want = makes(load("zeroscope", CPU, torch.float32, str(folder)))
    rewritten(folder / "unet", "diffusion_pytorch_model.bin", str)
    weights = rewritten(folder / "vae", "diffusion_pytorch_model.bin", old_attention)
    assert any("mid_block.attentions.0.query.weight" in key for key in weights)
    weights = rewritten(
        folder / "text_encoder", "pytorch_model.bin", lambda key: "text_model." + key.removeprefix("text_model.")
    )
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(weights, folder / "text_encoder" / "pytorch_model.bin")
    got = makes(load("zeroscope", CPU, torch.float32, str(folder)))
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


def test_half_precision_is_near(folder: Path) -> None:
    want, _ = makes(load("zeroscope", CPU, torch.float32, str(folder)))
    got, pixels = makes(load("zeroscope", CPU, torch.bfloat16, str(folder)))
    assert got.dtype == torch.float32  # the step is not in half precision
    assert pixels.isfinite().all()
    assert 0 < (got - want).square().mean().sqrt() < 0.05 * want.square().mean().sqrt()


def test_the_noise_table_is_the_folders(folder: Path) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    said = json.loads(file.read_text())
    first = load("zeroscope", CPU, torch.float32, str(folder)).schedule(96, "even")
    file.write_text(json.dumps({**said, "prediction_type": "v_prediction", "beta_end": 0.02}))
    other = load("zeroscope", CPU, torch.float32, str(folder)).schedule(96, "even")
    assert (first.predicts, other.predicts) == ("noise", "velocity")
    assert other.alpha[-1] < first.alpha[-1]
    for change, word in (
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
        ({"prediction_type": "flow"}, "flow"),
        ({"rescale_betas_zero_snr": True}, "scaled_linear"),
    ):
        file.write_text(json.dumps({**said, **change}))
        with pytest.raises(ModelError, match=word) as refused:
            load("zeroscope", CPU, torch.float32, str(folder))
        assert str(file) in str(refused.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_part_that_is_not_whole_is_refused(folder: Path, part: str) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    key = sorted(weights)[3]
    save_file({name: value for name, value in weights.items() if name != key}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=key.split(".", 2)[-1]) as refused:
        load("zeroscope", CPU, torch.float32, str(folder))
    assert str(folder / part) in str(refused.value)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ModelError, match=file.name):
        load("zeroscope", CPU, torch.float32, str(folder))


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load("zeroscope", CPU, torch.float32, str(folder))


@torch.no_grad()
def test_a_decoded_encoding_has_the_shape_of_the_clip(folder: Path) -> None:
    model = load("zeroscope", CPU, torch.float32, str(folder))
    assert isinstance(model, LatentModel)
    clip = torch.rand(1, 3, 3, 32, 48) * 2 - 1
    latents = model.encode(clip)
    assert latents.shape == (1, 4, 3, 4, 6)
    want = model.autoencoder.encode(clip[:, 1]).latent_dist.mean * model.autoencoder.config.scaling_factor
    torch.testing.assert_close(latents[:, :, 1], want)
    assert torch.cat(list(model.decoder()(iter([latents])))).shape == clip.shape


def test_the_text_encoder_visits_its_device_and_reads_again(folder: Path) -> None:
    """It is there for each prompt, and at home as it was; a prompt that comes later is read too."""
    reader, there = clip_reader(folder, CPU), list[bool]()
    home = [parameter.data_ptr() for parameter in reader.net.parameters()]
    first, own = reader(["a red balloon"])
    assert own.sum() == 5  # a start, three words, an end
    reader.net.register_forward_hook(
        lambda net, *_: there.append(all(x.is_meta for x in (*net.parameters(), *net.buffers())))
    )
    reader.where = torch.device("meta")  # a device that no answer comes back from
    with pytest.raises(NotImplementedError, match="meta"):
        reader(["a red balloon"])
    reader.where = CPU
    assert torch.equal(reader(["a red balloon"])[0], first)
    assert there == [True, False]
    assert [parameter.data_ptr() for parameter in reader.net.parameters()] == home
    assert not torch.equal(reader(["a blue fish"])[0], first)


def test_low_memory_keeps_the_text_encoder_off_the_device(folder: Path) -> None:
    model = load("zeroscope", CPU, torch.float32, str(folder))
    assert isinstance(model, LatentModel)
    model.reader.where = torch.device("meta")
    model.save_memory()
    assert model.embed(["a red balloon"])["text"].isfinite().all()


def test_a_half_precision_folder_in_pieces_loads(folder: Path) -> None:
    """x.fp16-00001-of-0000N.safetensors with its index, as diffusers writes a large network."""
    unet = load("zeroscope", CPU, torch.float32, str(folder))
    assert isinstance(unet, LatentModel)
    for file in (folder / "unet").glob("*.safetensors"):
        file.unlink()
    unet.network.half().save_pretrained(folder / "unet", variant="fp16", max_shard_size="200KB")
    assert len(list((folder / "unet").glob("*.fp16-0*.safetensors"))) > 1
    again = load("zeroscope", CPU, torch.float32, str(folder))
    for key, value in unet.network.float().state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value), key  # type: ignore[attr-defined]


def test_weights_have_one_name_whatever_is_not_read_beside_them(folder: Path) -> None:
    """A machine that once fetched every kind of the same weights goes on with the video of one that did not."""
    before = load("zeroscope", CPU, torch.float32, str(folder)).weights
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(unet), unet.with_suffix(".bin"))
    save_file({name: value.half() for name, value in load_file(unet).items()}, unet.with_suffix(".fp16.safetensors"))
    assert load("zeroscope", CPU, torch.float32, str(folder)).weights == before
    save_file({name: value + 1 for name, value in load_file(unet).items()}, unet)
    assert load("zeroscope", CPU, torch.float32, str(folder)).weights != before
