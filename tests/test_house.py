"""Which way imports go, what the package may lean on, and what `import mbt_lite` costs."""

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

# A room, a folder or file of mbt_lite, imports only from lower levels.
LEVELS = [
    ["config", "paths", "progress"],
    ["media", "model"],
    ["features"],
    ["checkpoints", "plot"],
    ["inference", "data"],
    ["evaluation", "explain", "configs"],
    ["train", "demo"],
    ["cli"],
    ["__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# What only these modules may import.
ONLY_IN = {
    "matplotlib": ["plot"],
    "flax.linen": ["model"],
    "librosa": [],  # an alternative in benchmarks/
    "av": ["media"],
    "gradio": ["demo"],
}

# What the package never needs.
NEVER = {"tensorflow", "torch"}

# Ways to run code that a file brought along.
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

# Loader processes use these, and they should stay light.
WITHOUT_JAX = ["config", "media/", "demo/sandbox"]
WITHOUT_JAX += [
    f"data/{name}"
    for name in "records source sampling sources tables videos windows workers".split()
]

NAMED = "jupyterlab jax flax optax tensorflow_datasets matplotlib ipywidgets librosa mediapy gradio"


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_of(path: Path) -> str:
    """The name that LEVELS uses for a file: the first part under mbt_lite/, or `__main__`."""
    if path.stem == "__main__":
        return path.stem
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every dotted name a file imports, at its top or inside a function."""
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


def leans_on(path: Path, *libraries: str) -> set[str]:
    """Those of the libraries that a file imports."""
    dotted = [f"{name}." for name in imports(path)]
    return {library for library in libraries if any(n.startswith(f"{library}.") for n in dotted)}


def lies_in(path: Path, name: str) -> bool:
    """Whether a file is the module "a/b", or lies in the folder "a/"."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix().startswith(name)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_modules_import_only_from_lower_levels():
    wrong = []
    for path in sources():
        module = module_of(path)
        if module not in LEVEL:
            wrong.append(
                f"{relative(path)} has no level yet: say in LEVELS of tests/test_house.py which "
                "modules it stands above."
            )
            continue
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("mbt_lite.")}
        ours -= {"__version__"} | ({module} if (PACKAGE / module).is_dir() else set())
        if unknown := sorted(ours - set(LEVEL)):
            wrong.append(
                f"{relative(path)} imports {unknown} from mbt_lite; inside the package import the "
                "module that defines it, for example `from mbt_lite.config import BASE`."
            )
        if high := sorted(n for n in ours & set(LEVEL) if LEVEL[n] >= LEVEL[module]):
            wrong.append(f"{module} (level {LEVEL[module]}) imports {high}, not below it.")
    assert not wrong, "\n".join(wrong)


def test_modules_lean_only_on_the_libraries_that_are_theirs_and_on_no_pickle():
    wrong = []
    for path in sources():
        strange = {library for library, homes in ONLY_IN.items() if module_of(path) not in homes}
        strange |= NEVER | PICKLES
        if any(lies_in(path, name) for name in WITHOUT_JAX):
            strange |= {"jax", "flax", "optax", "orbax"}  # what a loader process imports
        if found := sorted(leans_on(path, *strange)):
            wrong.append(f"{relative(path)} may not import {found}.")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    wrong.append(f"{relative(path)}, line {node.value.lineno}: arrays with pickle.")
    assert not wrong, "\n".join(wrong)
    idle = [name for name in WITHOUT_JAX if not any(lies_in(path, name) for path in sources())]
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


def test_public_names_are_handed_out_and_an_unknown_one_is_answered_with_them():
    assert set(mbt_lite.__all__) <= set(dir(mbt_lite))
    absent = [name for name in mbt_lite.__all__ if getattr(mbt_lite, name) is None]
    assert not absent, f"{absent} are in __all__ and None."
    with pytest.raises(AttributeError, match="no 'lod'; it offers .*load"):
        mbt_lite.lod  # noqa: B018


def test_a_type_checker_reads_the_same_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {}
    for node in block.body:
        for alias in node.names:
            full = PACKAGE.parent.joinpath(*node.module.split("."), alias.name)
            module = full.is_dir() or full.with_suffix(".py").is_file()
            home = f"{node.module}.{alias.name}" if module else node.module
            told[alias.asname] = home.removeprefix("mbt_lite.")
    assert told == mbt_lite._HOMES
    assert (PACKAGE / "py.typed").is_file()


def test_requirements_name_exact_versions_of_all_that_pyproject_asks_for_and_no_machine():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    wrong = [line for line in packages if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line)]
    wrong += [line for line in lines if "://" in line or "-index" in line or " /" in line]
    assert not wrong, "\n".join(wrong)
    names = {line.split("==")[0] for line in packages}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    asked = {re.match(r"[\w.-]+", entry)[0] for entry in wanted} | set(NAMED.split())
    missing = {name.lower().replace("_", "-") for name in asked} - names
    assert not missing, f"requirements.txt lacks {sorted(missing)}."
