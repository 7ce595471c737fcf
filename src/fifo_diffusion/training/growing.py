"""Begin a larger model with a smaller one's weights: what moves where, and which word says what, is learnt already.

The blocks are copied.  The first and last layers see patches of another size; they are turned so that what the larger
patches show goes in where the small ones' went: a rotation of the leading components, fitted on the same pictures.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from fifo_diffusion.decode import to_pixels
from fifo_diffusion.errors import BadInput
from fifo_diffusion.models.embedded import packed
from fifo_diffusion.models.embedded.autoencoder import Autoencoder
from fifo_diffusion.models.embedded.model import Embedded
from fifo_diffusion.models.embedded.text import TextEncoder, WordVectors
from fifo_diffusion.models.embedded.transformer import VideoTransformer, patches
from fifo_diffusion.world.clips import Frames


def grows(begin: Path, patch: int) -> bool:
    """Whether finished weights are of a smaller model than one with patches of this size.

    Raises:
        BadInput: there are no weights, or they share what is not trained with others.
    """
    try:
        config = json.loads((begin / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{begin} holds no weights to begin with ({error}); give the folder of a finished model"
        ) from error
    if "rest" in config:
        raise BadInput(
            f"the weights {begin} are a video network alone, which shares the rest with {config['rest']}; "
            "give --begin the folder of a whole model"
        )
    return bool(config.get("patch", 2) != patch)


@torch.no_grad()
def grow(small: Path, video: VideoTransformer, text: TextEncoder, pictures: Frames, autoencoder: Autoencoder) -> None:
    """Fill `video`, whose spectrum is fitted, and `text` from the folder `small`.

    pictures: (N, H, W, 3), some of the world; autoencoder: the larger model's.
    """
    assert video.spectrum is not None
    whole = to_pixels(pictures)
    old = Embedded(small, torch.device("cpu"), torch.float32)
    half = torch.nn.functional.avg_pool2d(whole, 2)
    large = patches(autoencoder.encode(whole)[:, :, None], video.patch).flatten(0, 2) @ video.spectrum.basis
    little = patches(old.encode(half[:, None]), 2).flatten(0, 2)
    turn = _rotation(large, little)

    begun = packed.read(small / "transformer.safetensors")
    enter, leave, bias = (begun.pop(name) for name in ("enter.weight", "leave.weight", "leave.bias"))
    video.load_state_dict(begun, strict=False)
    video.enter.weight.copy_(enter @ turn)
    video.leave.weight.copy_(turn.T @ leave)
    video.leave.bias.copy_(turn.T @ bias)

    said = packed.read(small / "text.safetensors")
    embedding = said.pop("embedding.weight")
    text.load_state_dict(said, strict=False)
    words = text.embedding
    assert isinstance(words, WordVectors)
    words.special.weight.copy_(embedding[:2])
    both = [word for word in old.vocabulary if word in text.vocabulary]
    vectors = words.table[[text.vocabulary.index(word) for word in both]]
    wanted = embedding[[old.vocabulary.index(word) + 2 for word in both]]
    # Least squares with a little ridge: exact would let rare directions take any value.
    fitted = torch.linalg.solve(vectors.T @ vectors + 0.02 * torch.eye(vectors.shape[1]), vectors.T @ wanted)
    words.enter.weight.copy_(fitted.T)
    words.enter.bias.zero_()


def _rotation(large: Tensor, little: Tensor) -> Tensor:
    """(N, a), (N, b), a >= b -> (b, a) with orthonormal rows, so that noise stays noise: orthogonal Procrustes."""
    left, _, right = torch.linalg.svd(little.T @ large, full_matrices=False)
    turn: Tensor = left @ right
    return turn
