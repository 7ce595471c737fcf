"""Says what a clip of the world shows: subject, colour, scene, motion and its speed.

Trained on real renders only, checked on held-out scenes, and only then let near what a model made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from fifo_diffusion.decode import to_pixels
from fifo_diffusion.world.art import COLOURS, SUBJECTS, Art
from fifo_diffusion.world.clips import HELD_OUT_VARIANTS, MOTIONS, SPEEDS, TRAIN_VARIANTS, Caption, World
from fifo_diffusion.world.kinds import SMALL, Kind
from fifo_diffusion.world.scenes import SCENES

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "subject": tuple(SUBJECTS),
    "colour": tuple(COLOURS),
    "scene": tuple(SCENES),
    "motion": tuple(MOTIONS),
}
JUDGED = {**ATTRIBUTES, "speed": tuple(SPEEDS)}  # the last of what moves only
SEEN = 64  # pixels: larger pictures are made smaller before they are judged
LOOK = 4  # frames the judge sees at once
MIRRORED = {"left": "right", "right": "left"}
UNTOLD = -100  # what cross_entropy leaves out


def judged(kind: Kind) -> Mapping[str, tuple[str, ...]]:
    """By attribute, the values it may have in a world."""
    return {**JUDGED, "subject": tuple(kind.subjects), "scene": kind.scenes}


def shows(caption: Caption, name: str) -> bool:
    """Whether a clip of this caption has the attribute: what stands still has no speed, and some have no colour."""
    return bool(caption.motion != "still" if name == "speed" else getattr(caption, name))


class Judge(nn.Module):
    """Four neighbouring frames -> the scores of every value of every attribute."""

    def __init__(self, kind: Kind = SMALL) -> None:
        super().__init__()
        self.kind, self.judged = kind, judged(kind)
        layers: list[nn.Module] = []
        for before, after, side in ((3 * LOOK, 48, 5), (48, 96, 3), (96, 144, 3), (144, 192, 3)):
            layers += [
                nn.Conv2d(before, after, side, stride=2, padding=side // 2),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(256), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(values)) for name, values in self.judged.items()})

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """(B, LOOK, 3, H, W) in [-1, 1] -> by attribute (B, values)"""
        features = self.trunk(_seen(frames.flatten(1, 2)))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def verdict(self, clip: NDArray[np.uint8]) -> dict[str, str]:
        """What a clip (T, H, W, 3), T >= LOOK, shows: the scores are averaged over all its positions."""
        x = to_pixels(clip)
        scores = self(torch.stack([x[i : i + LOOK] for i in range(len(x) - LOOK + 1)]))
        return {name: values[int(scores[name].softmax(1).mean(0).argmax())] for name, values in self.judged.items()}


def _seen(frames: Tensor) -> Tensor:
    """(..., H, W) at the size that is judged"""
    return avg_pool2d(frames, frames.shape[-1] // SEEN) if frames.shape[-1] > SEEN else frames


def train_judge(art: Art, steps: int, kind: Kind = SMALL) -> Judge:
    """Train on real renders, a little brightened and noised so that it does not hang on single pixels.

    Half of the looks are mirrored, which makes left of right: twice as many renders for nothing.
    """
    torch.manual_seed(0)
    captions, frames = _renders(World(art, kind.size, TRAIN_VARIANTS, kind, unmet=None), 4 * steps, seed=10)
    judge = Judge(kind)
    targets = {
        name: torch.tensor([values.index(getattr(c, name)) if shows(c, name) else UNTOLD for c in captions])
        for name, values in judge.judged.items()
    }
    judge(torch.zeros(2, LOOK, 3, kind.size, kind.size))
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        picked = torch.randint(0, len(captions), (64,))
        x, wanted = to_pixels(frames[picked.numpy()]), {name: all_of[picked] for name, all_of in targets.items()}
        x, wanted["motion"] = mirrored(x, wanted["motion"], torch.rand(64) < 0.5)
        x = x * (1 + 0.1 * torch.randn(64, 1, 1, 1, 1)) + 0.05 * torch.rand(64, 1, 1, 1, 1) * torch.randn_like(x)
        scores = judge(x)
        loss = sum((cross_entropy(scores[name], wanted[name]) for name in judge.judged), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()
    return judge.eval()


def mirrored(frames: Tensor, motion: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Some of the frames (B, ..., W) with left and right changed, and their motions (B,), numbers in `MOTIONS`."""
    names = list(MOTIONS)
    other = torch.tensor([names.index(MIRRORED.get(name, name)) for name in names])
    turned = torch.where(which.view(-1, *(1,) * (frames.ndim - 1)), frames.flip(-1), frames)
    return turned, torch.where(which, other[motion], motion)


Right = Mapping[str, bool]  # by attribute that a clip has, whether its verdict is right


def verdicts(judge: Judge, shown: Iterable[tuple[Caption, NDArray[np.uint8]]]) -> list[Right]:
    """What is right of every clip."""
    return [
        {name: value == getattr(caption, name) for name, value in judge.verdict(clip).items() if shows(caption, name)}
        for caption, clip in shown
    ]


def shares(clips: Iterable[Right], names: Iterable[str]) -> dict[str, float]:
    """The share of clips that are right, by attribute; not a number where no clip has it."""
    clips = list(clips)
    right = {name: [clip[name] for clip in clips if name in clip] for name in names}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in right.items()}


def accuracy(judge: Judge, shown: Iterable[tuple[Caption, NDArray[np.uint8]]]) -> dict[str, float]:
    """The share of clips whose verdict is right, by attribute; not a number where no clip has it."""
    return shares(verdicts(judge, shown), judge.judged)


def held_out(
    art: Art, size: int, count: int, length: int, kind: Kind = SMALL, unmet: bool = False
) -> Iterator[tuple[Caption, NDArray[np.uint8]]]:
    """Real clips of scenes that nothing was trained on; unmet: and of pairs of subject and scene that nothing was."""
    world, rng = World(art, size, HELD_OUT_VARIANTS, kind, unmet), np.random.default_rng(99)
    for _ in range(count):
        caption = world.draw_caption(rng)
        yield caption, world.clip(caption, rng, length)


def _renders(world: World, count: int, seed: int) -> tuple[list[Caption], NDArray[np.uint8]]:
    """As large as they are judged: whole ones would fill the memory."""
    rng = np.random.default_rng(seed)
    captions = [world.draw_caption(rng) for _ in range(count)]
    return captions, np.stack([_shrunk(world.clip(caption, rng, LOOK)) for caption in captions])


def _shrunk(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    seen = _seen(torch.from_numpy(clip).movedim(-1, 1).float())
    return seen.round().byte().movedim(1, -1).numpy()
