"""Reading pickles that hold arrays and nothing else: what is not on a short list is refused, so nothing is ever run.

Beside torch's own checkpoints, two kinds that torch.load(weights_only=True) does not read: a pickle of nested dicts of
numpy arrays, and a TorchScript archive, of which only the tensors are taken, by the names of the modules they lie in;
its program is neither run nor compiled.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fifo_diffusion.errors import ModelError
from fifo_diffusion.models.files import first_line

_NUMPY = {
    ("numpy.core.multiarray", "_reconstruct"),  # before numpy 2
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


def read_checkpoint(data: bytes) -> dict[str, Tensor]:
    """What torch.save wrote of a state dict.  Raises ModelError for anything else."""
    try:
        held = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of torch, pickle or zipfile
        raise ModelError(f"the weights are no checkpoint of tensors alone ({first_line(error)})") from error
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise ModelError("the weights hold more than named tensors; give the file as it was published")
    return dict(held)


def read_arrays(data: bytes) -> dict[str, Tensor]:
    """A pickle of nested dicts of float32 arrays: each by its path, joined with slashes.

    Raises ModelError for a pickle that holds, or asks for, anything else.
    """
    try:
        held = _Arrays(io.BytesIO(data)).load()
    except ModelError:
        raise
    except Exception as error:  # a broken pickle raises any kind
        raise ModelError(f"the weights are no whole pickle ({error}); get the file again") from error
    return dict(_walk(held, ""))


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY:
            raise _refused(module, name)
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _walk(held: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(held, Mapping):
        for name, value in held.items():
            yield from _walk(value, f"{path}/{name}" if path else str(name))
    elif isinstance(held, np.ndarray) and held.dtype == np.float32:
        yield path, torch.from_numpy(np.ascontiguousarray(held))
    else:
        raise ModelError(f"the weights hold a {type(held).__name__} at {path or 'the top'}, wanted float32 arrays only")


def read_script(data: bytes) -> dict[str, Tensor]:
    """The float32 tensors of a TorchScript archive, each by its path, joined with dots.  Raises ModelError as above."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (top,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
            reader = _Script(io.BytesIO(archive.read(top)), archive, top.removesuffix(".pkl"))
            return dict(_within(reader.load(), ""))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the weights are no whole TorchScript archive ({error}); get the file again") from error


class _Module(dict[str, Any]):
    """A module of the archive, of whatever class: its attributes by name."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.update(state)


class _Script(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__."):  # a class that the archive's own program defines
            return _Module
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
            ("torch", "FloatStorage"): "float32",
            ("collections", "OrderedDict"): OrderedDict,
            ("torch.jit._pickle", "build_intlist"): list,
        }
        if (module, name) not in known:
            raise _refused(module, name)
        return known[module, name]

    def persistent_load(self, said: Any) -> Tensor:
        _, kind, key, _, count = said
        if kind != "float32" or not str(key).isdecimal():
            raise ModelError(f"the weights hold a storage {key} that is no list of float32 numbers; get the file again")
        stored = self._archive.read(f"{self._folder}/{key}")
        return torch.frombuffer(bytearray(stored), dtype=torch.float32, count=count)


def _rebuilt(stored: Tensor, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(stored, shape, stride, offset).clone()


def _within(held: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in held.items():
        inside = f"{path}.{name}" if path else name
        if isinstance(value, _Module):
            yield from _within(value, inside)
        elif isinstance(value, Tensor):
            yield inside, value


def _refused(module: str, name: str) -> ModelError:
    return ModelError(f"the weights ask for {module}.{name} and are not read, since such a file can run any program")
