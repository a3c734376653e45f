"""The notebooks and the core tests beside the versions that Colab brings: `make test-colab`.

A new environment in build/colab gets Python 3.13 and the packages of runtime.txt. There each
notebook runs in the smoke profile from an empty folder, as in Colab: its set-up cell clones the
last commit of this repository and installs what is missing. It fails if a notebook or a test
fails, and if anything that the runtime brought has another version afterwards.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402

PLACE = ROOT / "build" / "colab"
CONTENT = PLACE / "content"  # where a notebook of Colab starts
JUPYTER = PLACE / "jupyter"
PYTHON = PLACE / "env" / "bin" / "python"
LINES = (HERE / "runtime.txt").read_text("utf-8").splitlines()
BROUGHT = dict(line.split("==") for line in LINES if "==" in line)
REPLACED = {"tensorflow-metadata"}  # pyproject.toml says why
SHOWN = ("numpy", "jax", "flax")
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
PROCESSES = 2  # notebooks, or tests, that run side by side
TOOLS = ["pytest-timeout", "pytest-xdist"]  # that tests need and Colab lacks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="notebooks whose name begins so, and no tests")
    parser.add_argument(
        "--notebooks", action="store_true", help="no tests; skipped without Python 3.13"
    )
    parser.add_argument("tests", nargs="*", help="files of tests; by default all")
    options = parser.parse_args()
    if options.notebooks and not python_313():
        print("Skipped: Colab has Python 3.13, and none is here.")
        return 0
    start = time.perf_counter()
    make_environment()
    print(f"set up in {time.perf_counter() - start:.0f} s", flush=True)
    texts = [text for text in build.TEXTS if text.name.startswith(options.only)]
    failed = [text.stem for text in texts[:1] if not runs(text)]  # it completes the environment
    with ThreadPoolExecutor(PROCESSES) as threads:
        ended = list(threads.map(runs, texts[1:]))
    failed += [text.stem for text, well in zip(texts[1:], ended, strict=True) if not well]
    if not (options.only or options.notebooks) and not tests_pass(options.tests):
        failed.append("tests")
    print(f"failed: {', '.join(failed)}" if failed else "all well", flush=True)
    return len(failed) > 0


def make_environment() -> None:
    """A virtual environment with exactly the packages of runtime.txt, made anew."""
    shutil.rmtree(PLACE, ignore_errors=True)
    CONTENT.mkdir(parents=True)
    packages = ["install", "-q", "--no-deps", "-r", HERE / "runtime.txt"]
    uv, python = shutil.which("uv"), python_313()
    if not python and not uv:
        sys.exit("Colab has Python 3.13. Here is neither that nor uv, which could fetch it.")
    if uv:
        create = [uv, "venv", "-q", "--python", python or "3.13", PYTHON.parents[1]]
        install = [uv, "pip", *packages, "--python", PYTHON]
    else:
        create = [python, "-m", "venv", PYTHON.parents[1]]
        install = [PYTHON, "-m", "pip", *packages]
    for command in (create, install):
        if subprocess.run(command).returncode:
            sys.exit("The environment could not be made. Is there a network?")
    kernel = JUPYTER / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "colab", "language": "python"}))
    os.environ["JUPYTER_PATH"] = str(JUPYTER)


def python_313() -> str | None:
    """A Python 3.13 of this machine: the one on the PATH, or one that pyenv keeps."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.13.*")
    candidates = [
        shutil.which("python3.13"),
        *(str(one / "bin" / "python") for one in sorted(kept)),
    ]
    works = (
        one for one in candidates if one and not subprocess.run([one, "-V"], **QUIET).returncode
    )
    return next(works, None)


def environment() -> dict[str, str]:
    """Variables for programs of the environment; git clones this repository for its address."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return kept | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": build.repository(),
        "MBT_LITE_CACHE": str(PLACE / "cache"),
        "MBT_LITE_SMOKE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's words on standard error
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # small models compile for longer than they run
        "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}",
    }


def runs(text: Path) -> bool:
    """Whether a notebook runs to its end, and leaves on disk all versions that were there."""
    place = {"metadata": {"path": str(CONTENT)}}
    notebook = build.assemble(text, seconds=0)
    client = NotebookClient(notebook, resources=place, timeout=600, kernel_name="colab")
    start, error = time.perf_counter(), ""
    try:
        client.execute(env=environment())
    except (CellControlSignal, DeadKernelError) as failure:
        error = str(failure)
    moved = changed()
    lines = [f"{text.stem:36} {time.perf_counter() - start:4.0f} s", error]
    if moved:
        lines.append(f"    what Colab brings has changed: {', '.join(moved)}")
    else:
        shown = ", ".join(f"{name} {versions()[name]}" for name in SHOWN)
        lines[0] += f"   {shown}: unchanged, as are the other {len(BROUGHT) - len(SHOWN)} packages"
    print("\n".join(filter(None, lines)), flush=True)
    return not (error or moved)


def tests_pass(files: list[str]) -> bool:
    """Whether the tests of the clone pass, as `make test` runs them."""
    pip = [PYTHON, "-m", "pip", "install", "-q", "-c", HERE / "runtime.txt", *TOOLS]
    # that one of these libraries finds another outdated is no fault here
    quiet = ["-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning"]
    pytest = [PYTHON, "-m", "pytest", "-q", f"-n{PROCESSES}", "--dist=loadfile", *quiet, *files]
    return all(
        subprocess.run(command, cwd=CONTENT / "mbt-lite", env=environment()).returncode == 0
        for command in (pip, pytest)
    )


def versions() -> dict[str, str]:
    """What is on the disk of the environment."""
    site = PYTHON.parents[1] / "lib" / "python3.13" / "site-packages"
    return {one.name.lower(): one.version for one in metadata.distributions(path=[str(site)])}


def changed() -> list[str]:
    """Packages of runtime.txt that have another version now."""
    installed = {name.replace("_", "-"): version for name, version in versions().items()}
    brought = {name.lower().replace("_", "-"): version for name, version in BROUGHT.items()}
    return [
        f"{name} from {version} to {installed.get(name)}"
        for name, version in brought.items()
        if name not in REPLACED and installed.get(name) != version
    ]


if __name__ == "__main__":
    sys.exit(main())
