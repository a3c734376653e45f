"""Nothing is lost: runs that are killed, stopped, damaged or short of disk, and go on."""

import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import runner
from programs import begin, end

from mbt_lite.train import loop

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]


def wait_for(process, text: str) -> None:
    """Return as soon as the run has written this to standard error."""
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the run never wrote {text!r}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_twenty_times_ends_with_the_same_weights(environment, undisturbed, tmp_path):
    rng, hits = random.Random(2), 0
    for _ in range(20):
        process = begin(tmp_path, environment, save_every=1)
        steps = rng.randrange(0, 4)
        for _ in range(steps):
            if not process.stdout.readline():
                break
        time.sleep(rng.uniform(0, 3.0 if steps == 0 else 0.2))
        hits += process.poll() is None and steps > 0
        process.kill()
        process.communicate()
    result, _ = end(begin(tmp_path, environment, save_every=1))
    assert hits > 3 and result == undisturbed


def fit(folder, live=None, **options) -> loop.Run:
    """A run in this process."""
    return loop.fit(runner.experiment(**options), folder, live=live, quiet=True)


def interrupted(folder, at: int, number=signal.SIGTERM, after=0.0, **options) -> loop.Run:
    """One that ends soon after a signal, which comes so many seconds after a step was logged."""
    sent = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), number)

    def look(rows) -> None:
        if rows[-1]["step"] == at:
            threading.Timer(after, send).start() if after else send()

    run = fit(folder, look, **options)
    assert time.monotonic() - sent[0] < 30 and not run.finished
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run in this process ends with that nothing happens to."""
    result = runner.summary(fit(tmp_path_factory.mktemp("whole")))
    assert result["finished"] and len(result["losses"]) == 12
    return result


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT]
)
def test_a_signal_keeps_the_state_and_the_same_call_goes_on(number, whole, tmp_path, capsys):
    stopped = interrupted(tmp_path, 3, number, save_every=100)
    assert "its state is being saved" in capsys.readouterr().err
    assert stopped.classifier.labels  # a model to look at, too
    steps = [int(path.name) for path in (tmp_path / "state").iterdir()]
    assert len(steps) == 1 and 3 <= steps[0] < 12
    assert runner.summary(fit(tmp_path, save_every=100)) == whole


@pytest.mark.slow
def test_a_signal_before_the_first_step_ends_the_program(tmp_path):
    cold = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    process = begin(tmp_path / "run", cold)
    wait_for(process, "compiling the step")
    process.send_signal(signal.SIGTERM)
    _, errors = end(process, code=75)
    assert "the same command resumes" in errors and "Traceback" not in errors


@pytest.mark.slow
def test_a_signal_in_the_middle_of_scoring_saves_too(tmp_path):
    options = {"evaluate_every": 3, "evaluate_clips": 3000, "save_every": 100}
    stopped = interrupted(tmp_path, 3, after=1.0, **options)  # the 3000 clips take longer
    assert len(runner.summary(stopped)["losses"]) == 3
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["3"]
    fit(tmp_path, **options | {"evaluate_clips": 8})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "mAP" in row] == [3, 6, 9, 12]  # scored after all


@pytest.mark.slow
def test_a_run_resumes_from_the_state_before_a_damaged_one(whole, tmp_path, capsys):
    interrupted(tmp_path, 6)
    before, newest = sorted((tmp_path / "state").iterdir(), key=lambda path: int(path.name))
    largest = max(newest.rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    capsys.readouterr()
    result, errors = runner.summary(fit(tmp_path)), capsys.readouterr().err
    assert f"the state of step {newest.name} " in errors and "is damaged" in errors
    assert f"resuming from step {before.name}" in errors
    assert result == whole


@pytest.mark.slow
def test_a_run_goes_on_where_there_are_other_devices(environment, undisturbed, tmp_path):
    end(begin(tmp_path, environment, stop_at=5, devices=2), code=75)
    result, _ = end(begin(tmp_path, environment, devices=4, shards=2))
    np.testing.assert_allclose(result["losses"], undisturbed["losses"], rtol=1e-5)
    np.testing.assert_allclose(result["sums"], undisturbed["sums"], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_training_goes_on_when_the_disk_is_full(whole, tmp_path, capsys):
    disk = tmp_path / "state"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        result = runner.summary(fit(tmp_path, save_every=3, keep_checkpoints=1))
        assert re.search("could not be saved .*No space left on device", capsys.readouterr().err)
        assert result == whole
        names = sorted(path.name for path in disk.iterdir())
        assert all(name.isdigit() for name in names)
    finally:
        subprocess.run(["umount", disk], check=True)
