"""A run is one frozen description; what is not allowed is refused in one sentence."""

import pytest

from fifo_diffusion.config import Run
from fifo_diffusion.errors import BadInput


def test_json_there_and_back() -> None:
    run = Run.of({"prompt": "a red balloon", "seed": 7, "size": (64, 64), "eta": 0.5})
    assert Run.model_validate_json(run.model_dump_json()) == run


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompt": "  "}, "empty"),
        ({}, "prompt is missing"),
        ({"prompt": "a", "colour": 1}, "'colour' is unknown; the settings are prompt"),
        ({"prompt": "a", "partitions": 0}, "partitions is 0"),
        ({"prompt": "a", "eta": 1.5}, "eta is 1.5"),
        ({"prompt": "a", "guidance": float("nan")}, "guidance is nan"),
        ({"prompt": "a", "frames": -1}, "frames is -1"),
        ({"prompt": "a", "lookahead": "half"}, "'off', 'last' or 'middle'"),
        ({"prompt": "a", "dtype": "float8"}, "'float32'"),
    ],
)
def test_refusals_are_one_sentence(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as refused:
        Run.of(settings)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
