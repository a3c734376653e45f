"""The direction of imports, the libraries that each module may use, and the cost of an import."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import mbt_lite

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mbt_lite"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")

# A room, a folder or file of mbt_lite, imports only from lower levels.
LEVELS = [
    ["config", "paths", "progress"],
    ["media", "model"],
    ["features"],
    ["checkpoints", "plot"],
    ["inference", "data"],
    ["evaluation", "explain", "configs", "playground"],
    ["train", "demo"],
    ["cli"],
    ["__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

ONLY_IN = {  # library: the rooms that may import it
    "matplotlib": ["plot"],
    "flax.linen": ["model"],
    "librosa": [],  # an alternative in benchmarks/
    "av": ["media"],
    "gradio": ["demo"],
}
NEVER = {"tensorflow", "torch"}
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}  # run code

# Loader processes import these files and folders, and should stay light.
WITHOUT_JAX = ["config", "media/", "demo/sandbox"]
WITHOUT_JAX += [
    f"data/{name}" for name in "records source sampling sources tables videos workers".split()
]

NAMED = "jupyterlab jax flax optax tensorflow_datasets matplotlib ipywidgets librosa mediapy gradio"


def room_of(path: Path) -> str:
    """The name that LEVELS uses for a file: the first part of its path, or `__main__`."""
    if path.stem == "__main__":
        return path.stem
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every dotted name that a file imports, at its top or inside a function."""
    package = ("mbt_lite", *path.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(names)


def is_in(path: Path, name: str) -> bool:
    """Whether a file is the module "a/b", or in the folder "a/"."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix().startswith(name)


def test_rooms_import_only_from_lower_levels():
    wrong = []
    for path in SOURCES:
        room = room_of(path)
        if room not in LEVEL:
            wrong.append(f"{path}: say in LEVELS of tests/test_house.py which rooms are below it.")
            continue
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("mbt_lite.")}
        rooms -= {"__version__"} | ({room} if (PACKAGE / room).is_dir() else set())
        if unknown := sorted(rooms - set(LEVEL)):
            wrong.append(f"{path} imports {unknown} from mbt_lite; import the defining module.")
        if high := sorted(n for n in rooms & set(LEVEL) if LEVEL[n] >= LEVEL[room]):
            wrong.append(f"{path} (level {LEVEL[room]}) imports {high}, which is not below it.")
    assert not wrong, "\n".join(wrong)


def test_rooms_import_only_the_libraries_that_are_theirs_and_no_pickle():
    wrong = []
    for path in SOURCES:
        banned = {library for library, rooms in ONLY_IN.items() if room_of(path) not in rooms}
        banned |= NEVER | PICKLES
        if any(is_in(path, name) for name in WITHOUT_JAX):
            banned |= {"jax", "flax", "optax", "orbax"}
        dotted = [f"{name}." for name in imports(path)]
        if bad := sorted(b for b in banned if any(name.startswith(f"{b}.") for name in dotted)):
            wrong.append(f"{path} may not import {bad}.")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    wrong.append(f"{path}, line {node.value.lineno}: arrays with pickle.")
    assert not wrong, "\n".join(wrong)
    idle = [name for name in WITHOUT_JAX if not any(is_in(path, name) for path in SOURCES)]
    assert not idle, f"WITHOUT_JAX names {idle}, which are no files."


@pytest.mark.full
def test_importing_mbt_lite_and_its_configs_loads_no_heavy_library():
    heavy = ["jax", "flax", "matplotlib", "PIL", "av", "gradio", "librosa", *sorted(NEVER)]
    program = (
        "import sys, mbt_lite; mbt_lite.BASE, mbt_lite.FrontEnd; dir(mbt_lite);"
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


@pytest.mark.full
@pytest.mark.parametrize("module", ["demo.sandbox", "data.workers", "cli"])
def test_the_command_line_and_processes_that_read_files_start_without_jax(module):
    program = f"import sys, mbt_lite.{module}; print('jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout == "False\n", ran.stderr


def test_public_names_are_imported_when_they_are_used():
    names = "BASE MBT Classifier Prediction evaluate fit from_vit load configs explain world"
    for name in names.split():
        assert name in dir(mbt_lite) and getattr(mbt_lite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        mbt_lite.lod  # noqa: B018
    assert (PACKAGE / "py.typed").is_file()


def test_requirements_pin_all_that_pyproject_requires_without_local_paths():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    wrong = [line for line in packages if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line)]
    wrong += [line for line in lines if "://" in line or "-index" in line or " /" in line]
    assert not wrong, "\n".join(wrong)
    pinned = {line.split("==")[0] for line in packages}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    required = {re.match(r"[\w.-]+", entry)[0] for entry in entries} | set(NAMED.split())
    missing = {name.lower().replace("_", "-") for name in required} - pinned
    assert not missing, f"requirements.txt lacks {sorted(missing)}."
