"""Whether frames show what the prompt says, by a CLIP that the user has: a folder in the layout of transformers.

100 times the cosine of a frame's and the text's embedding, 0 where it is below (CLIPScore, arXiv:2104.08718, without
its factor 2.5).  Scores of different CLIPs do not compare, so the folder's name stands in the facts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from fifo_diffusion.errors import ModelError
from fifo_diffusion.evaluate.metric import Meter, Metric, Quantity, Reading, Video
from fifo_diffusion.models.files import component, first_line

FOLDER = "FIFO_CLIP"  # the environment variable that names the folder; --clip does too
NAME = "prompt alignment (CLIP)"
_AT_ONCE = 8  # frames
# Of OpenAI's CLIPs, where the folder holds no preprocessor_config.json.
_MEAN, _SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Alignment(Metric):
    name = "alignment"
    needs = "a folder with a CLIP (--clip FOLDER), the extra `models`, and a prompt, which fifo's own videos have"
    quantities = (
        Quantity(
            NAME, "%", "cosine of the frame's embedding to that of the prompt it hears (arXiv:2104.08718)", "higher"
        ),
    )

    def missing(self) -> str | None:
        if find_spec("transformers") is None:
            return "the package transformers is not installed; install it with: pip install '.[models]'"
        folder = os.environ.get(FOLDER)
        if not folder:
            return (
                "it needs the folder of a CLIP, such as a download of openai/clip-vit-base-patch32; give it with "
                f"--clip FOLDER, or in the environment variable {FOLDER}"
            )
        if not (Path(folder).expanduser() / "config.json").is_file():
            return (
                f"the folder {folder} holds no config.json; give --clip a CLIP's folder in the layout of transformers"
            )
        return None

    def suits(self, video: Video) -> bool:
        return bool(video.prompt)

    def begin(self, video: Video) -> Meter:
        clip = _loaded(str(Path(os.environ[FOLDER]).expanduser()), video.device)
        return _Aligned(clip, [(0, video.prompt or ""), *video.cues])


class Clip:
    """A CLIP and how it wants its pictures and texts."""

    def __init__(self, folder: Path, device: str) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.name, self.device = folder.name, device
        self._net = component(CLIPModel, folder, torch.float32, ignore="position_ids").to(device)
        try:
            self._words = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
            path = folder / "preprocessor_config.json"
            said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except Exception as error:  # transformers has a dozen kinds
            raise ModelError(f"the CLIP in {folder} cannot be used ({first_line(error)}); get it again") from error
        vision = self._net.config.vision_config
        self._side = int(vision.image_size)
        mean, spread = said.get("image_mean", _MEAN), said.get("image_std", _SPREAD)
        self._mean, self._spread = (torch.tensor(part, device=device).view(3, 1, 1) for part in (mean, spread))

    @torch.inference_mode()
    def text(self, prompt: str) -> Tensor:
        """(1, D) of length 1"""
        most = self._net.config.text_config.max_position_embeddings
        words = self._words([prompt], truncation=True, max_length=most, return_tensors="pt").to(self.device)
        pooled = self._net.text_model(**words).pooler_output
        return normalize(self._net.text_projection(pooled))

    @torch.inference_mode()
    def pictures(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, D) of length 1: the shorter side made CLIP's, and the middle cut out."""
        height, width = frames.shape[2:]
        scale = self._side / min(height, width)
        size = [max(self._side, round(side * scale)) for side in (height, width)]
        x = interpolate(
            frames.to(self.device).float() / 255, size, mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 1)
        top, left = ((side - self._side) // 2 for side in size)
        x = x[..., top : top + self._side, left : left + self._side]
        pooled = self._net.vision_model(pixel_values=(x - self._mean) / self._spread).pooler_output
        return normalize(self._net.visual_projection(pooled))


@cache
def _loaded(folder: str, device: str) -> Clip:
    return Clip(Path(folder), device)


class _Aligned(Meter):
    def __init__(self, clip: Clip, prompts: list[tuple[int, str]]) -> None:
        self._clip = clip
        self._prompts = [(at, clip.text(prompt)) for at, prompt in sorted(prompts, key=lambda cue: cue[0])]

    def push(self, frames: Tensor, first: int) -> Iterator[Reading]:
        for part in torch.split(frames, _AT_ONCE):
            for frame, picture in enumerate(self._clip.pictures(part), first):
                text = [text for at, text in self._prompts if at <= frame][-1][0]
                yield Reading(NAME, frame, 100 * max(0.0, float(picture @ text)))
            first += len(part)

    def facts(self) -> Mapping[str, Any]:
        return {"CLIP": self._clip.name}


METRICS = (Alignment(),)
