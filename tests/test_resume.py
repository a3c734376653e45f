"""Nothing is lost: runs that are killed, stopped, damaged or short of disk, and go on."""

import json
import os
import random
import signal
import subprocess
import time
from argparse import Namespace

import jax
import numpy as np
import pytest
import runner
from programs import begin, end

from mbt_lite import train

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]


def when(process, said: str) -> None:
    """Returns as soon as the run has said this on its standard error."""
    for line in process.stderr:
        if said in line:
            return
    raise AssertionError(f"the run never said {said!r}")


def killed_again_and_again(workdir, environment, times: int, seed: int) -> tuple[dict, int]:
    """What the run ends with after so many kills at random moments, and how many hit its steps."""
    rng, hits = random.Random(seed), 0
    for _ in range(times):
        process = begin(workdir, environment, save_every=1)
        steps = rng.randrange(0, 4)
        for _ in range(steps):
            if not process.stdout.readline():
                break
        time.sleep(rng.uniform(0, 3.0 if steps == 0 else 0.2))
        hits += process.poll() is None and steps > 0
        process.kill()
        process.communicate()
    return end(begin(workdir, environment, save_every=1))[0], hits


def test_a_run_killed_at_random_moments_ends_with_the_same_weights(
    environment, undisturbed, tmp_path
):
    found, hits = killed_again_and_again(tmp_path, environment, 4, seed=1)
    assert hits > 0 and found == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_twenty_times_ends_with_the_same_weights(environment, undisturbed, tmp_path):
    found, hits = killed_again_and_again(tmp_path, environment, 20, seed=2)
    assert hits > 3 and found == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_a_code_of_its_own(number, environment, undisturbed, tmp_path):
    process = begin(tmp_path, environment, save_every=100)
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(number)
    sent = time.monotonic()
    found, told = end(process, code=75)
    assert time.monotonic() - sent < 30 and not found["finished"]
    assert "its state is being saved" in told and "Traceback" not in told
    steps = [int(path.name) for path in (tmp_path / "state").iterdir()]
    assert len(steps) == 1 and 3 <= steps[0] < 12
    assert end(begin(tmp_path, environment, save_every=100))[0] == undisturbed


def test_a_signal_while_the_compiler_works_ends_the_run_at_once(tmp_path):
    cold = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    process = begin(tmp_path / "run", cold, depth=12)
    when(process, "compiling the step")
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    _, told = end(process, code=75)
    assert time.monotonic() - sent < 5
    assert "all there was is saved" in told and "Traceback" not in told


def test_a_signal_in_the_middle_of_scoring_saves_too(environment, tmp_path):
    options = {"evaluate_every": 3, "evaluate_clips": 3000, "save_every": 100}
    process = begin(tmp_path, environment, **options)
    for _ in range(3):
        process.stdout.readline()
    time.sleep(1)  # the 3000 clips take longer
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    found, told = end(process, code=75)
    assert time.monotonic() - sent < 30 and len(found["losses"]) == 3
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["00000003"]
    again, _ = end(begin(tmp_path, environment, **options | {"evaluate_clips": 8}))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "mAP" in row] == [3, 6, 9, 12]  # scored after all


def test_a_damaged_state_is_put_aside_and_the_one_before_taken(environment, undisturbed, tmp_path):
    end(begin(tmp_path, environment, stop_at=6), code=75)
    before, newest = sorted((tmp_path / "state").iterdir(), key=lambda path: int(path.name))
    largest = max(newest.rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    found, told = end(begin(tmp_path, environment))
    assert f"the state of step {int(newest.name)} " in told and "is damaged" in told
    assert f"going on from step {int(before.name)}" in told
    assert found == undisturbed


def test_a_run_goes_on_where_there_are_other_devices(environment, undisturbed, tmp_path):
    end(begin(tmp_path, environment, stop_at=5, devices=2), code=75)
    found, _ = end(begin(tmp_path, environment, devices=4, shards=2))
    np.testing.assert_allclose(found["losses"], undisturbed["losses"], rtol=1e-5)
    np.testing.assert_allclose(found["sums"], undisturbed["sums"], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_training_goes_on_when_the_disk_is_full(environment, undisturbed, tmp_path):
    disk = tmp_path / "state"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        found, told = end(begin(tmp_path, environment, save_every=3, keep=1))
        assert "could not be saved" in told and found == undisturbed
        names = sorted(path.name for path in disk.iterdir())
        assert all(name.isdigit() for name in names)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_ctrl_c_in_a_notebook_keeps_the_state_and_the_same_call_goes_on(tmp_path):
    asked = {"steps": 6, "shards": 1, "accumulate": 1, "save_every": 100, "evaluate_every": 0}
    asked |= {"evaluate_clips": 8, "depth": 2, "workers": 0, "keep": 2}
    experiment = runner.experiment(Namespace(**asked))

    def press(rows):
        if rows[-1]["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = train.fit(experiment, tmp_path / "parts", live=press, quiet=True)
    assert not stopped.finished and stopped.records[-1]["step"] < 6
    assert stopped.classifier.labels  # a model to look at, too
    resumed = train.fit(experiment, tmp_path / "parts", quiet=True)
    whole = train.fit(experiment, tmp_path / "whole", quiet=True)
    assert resumed.finished
    weights = [run.classifier.params for run in (resumed, whole)]
    jax.tree.map(np.testing.assert_array_equal, *weights)
