"""LoRA files as peft, diffusers and kohya's scripts write them, on the real networks."""

import json
from pathlib import Path

import peft
import pytest
import tiny_latte
import tiny_zeroscope
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import scramble

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.models.lora import add_lora, find_lora

TARGETS = ["to_q", "to_k", "to_out.0", "proj_in", "conv1.2", "conv_shortcut", "conv_in"]


def with_adapter(folder: Path, rslora: bool = False) -> peft.PeftModel:
    """The stock UNet with peft's own adapter on it, saved to the folder by peft."""
    net = scramble(tiny_zeroscope.stock_unet(), 1)
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=TARGETS,
        use_rslora=rslora,
        alpha_pattern={"conv_in": 2},
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(net, config)
    wrapped.save_pretrained(str(folder))
    return wrapped.eval()


@torch.no_grad()
def answer(net: torch.nn.Module) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    z, text = torch.randn(1, 4, 3, 8, 8, generator=draw), torch.randn(1, 5, 32, generator=draw)
    out: torch.Tensor = net(z, torch.tensor([300]), text).sample
    return out


@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_wrote_does_what_peft_does(tmp_path: Path, rslora: bool) -> None:
    want = answer(with_adapter(tmp_path, rslora))
    net = scramble(tiny_zeroscope.stock_unet(), 1)
    before = answer(net)
    file, scale = find_lora(str(tmp_path))
    add_lora(net, file, 0)
    assert torch.equal(answer(net), before)
    add_lora(net, file, scale)
    torch.testing.assert_close(answer(net), want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))
    assert (want - before).abs().max() > 0.05 * before.abs().max()
    add_lora(net, file, -scale)
    torch.testing.assert_close(answer(net), before, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def test_what_diffusers_and_kohya_write_is_the_same(tmp_path: Path) -> None:
    """Three ways to write one LoRA down."""
    from diffusers.loaders.lora_base import LoraBaseMixin
    from diffusers.utils import convert_state_dict_to_kohya

    with_adapter(tmp_path / "peft")
    config = tmp_path / "peft" / "adapter_config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "lora_alpha": 6, "alpha_pattern": {}}))
    pairs = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    unet = {key.replace("base_model.model.", ""): value for key, value in pairs.items()}
    doubled = {key: value * 2 if ".lora_B." in key else value for key, value in unet.items()}  # alpha 6 at rank 3
    LoraBaseMixin.write_lora_layers(
        {f"unet.{key}": value for key, value in doubled.items()}, str(tmp_path / "diffusers"), True, None, None, True
    )
    kohya = convert_state_dict_to_kohya({f"unet.{key}": value for key, value in unet.items()})
    for key in list(kohya):
        if key.endswith(".lora_down.weight"):
            kohya[key.replace("lora_down.weight", "alpha")] = torch.tensor(6.0)
    (tmp_path / "kohya").mkdir()
    save_file(
        {key.replace("unet.", "lora_unet_"): v.contiguous() for key, v in kohya.items()},
        tmp_path / "kohya" / "x.safetensors",
    )
    answers = []
    for folder in ("peft", "diffusers", "kohya"):
        net = scramble(tiny_zeroscope.stock_unet(), 1)
        add_lora(net, find_lora(str(tmp_path / folder))[0], 1)
        answers.append(answer(net))
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answers[2], answers[0], rtol=1e-4, atol=1e-4)


def test_a_file_that_does_not_fit_is_one_sentence_and_changes_nothing(tmp_path: Path) -> None:
    with_adapter(tmp_path)
    pairs = load_file(tmp_path / "adapter_model.safetensors")
    one = next(key for key in pairs if key.endswith("lora_A.weight"))
    faults = {
        "no place": {**pairs, "base_model.model.nowhere.lora_A.weight": pairs[one].clone()},
        "half": {key: value for key, value in pairs.items() if key != one},
        "another model": {**pairs, one: pairs[one][:, :2].contiguous()},
        "no LoRA weights": {"text_encoder.x.lora_A.weight": pairs[one]},
        "no plain LoRA": {**pairs, "base_model.model.conv_in.lora_magnitude_vector": pairs[one].clone()},
    }
    net = scramble(tiny_zeroscope.stock_unet(), 1)
    before = answer(net)
    for said, wrong in faults.items():
        file = tmp_path / "wrong.safetensors"
        save_file(wrong, file)
        with pytest.raises(ModelError, match=said) as refused:
            add_lora(net, file, 1)
        assert str(file) in str(refused.value)
        assert "\n" not in str(refused.value)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged"):
        add_lora(net, file, 1)
    assert torch.equal(answer(net), before)


def test_scales_and_files_are_read_from_one_word(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.touch()
    assert find_lora(f"{file}:0.7") == (file, 0.7)
    assert find_lora(f"{tmp_path}:-2") == (file, -2)
    assert find_lora(str(file)) == (file, 1)
    (tmp_path / "b.safetensors").touch()
    for wrong in (str(tmp_path), f"{file}:nan", str(tmp_path / "c.safetensors"), f"{file}:x", str(tmp_path / "a.ckpt")):
        with pytest.raises(BadInput):
            find_lora(wrong)


def test_every_network_that_says_so_takes_one(tmp_path: Path) -> None:
    """Class-conditional Latte is no diffusers network; its layers take LoRA like any other."""
    from fifo_diffusion.models.latte_classes import ClassLatte

    net = scramble(tiny_latte.tiny_ucf101(ClassLatte), 2)
    before = net.blocks[0].attn["qkv"].weight.clone()
    down, up = torch.ones(1, 128), torch.ones(384, 1)
    save_file(
        {"blocks.0.attn.qkv.lora_A.weight": down, "blocks.0.attn.qkv.lora_B.weight": up}, tmp_path / "x.safetensors"
    )
    add_lora(net, tmp_path / "x.safetensors", 0.5)
    torch.testing.assert_close(net.blocks[0].attn["qkv"].weight, before + 0.5)
