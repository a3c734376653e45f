"""The shipped models of the grid: small, loadable, and what docs/training.md says of them."""

import csv
import json
from pathlib import Path

import pytest

import mbt_lite
from mbt_lite.configs import fusion_grid
from mbt_lite.evaluation import loop
from mbt_lite.inference import load

GRID = Path(mbt_lite.__file__).parent / "weights" / "grid"
PAGE = Path(__file__).parent.parent / "docs" / "training.md"


def variants() -> dict:
    groups = fusion_grid.grid()
    names = ("fusion", "fusion layer", "bottlenecks")
    return {e.name: e for name in names for e in groups[name].values()}


def table() -> list[dict]:
    with (GRID / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def seeds(row: dict) -> list[float]:
    return [float(value) for value in row["seeds"].split()]


@pytest.mark.full
def test_every_variant_of_the_scrubbers_is_there_and_all_are_small():
    files = {path.stem: path for path in GRID.glob("*.safetensors")}
    assert set(files) == set(variants())
    assert sum(path.stat().st_size for path in files.values()) < 6e6
    for name, experiment in variants().items():
        config = load(files[name]).config
        for field in ("fusion", "fusion_layer", "streams", "bottlenecks"):
            assert getattr(config, field) == getattr(experiment.model, field)


def test_the_log_of_every_run_is_there():
    rows = [json.loads(line) for line in (GRID / "logs.jsonl").read_text().splitlines()]
    counted = {(row["run"], row["seed"]) for row in rows}
    assert {run for run, _ in counted} == set(variants())
    last = {(row["run"], row["seed"]): row["step"] for row in rows}
    assert set(last.values()) == {fusion_grid.TRAIN.steps}


def test_bottleneck_fusion_beats_late_fusion_and_both_single_streams_beyond_the_intervals():
    fusion = {row["variant"]: row for row in table() if row["group"] == "fusion"}
    best = float(fusion["bottleneck"]["mean"]) - float(fusion["bottleneck"]["half"])
    for other in ("audio", "video", "late"):
        assert float(fusion[other]["mean"]) + float(fusion[other]["half"]) < best


def test_the_table_of_docs_training_is_that_of_the_runs():
    text = PAGE.read_text(encoding="utf-8")
    for row in table():
        spread = "" if row["half"] == "nan" else f" ± {float(row['half']):.3f}"
        line = f"| {row['group']} | {row['variant']} | {float(row['mean']):.3f}{spread} |"
        assert line in text, line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grid-bottleneck", "grid-late"])
def test_a_shipped_model_scores_as_its_row_says(name):
    row = next(r for r in table() if f"grid-{r['variant']}" == name)
    scores = loop.evaluate(load(GRID / f"{name}.safetensors"), count=300, quiet=True)
    assert scores["both"]["matched accuracy"] == pytest.approx(seeds(row)[0], abs=0.08)
