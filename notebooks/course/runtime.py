"""Install what a notebook's Python environment lacks, without changing what it has.

A runtime such as Colab's brings its own NumPy and JAX. They may be loaded when a notebook starts,
and its JAX fits the machine's driver: another version breaks the kernel or finds no accelerator.
"""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("demo", "notebooks", "data")


def complete(root: Path = ROOT) -> None:
    """Install the packages that the notebooks need and this environment lacks.

    `root` is a clone of the project. Installed packages keep their version, unless mbt_lite cannot
    work with it; if this kernel has loaded such a package, it restarts after a message. Raises
    SystemExit where something cannot be installed.
    """
    needs, here = requirements(root), installed()
    unfit = {name for name, need in needs.items() if name in here and not _fits(need, here[name])}
    missing = [str(need) for name, need in needs.items() if name in unfit or name not in here]
    replaced = unfit & loaded() if unfit else set()
    if missing:
        print(f"Installing {', '.join(missing)}; all else stays as it is.", flush=True)
        pins = [f"{name}=={version}" for name, version in here.items() if name not in unfit]
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text("\n".join(pins), encoding="utf-8")
            _pip(missing, "--constraint", str(constraints))
    if "mbt-lite" not in here:
        _pip([str(root)], "--no-deps", "--editable")
    importlib.invalidate_caches()
    if replaced:
        _restart(", ".join(sorted(replaced)))


def requirements(root: Path) -> dict[str, Requirement]:
    """Requirements of the notebooks in pyproject.toml, by canonical name."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = (project["optional-dependencies"][name] for name in EXTRAS)
    needs = [Requirement(line) for line in sum(extras, project["dependencies"])]
    return {canonicalize_name(need.name): need for need in needs}


def installed() -> dict[str, Version]:
    """Versions of the packages that an import would find, by canonical name."""
    versions = {}
    for package in metadata.distributions():
        try:
            versions.setdefault(canonicalize_name(package.name), Version(package.version))
        except (InvalidVersion, TypeError):  # a package of the system, or a damaged one
            continue
    return versions


def loaded() -> set[str]:
    """Canonical names of the packages of which this process has imported a module."""
    homes = metadata.packages_distributions()
    modules = {name.partition(".")[0] for name in sys.modules}
    return {canonicalize_name(home) for name in modules for home in homes.get(name, ())}


def accelerator() -> str | None:
    """Name the machine's accelerator, whether or not JAX uses it; None if it has none."""
    program = shutil.which("nvidia-smi")
    if program and not subprocess.run([program, "-L"], capture_output=True).returncode:
        return "an NVIDIA GPU"
    if os.environ.get("COLAB_GPU", "0") not in ("", "0"):
        return "an NVIDIA GPU"
    if os.environ.get("COLAB_TPU_ADDR") or importlib.util.find_spec("libtpu"):
        return "a TPU"
    return None


def _fits(need: Requirement, version: Version) -> bool:
    return need.specifier.contains(version, prereleases=True)


def _pip(packages: list[str], *options: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    ran = subprocess.run([*command, *options, *packages], capture_output=True, text=True)
    if ran.returncode:
        lines = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
        raise SystemExit(f"pip says: {lines[-1]}. Is there a network? Then run this cell again.")


def _restart(names: str) -> None:
    """Restart this kernel, so that it loads the packages that are on the disk now."""
    from IPython import get_ipython

    get_ipython().kernel.do_shutdown(restart=True)
    raise SystemExit(
        f"{names} had to be replaced and was loaded already, so the kernel restarts now. "
        "Run this cell again."
    )
