"""An exact network with no weights: every latent pixel is a stationary AR(1) Gaussian over frames.

Its posterior mean is a linear solve, right for any mix of noise levels in a window, so that what a plan
or a schedule does to the video can be told from what a network does.

Letters: B streams, C channels, F frames of the window, H W latent height and width, K levels.
"""

import re
from collections.abc import Sequence
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


@dataclass(frozen=True, eq=False)
class GaussianVideo:
    """A Denoiser for videos with mean `cond["mean"]` (B,), or (B, F) for each frame its own, or 0; unit variance and
    correlation rho^d over d frames.

    Raises BadInput for rho outside (-1, 1), or a schedule that tells two different levels by the same time.
    """

    schedule: NoiseSchedule
    rho: float = 0.9

    def __post_init__(self) -> None:
        if not -1 < self.rho < 1:
            raise BadInput(f"rho is {self.rho}; the correlation of neighbouring frames lies between -1 and 1")
        s = self.schedule
        same = s.time[:, None] == s.time
        if bool((same & ((s.alpha[:, None] != s.alpha) | (s.sigma[:, None] != s.sigma))).any()):
            raise BadInput(
                "the schedule has different levels at the same time, so time does not tell how noisy a frame is"
            )

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """(B, C, F, H, W), (B, F) -> (B, C, F, H, W): the posterior mean of what the schedule predicts.

        With prior P (F, F), A = diag(alpha), S = diag(sigma) and y = (A P A + S S)^-1 (z - A mean):
        E[x0 | z] = mean + P A y and E[eps | z] = S y.  Nothing is divided by alpha or sigma.
        """
        dtype = compute_dtype(z)
        level = (self.schedule.time.to(t) - t[..., None]).abs().argmin(dim=-1).to(z.device)  # (B, F)
        a = self.schedule.alpha.to(dtype).to(z.device)[level]
        s = self.schedule.sigma.to(dtype).to(z.device)[level]
        frame = torch.arange(t.shape[1], device=z.device)
        prior: Tensor = torch.tensor(self.rho, dtype=dtype, device=z.device) ** (frame[:, None] - frame).abs()
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
