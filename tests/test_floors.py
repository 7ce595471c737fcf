"""The floors of the house: an import may only go down.  The syntax trees say who knows whom.

    7  cli
    6  making  batch
    5  session
    4  decide  dealing  evaluate  training  progress  doctor  runs
    3  models  methods  decode  sinks  prompts  guidance  execute  ranks  together  sources  preview  checkpoint
    2  engine  baseclip  sidecar  script  job  groups
    1  schedule  windows  noise  config  world  devices  meter  lost  memory  overlap  whole  media
    0  protocols  names  errors  version  digest  trail  interrupt  letters  packages  warned

`__init__`, `__main__` and `api` are the door: they may know every room.  A room is a module or a package;
what is inside one package is its own affair.  The command line and a batch's workers may also know `api`.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import fifo_diffusion

NAME = "fifo_diffusion"
ROOT = Path(fifo_diffusion.__path__[0])

assert __doc__ is not None
FLOORS = [set(names) for _, *names in sorted(map(str.split, re.findall(r"^ +\d .*", __doc__, re.MULTILINE)))]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
DOOR = {"__init__", "__main__", "api"}
# Noise is sent to a device.  A model may use decode's helpers, a method asks a model's card what it can do, a batch's
# workers do what the command line does.
ALSO = {
    ("noise", "devices"),
    ("models", "decode"),
    ("methods", "models"),
    ("cli", "api"),
    ("batch", "api"),
}
HEAVY = {"diffusers", "transformers"}
MAY_BE_HEAVY = {"models", "training", "evaluate"}
# The other modules of these are loaded when they are used.
LIGHT = {f"models/{name}.py" for name in ("__init__", "base", "card", "cards", "files")}


class Import(NamedTuple):
    module: str  # as written, absolute
    names: tuple[str, ...]  # after `from module import`
    line: int
    lazy: bool  # inside a function, or only for the type checker


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, (), node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield Import(module, tuple(alias.name for alias in node.names), node.lineno, lazy)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from imports(node, lazy or inside or typing)


def rooms(found: Import) -> set[str]:
    """The rooms of ours that an import names; `__init__` for the door itself."""
    head, *rest = found.module.split(".")
    if head != NAME:
        return set()
    if rest:
        return {rest[0]}
    if not found.names:
        return {"__init__"}
    # `from fifo_diffusion import engine` names a room; a version number is no knowledge of any.
    return {name if name in {*FLOOR, *DOOR} else "__init__" for name in found.names if name != "__version__"}


def room_of(path: Path) -> str:
    inside = path.relative_to(ROOT)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def faults(room: str, source: str, light: bool = True) -> list[str]:
    """What a module of this room, with this source, may not import; light: it may be loaded before a model is used."""
    if room in DOOR:
        return []
    out = []
    for found in imports(ast.parse(source)):
        if found.module.startswith("."):
            out.append(f"line {found.line}: a relative import; write the whole name")
        for other in rooms(found) - {room}:
            if (room, other) in ALSO:
                continue
            if other in DOOR:
                out.append(f"line {found.line}: {room} goes out by the door ({other})")
            elif other not in FLOOR:
                out.append(f"line {found.line}: {other} is on no floor")
            elif FLOOR[other] >= FLOOR[room] or (FLOOR[room] == 3 and other == "engine"):
                out.append(f"line {found.line}: {room} (floor {FLOOR[room]}) may not know {other}")
        outside = found.module.split(".")[0]
        if outside in HEAVY and not (room in MAY_BE_HEAVY and (found.lazy or not light)):
            out.append(f"line {found.line}: {outside} only inside functions of {sorted(MAY_BE_HEAVY)}")
        if FLOOR[room] == 0 and outside not in {*sys.stdlib_module_names, "torch", "numpy", NAME}:
            out.append(f"line {found.line}: floor 0 knows torch and the standard library, not {outside}")
        if room == "errors":
            out.append(f"line {found.line}: errors imports nothing")
    return out


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_go_down(path: Path) -> None:
    room = room_of(path)
    assert room in FLOOR or room in DOOR, f"{room} is on no floor: give it one, here and in the drawing above"
    inside = path.relative_to(ROOT).as_posix()
    light = inside in LIGHT or path.name == "__init__.py"
    assert faults(room, path.read_text(encoding="utf-8"), light) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("engine", "from fifo_diffusion.session import Session"),
        ("engine", "def late():\n    import fifo_diffusion.models.gauss"),
        ("engine", "from fifo_diffusion import prompts"),
        ("engine", "from fifo_diffusion import stream"),
        ("schedule", "from fifo_diffusion.windows import Plan"),
        ("sinks", "from fifo_diffusion.decode import frames"),
        ("models", "from fifo_diffusion.engine import Engine"),
        ("models", "import diffusers.models"),
        ("decode", "def late():\n    from transformers import AutoModel"),
        ("session", "from fifo_diffusion.shed import tool"),
        ("session", "from .engine import Engine"),
        ("protocols", "import pydantic"),
        ("errors", "import sys"),
    ],
)
def test_the_test_sees_each_fault(room: str, source: str) -> None:
    assert len(faults(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("session", "from fifo_diffusion.engine import Engine\nfrom fifo_diffusion import __version__"),
        ("models", "def load():\n    import diffusers\nfrom fifo_diffusion.decode import frames"),
        ("models", "from fifo_diffusion.models.embedded import network"),
        ("protocols", "import torch\nfrom typing import TYPE_CHECKING"),
    ],
)
def test_the_test_lets_good_imports_pass(room: str, source: str) -> None:
    assert faults(room, source) == []


def loaded(script: str, *names: str) -> set[str]:
    """Which of these modules a fresh Python holds after the script."""
    tail = f"\nimport sys\nprint('loaded:', *(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script + tail], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_the_package_imports_lightly() -> None:
    assert loaded("import fifo_diffusion", *HEAVY, "av", "PIL") == set()
    script = """
import sys, fifo_diffusion
torch = sys.modules.get("torch")
assert torch is None or not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_help_loads_no_torch() -> None:
    script = """
import runpy, sys
sys.argv = ["fifo", "--help"]
try:
    runpy.run_module("fifo_diffusion", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
else:
    raise AssertionError("--help did not end the program")
"""
    assert loaded(script, "torch", *HEAVY) == set()


def test_sinks_load_no_torch() -> None:
    assert loaded("import fifo_diffusion.sinks", "torch", "av", "PIL") == set()
