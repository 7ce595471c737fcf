"""What the tiny models share: noise, and parts of published folders, of the real classes with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fifo_diffusion.models.base import Model

TEXT = "a red blue balloon fish moving left right over snowy mountains the ocean and very old city at night"
WORDS = TEXT.split()


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(model: Model) -> Any:
    """The one that denoises."""
    return getattr(model, "network", None) or getattr(model, "_video", None)


def scramble(net: Any, seed: int, size: float = 0.7) -> Any:
    """Random weights everywhere, those that begin as zeros or ones too, so that nothing passes by being left out."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(net.named_parameters()):
            wide = value[0].numel() ** 0.5 if value.ndim > 1 else 4
            value.copy_(torch.randn(value.shape, generator=draw) * size / wide)
            if value.ndim == 1 and name.endswith("weight"):
                value += 1
    return net.eval().requires_grad_(False)


@contextmanager
def silenced(*layers: nn.Module) -> Iterator[None]:
    """Inside it these layers answer zero."""
    kept = [(value, value.clone()) for layer in layers for value in layer.parameters()]
    with torch.no_grad():
        for value, _ in kept:
            value.zero_()
        try:
            yield
        finally:
            for value, was in kept:
                value.copy_(was)


def write_autoencoder(folder: Path, seed: int = 3) -> None:
    from diffusers import AutoencoderKL

    levels = 4
    net = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        layers_per_block=1,
    )
    scramble(net, seed).save_pretrained(folder)


def write_scheduler(folder: Path, schedule: str, first: float, last: float) -> None:
    from diffusers import DDIMScheduler

    DDIMScheduler(
        beta_schedule=schedule, beta_start=first, beta_end=last, clip_sample=False, set_alpha_to_one=False
    ).save_pretrained(folder)


def write_clip(text: Path, tokenizer: Path, width: int = 32) -> None:
    """A CLIP text tower and the tokenizer's two files, with one token for each letter and each word above."""
    from transformers import CLIPTextConfig, CLIPTextModel

    letters = "abcdefghijklmnopqrstuvwxyz!"
    vocabulary = ["<|startoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merge = (parts[-2], parts[-1])
            parts[-2:] = ["".join(merge)]
            if merge not in merges:
                merges.append(merge)
                vocabulary.append(parts[-1])
    vocabulary = [*dict.fromkeys(vocabulary), "<|endoftext|>"]
    tokenizer.mkdir(parents=True)
    (tokenizer / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in merges) + "\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "!"})
    )
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act="gelu",
        bos_token_id=0,
        eos_token_id=len(vocabulary) - 1,
        pad_token_id=1,
    )
    scramble(CLIPTextModel(config), 5).save_pretrained(text)


def write_t5(text: Path, tokenizer: Path, width: int = 32) -> None:
    """A T5 encoder and its tokenizer."""
    from transformers import T5Config, T5EncoderModel

    write_sentencepiece(tokenizer)
    config = T5Config(
        vocab_size=64, d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    scramble(T5EncoderModel(config), 6).save_pretrained(text)


def write_sentencepiece(tokenizer: Path) -> None:
    """T5's tokenizer, trained on the words above."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    tokenizer.mkdir(parents=True)
    (tokenizer / "spiece.model").write_bytes(model.getvalue())
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 0})
    )
