"""The video network of the embedded model: a transformer over all latent patches of a window.

Attention runs over space and time together (a window is only 256 tokens), so something that moves across
the picture is one hop away.  Positions are rotary (arXiv:2104.09864) along time, height and width, so the
network knows distances and not places in the window.  Timestep and text modulate each frame on its own
(adaLN-zero, arXiv:2212.09748), and each frame reads words of its own, so every frame may be at another noise level
and hear another prompt.

Letters: B streams, C latent channels, F frames, H W latent size, D width, N tokens of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from fifo_diffusion.models.attend import attention
from fifo_diffusion.models.embedded import detail
from fifo_diffusion.models.embedded.norm import Norm
from fifo_diffusion.models.linear import Linear, LinearGelu
from fifo_diffusion.protocols import Turn
from fifo_diffusion.schedule import cosine

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values (B, heads, N, head) -> like them


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)
        self.out = Linear(width, width, bias=False)
        self.attend: Attend = attention  # see `Embedded.attend_over`

    def tables(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """(N, head) each, see `_rotary` -> (N, 2, 1, head): with the weights of the queries' and of the keys' norm in
        them, which saves passes."""
        weight = torch.stack([self.q_norm.weight, self.k_norm.weight])[:, None]  # (2, 1, head)
        half = cos.shape[1] // 2
        return cos[:, None, None] * weight, sin[:, None, None] * weight.roll(half, dims=-1)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (B, N, D); cos and sin from `tables`"""
        b, n, d = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, d // self.heads)
        qk, v = qkv[:, :, :2], qkv[:, :, 2]
        # Norm and rotation of queries and keys together.
        half = d // self.heads // 2
        qk = rms_norm(qk, qk.shape[-1:])
        turned = qk * cos
        turned[..., :half].addcmul_(qk[..., half:], sin[..., :half])
        turned[..., half:].addcmul_(qk[..., :half], sin[..., half:])
        q, k = turned.unbind(2)
        mixed = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(b, n, d))
        return out


class _Reading(nn.Module):
    """Attention from the video's tokens to the words; each frame may have words of its own."""

    def __init__(self, width: int, heads: int, text: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(width, width, bias=False)
        self.kv = Linear(text, 2 * width, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)
        self.out = Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def said(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """(B, G, L, text), G being 1, or F where each frame has its own -> keys (B G, h, head, L), values (B G, h, L,
        head)"""
        n, h, head = words.shape[2], self.heads, len(self.q_norm.weight)
        k, v = self.kv(words).view(-1, n, 2, h, head).permute(2, 0, 3, 1, 4)
        scale = head**-0.5 * self.q_norm.weight  # on the few keys instead of the many queries
        return (self.k_norm(k) * scale).transpose(-1, -2), v

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, unheard: Tensor, plus: Tensor) -> Tensor:
        """x and plus, which is added, (B, F, T, D); keys and values from `said`; unheard (B G, 1, 1, L), -inf for a
        word that is not there and else 0.

        Written out: over so few words it takes half the time of torch's own attention on a CPU.
        """
        texts, h = values.shape[:2]
        q = self.q(x).view(texts, -1, h, values.shape[3]).transpose(1, 2)
        logits = rms_norm(q, q.shape[-1:]) @ keys
        read = (logits + unheard).softmax(dim=-1) @ values
        out: Tensor = self.out(read.transpose(1, 2).reshape(x.shape), plus)
        return out


class _Told(NamedTuple):
    """What a block is told beside its tokens."""

    modulation: Sequence[Tensor]  # shift, scale, gate, and again; (B, F, 1, D) each, the scales with 1 added
    turns: tuple[Tensor, Tensor]  # `_Attention.tables`
    said: tuple[Tensor, Tensor]  # `_Reading.said`
    unheard: Tensor


class Told(NamedTuple):
    """All that follows from times, texts and sizes, and not from the latents: 5 % of the time on a CPU.  FIFO asks the
    same times in every iteration."""

    blocks: Sequence[_Told]
    shift: Tensor  # (B, F, 1, D)
    scale: Tensor  # likewise, with 1 added
    known: tuple[Tensor, Tensor] | None  # `Spectrum.known`
    detail: detail.Told | None  # `Detail.told`


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, text: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.reading = _Reading(width, heads, text)
        self.mlp = nn.Sequential(LinearGelu(width, 4 * width), nn.Identity(), Linear(4 * width, width))
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.modulation = Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def told(self, hint: Tensor, words: Tensor, unheard: Tensor, cos: Tensor, sin: Tensor) -> _Told:
        """hint (B, F, D); words and unheard as `_Reading` has them; cos and sin (N, head), see `_rotary`"""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(hint)[:, :, None].chunk(6, dim=-1)
        modulation = shift1, 1 + scale1, gate1, shift2, 1 + scale2, gate2
        return _Told(modulation, self.attention.tables(cos, sin), self.reading.said(words), unheard)

    def forward(self, x: Tensor, told: _Told) -> Tensor:
        """x (B, F, T, D) with T tokens a frame"""
        b, f, t, d = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = told.modulation
        y = torch.addcmul(shift1, self.norm1(x), scale1)
        x = torch.addcmul(x, gate1, self.attention(y.view(b, f * t, d), *told.turns).view(b, f, t, d))
        x = self.reading(self.norm1(x), *told.said, told.unheard, x)
        return torch.addcmul(x, gate2, self.mlp(torch.addcmul(shift2, self.norm2(x), scale2)))


class Spectrum(nn.Module):
    """The principal components of a patch, and what of the velocity follows from a noisy component by itself.

    A patch may hold as many numbers as the network is wide, and most of them are noise most of the time, which the
    network would have to carry from end to end.  Of a component whose variance l is below 1 the best linear guess of
    the velocity a e - s x from z = a x + s e is  a s (1 - l) / (a^2 l + s^2) z,  and what is left has the deviation
    sqrt(l / (a^2 l + s^2)): the network predicts that, at variance 1.  For l = 1 it is the velocity itself.
    """

    basis: Tensor
    variance: Tensor
    kept: Tensor

    def __init__(self, size: int, timesteps: int = 1000) -> None:
        super().__init__()
        self.register_buffer("basis", torch.eye(size))  # columns
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("kept", cosine(timesteps).float(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The tables stay in float32: in half precision all that is nearly 1 is 1, and at low noise `kept` is."""
        kept, variance = self.kept, self.variance
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.kept, self.variance = kept.to(self.kept.device), variance.to(self.variance.device)
        return self

    def known(self, t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """t (B, F) -> the factors of z and of the network's output, (B, F, 1, components) each"""
        kept, own = self.kept[t.round().long()][..., None, None], self.variance.clamp(max=1)
        through = kept * own + (1 - kept)
        return ((kept * (1 - kept)).sqrt() * (1 - own) / through).to(dtype), (own / through).sqrt().to(dtype)

    @torch.no_grad()
    def fit(self, patches: Tensor) -> None:
        """(N, size): measure on real ones."""
        second = patches.double().T @ patches.double() / len(patches)
        variance, basis = torch.linalg.eigh(second)
        self.basis.copy_(basis.flip(1))
        self.variance.copy_(variance.flip(0).clamp(min=0))


class VideoTransformer(nn.Module):
    """Predicts the velocity alpha * noise - sigma * x0 (arXiv:2202.00512)."""

    def __init__(
        self,
        channels: int = 12,
        width: int = 192,
        depth: int = 8,
        heads: int = 6,
        patch: int = 2,
        text: int = 192,
        spectral: bool = False,
        fine: int | None = None,
    ) -> None:
        """spectral: for large patches, see `Spectrum`.  fine: the width of what sharpens them (`Detail`), if any."""
        super().__init__()
        self.channels, self.width, self.patch, self.head = channels, width, patch, width // heads
        self.spectrum = Spectrum(channels * patch**2) if spectral else None
        self.enter = Linear(channels * patch**2, width)
        self.time = nn.Sequential(Linear(width, width), nn.SiLU(), Linear(width, width))
        self.text = Linear(text, width)
        self.blocks = nn.ModuleList(_Block(width, heads, text) for _ in range(depth))
        self.norm = Norm(width)
        self.modulation = Linear(width, 2 * width)
        self.leave = Linear(width, channels * patch**2)
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.detail = None if fine is None else detail.Detail(channels, patch, width, fine)

    def attentions(self) -> Iterator[_Attention]:
        """Every attention over space and time."""
        return (module for module in self.modules() if isinstance(module, _Attention))

    def forward(
        self, z: Tensor, t: Tensor, text: Tensor, words: Tensor, heard: Tensor, turn: Turn | None = None
    ) -> Tensor:
        """z (B, C, F, H, W), t (B, F) timesteps in [0, 1000) -> like z

        text (B, G, D), words (B, G, L, D), heard (B, G, L): see `TextEncoder`; G is 1, or F for a text a frame.
        turn: of the positions in time, what turns otherwise than it was trained to.
        """
        return self.answer(z, self.told(t, text, words, heard, z.shape[3], z.shape[4], turn))

    def told(
        self,
        t: Tensor,
        text: Tensor,
        words: Tensor,
        heard: Tensor,
        height: int,
        width: int,
        turn: Turn | None = None,
    ) -> Told:
        """The half of `forward` that does not depend on the latents."""
        dtype, p = text.dtype, self.patch
        hint = nn.functional.silu(self.time(_waves(t, self.width).to(dtype)) + self.text(text))
        cos, sin = _rotary(t.shape[1], height // p, width // p, self.head, t.device, dtype, turn)
        unheard = torch.zeros_like(heard, dtype=dtype).masked_fill_(~heard, -torch.inf).flatten(0, 1)[:, None, None]
        shift, scale = self.modulation(hint)[:, :, None].chunk(2, dim=-1)
        known = None if self.spectrum is None else self.spectrum.known(t, dtype)
        blocks = [b.told(hint, words, unheard, cos, sin) for b in self.blocks if isinstance(b, _Block)]
        sharpen = None if self.detail is None else self.detail.told(hint)
        return Told(blocks, shift, 1 + scale, known, sharpen)

    def answer(self, z: Tensor, told: Told) -> Tensor:
        """The other half."""
        b, c, f, h, w = z.shape
        p = self.patch
        x = patches(z, p)
        if self.spectrum is not None:
            seen = x = x @ self.spectrum.basis
        x = self.enter(x)
        for block, of_block in zip(self.blocks, told.blocks, strict=True):
            x = block(x, of_block)
        x = torch.addcmul(told.shift, self.norm(x), told.scale)
        out: Tensor = self.leave(x)
        if self.spectrum is not None and told.known is not None:
            skip, gain = told.known
            out = torch.addcmul(skip * seen, gain, out) @ self.spectrum.basis.T
        out = out.view(b, f, h // p, w // p, c, p, p).permute(0, 4, 1, 2, 5, 3, 6)
        out = out.reshape(b, c, f, h, w)
        return out if self.detail is None or told.detail is None else self.detail(z, out, x, told.detail)


def patches(z: Tensor, p: int) -> Tensor:
    """(B, C, F, H, W) -> (B, F, H / p * W / p, C p p)"""
    b, c, f, h, w = z.shape
    return z.view(b, c, f, h // p, p, w // p, p).permute(0, 2, 3, 5, 1, 4, 6).reshape(b, f, -1, c * p * p)


def _waves(t: Tensor, width: int) -> Tensor:
    """Sinusoidal features of the timestep, (..., width); sec. 3.5 of arXiv:1706.03762."""
    rate = torch.exp(-math.log(10_000) / (width // 2) * torch.arange(width // 2, device=t.device))
    angle = t.float()[..., None] * rate
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _shares(head: int) -> tuple[int, int, int]:
    """Of the head's pairs, those for time, height and width."""
    pairs = head // 2
    return pairs - 2 * (pairs // 3), pairs // 3, pairs // 3


def time_rates(head: int) -> Tensor:
    """Radians a frame that each pair for time turns, the fastest first."""
    return math.pi / 2 * _slowing(_shares(head)[0])


def _slowing(pairs: int) -> Tensor:
    """How fast each of these pairs turns, in quarter turns a place."""
    return torch.logspace(0, -1.3, pairs)


@lru_cache(maxsize=8)
def _rotary(
    frames: int,
    rows: int,
    columns: int,
    head: int,
    device: torch.device,
    dtype: torch.dtype,
    turn: Turn | None = None,
) -> tuple[Tensor, Tensor]:
    """cos and sin, (N, head), sent to the device once: a share of the head's pairs for each of time, height and width.

    Entries i and i + head / 2 are a pair, (a, b) -> (a cos - b sin, b cos + a sin); sin has its sign with it.
    """
    place = torch.cartesian_prod(*(torch.arange(n).float() for n in (frames, rows, columns)))
    angles = [place[:, i : i + 1] * math.pi / 2 * _slowing(n)[None] for i, n in enumerate(_shares(head))]
    if turn is not None:
        angles[0][:, turn.component] = place[:, 0] * turn.rate
    angle = torch.cat(angles, dim=1)
    tables = torch.cat([angle.cos()] * 2, dim=1), torch.cat([-angle.sin(), angle.sin()], dim=1)
    cos, sin = (table.to(device, dtype) for table in tables)
    return cos, sin
