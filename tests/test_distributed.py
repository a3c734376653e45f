"""The number of devices and of processes makes no difference."""

import os
import socket

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from programs import begin, end

from mbt_lite.cli import main
from mbt_lite.train import sharding


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def together(workdir, environment, code=0, **options) -> list[tuple[dict, str]]:
    """What two processes of one run print last, and what they told."""
    shared = {"port": free_port(), "processes": 2} | options
    both = [begin(workdir, environment, process=number, **shared) for number in range(2)]
    return [end(process, code) for process in both]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"devices": 2}, {"devices": 8}, {"devices": 8, "shards": 4}])
def test_losses_are_the_same_on_one_two_and_eight_devices(
    layout, environment, undisturbed, tmp_path
):
    result, _ = end(begin(tmp_path, environment, **layout))
    np.testing.assert_allclose(result["losses"], undisturbed["losses"], rtol=1e-5)
    assert result["losses"][-1] < result["losses"][0]


def test_large_parameters_are_cut_over_the_shards_and_small_ones_are_not():
    mesh = AbstractMesh((2, 4), (sharding.DATA, sharding.SHARD))
    params = {
        "kernel": jax.ShapeDtypeStruct((64, 256), "f4"),
        "bias": jax.ShapeDtypeStruct((8,), "f4"),
    }
    specs = {name: place.spec for name, place in sharding.sharded(mesh, params).items()}
    assert specs == {"kernel": PartitionSpec(None, sharding.SHARD), "bias": PartitionSpec()}


@pytest.mark.slow
def test_two_processes_train_like_one_and_agree_on_what_is_damaged(
    environment, undisturbed, tmp_path
):
    (first, _), (second, _) = together(tmp_path / "whole", environment)
    assert first["digest"] == second["digest"]
    np.testing.assert_allclose(first["losses"], undisturbed["losses"], rtol=1e-5)
    np.testing.assert_allclose(first["sums"], undisturbed["sums"], rtol=1e-4, atol=1e-4)

    together(tmp_path / "parts", environment, code=75, stop_at=5)
    newest = max(int(path.name) for path in (tmp_path / "parts" / "state").iterdir())
    assert 5 <= newest < 12
    for path in (tmp_path / "parts" / "state" / str(newest)).rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-1])
    (again, told), (_, other) = together(tmp_path / "parts", environment)
    assert again == first  # on the same layout bit by bit
    assert f"the state of step {newest} in" in told and "is damaged" in told
    assert "is damaged" not in other
    alone, _ = end(begin(tmp_path / "whole", environment))  # one process reads what two wrote
    assert alone["digest"] == first["digest"]


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: 8)
    with pytest.raises(ValueError, match="12 clips of a step do not divide over 8 devices"):
        sharding.make_mesh(1, 12)
    with pytest.raises(ValueError, match="train.shards=3 does not divide the 8 devices"):
        sharding.make_mesh(3)


def test_processes_that_cannot_be_found_are_a_sentence(tmp_path, capsys):
    if "SLURM_JOB_ID" in os.environ:
        pytest.skip("here JAX would find them")
    words = ["train", "--config", "world", "--workdir", str(tmp_path / "run"), "--distributed"]
    assert main(words) == 1
    assert "could not be joined" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
