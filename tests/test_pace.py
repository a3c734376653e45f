"""The speed of train steps, measured on small stand-ins of the full models."""

from dataclasses import replace

import pytest

from benchmarks import train_step
from mbt_lite.config import BASE
from mbt_lite.model.flops import model_cost
from mbt_lite.train import sharding

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture
def small(monkeypatch):
    tiny = replace(BASE, width=16, heads=2, mlp_dim=16, depth=2, fusion_layer=1)
    tiny = replace(tiny, rgb_shape=(8, 224, 224), rgb_patch=(2, 32, 32), spec_patch=(32, 32))
    monkeypatch.setattr(train_step, "CASES", {"8 frames": tiny})
    monkeypatch.setattr(sharding, "MATRIX_SIZE", 256)  # bfloat16 is slow on a CPU


@pytest.mark.slow
def test_speed_memory_and_share_of_a_matrix_product_are_told(small):
    found = train_step.measure(batch=1, steps=2, only="8 frames")
    assert list(found["rows"]) == ["8 frames, float32", "8 frames, bfloat16"]
    for row in found["rows"].values():
        assert row["clips a second"] == pytest.approx(1 / row["seconds"])
        assert 0 < row["mfu"] < 1.5 and row["bytes"] > 2**20
        assert row["lowest and highest"][0] <= row["seconds"] <= row["lowest and highest"][1]
    text = train_step.table(found)
    assert "GFLOP/s in bfloat16" in text and text.count("| 8 frames") == 2


def test_a_case_that_is_none_is_refused(small):
    with pytest.raises(ValueError, match="no case holds '64 frames'"):
        train_step.measure(only="64 frames")


def test_the_full_models_are_those_of_the_paper_and_of_the_released_files():
    sizes = {name: model_cost(config).parameters for name, config in train_step.CASES.items()}
    assert sizes == {"32 frames": 175_009_295, "8 frames": 173_215_247}
