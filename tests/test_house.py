"""Which way imports go, what the package may lean on, and what `import mbt_lite` costs."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mbt_lite

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mbt_lite"

# A module imports only from lower levels; a package, such as `plot`, stands for every file in it.
LEVELS = {
    0: [
        "cost",
        "flaxfile",
        "forms",
        "metrics",
        "container",
        "download",
        "sequence",
        "tfrecord",
        "processes",
        "tfdata",
        "files",
        "interrupts",
    ],
    1: ["config", "hub"],
    2: ["tracks", "encode", "model", "layouts", "scenic", "journal", "sampling"],
    3: [
        "media",
        "reference",
        "checkpoint",
        "augment",
        "sharding",
        "workers",
        "experiment",
        "filler",
        "savepoints",
    ],
    4: ["features", "vit", "batches", "windows", "losses", "optimizer"],
    5: ["card", "world", "records", "zoo", "kept", "step"],
    6: ["inference", "tables", "class_folders", "pace"],
    7: ["plot", "extract", "holdout", "videos"],
    8: ["builders", "explain", "doctor", "manifests", "logbook"],
    9: ["sources", "prepare", "panels", "guard"],
    10: ["data", "beam"],
    11: ["labelled", "start", "validation"],
    12: ["report", "rehearsal"],
    13: ["evaluation", "calibrate"],
    14: ["train", "configs", "throughput", "sweep"],
    15: ["blind", "course"],
    16: ["widgets", "demo"],
    17: ["bench"],
    18: ["cli"],
    19: ["__main__"],
}
LEVEL = {module: level for level, modules in LEVELS.items() for module in modules}

# What only these modules may import.
ONLY_IN = {
    "matplotlib": ["plot"],
    "flax.linen": ["model", "reference"],
    "librosa": ["bench"],  # an alternative, measured where it is installed
    "av": ["container", "tracks", "encode"],
    "gradio": ["demo"],
}

# What the package never needs.
NEVER = {"tensorflow", "torch"}

# Ways to run code that a file brought along.
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

# Loader processes use these, and they should stay light.
WITHOUT_JAX = ["config", "metrics", "container", "tracks", "encode", "media", "records"]
WITHOUT_JAX += ["filler", "guard", "processes", "sampling", "sources", "tables", "videos"]
WITHOUT_JAX += ["windows", "workers"]

NAMED = "jupyterlab jax flax optax tensorflow_datasets matplotlib ipywidgets librosa mediapy gradio"


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_of(path: Path) -> str:
    """The name that LEVELS uses for a file: the first part under mbt_lite/, or `__main__`."""
    if path.stem == "__main__":
        return path.stem
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Every dotted name a file imports, at its top or inside a function."""
    package = ("mbt_lite", *path.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def leans_on(path: Path, library: str) -> bool:
    return any(name == library or name.startswith(library + ".") for name in imports(path))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_a_module_imports_only_from_lower_levels(path):
    module = module_of(path)
    assert module in LEVEL, (
        f"{relative(path)} has no level yet: say in LEVELS of tests/test_house.py which modules "
        "it stands above."
    )
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("mbt_lite.")}
    ours -= {"__version__"} | ({module} if (PACKAGE / module).is_dir() else set())
    assert ours <= set(LEVEL), (
        f"{relative(path)} imports {sorted(ours - set(LEVEL))} from mbt_lite; inside the package "
        "import the module that defines it, for example `from mbt_lite.config import BASE`."
    )
    too_high = sorted(name for name in ours if LEVEL[name] >= LEVEL[module])
    assert not too_high, f"{module} (level {LEVEL[module]}) imports {too_high}, not below it."


@pytest.mark.parametrize("library, homes", ONLY_IN.items())
def test_a_library_stays_at_home(library, homes):
    others = [relative(p) for p in sources() if module_of(p) not in homes and leans_on(p, library)]
    assert not others, f"only {homes} in mbt_lite/ may import {library}, but so do {others}."


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_a_module_leans_on_no_foreign_framework_and_no_pickle(path):
    found = sorted(library for library in NEVER | PICKLES if leans_on(path, library))
    assert not found, f"{relative(path)} imports {found}."


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_arrays_are_never_loaded_with_pickle(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


@pytest.mark.parametrize("module", WITHOUT_JAX)
def test_what_a_loader_process_imports_has_no_jax(module):
    path = PACKAGE / f"{module}.py"
    assert not any(leans_on(path, library) for library in ("jax", "flax", "optax", "orbax"))


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


@pytest.mark.parametrize("name", mbt_lite.__all__)
def test_a_public_name_is_handed_out(name):
    assert name in dir(mbt_lite)
    assert getattr(mbt_lite, name) is not None


def test_a_type_checker_reads_the_same_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname: alias.name if node.module == "mbt_lite" else node.module.split(".")[1]
        for node in block.body
        for alias in node.names
    }
    assert told == mbt_lite._HOMES
    assert (PACKAGE / "py.typed").is_file()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match="no 'lod'; it offers .*load"):
        mbt_lite.lod  # noqa: B018


def test_requirements_name_exact_versions_and_nothing_of_one_machine():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line) for line in packages)
    assert not any("://" in line or "-index" in line or " /" in line for line in lines)
    names = {line.split("==")[0] for line in packages}
    assert {name.replace("_", "-") for name in NAMED.split()} <= names


def test_requirements_hold_every_package_that_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {re.match(r"[\w.-]+", entry)[0].lower().replace("_", "-") for entry in wanted}
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert names <= set(re.findall(r"^([a-z0-9.-]+)==", lock, flags=re.M))
