"""Class-conditional Latte (arXiv:2401.03048), the base of the UCF-101 table of arXiv:2405.11473.

Its checkpoints (github.com/Vchitect/Latte; ucf101.pt of the Hub's maxin-cn/Latte) are no diffusers folders: one .pt
holds the weights, under `ema` where it came from training.  The module names here are those of the files, so nothing
is renamed.  It is DiT (arXiv:2212.09748) whose even blocks attend within a frame and odd ones across frames; each
block is told the time plus the class.

Letters: B streams, C latent channels, F frames, H W latent height and width, P patches of a frame, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Self

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.models.files import fit, locate, read_tensors, single_file
from fifo_diffusion.models.latent import LatentModel, Table, autoencoder
from fifo_diffusion.protocols import Cond
from fifo_diffusion.schedule import linear_betas

# The labels are the data set's folders (arXiv:1212.0402) in the order of Python's `sorted`: capitals first.
_NAMES = """
    ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball BasketballDunk
    BenchPress Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling BoxingPunchingBag BoxingSpeedBag
    BreastStroke BrushingTeeth CleanAndJerk CliffDiving CricketBowling CricketShot CuttingInKitchen Diving Drumming
    Fencing FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl GolfSwing Haircut HammerThrow Hammering
    HandstandPushups HandstandWalking HeadMassage HighJump HorseRace HorseRiding HulaHoop IceDancing JavelinThrow
    JugglingBalls JumpRope JumpingJack Kayaking Knitting LongJump Lunges MilitaryParade Mixing MoppingFloor Nunchucks
    ParallelBars PizzaTossing PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar PlayingPiano PlayingSitar
    PlayingTabla PlayingViolin PoleVault PommelHorse PullUps Punch PushUps Rafting RockClimbingIndoor RopeClimbing
    Rowing SalsaSpin ShavingBeard Shotput SkateBoarding Skiing Skijet SkyDiving SoccerJuggling SoccerPenalty
    StillRings SumoWrestling Surfing Swing TableTennisShot TaiChi TennisSwing ThrowDiscus TrampolineJumping Typing
    UnevenBars VolleyballSpiking WalkingWithDog WallPushups WritingOnBoard YoYo
"""
CLASSES = tuple(sorted(_NAMES.split()))
_HEADS = {1152: 16, 1024: 16, 768: 12, 384: 6}  # by width: XL, L, B, S


class ClassLatte(nn.Module):
    """The network.  Sizes are read off the weights (`of`), but for the heads, which leave no trace there."""

    def __init__(
        self, *, width: int, depth: int, heads: int, patch: int, patches: int, frames: int, channels: int, out: int,
        classes: int, hidden: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch = patch
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, patch)})
        self.t_embedder = nn.ModuleDict(
            {"mlp": nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))}
        )
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(classes + 1, width)})  # the last: no class
        self.pos_embed = nn.Parameter(torch.zeros(1, patches, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, frames, width))
        self.blocks = nn.ModuleList(_Block(width, heads, hidden) for _ in range(depth))
        self.final_layer = nn.ModuleDict(
            {"linear": nn.Linear(width, patch**2 * out), "adaLN_modulation": _told(width, 2)}
        )

    def forward(self, z: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """z (B, C, F, H, W), t (B, F), told (B, F, D) the embedding of each frame's class -> (B, C', F, H, W)."""
        b, _, f, height, width = z.shape
        x = self.x_embedder["proj"](z.transpose(1, 2).flatten(0, 1))
        h, w = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2) + self.pos_embed  # (B F, P, D)
        waves = get_timestep_embedding(t.flatten(), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
        time = self.t_embedder["mlp"](waves.to(x.dtype))
        within = (time + told.flatten(0, 1).to(x.dtype))[:, None]  # (B F, 1, D)
        across = within.view(b, f, -1)
        for i, block in enumerate(self.blocks):
            if i % 2 == 0:
                x = block(x, within)
                continue
            x = x.unflatten(0, (b, f)).transpose(1, 2).flatten(0, 1)
            x = block(x + self.temp_embed if i == 1 else x, across)
            x = x.unflatten(0, (b, h * w)).transpose(1, 2).flatten(0, 1)
        shift, scale = self.final_layer["adaLN_modulation"](within).chunk(2, dim=-1)
        x = self.final_layer["linear"](_norm(x) * (1 + scale) + shift)
        x = x.unflatten(1, (h, w)).unflatten(-1, (self.patch, self.patch, -1))  # (B F, h, w, patch, patch, C')
        answer: Tensor = x.permute(0, 5, 1, 3, 2, 4).reshape(b, f, -1, height, width).transpose(1, 2)
        return answer

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        """A network of the size of these weights, on torch's meta device."""
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        with torch.device("meta"):
            return cls(
                width=width,
                depth=len({key.split(".")[1] for key in weights if key.startswith("blocks.")}),
                heads=_HEADS.get(width, max(1, width // 64)),
                patch=patch,
                patches=weights["pos_embed"].shape[1],
                frames=weights["temp_embed"].shape[1],
                channels=channels,
                out=weights["final_layer.linear.weight"].shape[0] // patch**2,
                classes=weights["y_embedder.embedding_table.weight"].shape[0] - 1,
                hidden=weights["blocks.0.mlp.fc1.weight"].shape[0],
            )


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        self.adaLN_modulation = _told(width, 6)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x (N, L, D), told (M, 1 or L, D), each of whose rows is of N / M neighbouring ones of x."""
        modulation = self.adaLN_modulation(told).repeat_interleave(len(x) // len(told), dim=0)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation.chunk(6, dim=-1)
        x = x + gate * self._attend(_norm(x) * (1 + scale) + shift)
        hidden = functional.gelu(self.mlp["fc1"](_norm(x) * (1 + scale_mlp) + shift_mlp), approximate="tanh")
        answer: Tensor = x + gate_mlp * self.mlp["fc2"](hidden)
        return answer

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.attn["proj"](functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


def _told(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


AUTOENCODERS = ("sd-vae-ft-ema", "vae", "t2v_required_models/vae")


class LatteUcf101(LatentModel):
    """16 frames of 256x256; a prompt is the name of one of the 101 actions."""

    def _denoise(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """cond["text"] is (B, 1, D), or (B, F, 1, D) where each frame has its own class."""
        told = cond["text"].squeeze(-2).to(self.dtype)
        told = told[:, None].expand(-1, z.shape[2], -1) if told.ndim == 2 else told
        out: Tensor = self.network(z.to(self.dtype), t, told)
        return out[:, : z.shape[1]].to(z.dtype)  # the other half is the learned variance, which DDIM does not use

    def embed(self, prompts: Sequence[str]) -> Cond:
        table = self.network.y_embedder["embedding_table"].weight
        none = len(table) - 1
        labels = [named(prompt) for prompt in prompts]
        return {"text": table[[none if label is None else label for label in labels], None].float()}

    def remarks(self, prompt: str) -> list[str]:
        if named(prompt) is not None or not prompt.strip():
            return []
        names = [_words(name) for name in CLASSES]
        names = get_close_matches(prompt.lower(), names, n=3, cutoff=0.3) or names[::20]
        return [
            f"{prompt!r} names none of UCF-101's actions, so no class is heard; there are {', '.join(names)} and more"
        ]


def named(prompt: str) -> int | None:
    """The label whose name the prompt says, the longest if it says several; spaces and capitals do not matter."""
    words = re.findall(r"[a-z]+", prompt.lower())
    said = {"".join(words[i : i + n]) for i in range(len(words)) for n in range(1, 5)}
    found = [name for name in CLASSES if name.lower() in said]
    return CLASSES.index(max(found, key=len)) if found else None


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def load(device: torch.device, dtype: torch.dtype, weights: str) -> LatteUcf101:
    """weights: a Hub id or folder with ucf101.pt and an autoencoder's folder, or a .pt with such a folder beside it:
    sd-vae-ft-ema/, with which the authors draw the samples that they measure (sample/sample_ddp.py), else vae/.

    Raises ModelError for files that are missing, damaged or another model's.
    """
    place = locate(weights, ("ucf101.pt", *(f"{name}/*" for name in AUTOENCODERS)))
    file = single_file(place, ("ucf101.pt", "ucf101.safetensors"))
    folders = [file.parent / name for name in AUTOENCODERS]
    found = read_tensors(file)
    network = ClassLatte.of(found)
    network.load_state_dict({key: value.to(dtype) for key, value in fit(network, file, found).items()}, assign=True)
    vae = autoencoder(next((at for at in folders if at.is_dir()), folders[0]), device, dtype)
    return LatteUcf101(network, vae, Table(linear_betas()), None, device, dtype, [file])
