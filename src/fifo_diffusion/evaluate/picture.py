"""How each frame looks by itself: sharpness, brightness, contrast, saturation.  Their course over time shows drift."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from fifo_diffusion.evaluate.metric import Meter, Metric, Quantity, Reading, Video

_LAPLACE = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]


def luma(frames: Tensor) -> Tensor:
    """(n, 3, h, w) uint8 RGB -> (n, h, w) float32, 0 to 255: the luma of ITU-R BT.601, of the coded values."""
    red, green, blue = frames.float().unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


class Picture(Metric):
    """Of frames one by one."""

    name = "picture"
    quantities = (
        Quantity(
            "sharpness", "grey levels²", "variance of the Laplacian of BT.601 luma (Pech-Pacheco 2000); noise raises it"
        ),
        Quantity("brightness", "grey levels", "mean BT.601 luma, 0 to 255"),
        Quantity("contrast", "grey levels", "standard deviation of luma over the picture"),
        Quantity("saturation", "%", "mean saturation of HSV: (max - min) / max of red, green and blue"),
    )

    def begin(self, video: Video) -> Meter:
        return _Looks()


class _Looks(Meter):
    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        y = luma(frames)
        edges = conv2d(y[:, None], _LAPLACE)[:, 0] if min(y.shape[1:]) >= 3 else torch.zeros_like(y)
        most, least = frames.amax(1).float(), frames.amin(1).float()
        found = {
            "sharpness": edges.var((1, 2), correction=0),
            "brightness": y.mean((1, 2)),
            "contrast": y.std((1, 2), correction=0),
            "saturation": 100 * ((most - least) / most.clamp(min=1)).mean((1, 2)),
        }
        for name, values in found.items():
            for frame, value in enumerate(values.tolist(), first):
                yield Reading(name, frame, value)


METRICS = (Picture(),)
