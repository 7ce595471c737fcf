"""The text encoder of the embedded model: words it knows and two small transformer layers.

Words it does not know are left out, and said so with the nearest ones it does know. With fixed word vectors it also
hears words that it was never trained on, as their neighbours; where the nearest is far, that is said too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

# Words that carry nothing the world can show; leaving them out needs no warning.
FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "over",
        "above",
        "in",
        "at",
        "on",
        "to",
        "is",
        "and",
        "with",
        "its",
        "it",
        "by",
        "through",
        "across",
    ]
)


NEAR = 0.55  # the cosine of two words' vectors from which one may stand for the other


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

        vectors: the size of fixed word vectors, from which the words' embeddings are a linear map; so words that
        were never trained on lie near their neighbours. None: an embedding is learnt for every word."""
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.trained = tuple(vocabulary if trained is None else trained)
        self.longest = longest
        self._index = {word: i + 2 for i, word in enumerate(self.vocabulary)}
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
        """(B, longest) token numbers; unknown words are left out, words past the end are cut."""
        rows = []
        for prompt in prompts:
            known = [self._index[w] for w in words(prompt) if w in self._index]
            row = [0, *known][: self.longest]
            rows.append(row + [1] * (self.longest - len(row)))
        return torch.tensor(rows, device=self.position.device)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L) -> the sentence (B, width), its words (B, L, width), and which of them are there (B, L)"""
        heard = tokens != 1
        x = self.embedding(tokens) + self.position
        x = self.norm(self.layers(x, src_key_padding_mask=~heard))
        return x[:, 0], x, heard

    def remarks(self, prompt: str) -> list[str]:
        """What of a prompt is not heard, a sentence each: words it does not know, words past the end."""
        said = []
        for word in dict.fromkeys(words(prompt)):
            if word not in self._index and word not in FILLERS:
                close = get_close_matches(word, self.trained, n=3, cutoff=0.6)
                nearest = f"; the closest words it knows: {', '.join(close)}" if close else ""
                said.append(f"the model does not know the word {word!r} and leaves it out{nearest}")
        if isinstance(self.embedding, WordVectors):
            said += self._guesses(prompt, self.embedding.table)
        known = [word for word in words(prompt) if word in self._index]
        if prompt.strip() and not known:
            said.append("the model knows no word of the prompt and shows whatever it likes")
        if len(known) >= self.longest:
            said.append(f"the prompt is long; the model hears its first {self.longest - 1} known words")
        return said

    def _guesses(self, prompt: str, table: Tensor) -> Iterator[str]:
        """What is said of words that have a vector but were never trained on, and have no near neighbour that was."""
        shown = table[[self._index[word] - 2 for word in self.trained]]
        for word in dict.fromkeys(words(prompt)):
            if word in self._index and word not in self.trained and word not in FILLERS:
                alike = shown @ table[self._index[word] - 2]
                nearest = self.trained[int(alike.argmax())]
                if alike.max() < NEAR:
                    yield f"the model was never shown the word {word!r}; the nearest it was shown is {nearest!r}"
