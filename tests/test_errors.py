"""The tree drawn in errors.py is the tree there is."""

import inspect
import re

import pytest

from fifo_diffusion import errors
from fifo_diffusion.errors import BadInput, DeviceError, FifoError, ModelError, NotFinite, OutputError

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
