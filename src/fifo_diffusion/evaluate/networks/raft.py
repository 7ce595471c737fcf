"""RAFT (arXiv:2003.12039): optical flow by repeated correction.  The large network, trained on FlyingChairs and
FlyingThings ("raft-things").

Features of both pictures at an eighth of their size are compared place by place with place; from 0, the flow is
corrected again and again by a recurrent unit that looks up how well the places around where it points fit, at four
scales.  Section 3 of the paper; layer sizes by its weights, whose names are kept.

Letters: N pairs, H W height and width in pixels, h w an eighth of them, C channels, L scales, R reach in places.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.evaluate.networks.layers import fold, shorter_side

SIDE = 256  # pixels of the shorter side as the network sees it: near what it was trained on
STEPS = 12  # corrections: as many as it was trained with
_HIDDEN = 128
_SCALES, _REACH = 4, 4


class RAFT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fnet = _Encoder(256, normalise=True)
        self.cnet = _Encoder(2 * _HIDDEN, normalise=False)  # its batch normalisation is folded in
        self.update_block = _Update()

    def forward(self, one: Tensor, other: Tensor, steps: int = STEPS) -> Tensor:
        """Two (N, 3, H, W) in [-1, 1], H and W multiples of 8 -> (N, 2, H, W): where each pixel of the one lies in the
        other, as x and y in pixels from where it was.
        """
        first, second = self.fnet(torch.cat([one, other])).chunk(2)
        fits = _scales(first, second)
        hidden, context = self.cnet(one).split(_HIDDEN, dim=1)
        hidden, context = hidden.tanh(), context.relu()
        start = _places(first)
        flow = torch.zeros_like(start)
        for _ in range(steps):
            hidden, change = self.update_block(hidden, context, _look_up(fits, start + flow), flow)
            flow = flow + change
        return _eightfold(flow, 0.25 * self.update_block.mask(hidden))


class _Encoder(nn.Module):
    def __init__(self, after: int, normalise: bool) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.layer1 = nn.Sequential(_Residual(64, 64, 1, normalise), _Residual(64, 64, 1, normalise))
        self.layer2 = nn.Sequential(_Residual(64, 96, 2, normalise), _Residual(96, 96, 1, normalise))
        self.layer3 = nn.Sequential(_Residual(96, 128, 2, normalise), _Residual(128, 128, 1, normalise))
        self.conv2 = nn.Conv2d(128, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = _norm(self.conv1(x), self.normalise).relu()
        out: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return out


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, step: int, normalise: bool) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv1 = nn.Conv2d(before, after, 3, step, 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.downsample = nn.Conv2d(before, after, 1, step) if step > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = _norm(self.conv1(x), self.normalise).relu()
        y = _norm(self.conv2(y), self.normalise).relu()
        if self.downsample is not None:
            x = _norm(self.downsample(x), self.normalise)
        return (x + y).relu()


def _norm(x: Tensor, wanted: bool) -> Tensor:
    """Each channel of each picture to mean 0 and variance 1."""
    return functional.instance_norm(x) if wanted else x


class _Update(nn.Module):
    """Section 3.3: what fits, and the flow so far, to a correction of the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Motion()
        self.gru = nn.ModuleDict()
        for number, kernel in (("1", (1, 5)), ("2", (5, 1))):  # along, then across
            padding = (kernel[0] // 2, kernel[1] // 2)
            for gate in "zrq":
                self.gru[f"conv{gate}{number}"] = nn.Conv2d(2 * _HIDDEN + 128, _HIDDEN, kernel, padding=padding)
        self.flow_head = nn.ModuleDict({"conv1": nn.Conv2d(128, 256, 3, padding=1)})
        self.flow_head["conv2"] = nn.Conv2d(256, 2, 3, padding=1)
        self.mask = nn.Sequential(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 64 * 9, 1))

    def forward(self, hidden: Tensor, context: Tensor, fits: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        told = torch.cat([context, self.encoder(flow, fits)], dim=1)
        for number in "12":
            both = torch.cat([hidden, told], dim=1)
            keep = self.gru[f"convz{number}"](both).sigmoid()
            reset = self.gru[f"convr{number}"](both).sigmoid()
            new = self.gru[f"convq{number}"](torch.cat([reset * hidden, told], dim=1)).tanh()
            hidden = (1 - keep) * hidden + keep * new
        return hidden, self.flow_head["conv2"](self.flow_head["conv1"](hidden).relu())


class _Motion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(_SCALES * (2 * _REACH + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(192 + 64, 126, 3, padding=1)

    def forward(self, flow: Tensor, fits: Tensor) -> Tensor:
        fits = self.convc2(self.convc1(fits).relu()).relu()
        moves = self.convf2(self.convf1(flow).relu()).relu()
        return torch.cat([self.conv(torch.cat([fits, moves], dim=1)).relu(), flow], dim=1)


def _scales(first: Tensor, second: Tensor) -> list[Tensor]:
    """Section 3.2: how well every place of the one fits every place of the other, L times, each half as fine:
    (N h w, 1, h', w').
    """
    n, c, h, w = first.shape
    fits = (first.flatten(2).mT @ second.flatten(2) / c**0.5).view(n * h * w, 1, h, w)
    out = [fits]
    for _ in range(_SCALES - 1):
        # A side of one place is held: half of it would be none.
        halves = [2 if side > 1 else 1 for side in out[-1].shape[2:]]
        out.append(functional.avg_pool2d(out[-1], halves, halves))
    return out


def _look_up(scales: list[Tensor], at: Tensor) -> Tensor:
    """What fits within reach of places `at` (N, 2, h, w): (N, L (2R + 1)^2, h, w); nothing fits outside the picture."""
    n, _, h, w = at.shape
    reach = torch.arange(-_REACH, _REACH + 1, dtype=at.dtype, device=at.device)
    around = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), dim=-1)  # the weights go through x first
    centre = at.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    out = []
    for i, fits in enumerate(scales):
        size = torch.tensor([fits.shape[3], fits.shape[2]], dtype=at.dtype, device=at.device)
        places = (2 * (centre / 2**i + around) + 1) / size - 1
        found = functional.grid_sample(fits, places, align_corners=False)
        out.append(found.view(n, h, w, -1))
    return torch.cat(out, dim=-1).permute(0, 3, 1, 2)


def _places(like: Tensor) -> Tensor:
    """x and y of each place, (N, 2, h, w)."""
    n, _, h, w = like.shape
    y, x = torch.meshgrid(
        torch.arange(h, dtype=like.dtype, device=like.device),
        torch.arange(w, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack([x, y]).expand(n, -1, -1, -1)


def _eightfold(flow: Tensor, mask: Tensor) -> Tensor:
    """Each fine pixel is a mixture, by the mask, of the nine coarse places around it: (N, 2, h, w) -> (N, 2, H, W)."""
    h, w = flow.shape[2:]
    shares = mask.view(-1, 9, 64, h, w).softmax(dim=1)
    around = functional.unfold(8 * flow, 3, padding=1).view(-1, 2, 9, h, w)
    return functional.pixel_shuffle(torch.einsum("nkphw,nckhw->ncphw", shares, around).flatten(1, 2), 8)


def seen(frames: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> as the network sees them, in [-1, 1]: the shorter side 256 pixels, multiples of 8."""
    return shorter_side(frames, SIDE, 8) / 127.5 - 1


def converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published file's tensors, with the batch normalisation of the context network folded in."""
    plain = {name.removeprefix("module."): value for name, value in tensors.items()}
    out = {}
    for name in [name for name in plain if name.endswith(".weight") and plain[name].ndim == 4]:
        unit = name.removesuffix(".weight")
        weight, bias = plain[name], plain[f"{unit}.bias"]
        norm = unit[:-1] + "1" if unit.endswith("downsample.0") else unit.replace("conv", "norm")
        if unit.startswith("cnet.") and f"{norm}.running_mean" in plain:
            parts = ("running_mean", "running_var", "weight", "bias")
            mean, var, scale, shift = (plain[f"{norm}.{part}"] for part in parts)
            weight, bias = fold(weight, mean, var, shift, scale=scale, bias=bias, eps=1e-5)
        ours = unit.removesuffix(".0") if unit.endswith("downsample.0") else unit
        out[f"{ours}.weight"], out[f"{ours}.bias"] = weight, bias
    return out
