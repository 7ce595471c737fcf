"""Text encoders that read on demand: they live on the CPU and visit the device only while they read.

A prompt is read once and a stream has few of them, so an encoder (T5-XXL is 4.8 billion numbers) need not hold device
memory while frames are made.  A prompt that comes later, from any thread, is read just the same; where the running
network leaves the encoder no room, on the CPU.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fifo_diffusion.errors import ModelError
from fifo_diffusion.models.files import component, first_line


@dataclass(eq=False)
class Reader:
    """A transformers text encoder with its tokenizer.  Letters: P prompts, L tokens, D width.

    net: on the CPU between readings, in whatever precision it was loaded.
    where: the device it reads on; "cpu" for one that has no room for it.
    masked: whether padding is kept from the encoder (T5) or heard like any token (CLIP as Stable Diffusion uses it).
    tidy: what is done to a prompt first.
    padding: the token that short prompts are filled up with; None: the tokenizer's.
    """

    net: nn.Module
    tokenizer: Any
    where: torch.device
    longest: int
    masked: bool
    tidy: Callable[[str], str] = str
    padding: int | None = None
    _reading: Lock = field(default_factory=Lock, init=False, repr=False)  # one at a time: reading moves the encoder

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """-> the last hidden states (P, L, D) and which tokens are the prompt's (P, L) bool, both on the CPU."""
        said = self._tokens([self.tidy(prompt) for prompt in prompts], padding="max_length", return_tensors="pt")
        ids, own = said["input_ids"], said["attention_mask"]
        if self.padding is not None:
            ids = ids.where(own.bool(), self.padding)
        with self._reading:
            where = self._room()
            # On CUDA on a stream of its own: a copy waits for all that its stream was asked for, and on the network's
            # that is up to an iteration for each of hundreds of weights.
            cuda = where.type == "cuda"
            with torch.cuda.stream(torch.cuda.Stream(where)) if cuda else nullcontext():  # type: ignore[no-untyped-call]
                states = self._states(ids.to(where), own.to(where) if self.masked else None)
            if cuda:
                torch.cuda.empty_cache()  # else the cache keeps what the networks need
        return states, own.bool()

    def _states(self, ids: Tensor, own: Tensor | None) -> Tensor:
        """On the CPU, of tokens on the device: the encoder's weights are there meanwhile, and stay at home too."""
        held = chain(self.net.named_parameters(), self.net.named_buffers())
        there = {name: tensor.to(ids.device) for name, tensor in held}
        states: Tensor = functional_call(self.net, there, (ids,), {"attention_mask": own})[0]
        return states.cpu()

    def _room(self) -> torch.device:
        """Where it can read now."""
        if self.where.type == "cuda":
            size = sum(p.numel() * p.element_size() for p in self.net.parameters())
            if torch.cuda.mem_get_info(self.where)[0] < 1.2 * size:
                return torch.device("cpu")
        return self.where

    def remarks(self, prompt: str) -> list[str]:
        """Says so when the end of a prompt is not heard."""
        heard = self._tokens([self.tidy(prompt)])["input_ids"][0]
        every = self.tokenizer([self.tidy(prompt)])["input_ids"][0]
        if len(every) <= len(heard):
            return []
        lost = self.tokenizer.decode(every[self.longest - 1 :], skip_special_tokens=True).strip()
        return [f"the text encoder hears {self.longest} tokens of a prompt; the end is not heard: {lost!r}"]

    def _tokens(self, prompts: list[str], **how: Any) -> Any:
        return self.tokenizer(prompts, truncation=True, max_length=self.longest, **how)


def clip_reader(folder: Path, where: torch.device) -> Reader:
    """CLIP's text tower as latent diffusion uses it: 77 tokens, padding heard like any other.  Raises ModelError.

    In float32 whatever the run is in: a prompt is read once, so its precision costs nothing.
    """
    from transformers import CLIPTokenizer

    return _clip(folder, where, _tokenizer(CLIPTokenizer, folder / "tokenizer", "vocab.json"))


def open_clip_reader(folder: Path, where: torch.device) -> Reader:
    """CLIP's text tower as open_clip feeds it: HTML entities are read, token 0 fills up.  Raises ModelError.

    Token 0 is "!", but must not be made the tokenizer's own padding (as Stable Diffusion 2 has it): every "!" in a
    prompt would then be padding too.
    """
    reader = _clip(folder, where, plain_clip_tokenizer(folder / "tokenizer"))
    reader.tidy, reader.padding = _unescaped, 0
    return reader


def _unescaped(prompt: str) -> str:
    return html.unescape(html.unescape(prompt))


def plain_clip_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer with its own padding, whatever the folder made of that.  Raises ModelError."""
    from transformers import CLIPTokenizer

    given = _tokenizer(CLIPTokenizer, folder, "vocab.json")
    try:
        words = json.loads(given.backend_tokenizer.to_str())["model"]
        return CLIPTokenizer(vocab=words["vocab"], merges=[tuple(merge) for merge in words["merges"]])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the tokenizer in {folder} is not CLIP's ({first_line(error)}); get CLIP's") from error


def _clip(folder: Path, where: torch.device, tokenizer: Any) -> Reader:
    from transformers import CLIPTextModel

    net = component(CLIPTextModel, folder / "text_encoder", torch.float32, ignore=r"position_ids$")
    return Reader(net, tokenizer, where, longest=net.config.max_position_embeddings, masked=False)


def t5_reader(
    folder: Path,
    where: torch.device,
    dtype: torch.dtype,
    longest: int,
    text: str = "text_encoder",
    words: str = "tokenizer",
) -> Reader:
    """T5's encoder as the PixArt family uses it: lower case, padding masked.  Raises ModelError.

    text, words: where in the folder the encoder and its tokenizer lie; "." is the folder itself.

    Never in float16, which T5-XXL's sums do not fit into, and on CUDA never in float32, which is 18 GiB of it.
    """
    from transformers import T5EncoderModel

    return _t5(T5EncoderModel, folder / text, folder / words, where, dtype, longest, lambda said: said.lower().strip())


def umt5_reader(folder: Path, where: torch.device, dtype: torch.dtype, longest: int) -> Reader:
    """UMT5's encoder as Wan uses it: HTML entities are read, spaces are single, padding is masked.  Raises ModelError.

    In the precision of `t5_reader`, for the same reasons.
    """
    from transformers import UMT5EncoderModel

    def tidy(prompt: str) -> str:
        return " ".join(_unescaped(prompt).split())

    return _t5(UMT5EncoderModel, folder / "text_encoder", folder / "tokenizer", where, dtype, longest, tidy)


def _t5(
    kind: Any,
    text: Path,
    words: Path,
    where: torch.device,
    dtype: torch.dtype,
    longest: int,
    tidy: Callable[[str], str],
) -> Reader:
    from transformers import T5TokenizerFast

    tokenizer = _tokenizer(T5TokenizerFast, words, "spiece.model")
    precision = torch.bfloat16 if dtype == torch.float16 or where.type == "cuda" else dtype
    net = component(kind, text, precision, ignore=r"^decoder|^lm_head")
    return Reader(net, tokenizer, where, longest, masked=True, tidy=tidy)


def _tokenizer(kind: Any, folder: Path, words: str) -> Any:
    if not any((folder / name).is_file() for name in (words, "tokenizer.json")):  # the library takes an empty folder
        raise ModelError(f"there is no {words} in {folder}; give a folder in the layout of diffusers, with a tokenizer")
    try:
        return kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the library has a dozen kinds
        raise ModelError(f"the tokenizer in {folder} cannot be used ({first_line(error)}); get it again") from error
