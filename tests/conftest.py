"""Measured numbers in `pytest -v`, and fixtures of several files."""

import atexit
import os
import re
import shutil
import signal
import tempfile

import jax
import numpy as np
import pytest
from programs import begin, end

KEPT = "JAX_COMPILATION_CACHE_DIR"
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def pytest_configure():
    """One cache of what is compiled, for all processes; and Ctrl-C works.

    A shell that starts tests in the background has it ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if KEPT not in os.environ:  # this is the first process of them
        folder = tempfile.mkdtemp(prefix="mbt_lite_compiled_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ |= {KEPT: folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def pytest_ignore_collect(collection_path, config):
    """The core stage does not import a file whose tests are all of a later one, unless named.

    To import Gradio alone takes as long as a hundred tests.
    """
    named = any(collection_path.name in argument for argument in config.args)
    if named or collection_path.suffix != ".py" or "not full" not in config.option.markexpr:
        return None
    text = collection_path.read_text(encoding="utf-8")
    later = re.search(r"^pytestmark = \[?\s*pytest\.mark\.(full|slow)\b", text, re.M)
    return True if later else None


def pytest_collection_modifyitems(items):
    """Tests of minutes may take many on a busy machine."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


def pytest_report_teststatus(report):
    """`pytest -v` shows what a test measured: record_property("error logits", "1e-07")."""
    measured = getattr(report, "user_properties", ())  # a module that cannot be collected has none
    numbers = [f"{k} {v}" for k, v in measured if k.startswith("error")]
    if report.when == "call" and report.passed and numbers:
        return "passed", ".", (f"PASSED {', '.join(numbers)}", {"green": True})
    return None


@pytest.fixture
def agree(record_property):
    """Asserts that two arrays agree, and shows by how much in `pytest -v`."""

    def check(what, got, want, atol):
        error = float(np.abs(np.asarray(got, np.float64) - want).max())
        record_property(f"error {what}", f"{error:.0e}")
        assert np.shape(got) == np.shape(want)
        assert error <= atol, f"{what}: {error:.1e} > {atol}"

    return check


@pytest.fixture(scope="module")
def compiled_quickly():
    """Here and in programs begun here; most tiny models compile for longer than they run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setenv(name, value)
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """What every run shares: compiled programs."""
    return os.environ | QUICK | {"MBT_LITE_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def undisturbed(environment, tmp_path_factory):
    """What a run of twelve steps that nothing happens to ends with."""
    found, _ = end(begin(tmp_path_factory.mktemp("whole"), environment))
    assert found["finished"] and len(found["losses"]) == 12
    return found
