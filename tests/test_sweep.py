"""Sweeps: their runs, what these start from, the table, the figure."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from mbt_lite import plot
from mbt_lite.configs import fusion_grid
from mbt_lite.train import sweep

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def small(experiment):
    """A few steps of a variant, with two narrow layers."""
    model = replace(experiment.model, width=16, heads=2, mlp_dim=16, depth=2)
    train = replace(
        experiment.train, steps=2, batch=4, evaluate_clips=8, test_clips=16, evaluate_every=0
    )
    data = replace(experiment.data, clips=8, workers=0)
    return replace(experiment, model=model, data=data, train=train)


def few():
    """(grid, starts): two groups of the real grid, two variants in all, and their start."""
    whole = fusion_grid.grid()
    grid = {
        "fusion": {name: small(whole["fusion"][name]) for name in ("audio", "bottleneck")},
        "bottlenecks": {"4": small(whole["bottlenecks"]["4"])},  # the same bottleneck once more
    }
    return grid, {"late": small(fusion_grid.starts()["late"])}


def test_the_shipped_grid_varies_one_thing_at_a_time():
    grid = fusion_grid.grid()
    base = grid["fusion"]["bottleneck"]
    assert all(base in variants.values() for variants in grid.values())
    assert list(grid["fusion layer"]) == [str(i) for i in range(base.model.depth + 1)]
    assert list(grid["bottlenecks"]) == ["1", "4", "16", "64"]
    variants = {e.name: e for group in grid.values() for e in group.values()}
    assert len(variants) == 15
    assert {e.train for e in variants.values()} == {base.train}
    assert {(e.clip, e.data) for e in variants.values()} == {(base.clip, base.data)}


def test_a_variant_is_trained_once_a_seed_and_starts_from_a_run_of_the_same_folder(tmp_path):
    grid, starts = few()
    runs = sweep.runs(grid, tmp_path, starts, 2)
    assert len(runs) == 4
    for run, experiment in runs.items():
        assert run == tmp_path / experiment.name / f"seed_{experiment.train.seed}"
        assert experiment.start.model == str(tmp_path / "grid-start" / "seed_0")
        assert experiment.data.cache_dir == str(tmp_path / "clips")
    seeds = [experiment.train.seed for experiment in runs.values()]
    assert seeds == sorted(seeds)  # an interrupted grid has whole seeds
    audio, other = grid["fusion"]["audio"], grid["fusion"]["bottleneck"]
    twice = {"a": {"x": audio, "y": replace(audio, model=other.model)}}
    with pytest.raises(ValueError, match="two different variants are called grid-audio"):
        sweep.runs(twice, tmp_path, {}, 1)


def test_an_interval_is_that_of_student():
    one = sweep.Outcome("g", "v", 1, 1.0, (0.8, 0.9, 1.0))
    assert one.mean == pytest.approx(0.9)
    assert one.half == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-6)
    assert np.isnan(sweep.Outcome("g", "v", 1, 1.0, (0.8,)).half)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_grid_is_trained_tabulated_and_drawn_and_a_run_that_fails_is_named(tmp_path):
    grid, starts = few()
    runs = sweep.sweep(grid, tmp_path, starts, seeds=1, jobs=2)
    assert len(runs) == 1 + 2 and all((run / "README.md").exists() for run in runs)
    before = {run: (run / "README.md").stat().st_mtime_ns for run in runs}
    sweep.sweep(grid, tmp_path, starts, seeds=1, jobs=2)  # nothing is left to do
    assert before == {run: (run / "README.md").stat().st_mtime_ns for run in runs}

    outcomes = sweep.outcomes(grid, tmp_path, 1, "matched accuracy")
    assert [(o.group, o.variant) for o in outcomes] == [
        ("fusion", "audio"),
        ("fusion", "bottleneck"),
        ("bottlenecks", "4"),
    ]
    scores = json.loads((tmp_path / "grid-audio" / "seed_0" / "scores.json").read_text())
    assert outcomes[0].values == (scores["audio only"]["matched accuracy"],)
    table, image = sweep.write_tables(outcomes, tmp_path, "matched accuracy")
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert float(rows[0]["mean"]) == pytest.approx(outcomes[0].mean, abs=1e-6)
    assert image.stat().st_size > 5000
    assert "bottlenecks: 4 " in plot.sweep_alt(outcomes, "matched accuracy")

    lost = replace(grid["fusion"]["audio"], name="lost")
    lost = replace(lost, start=replace(lost.start, model="nowhere.safetensors"))
    with pytest.raises(ValueError, match="these runs failed, .*: lost/seed_0"):
        sweep.sweep({"a": {"lost": lost}}, tmp_path, {}, seeds=1)
    assert "nowhere" in (tmp_path / "lost" / "seed_0" / "log.txt").read_text()
