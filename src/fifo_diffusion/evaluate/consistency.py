"""Whether subject and background stay the same, by EfficientNet-Lite0's features.

VBench (arXiv:2311.17982) defines subject consistency by DINO's and background consistency by CLIP's features of whole
frames: the mean of a frame's cosine to the first and to the one before.  Neither network is to be had in a package, so
the numbers here are of the same form but do not compare with VBench's.

Where the subject is, the features themselves tell (SCDA, arXiv:1604.04994): places whose features are stronger than the
frame's mean are its subject, the others its background.  So a subject may move, which a fixed mask in the middle would
not allow; and no second network is needed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fifo_diffusion.evaluate.metric import Meter, Metric, Quantity, Reading, Video
from fifo_diffusion.evaluate.networks import efficientnet, obtain

_AT_ONCE = 8  # frames

SUBJECT = "subject consistency (EfficientNet-Lite0)"
BACKGROUND = "background consistency (EfficientNet-Lite0)"
_SAYS = "mean cosine of a frame's features to the first frame's and to the one before's, as VBench defines it; of "


class Consistency(Metric):
    name = "consistency"
    needs = "EfficientNet-Lite0 (fifo evaluate fetch efficientnet)"
    quantities = (
        Quantity(SUBJECT, "%", _SAYS + "places with strong features; a still video has 100", "higher"),
        Quantity(BACKGROUND, "%", _SAYS + "the other places; a still video has 100", "higher"),
    )

    def missing(self) -> str | None:
        return obtain.missing("efficientnet")

    def begin(self, video: Video) -> Meter:
        net = obtain.network("efficientnet", video.device)
        assert isinstance(net, efficientnet.EfficientNet)
        return _Kept(net, video.device)


class _Kept(Meter):
    def __init__(self, net: efficientnet.EfficientNet, device: str) -> None:
        self._net, self._device = net, device
        self._first: Tensor | None = None  # (2, C): subject and background of the first frame
        self._last: Tensor | None = None

    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        for part in torch.split(frames, _AT_ONCE):
            seen = torch.stack(apart(efficientnet.features(self._net, part.to(self._device)).float()), dim=1)
            if self._first is None or self._last is None:
                self._first = self._last = seen[0]
            before = torch.cat([self._last[None], seen[:-1]])
            alike = (cosine_similarity(seen, self._first[None], dim=2) + cosine_similarity(seen, before, dim=2)) / 2
            for frame, (subject, background) in enumerate((100 * alike).tolist(), first):
                if frame > 0:
                    yield Reading(SUBJECT, frame, subject)
                    yield Reading(BACKGROUND, frame, background)
            self._last = seen[-1]
            first += len(part)


def apart(features: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, h, w), none below 0 -> the mean features of the subject and of the background, (N, C) each."""
    strength = features.sum(dim=1, keepdim=True)
    subject = (strength > strength.mean(dim=(2, 3), keepdim=True)).to(features.dtype)
    shares = [mask / mask.sum(dim=(2, 3), keepdim=True).clamp(min=1) for mask in (subject, 1 - subject)]
    inside, outside = ((features * share).sum(dim=(2, 3)) for share in shares)
    return inside, outside


METRICS = (Consistency(),)
