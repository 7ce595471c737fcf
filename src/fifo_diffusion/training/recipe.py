"""Every number of the recipe that made the embedded weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Two steps: a picture autoencoder, then a video network on its latents."""

    size: int = 64
    channels: int = 12
    frames: int = 16
    seed: int = 0

    pictures: int = 16_000  # distinct frames the autoencoder is trained on
    autoencoder_batch: int = 32
    autoencoder_cycles: tuple[tuple[int, float], ...] = ((1_300, 1.5e-3), (600, 1.0e-3))  # steps, top rate

    polish: tuple[int, float] = (600, 5e-4)  # the same for the decoder alone, last of all

    clips: int = 8_000  # distinct clips, encoded once
    batch: int = 32
    steps: int = 4_280
    cooldown: int = 280  # the last steps, over which the rate falls to zero
    muon_rate: float = 0.015
    adam_rate: float = 1.5e-3
    # A subject stays where it is for 16 frames, so all but the noisiest clips show what it is and the text says
    # nothing new; what the text is for is learnt from these timesteps up.
    noisy: int = 880
    noisy_share: float = 0.6  # of the clips
    unconditional: float = 0.1  # share of clips trained without text, for classifier-free guidance
    average: float = 0.995  # of the weights that ship
    independent: bool = (
        False  # a timestep of its own for every frame (diffusion forcing, arXiv:2407.01392), not one a clip
    )
