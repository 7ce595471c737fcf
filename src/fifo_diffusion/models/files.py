"""Weights as their authors publish them: a Hub id, a folder or a single file, found, read and checked.

Nothing in a file is ever run: a pickle that holds more than tensors is refused.  Every fault becomes one ModelError
that names the file, and the key where it is about one.  What had to be converted is kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from fifo_diffusion.errors import ModelError

SINGLE = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_HEAD = ("_forward_module.", "module.")  # what DeepSpeed and DistributedDataParallel put before every key


def locate(weights: str, patterns: Sequence[str]) -> Path:
    """The folder or file on this machine that `weights` means.

    A path that exists is itself; anything else of the form owner/name is fetched from the Hub (those of its files that
    match the patterns, once).  Raises ModelError for a path that does not exist, and a Hub id that cannot be had.
    """
    path = Path(weights).expanduser()
    if os.path.exists(path):
        return path
    if not _HUB_ID.fullmatch(weights) or path.suffix in SINGLE:
        raise ModelError(
            f"there are no weights at {weights}; give an existing file or folder, or a Hub id (owner/name)"
        )
    from huggingface_hub import list_repo_files, snapshot_download

    try:
        try:
            names = list_repo_files(weights)
        except Exception:  # offline, where the files may be here already; to fetch all that match would be far too much
            with suppress(Exception):
                return Path(snapshot_download(weights, allow_patterns=list(patterns), local_files_only=True))
            raise
        return Path(snapshot_download(weights, allow_patterns=lean(names, patterns)))
    except Exception as error:  # offline, no such name, a gated model, a full disk: the Hub has an error for each
        raise ModelError(
            f"the weights {weights} are neither a path here nor to be had from the Hub ({first_line(error)}); download "
            "them where that is possible and give --weights the folder or file"
        ) from error


def lean(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Of a Hub repository's files those that match, and of a folder's weights one kind: whole precision before half,
    safetensors before pickles.  Others are never read, and are gigabytes.
    """
    out, kinds = [], dict[str, dict[tuple[bool, bool], list[str]]]()
    for name in names:
        if not any(fnmatch(name, pattern) for pattern in patterns):
            continue
        folder, _, file = name.rpartition("/")
        if folder and file.endswith((".safetensors", ".bin")):
            kind = (re.search(r"\.fp16[.-]", file) is not None, file.endswith(".bin"))
            kinds.setdefault(folder, {}).setdefault(kind, []).append(name)
        else:
            out.append(name)
    return out + [name for of in kinds.values() for name in of[min(of)]]


def weights_of(source: Path) -> list[Path]:
    """The weights that are read of a file, itself, or of a folder in the layout of diffusers."""
    names = sorted(file.relative_to(source).as_posix() for file in source.glob("*/*.*"))
    files = [source] if source.is_file() else [source / name for name in sorted(lean(names, ["*"]))]
    return [file for file in files if file.suffix in SINGLE]


def single_file(path: Path, names: Sequence[str]) -> Path:
    """The one weights file that `path` is, or the first of `names` that the folder holds.  Raises ModelError."""
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    held = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
    raise ModelError(f"the folder {path} holds {held}; wanted one of {', '.join(names)}")


class Tensors(dict[str, Tensor]):
    """The tensors of one file, by name.  Asking for one that is not there raises ModelError with file and name."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.path = path

    def __missing__(self, key: str) -> Tensor:
        raise ModelError(f"the weights {self.path} lack {key}; they are incomplete or of another model")


def read_tensors(path: Path) -> Tensors:
    """Every tensor of a .safetensors file or a checkpoint written by torch.save, by name; memory-mapped if it can.

    A checkpoint may hold its tensors directly, under "ema" (averaged in training, preferred), under "state_dict"
    (Lightning), under "module" (DeepSpeed) or under "model".
    Raises ModelError, naming the file, when it is missing, cut short, no checkpoint, or holds more than tensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelError(f"the weights {path} cannot be read: {error.strerror}") from error
    if path.suffix == ".safetensors":
        try:
            return Tensors(path, load_file(path))
        except (SafetensorError, OSError) as error:
            raise _cut_short(path, error) from error
    whole_zip = zipfile.is_zipfile(path)  # only files that torch.save wrote since 1.6 can be mapped
    if start[:2] == b"PK" and not whole_zip:
        raise _cut_short(path, "the archive has no end")
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=whole_zip)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise _cut_short(path, error) from error
    return Tensors(path, _named(held, path))


def _named(held: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in ("ema", "state_dict", "module", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    found = {k: v for k, v in held.items() if isinstance(v, Tensor)} if isinstance(held, Mapping) else {}
    if not found:
        raise ModelError(f"the weights {path} hold no named tensors; give a checkpoint of the model")
    for head in _HEAD:
        if all(name.startswith(head) for name in found):
            found = {name.removeprefix(head): value for name, value in found.items()}
    return found


def _cut_short(path: Path, why: object) -> ModelError:
    return ModelError(f"the weights {path} are cut short or no checkpoint ({first_line(why)}); get the file again")


def _refused(path: Path, error: pickle.UnpicklingError) -> ModelError:
    what = re.search(r"GLOBAL ([\w.]+)", str(error))
    if what is None:
        return _cut_short(path, error)
    return ModelError(
        f"the weights {path} hold {what[1]} besides tensors and are not read, since such a file can run any program; "
        "if you trust it, load it in a container with torch.load(file, weights_only=False), save its state_dict alone "
        "with safetensors.torch.save_file, and give that file"
    )


def fit(net: nn.Module, path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, all and only those, that this network's state has, contiguous, to be saved.

    Raises ModelError naming the file and the first key that is missing, of another shape, or too many.
    """
    out, given = {}, Tensors(path, tensors)
    for key, want in net.state_dict().items():
        if given[key].shape != want.shape:
            shape, wanted = tuple(given[key].shape), tuple(want.shape)
            raise ModelError(
                f"{key} in the weights {path} has shape {shape}, wanted {wanted}; they are of another model"
            )
        out[key] = given[key].contiguous()
    for key in (key for key in given if key not in out):
        raise ModelError(f"the weights {path} hold {key}, which this model lacks; they are of another model")
    return out


def component(cls: Any, folder: Path, dtype: torch.dtype, ignore: str | None = None, **options: Any) -> Any:
    """`cls.from_pretrained(folder)` of diffusers or transformers, in evaluation mode, with every weight accounted for.

    Those libraries fill what is missing with random numbers and a warning; here that is a ModelError naming folder and
    key.  ignore: a regular expression of keys that may be missing or too many.  Reads only this machine's files.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"there is no {folder / 'config.json'}; give a folder in the layout of diffusers")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise _cut_short(file, error) from error
    kind = "dtype" if cls.__module__.startswith("transformers.") else "torch_dtype"
    options = {kind: dtype, "output_loading_info": True, "local_files_only": True, **_variant(folder), **options}
    try:
        with _quiet():
            net, told = cls.from_pretrained(str(folder), **options)
    except Exception as error:  # each of the two libraries has a dozen kinds, down to bare Exception
        raise ModelError(f"the weights in {folder} cannot be used ({first_line(error)}); get them again") from error
    for fault, said in (
        ("missing_keys", "lack"),
        ("mismatched_keys", "have another shape for"),
        ("unexpected_keys", ""),
    ):
        keys = [key if isinstance(key, str) else key[0] for key in told[fault]]
        keys = sorted(key for key in keys if ignore is None or not re.search(ignore, key))
        if keys and said:
            raise ModelError(f"the weights in {folder} {said} {keys[0]}; they are incomplete or of another model")
        if keys:
            raise ModelError(
                f"the weights in {folder} hold {keys[0]}, which this model lacks; they are of another model"
            )
    return net.eval().requires_grad_(False)


def _variant(folder: Path) -> dict[str, str]:
    """A folder that holds half-precision files only calls them x.fp16.safetensors, or x.fp16-00001-of-00002..."""
    files = [file.name for file in (*folder.glob("*.safetensors"), *folder.glob("*.bin"))]
    return {"variant": "fp16"} if files and all(re.search(r"\.fp16[.-]", name) for name in files) else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Both libraries' warnings and progress bars off: what they say of missing weights is an error here."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    logs = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (diffusers_log, transformers_log)]
    for log, _, _ in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level, bar in logs:
            log.set_verbosity(level)
            if bar:
                log.enable_progress_bar()


def cache_folder() -> Path:
    """Where converted weights are kept: FIFO_CACHE, else this system's cache folder."""
    if os.environ.get("FIFO_CACHE"):
        return Path(os.environ["FIFO_CACHE"]).expanduser()
    return user_cache_path("fifo-diffusion", appauthor=False)


def converted(source: Path, recipe: str, convert: Callable[[Tensors, Path], None]) -> Path:
    """The folder that `convert(tensors of source, folder)` fills, made once.

    recipe: the converter's name and version; with the file's path, size and time it names the folder.  It is written
    beside and renamed, so a killed conversion leaves none that looks whole.  Raises ModelError.
    """
    stat = source.stat()
    identity = f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    folder = cache_folder() / f"{recipe}-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"
    if folder.is_dir():
        return folder
    tensors = read_tensors(source)
    beside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob("*.partial-*"):  # by a conversion that was killed: not a running one's
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
        convert(tensors, beside)
        beside.chmod(0o755)  # it was made for its owner alone
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same
                raise
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the converted weights of {source} cannot be kept in {folder.parent} ({first_line(error)}); make room "
            "there, or name another folder in the environment variable FIFO_CACHE"
        ) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
    return folder


def fingerprint(files: Iterable[Path]) -> str:
    """What tells these weights from others, in a moment: a hash of each file's size and 64 places of 64 KiB."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda file: file.name):
        size, block = path.stat().st_size, 2**16
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for i in range(64):
                file.seek(max(0, size - block) * i // 63)
                digest.update(file.read(block))
    return digest.hexdigest()


def first_line(error: object) -> str:
    """The first sentence of another library's message, short enough for one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    return said.rstrip(".") if len(said) <= 200 else said[:200] + "..."
