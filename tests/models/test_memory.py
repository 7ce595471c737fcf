"""Memory: the cards' figures are those of the full-size networks, and --memory low changes how, not what."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import tiny_zeroscope
import torch
from tiny_parts import network, noise
from torch import nn

from fifo_diffusion import api, decide, session, sidecar
from fifo_diffusion.config import Run
from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.cards import MODELS
from need import FULL, count, peak


@pytest.mark.parametrize("name", [card.name for card in MODELS.values() if card.memory is not None])
def test_the_card_holds_what_is_counted(name: str) -> None:
    card, counted = MODELS[name].memory, count(name)
    assert card is not None
    for part in ("stays", "eight", "text", "window", "decode"):
        assert getattr(card, part) == pytest.approx(getattr(counted, part), abs=0.02), part


def test_every_counted_model_has_a_card() -> None:
    assert set(FULL) == {card.name for card in MODELS.values() if card.memory is not None}


@torch.no_grad()
def test_the_peak_is_the_most_that_was_alive_at_once() -> None:
    """1024 numbers of 4 bytes; a layer holds what it was given and what it makes."""
    with torch.device("meta"):
        x, layers = torch.empty(1024), nn.Sequential(nn.Tanh(), nn.Tanh(), nn.Tanh())
        assert peak(lambda: x + 1) == 4096
        assert peak(lambda: layers(x)) == 2 * 4096  # the first is gone when the third is made
        assert peak(lambda: x.view(32, 32).add_(1)) == 0
        assert peak(lambda: [x + 1, x + 2, x + 3]) == 3 * 4096
        q = torch.empty(1, 2, 512, 16)
        assert peak(lambda: nn.functional.scaled_dot_product_attention(q, q, q)) == q.numel() * 4


def room(gib: float | None, dtype: str = "float16", size: tuple[int, int] | None = None) -> int:
    card = MODELS["zeroscope"]
    return decide._room(card, size or card.size, dtype, gib)


def test_auto_takes_what_the_gpu_has() -> None:
    assert room(4) == room(5) == 0
    assert room(7) == 1
    assert room(24) > room(12) > 0
    assert room(24, "float32") < room(24)
    assert room(24, size=(1152, 640)) < room(24)
    assert room(None) > 8  # the CPU's memory is not asked
    rooms = [room(gib) for gib in range(4, 80)]
    assert all(a <= b for a, b in itertools.pairwise(rooms))


def test_least_is_less_than_most() -> None:
    for card in MODELS.values():
        if card.memory is not None:
            assert card.memory.least() <= card.memory.most(1) < card.memory.most(2 * card.partitions) + 10


def small(**said: object) -> dict[str, object]:
    """A run that takes a second or two."""
    at_least = {"partitions": 1, "lookahead": "off", "size": (32, 32), "device": "cpu", "frames": 2}
    return {"model": "modelscope", "prompt": "a red balloon", **at_least, **said}


def test_low_memory_answers_the_same(tmp_path: Path) -> None:
    """One window at a time, guidance apart, text read on the CPU: but for rounding the same latents."""
    weights = tiny_zeroscope.make(tmp_path)
    moved = {}
    for memory in ("low", "high"):
        decided = decide.resolve(Run.of(small(weights=weights, memory=memory, partitions=2)))
        assert (decided.memory, decided.batch) == (memory, 1 if memory == "low" else 2)
        seen: list[int] = []
        made = session.Session(decided)
        network(made.model).register_forward_pre_hook(lambda net, given, seen=seen: seen.append(len(given[0])))
        engine = made.engine
        state = engine.warm_start(noise(1, 4, 16, 4, 4))
        _, after = engine.advance(state)
        moved[memory] = after.queue
        assert seen == ([1] * 4 if memory == "low" else [2])  # high: two windows, each with both of its texts
    torch.testing.assert_close(moved["low"], moved["high"], rtol=1e-3, atol=1e-3)


def write_lora(folder: Path) -> Path:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    peft.get_peft_model(tiny_zeroscope.stock_unet(), config).save_pretrained(str(folder))
    return folder


def test_a_run_with_lora_says_so_and_differs(tmp_path: Path) -> None:
    """Scale 0 is the base's video, bit for bit; the sidecar holds the LoRA, and makes the same video again."""
    weights, lora = tiny_zeroscope.make(tmp_path / "base"), write_lora(tmp_path / "lora")
    made = {}
    for scale in ("none", "0", "1"):
        run = Run.of(small(weights=weights))
        run = run if scale == "none" else run.model_copy(update={"lora": (f"{lora}:{scale}",)})
        made[scale] = api.make(run, str(tmp_path / f"{scale}.mp4"))
    assert made["0"].frames_sha256 == made["none"].frames_sha256 != made["1"].frames_sha256
    assert made["1"].weights != made["none"].weights
    before = sidecar.read(tmp_path / "1.mp4.json")
    assert before.run.lora == (f"{lora}:1",)
    again = api.make(Run.of(sidecar.again(before, {})), str(tmp_path / "again.mp4"))
    assert again.frames_sha256 == made["1"].frames_sha256
    assert "lora" not in sidecar.again(before, {"model": "zeroscope"})


def test_lora_that_cannot_be_used_is_refused_before_any_work(tmp_path: Path) -> None:
    lora = str(write_lora(tmp_path))
    with pytest.raises(BadInput, match=r"embedded takes no LoRA.*zeroscope"):
        decide.resolve(Run.of({"prompt": "a", "lora": [lora]}))
    with pytest.raises(BadInput, match="is not there"):
        decide.resolve(Run.of(small(lora=["nothing.safetensors:1"])))


def test_the_command_lists_the_need_at_once() -> None:
    """Without the libraries that the models are made of."""
    script = "import runpy, sys; sys.argv = ['fifo', 'models']\nrunpy.run_module('fifo_diffusion', run_name='__main__')"
    command = [sys.executable, "-X", "importtime", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0
    assert re.search(r"zeroscope.*\n(.*\n){4} +memory +4\.5 GiB", done.stdout)
    heavy = re.compile(r"\| +(torch|diffusers|transformers)$", re.MULTILINE)
    assert heavy.findall(done.stderr) == []
