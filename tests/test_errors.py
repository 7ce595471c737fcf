"""The tree drawn in errors.py is the tree there is, and a name is never more than one of its errors."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fifo_diffusion import api, errors
from fifo_diffusion.errors import BadInput, DeviceError, FifoError, ModelError, NotFinite, OutputError
from fifo_diffusion.evaluate import reading
from fifo_diffusion.evaluate.networks import obtain
from fifo_diffusion.models.files import locate
from fifo_diffusion.models.lora import find_lora

TREE = {
    BadInput: (FifoError, ValueError),
    DeviceError: (BadInput,),
    OutputError: (FifoError, OSError),
    ModelError: (FifoError,),
    NotFinite: (FifoError, ArithmeticError),
}


@pytest.mark.parametrize("kind", TREE)
def test_each_error_stands_where_the_drawing_says(kind: type[FifoError]) -> None:
    assert kind.__bases__ == TREE[kind]


def test_the_drawing_names_every_error_and_no_other() -> None:
    classes = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    drawn = set(re.findall(r"(?:── |    )([A-Z]\w+) ", errors.__doc__ or ""))
    assert drawn == classes


@pytest.mark.parametrize("kind", TREE)
def test_the_message_is_the_sentence_and_nothing_else(kind: type[FifoError]) -> None:
    assert str(kind("Window 0 is not allowed.")) == "Window 0 is not allowed."


LONG = "n" * 300


@pytest.mark.parametrize(
    "named",
    [
        lambda: api.resume(f"{LONG}.mp4"),
        lambda: api.told(LONG),
        lambda: api.stream("-", model="embedded", clip=LONG),
        lambda: reading.find([Path(LONG)]),
        lambda: obtain.take("raft", Path(LONG)),
        lambda: find_lora(f"{LONG}:0.5"),
        lambda: locate(LONG, ()),
    ],
    ids=["resume", "info", "clip", "evaluate", "fetch", "lora", "weights"],
)
def test_a_name_that_no_file_can_have_is_told_like_one_that_is_not_there(named: Callable[[], object]) -> None:
    """Such as a prompt in the place of a video.  pathlib raises OSError for these, os.path says that there is none."""
    with pytest.raises(FifoError, match=rf"there (is|are) no .*{LONG}|{LONG} is not there"):
        named()
