"""How different frames look from the one before and from the first, by LPIPS."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.evaluate.metric import Meter, Metric, Quantity, Reading, Video
from fifo_diffusion.evaluate.networks import lpips, obtain

_PIXELS = 2**18  # that the network sees at once: its layers hold some hundred numbers a pixel


class Perceptual(Metric):
    """LPIPS over AlexNet, which its authors advise for measuring, or over VGG-16, which is slower and finer."""

    def __init__(self, kind: lpips.Kind, full: str) -> None:
        self._kind: lpips.Kind = kind
        self.name = "lpips" if kind == "alex" else f"lpips-{kind}"
        self.usual = kind == "alex"
        self.needs = f"LPIPS over {full} (fifo evaluate fetch lpips-{kind})"
        self.quantities = (
            Quantity(
                f"LPIPS to the frame before ({full})",
                "",
                "how different neighbouring frames look (arXiv:1801.03924); a still video has 0, a cut some tenths",
            ),
            Quantity(
                f"LPIPS to the first frame ({full})",
                "",
                "how far the video has come from where it began; at rest where it stays of one kind",
            ),
        )

    def missing(self) -> str | None:
        return obtain.missing(f"lpips-{self._kind}")

    def suits(self, video: Video) -> bool:
        return min(video.size) >= lpips.LEAST[self._kind]

    def begin(self, video: Video) -> Meter:
        if not self.suits(video):
            least = lpips.LEAST[self._kind]
            raise BadInput(
                f"{video.name} is {video.size[0]}x{video.size[1]}; {self.name} needs {least} pixels each way"
            )
        net = obtain.network(f"lpips-{self._kind}", video.device)
        assert isinstance(net, lpips.LPIPS)
        return _Looks(net, video.device, self.quantities)


class _Looks(Meter):
    def __init__(self, net: lpips.LPIPS, device: str, quantities: tuple[Quantity, ...]) -> None:
        self._net, self._device = net, device
        self._before, self._first = quantities[0].name, quantities[1].name
        self._start: list[Tensor] | None = None  # the features of the first frame
        self._last: list[Tensor] | None = None

    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        for part in torch.split(frames, max(1, _PIXELS // (frames.shape[2] * frames.shape[3]))):
            found = lpips.features(self._net, part.to(self._device))
            if self._start is None or self._last is None:
                self._start = self._last = [layer[:1].clone() for layer in found]
            before = [_shifted(last, layer) for last, layer in zip(self._last, found, strict=True)]
            start = [kept.expand_as(layer) for kept, layer in zip(self._start, found, strict=True)]
            for name, other in ((self._before, before), (self._first, start)):
                for frame, value in enumerate(self._net.between(found, other).tolist(), first):
                    if frame > 0:
                        yield Reading(name, frame, value)
            self._last = [layer[-1:].clone() for layer in found]
            first += len(part)


def _shifted(last: Tensor, layer: Tensor) -> Tensor:
    """Of each frame the one before: (1, ...) and (n, ...) -> (n, ...)."""
    out = layer.roll(1, dims=0)
    out[0] = last[0]
    return out


METRICS = (Perceptual("alex", "AlexNet"), Perceptual("vgg", "VGG-16"))
