"""Every number of the recipe that made the embedded weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.linear import HALF
from fifo_diffusion.world.kinds import KINDS, Kind


@dataclass(frozen=True)
class Recipe:
    """Two steps: a picture autoencoder, then a video network on its latents."""

    world: str = "small"
    size: int = 64
    patch: int = 2  # latents to a token of the video network, each way
    fine: int | None = None  # the width of what sharpens coarse patches, see `Detail`; None: nothing does
    vectors: int | None = None  # the size of fixed word vectors; None: every word's embedding is learnt
    half: bool = False  # networks compute in bfloat16 while they are trained (autocast), see `in_half`
    channels: int = 12
    frames: int = 16
    seed: int = 0

    pictures: int = 16_000  # distinct frames the autoencoder is trained on
    autoencoder_batch: int = 32
    crop: int | None = None  # the side of the pieces of pictures the autoencoder is trained on; None: whole ones
    autoencoder_cycles: tuple[tuple[int, float], ...] = ((1_300, 1.5e-3), (600, 1.0e-3))  # steps, top rate

    # Deviation of the noise on latents while the decoder is trained, from picture to picture between these: it keeps
    # the decoder calm about the video network's errors.
    noise: tuple[float, float] = (0.03, 0.03)
    polish: tuple[int, float] = (600, 5e-4)  # the same for the decoder alone, last of all
    # Clips whose answers by the video network the decoder is polished on too, each denoised from a level among these.
    answers: int = 0
    answered: tuple[int, int] = (3, 16)  # the last not included; of as many as the model's defaults have

    clips: int = 8_000  # distinct clips, encoded once
    batch: int = 32
    at_once: int | None = None  # of these, as many as a processor's cache holds; None: all
    steps: int = 4_280
    rise: int = 200  # the first steps, over which the rate grows
    cooldown: int = 280  # the last steps, over which the rate falls to zero
    muon_rate: float = 0.015
    adam_rate: float = 1.5e-3
    # A subject stays where it is for 16 frames, so all but the noisiest clips show what it is and the text says
    # nothing new; what the text is for is learnt from these timesteps up.
    noisy: int = 880
    noisy_share: float = 0.6  # of the clips
    # What moves sideways moves whole; up and down are told by a few puffs, a small part of the loss. Clips that move
    # up, down or not at all are drawn this many times as often as the others.
    upright: float = 1.0
    # The error of a latent that the subject covers counts this many times more. It has the same least place, for every
    # latent has its own; what changes is what a network that cannot have it all takes trouble with.
    subject: float = 0.0
    unconditional: float = 0.1  # share of clips trained without text, for classifier-free guidance
    average: float = 0.995  # of the weights that ship
    # Words that the trained model does not tell from each other, as `benchmarks/hearing.py` says: it warns of them.
    by_lot: tuple[str, ...] = ("climbing", "down", "falling", "rising", "sinking", "up")
    bits: int = 8  # of a number of them, in the file; see `packed.write`
    text: bool = True  # trained too; False: the text encoder stays as it was in the weights that training began with
    independent: bool = (
        False  # a timestep of its own for every frame (diffusion forcing, arXiv:2407.01392), not one a clip
    )

    @property
    def in_half(self) -> bool:
        """Whether bfloat16 is asked for and the processor knows it: without that it takes eight times as long."""
        return self.half and HALF

    @property
    def kind(self) -> Kind:
        return KINDS[self.world]

    @classmethod
    def read(cls, file: Path) -> Recipe:
        """From a YAML file; what it does not say is as above.

        Raises:
            BadInput: it cannot be read, or says what no recipe has.
        """
        try:
            said = yaml.safe_load(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise BadInput(f"the recipe {file} cannot be read ({error}); give --config a YAML file") from error
        known = {field.name for field in fields(cls)}
        if not isinstance(said, dict) or (unknown := sorted(map(str, said.keys() - known))):
            what = f"says {', '.join(unknown)}" if isinstance(said, dict) else "is no mapping"
            raise BadInput(f"the recipe {file} {what}; a recipe has {', '.join(sorted(known))}")
        try:
            recipe = TypeAdapter(cls).validate_python(said)
        except ValidationError as error:
            wrong = error.errors()[0]
            at = ".".join(map(str, wrong["loc"]))
            raise BadInput(f"the recipe {file} says {at} {wrong['input']!r}: {wrong['msg'].lower()}") from error
        if recipe.world not in KINDS:
            raise BadInput(f"the recipe {file} says the world {recipe.world!r}; the worlds are {', '.join(KINDS)}")
        if recipe.size != recipe.kind.size:
            raise BadInput(
                f"the recipe {file} is for {recipe.size} pixels; the world {recipe.world} has {recipe.kind.size}"
            )
        if recipe.crop is not None and not 0 < recipe.crop <= recipe.size:
            raise BadInput(f"the recipe {file} says crop {recipe.crop}; give at most its size, {recipe.size}")
        return recipe
