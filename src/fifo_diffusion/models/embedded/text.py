"""The text encoder of the embedded model: words it knows and two small transformer layers.

Words it does not know are left out, and said so with the nearest ones it does know. With fixed word vectors it also
hears words that it was never trained on, each as the trained word whose vector is nearest, if it is near.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

# Words that carry nothing the world can show; leaving them out needs no warning.
FILLERS = frozenset({
    "a", "an", "the", "of", "over", "above", "in", "at", "on", "to", "is", "and", "with", "its", "it", "by", "through",
    "across",
})  # fmt: skip

NEAR = 0.55  # the cosine of two words' vectors from which one stands for the other


def words(prompt: str) -> list[str]:
    """Lower-case words of any script, without punctuation."""
    return re.findall(r"[^\W_]+", prompt.lower())


class WordVectors(nn.Module):
    """Embeddings of the two special tokens, which are learnt, and of words with fixed vectors."""

    table: Tensor

    def __init__(self, count: int, vectors: int, width: int) -> None:
        super().__init__()
        self.special = nn.Embedding(2, width)
        self.register_buffer("table", torch.zeros(count, vectors))
        self.enter = nn.Linear(vectors, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L) -> (B, L, width)"""
        word = self.enter(self.table[(tokens - 2).clamp(min=0)])
        return torch.where((tokens < 2)[..., None], self.special(tokens.clamp(max=1)), word)


class TextEncoder(nn.Module):
    """Prompts -> a vector for each and one for each of its words.  Token 0 is the sentence itself, token 1 padding."""

    def __init__(
        self,
        vocabulary: Sequence[str],
        width: int = 192,
        longest: int = 24,
        vectors: int | None = None,
        trained: Sequence[str] | None = None,
    ) -> None:
        """trained: the words among them that were trained on (None: all of them).

        vectors: the size of fixed word vectors, from which the words' embeddings are a linear map, and which say what
        a word that was never trained on is heard as. None: an embedding is learnt for every word."""
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.trained = tuple(vocabulary if trained is None else trained)
        self.longest = longest
        self._index = {word: i + 2 for i, word in enumerate(self.vocabulary)}
        self._shown = frozenset(self.trained)
        self.embedding: nn.Module
        if vectors is None:
            self.embedding = nn.Embedding(len(self.vocabulary) + 2, width)
        else:
            self.embedding = WordVectors(len(self.vocabulary), vectors, width)
        self.position = nn.Parameter(0.02 * torch.randn(longest, width))
        layer = nn.TransformerEncoderLayer(width, 6, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """(B, longest) token numbers; words that mean nothing to it are left out, words past the end are cut."""
        rows = []
        for prompt in prompts:
            row = [0, *(self._index[word] for word in self.heard(prompt))][: self.longest]
            rows.append(row + [1] * (self.longest - len(row)))
        return torch.tensor(rows, device=self.position.device)

    def heard(self, prompt: str) -> list[str]:
        """The words that the network hears, in their order."""
        return [heard for word in words(prompt) if (heard := self._heard_as(word)) is not None]

    def _heard_as(self, word: str) -> str | None:
        """The trained word that it is heard as; None: it is left out.

        The network has learnt a few points of the space of vectors and what lies between them is anyone's guess: handed
        on as it is, a neighbour's vector was often heard as another word (docs/log.md, 2026-11-26).
        """
        if word in self._shown:
            return word
        if word in FILLERS:
            return None
        nearest, alike = self._nearest(word)
        return nearest if alike >= NEAR else None

    def _nearest(self, word: str) -> tuple[str, float]:
        """The trained word of the nearest vector, and its cosine; -1 for a word that has none."""
        if not isinstance(self.embedding, WordVectors) or word not in self._index:
            return "", -1.0
        table = self.embedding.table
        alike = table[[self._index[other] - 2 for other in self.trained]] @ table[self._index[word] - 2]
        return self.trained[int(alike.argmax())], float(alike.max())

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L) -> the sentence (B, width), its words (B, L, width), and which of them are there (B, L)"""
        heard = tokens != 1
        x = self.embedding(tokens) + self.position
        x = self.norm(self.layers(x, src_key_padding_mask=~heard))
        return x[:, 0], x, heard

    def remarks(self, prompt: str) -> list[str]:
        """What of a prompt is not heard, or heard as another word, a sentence each; what is past the end."""
        said = []
        for word in dict.fromkeys(words(prompt)):
            if word in self._shown or word in FILLERS:
                continue
            nearest, alike = self._nearest(word)
            if alike >= NEAR:
                said.append(f"the model was never shown the word {word!r} and hears {nearest!r}")
                continue
            # A word with a vector is no slip of the pen: what it means is nearer than what it looks like.
            close = [nearest] if nearest else get_close_matches(word, self.trained, n=3, cutoff=0.6)
            hint = f"; the closest words it knows: {', '.join(close)}" if close else ""
            said.append(f"the model does not know the word {word!r} and leaves it out{hint}")
        heard = self.heard(prompt)
        if prompt.strip() and not heard:
            said.append("the model knows no word of the prompt and shows whatever it likes")
        if len(heard) >= self.longest:
            said.append(f"the prompt is long; the model hears its first {self.longest - 1} known words")
        return said
