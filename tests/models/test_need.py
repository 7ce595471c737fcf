"""Memory: the cards' figures are those of the full-size networks, and --memory low changes how, not what."""

import itertools
from pathlib import Path

import pytest
import tiny_zeroscope
import torch
from torch import nn

from fifo_diffusion import session
from fifo_diffusion.config import Run
from fifo_diffusion.models import MODELS, Card
from fifo_diffusion.models.need import FULL, count, peak


@pytest.mark.parametrize("name", [card.name for card in MODELS.values() if card.memory is not None])
def test_the_card_holds_what_is_counted(name: str) -> None:
    card, counted = MODELS[name].memory, count(name)
    assert card is not None
    for part in ("stays", "text", "window", "decode"):
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
    return session._room(card, size or card.size, dtype, gib)


def test_auto_takes_what_the_gpu_has() -> None:
    assert room(4) == room(5) == 0
    assert room(8) == 1
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


def small(card: Card) -> dict[str, object]:
    return {
        "model": card.name,
        "prompt": "a red balloon",
        "frames": 2,
        "partitions": 1,
        "size": (64, 64),
        "device": "cpu",
    }


def test_low_memory_makes_the_same_frames(tmp_path: Path) -> None:
    """One window at a time, guidance apart, text read on the CPU: but for rounding the same pixels."""
    weights = tiny_zeroscope.make(tmp_path)
    runs = {}
    for memory in ("low", "high"):
        said = {**small(MODELS["zeroscope"]), "weights": weights, "memory": memory, "eta": 0.0}
        decided = session.resolve(Run.of(said))
        assert (decided.memory, decided.batch) == (memory, 1 if memory == "low" else 2)
        runs[memory] = list(session.Session(decided).frames())
    for one, other in zip(runs["low"], runs["high"], strict=True):
        assert abs(one.astype(int) - other.astype(int)).max() <= 1


def test_a_run_with_lora_says_so_and_differs(tmp_path: Path) -> None:
    import peft

    from fifo_diffusion.errors import BadInput

    weights = tiny_zeroscope.make(tmp_path / "base")
    torch.manual_seed(0)
    net = peft.get_peft_model(
        tiny_zeroscope.stock_unet(), peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    net.save_pretrained(str(tmp_path / "lora"))
    said = {**small(MODELS["zeroscope"]), "weights": weights}
    frames, hashes = {}, {}
    for scale in ("none", "0", "1"):
        lora = [] if scale == "none" else [f"{tmp_path / 'lora'}:{scale}"]
        run = session.resolve(Run.of({**said, "lora": lora}))
        assert list(run.lora) == lora
        made = session.Session(run)
        frames[scale], hashes[scale] = list(made.frames()), made.model.weights
    assert all((a == b).all() for a, b in zip(frames["none"], frames["0"], strict=True))
    assert any((a != b).any() for a, b in zip(frames["none"], frames["1"], strict=True))
    assert hashes["none"] != hashes["1"]
    with pytest.raises(BadInput, match="embedded takes no LoRA"):
        session.resolve(Run.of({"prompt": "a", "lora": lora}))
    with pytest.raises(BadInput, match="is not there"):
        session.resolve(Run.of({**said, "lora": ["nothing.safetensors"]}))
