"""Shared parts of the notebooks: set-up, smoke profile, and exercises.

    from course import check, pick, samples

`pick(full, smoke)` chooses by the profile: tests run the notebooks with MBT_LITE_SMOKE=1, with
fewer steps and clips. `check(function)` says whether an exercise of that function's name is right.
"""

import importlib
import os
import platform
from collections.abc import Callable
from pathlib import Path

from course.exercise import Exercise, Verdict

SMOKE = os.environ.get("MBT_LITE_SMOKE") == "1"
LESSONS = {  # notebook: the module here that has its exercises
    "01_from_video_to_tensors": "tensors",
    "02_tokens_and_attention": "tokens",
    "03_fusion_through_a_bottleneck": "fusion",
    "03b_build_mbt": "minimbt",
    "04_training_on_accelerators": "training",
    "05_what_the_bottleneck_sees": "seeing",
    "06_your_own_videos": "videos",
    "07_released_checkpoints_and_demo": "released",
}
UNSEEN = (
    "JAX sees only the CPU, though this machine has {}. Everything works, but slowly. In Colab, "
    "choose Runtime > Disconnect and delete runtime, open the notebook again, and install no other "
    "jax; elsewhere install the jax of your driver: https://docs.jax.dev/en/latest/installation.html"
)


def begin() -> None:
    """Print versions, devices and profile, and set float32 products to full precision.

    If JAX does not use the machine's accelerator, print what to do.
    """
    import flax
    import jax
    import numpy

    import mbt_lite
    from course.runtime import accelerator

    versions = {"mbt_lite": mbt_lite.__version__, "jax": jax.__version__, "flax": flax.__version__}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{listed}, NumPy {numpy.__version__}, Python {platform.python_version()}")
    devices = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    print(f"{jax.device_count()} device(s): {devices}{'; smoke profile' if SMOKE else ''}")
    unseen = accelerator() if jax.default_backend() == "cpu" else None
    if unseen:
        print(UNSEEN.format(unseen))
    jax.config.update("jax_default_matmul_precision", "highest")
    print("float32 products are taken at full precision, so that numbers can be compared (see 04)")


def pick(full, smoke):
    """`full`, or in the smoke profile `smoke`."""
    return smoke if SMOKE else full


def samples() -> Path:
    """Return the folder of small clips that is part of the repository."""
    candidates = [Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[2]]
    for folder in candidates:
        if (folder / "data_samples" / "labels.csv").is_file():
            return folder / "data_samples"
    raise FileNotFoundError("data_samples is not here; clone the repository, or use own clips.")


def exercises(lesson: str) -> tuple[Exercise, ...]:
    """Return the exercises of a notebook, in order."""
    return importlib.import_module(f"course.{LESSONS[lesson]}").EXERCISES


def exercise(name: str) -> Exercise:
    """Return the exercise with this name, which is also the name of the function to write."""
    for lesson in LESSONS:
        for candidate in exercises(lesson):
            if candidate.name == name:
                return candidate
    raise ValueError(f"no exercise asks for a function {name!r}.")


def check(answer: Callable) -> Verdict:
    """Return the `Verdict` on a learner's function, whose name is that of the exercise."""
    return exercise(answer.__name__).check(answer)


def yours(answer: Callable) -> Callable:
    """Return a learner's function if its exercise finds it right, otherwise the solution's."""
    one = exercise(answer.__name__)
    return answer if one.check(answer).right else one.define(one.solution)
