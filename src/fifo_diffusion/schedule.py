"""How noisy a frame is at each level, and how it moves one level down.

A latent at level k is  z = alpha[k] x0 + sigma[k] eps;  level 0 is clean, level K is noise.
Variance-preserving models have alpha^2 + sigma^2 = 1, rectified flows alpha + sigma = 1; the step
below is the same line for both.

Letters: B streams, C channels, F frames, H W latent height and width, K levels.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput

Predicts = Literal["noise", "velocity", "sample", "flow"]


class _Row(NamedTuple):
    """All that a step needs to know of a level; in use every field is (1, 1, F, 1, 1)."""

    alpha: Tensor
    sigma: Tensor
    x0_z: Tensor  # x0 = x0_z z + x0_out out
    x0_out: Tensor
    eps_z: Tensor  # eps = eps_z z + eps_out out
    eps_out: Tensor
    alpha_next: Tensor  # one level down
    down: Tensor  # share of sigma_next that is the predicted eps
    up: Tensor  # share of sigma_next that is fresh noise
    lean: Tensor  # second-order correction of the 2M step


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseSchedule:
    """The level table of a model, and the arithmetic that goes with it.

    alpha, sigma, time: (K + 1,), kept in float64; time is what the network is told, time[0] for frames
    already clean.  predicts: what the network's output is: `noise` eps, `velocity` alpha eps - sigma x0
    (arXiv:2202.00512), `sample` x0, or `flow` eps - x0.  limit: x0 is kept within +-limit, and eps is what is then
    left of z (diffusers' `clip_sample`); None for no limit.

    Raises BadInput for tables that are no noise schedule.
    """

    alpha: Tensor
    sigma: Tensor
    time: Tensor
    predicts: Predicts = "noise"
    limit: float | None = None
    _tables: dict[tuple[float, torch.dtype, torch.device], Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("alpha", "sigma", "time"):
            object.__setattr__(self, name, getattr(self, name).detach().to("cpu", torch.float64))
        a, s = self.alpha, self.sigma
        if self.predicts not in get_args(Predicts):
            raise BadInput(f"predicts is {self.predicts!r}; a network predicts one of {', '.join(get_args(Predicts))}")
        if not (a.ndim == 1 and len(a) >= 2 and a.shape == s.shape == self.time.shape):
            got = ", ".join(str(tuple(x.shape)) for x in (a, s, self.time))
            raise BadInput(
                f"alpha, sigma and time have shapes {got}; all three must be (levels + 1,), levels at least 1"
            )
        if not all(bool(x.isfinite().all()) for x in (a, s, self.time)):
            raise BadInput("the level table holds NaN or infinity; alpha, sigma and time must be finite")
        if bool((a.diff() > 0).any()) or bool((s.diff() < 0).any()):
            raise BadInput(
                "the level table goes the wrong way; from level 0 up alpha may not rise and sigma may not fall"
            )
        if float(s[0]) < 0 or float(s[1]) <= 0 or float(a[-1]) < 0 or float(a[-2]) <= 0:
            raise BadInput(
                "only level 0 may have sigma 0, only the last level may have alpha 0, and none may be negative"
            )
        if self.predicts == "noise" and float(a[-1]) == 0:
            raise BadInput(
                "alpha is 0 at the last level, where a network that predicts noise says "
                "nothing about the frame; "
                "use one that predicts velocity, sample or flow, or a table that stops short of 0"
            )

    @property
    def levels(self) -> int:
        """K."""
        return len(self.alpha) - 1

    def times(self, level: Tensor, like: Tensor) -> Tensor:
        """What the network is told at each level, (F,) -> (F,), on the device of `like` and never in half
        precision.
        """
        return self._table(like, 0.0)[-1][level.to(like.device)]

    def add_noise(self, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Clean frames (B, C, F, H, W) and unit noise -> the same frames, each at its own level (F,)."""
        row = self._row(level, x0, 0.0)
        return (row.alpha * x0 + row.sigma * noise).to(x0.dtype)

    def split(self, z: Tensor, out: Tensor, level: Tensor, known: int = 0) -> tuple[Tensor, Tensor]:
        """The clean frame x0 and the noise eps that the network's output stands for, in float32 or finer.

        known: how many of the first frames are the truth and no guess, which `limit` is for.
        At a level with sigma 0 there is no noise to see; a `sample` network's eps is then given as 0.
        """
        row = self._row(level, z, 0.0)
        x0, eps = row.x0_z * z + row.x0_out * out, row.eps_z * z + row.eps_out * out
        if self.limit is not None:
            x0 = torch.cat([x0[:, :, :known], x0[:, :, known:].clamp(-self.limit, self.limit)], dim=2)
            eps = torch.where(row.sigma > 0, (z - row.alpha * x0) / row.sigma, eps)
        return x0, eps

    def answer(self, z: Tensor, x0: Tensor, level: Tensor) -> Tensor:
        """What a network that knew the clean frame would say of z, each frame at its level, at least 1: `split` of it
        gives x0.
        """
        row = self._row(level, z, 0.0)
        return (x0 - row.x0_z * z) / row.x0_out

    def step(
        self, z: Tensor, out: Tensor, level: Tensor, eta: float = 0.0, noise: Tensor | None = None, known: int = 0
    ) -> Tensor:
        """Every frame one level down: DDIM, eq. 12 and 16 of arXiv:2010.02502, for any alpha and sigma.

        z, out, noise (B, C, F, H, W); level (F,), each at least 1; -> (B, C, F, H, W) in z's dtype.
        eta in [0, 1]: 0 draws nothing (and is the Euler step of a rectified flow); eta 1 is ancestral.
        known: see `split`.
        Raises BadInput when eta asks for noise and there is none.
        """
        if eta > 0 and noise is None:
            raise BadInput(f"a step with eta {eta} needs noise and got none; pass noise or eta 0")
        x0, eps = self.split(z, out, level, known)
        row = self._row(level, z, eta)
        moved = row.alpha_next * x0 + row.down * eps
        return (moved if noise is None else moved + row.up * noise).to(z.dtype)

    def step_2m(
        self, z: Tensor, out: Tensor, level: Tensor, past: Tensor | None, known: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Every frame one level down with DPM-Solver++(2M), algorithm 2 of arXiv:2211.01095; eta is 0.

        `past` (B, C, F, H, W) holds the x0 that each frame was predicted to be one level higher up; None
        where none was.  It is not looked at for frames at level K (nothing is above them), nor on the step
        to a clean frame, which is first order as usual.  -> (the frames one level down, this level's x0).

        The method replaces x0 by D = x0 + (x0 - past) h / 2 h_past, h a difference of log(alpha / sigma), in
        the DDIM step, which is linear in x0; so it is DDIM plus `lean` times the change in x0.
        """
        x0, _ = self.split(z, out, level, known)
        moved = self.step(z, out, level, known=known)
        if past is not None:
            moved = (moved + self._row(level, z, 0.0).lean * (x0 - past)).to(z.dtype)
        return moved, x0

    def _row(self, level: Tensor, like: Tensor, eta: float) -> _Row:
        table = self._table(like, eta)[:-1]
        return _Row(*table[:, level.to(like.device)].view(len(table), 1, 1, len(level), 1, 1))

    def _table(self, like: Tensor, eta: float) -> Tensor:
        """(fields of _Row, then time; K + 1) on the device of `like`: sent there once, so a step never
        waits for it.
        """
        key = (eta, compute_dtype(like), like.device)
        if key not in self._tables:
            self._tables[key] = self._coefficients(eta).to(key[1]).to(key[2])
        return self._tables[key]

    def _coefficients(self, eta: float) -> Tensor:
        a, s = self.alpha, self.sigma
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        match self.predicts:
            case "noise":
                split = [1 / a, -s / a, zero, one]
            case "velocity":
                square = a**2 + s**2
                split = [a / square, -s / square, s / square, a / square]
            case "sample":
                split = [zero, one, torch.where(s > 0, 1 / s, 0), torch.where(s > 0, -a / s, 0)]
            case "flow":
                split = [1 / (a + s), -s / (a + s), 1 / (a + s), a / (a + s)]
        # Level 0 is never stepped: what its row says of the next level is of no account.
        a_next, s_next = torch.cat([a[:1], a[:-1]]), torch.cat([s[:1], s[:-1]])
        shrink = a * s_next / (a_next * s)  # exp(-h), never above 1, for alpha does not rise nor sigma fall
        up = eta * s_next * (1 - shrink**2).sqrt()
        down = (s_next**2 - up**2).sqrt()
        log_snr = torch.log(a / s)  # +inf when clean, -inf when alpha is 0
        h, h_past = log_snr[:-1] - log_snr[1:], log_snr[1:-1] - log_snr[2:]
        bend = torch.cat([zero[:1], h[:-1] / (2 * h_past), zero[:1]])
        lean = (a_next - a_next * shrink) * bend.nan_to_num(0, 0, 0)
        return torch.stack([a, s, *split, a_next, down, up, lean, self.time])


def compute_dtype(like: Tensor) -> torch.dtype:
    """The precision of everything but the network: float64 for float64, else float32.

    Half precision would round timesteps (999 becomes 1000 in bfloat16) and the small steps near level 0.
    """
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def rectified_flow(levels: int, shift: float = 1.0) -> NoiseSchedule:
    """alpha = 1 - sigma, sigma evenly spread and then shifted towards noise (eq. 23 of arXiv:2403.03206);
    time 0..1000.
    """
    _at_least_one(levels)
    if not shift > 0:
        raise BadInput(f"shift is {shift}; it must be above 0 (1 leaves the levels evenly spread)")
    s = torch.linspace(0, 1, levels + 1, dtype=torch.float64)
    s = (shift * s / (1 + (shift - 1) * s)).clamp(max=1)  # which rounding can miss by a hair
    return NoiseSchedule(alpha=1 - s, sigma=s, time=s * 1000, predicts="flow")


def variance_preserving(alphas_cumprod: Tensor, levels: int, predicts: Predicts = "noise") -> NoiseSchedule:
    """`levels` of the T training steps (T,), evenly spread, the last one included; level 0 is exactly clean.

    So every one of the K evaluations changes the frame, and what comes off is a clean latent.
    """
    _at_least_one(levels)
    _check_training_table(alphas_cumprod)
    if levels >= len(alphas_cumprod):
        raise BadInput(
            f"{levels} levels were asked of a model trained on {len(alphas_cumprod)} steps; "
            f"at most {len(alphas_cumprod) - 1} are different"
        )
    time = torch.linspace(0, len(alphas_cumprod) - 1, levels + 1, dtype=torch.float64).round()
    kept = alphas_cumprod.to("cpu", torch.float64)[time.long()]
    kept[0] = 1.0
    return _of_kept(kept, time, predicts)


def paper(alphas_cumprod: Tensor, levels: int, predicts: Predicts = "noise") -> NoiseSchedule:
    """The table of the authors' code (arXiv:2405.11473), kept for parity with it.

    K training steps from the first to the last; level 0 repeats level 1.  The last evaluation therefore
    changes nothing, and what comes off still holds the first training step's noise (sigma 0.03 for
    `scaled_linear_betas`). The cumulative product is rounded to float32, as theirs is.
    """
    _at_least_one(levels)
    _check_training_table(alphas_cumprod)
    time = torch.linspace(0, len(alphas_cumprod) - 1, levels, dtype=torch.float64).round()
    time = torch.cat([time[:1], time])
    kept = alphas_cumprod.to("cpu", torch.float32).double()[time.long()]
    return _of_kept(kept, time, predicts)


def leading(alphas_cumprod: Tensor, levels: int, limit: float | None = None) -> NoiseSchedule:
    """Every T // levels-th training step from the first on, and below it exactly clean: the "leading" spacing of
    diffusers' DDPM scheduler, whose step is the one here with eta 1.

    The last level stops short of the last training step, though what enters there is pure noise all the same.
    """
    _at_least_one(levels)
    _check_training_table(alphas_cumprod)
    if levels > len(alphas_cumprod):
        raise BadInput(f"{levels} levels were asked of a model trained on {len(alphas_cumprod)} steps; ask for fewer")
    time = torch.arange(levels, dtype=torch.float64) * (len(alphas_cumprod) // levels)
    kept = torch.cat([torch.ones(1), alphas_cumprod.to("cpu", torch.float64)[time.long()]])
    time = torch.cat([time[:1], time])
    return _of_kept(kept, time, "noise", limit)


def scaled_linear_betas(steps: int = 1000, first: float = 0.00085, last: float = 0.012) -> Tensor:
    """alphas_cumprod (steps,) of betas whose square roots are evenly spread, as in Stable Diffusion and
    VideoCrafter.
    """
    betas = torch.linspace(math.sqrt(first), math.sqrt(last), steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """alphas_cumprod (steps,) of evenly spread betas (arXiv:2006.11239), as in Latte and Open-Sora Plan."""
    return torch.cumprod(1 - torch.linspace(first, last, steps, dtype=torch.float64), dim=0)


def cosine(steps: int = 1000) -> Tensor:
    """alphas_cumprod (steps,) of eq. 17 of arXiv:2102.09672, each beta at most 0.999 as there."""
    at = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    curve = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
    return torch.cumprod(1 - (1 - curve[1:] / curve[:-1]).clamp(max=0.999), dim=0)


def _of_kept(kept: Tensor, time: Tensor, predicts: Predicts, limit: float | None = None) -> NoiseSchedule:
    """kept: alphas_cumprod of each level, (K + 1,)."""
    return NoiseSchedule(alpha=kept.sqrt(), sigma=(1 - kept).sqrt(), time=time, predicts=predicts, limit=limit)


def _at_least_one(levels: int) -> None:
    if levels < 1:
        raise BadInput(f"levels is {levels}; a schedule has at least 1")


def _check_training_table(alphas_cumprod: Tensor) -> None:
    if alphas_cumprod.ndim != 1 or len(alphas_cumprod) < 2:
        raise BadInput(
            f"alphas_cumprod has shape {tuple(alphas_cumprod.shape)}; it must be (training steps,), at least 2"
        )
