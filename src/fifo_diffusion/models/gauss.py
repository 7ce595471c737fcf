"""An exact network with no weights: every latent pixel is a stationary Gaussian over frames, AR(1) unless told.

Its posterior mean is a linear solve, right for any mix of noise levels in a window, so that what a plan
or a schedule does to the video can be told from what a network does.

Letters: B streams, C channels, F frames of the window, H W latent height and width, K levels.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fifo_diffusion.decode import PerFrame
from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.base import Model
from fifo_diffusion.protocols import Cond
from fifo_diffusion.schedule import (
    NoiseSchedule,
    compute_dtype,
    paper,
    rectified_flow,
    scaled_linear_betas,
)

Autocovariance = Callable[[Tensor], Tensor]
"""The covariance of frames d >= 0 apart, elementwise: integers (...) in float -> (...)."""


def ar(rho: float) -> Autocovariance:
    """AR(1), unit variance: rho^d.  Raises BadInput for rho outside (-1, 1)."""
    if not -1 < rho < 1:
        raise BadInput(f"rho is {rho}; the correlation of neighbouring frames lies between -1 and 1")
    return lambda d: torch.tensor(rho, dtype=d.dtype, device=d.device) ** d


def mixture(share: float, one: Autocovariance, other: Autocovariance) -> Autocovariance:
    """The sum of two independent videos, the first with `share` of the variance."""
    return lambda d: share * one(d) + (1 - share) * other(d)


def wave(period: float, rho: float) -> Autocovariance:
    """What a pixel sees of a travelling wave of random phase that passes it every `period` frames and is renewed like
    an AR(1): rho^d cos(2 pi d / period).
    """
    fading = ar(rho)
    return lambda d: fading(d) * torch.cos(2 * math.pi / period * d)


@dataclass(frozen=True, eq=False)
class GaussianVideo:
    """A Denoiser for videos with mean `cond["mean"]` (B,), or (B, F) for each frame its own, or 0.  The frames of a
    window follow each other, unless `cond["frame"]` (B, F) has their numbers.

    rho: unit variance and correlation rho^d over d frames.  autocovariance: any other stationary video, in its place.
    Raises BadInput for rho outside (-1, 1), for what is no autocovariance, or for a schedule that tells two different
    levels by the same time.
    """

    schedule: NoiseSchedule
    rho: float = 0.9
    autocovariance: Autocovariance | None = None

    def __post_init__(self) -> None:
        least = float(torch.linalg.eigvalsh(self.prior(torch.arange(64, dtype=torch.float64)))[0])
        if not least > -1e-9:
            raise BadInput(
                f"the autocovariance gives 64 frames a covariance with the eigenvalue {least:.3g}; none may be below 0"
            )
        s = self.schedule
        same = s.time[:, None] == s.time
        if bool((same & ((s.alpha[:, None] != s.alpha) | (s.sigma[:, None] != s.sigma))).any()):
            raise BadInput(
                "the schedule has different levels at the same time, so time does not tell how noisy a frame is"
            )

    def prior(self, frame: Tensor) -> Tensor:
        """The covariance of the frames of these numbers, (..., F) -> (..., F, F) in their dtype."""
        apart = (frame[..., None] - frame[..., None, :]).abs()
        return (ar(self.rho) if self.autocovariance is None else self.autocovariance)(apart)

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """(B, C, F, H, W), (B, F) -> (B, C, F, H, W): the posterior mean of what the schedule predicts.

        With prior P (F, F), A = diag(alpha), S = diag(sigma) and y = (A P A + S S)^-1 (z - A mean):
        E[x0 | z] = mean + P A y and E[eps | z] = S y.  Nothing is divided by alpha or sigma.
        """
        dtype = compute_dtype(z)
        level = (self.schedule.time.to(t) - t[..., None]).abs().argmin(dim=-1).to(z.device)  # (B, F)
        a = self.schedule.alpha.to(dtype).to(z.device)[level]
        s = self.schedule.sigma.to(dtype).to(z.device)[level]
        prior = self.prior(cond.get("frame", torch.arange(t.shape[1])).to(a))
        mean = cond["mean"].to(z.device, dtype) if "mean" in cond else z.new_zeros(len(z), dtype=dtype)
        mean = mean.view(len(z), -1, 1)

        rows = z.to(dtype).transpose(1, 2).flatten(2)  # (B, F, C H W)
        seen = a[:, :, None] * prior * a[:, None, :] + torch.diag_embed(s**2)
        y: Tensor = torch.linalg.solve(seen, rows - a[..., None] * mean)
        x0 = mean + prior @ (a[..., None] * y)
        eps = s[..., None] * y
        match self.schedule.predicts:
            case "noise":
                out = eps
            case "velocity":
                out = a[..., None] * eps - s[..., None] * x0
            case "sample":
                out = x0
            case "flow":
                out = eps - x0
        return out.view(*z.transpose(1, 2).shape).transpose(1, 2).to(z.dtype)


class Gauss(Model):
    """The Gaussian video as a model to run: three latent channels shown as red, green and blue.  A prompt that is a
    number is the video's mean, in deviations; of other text it hears nothing.  It always computes in float32."""

    channels = 3
    per_frame_text = True

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def schedule(self, levels: int, table: str) -> NoiseSchedule:
        return paper(scaled_linear_betas(), levels) if table == "paper" else rectified_flow(levels)

    def denoiser(self, schedule: NoiseSchedule) -> GaussianVideo:
        return GaussianVideo(schedule)

    def embed(self, prompts: Sequence[str]) -> Cond:
        means = [float(prompt) if re.fullmatch(r"-?\d{1,3}(\.\d+)?", prompt.strip()) else 0.0 for prompt in prompts]
        return {"mean": torch.tensor(means, device=self.device)}

    def decoder(self) -> PerFrame:
        return PerFrame(lambda latents: latents / 3)  # three deviations fill the range


def load(device: torch.device, dtype: torch.dtype, weights: str | None) -> Gauss:
    return Gauss(device, dtype)
