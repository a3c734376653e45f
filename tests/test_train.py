"""Training steps, runs that can be interrupted, and scores, at tiny size."""

import json
import os
import signal
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

from mbt_lite import configs, data, train, world
from mbt_lite.config import TrainConfig
from mbt_lite.inference import load


@pytest.fixture
def experiment():
    made = configs.world.experiment()
    model = replace(made.model, width=16, heads=2, mlp_dim=16, depth=2, fusion_layer=1)
    settings = TrainConfig(steps=4, batch=4, warmup=1, log_every=1, save_every=2)
    return replace(made, model=model, train=settings)


@pytest.fixture(autouse=True)
def few_clips_and_no_workers(monkeypatch):
    """Data in this process, and a validation of ten clips."""
    batches, evaluate = data.batches, train.evaluate
    monkeypatch.setattr(data, "batches", lambda e, start: batches(e, start, workers=0))
    monkeypatch.setattr(
        train,
        "evaluate",
        lambda *asked, **more: evaluate(*asked, **more | {"count": 10}),
    )


def test_the_loss_is_summed_over_classes_and_averaged_over_clips(experiment):
    batch = next(data.batches(experiment, 0))
    state, metrics = train.train_step(train.init_state(experiment), batch, experiment)
    classes = len(world.LABELS) + len(world.PARTS)
    np.testing.assert_allclose(metrics["loss"], classes * np.log(2), rtol=1e-5)  # a head of zeros
    assert int(state.step) == 1


def test_one_batch_is_learnt_by_heart(experiment):
    batch = next(data.batches(experiment, 0))
    constant = replace(experiment, train=replace(experiment.train, steps=10**6, warmup=1))
    constant = replace(constant, train=replace(constant.train, learning_rate=1e-2))
    state, losses = train.init_state(constant), []
    for _ in range(120):
        state, metrics = train.train_step(state, batch, constant)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.1 * losses[0]


def test_batches_depend_on_seed_and_step_alone(experiment):
    whole = data.batches(experiment, 0)
    first, second = next(whole), next(whole)
    again = next(data.batches(experiment, 1))
    for key in second:
        np.testing.assert_array_equal(second[key], again[key])
    assert not np.array_equal(first["rgb"], second["rgb"])
    other = replace(experiment, train=replace(experiment.train, seed=1))
    assert not np.array_equal(first["rgb"], next(data.batches(other, 0))["rgb"])


def test_training_clips_are_none_of_the_test_clips(experiment):
    trained = {repr(world.scene(world.SPLITS["train"], i)) for i in range(50)}
    tested = {repr(world.scene(world.SPLITS["test"], i)) for i in range(50)}
    assert len(trained) == len(tested) == 50 and not trained & tested


def test_an_interrupted_run_ends_like_an_undisturbed_one(experiment, tmp_path, monkeypatch):
    whole = train.fit(experiment, tmp_path / "whole")
    step = train.train_step

    def stop_at_three(state, batch, experiment):
        if int(state.step) == 3:
            raise KeyboardInterrupt
        return step(state, batch, experiment)

    monkeypatch.setattr(train, "train_step", stop_at_three)
    with pytest.raises(KeyboardInterrupt):
        train.fit(experiment, tmp_path / "parts")
    monkeypatch.setattr(train, "train_step", step)
    resumed = train.fit(experiment, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, resumed.classifier.params, whole.classifier.params)
    assert [row["step"] for row in resumed.records] == [1, 2, 3, 4]
    lines = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_ctrl_c_saves_the_step_it_falls_into(experiment, tmp_path, monkeypatch):
    step = train.train_step

    def interrupted_at_three(state, batch, experiment):
        if int(state.step) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(state, batch, experiment)

    rare = replace(experiment, train=replace(experiment.train, save_every=100))
    monkeypatch.setattr(train, "train_step", interrupted_at_three)
    with pytest.raises(KeyboardInterrupt):
        train.fit(rare, tmp_path)
    assert [path.name for path in (tmp_path / "state").iterdir() if path.name.isdigit()] == ["3"]
    with pytest.raises(ValueError, match="has not finished"):
        load(tmp_path)
    monkeypatch.setattr(train, "train_step", step)
    assert [row["step"] for row in train.fit(rare, tmp_path).records] == [1, 2, 3, 4]


def test_a_finished_run_is_a_model_to_load(experiment, tmp_path):
    run = train.fit(experiment, tmp_path / "run")
    again = load(tmp_path / "run")
    assert again.labels == world.LABELS and again.config.classes == 31
    assert again.card["training"]["steps"] == 4
    jax.tree.map(np.testing.assert_array_equal, again.params, run.classifier.params)
    assert "matched accuracy" in run.records[-1]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| matched accuracy | " in card and "on 10 clips of `world:test`" in card
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_a_folder_of_another_experiment_is_refused(experiment, tmp_path):
    train.fit(experiment, tmp_path)
    other = replace(experiment, train=replace(experiment.train, learning_rate=1.0))
    with pytest.raises(ValueError, match="another experiment"):
        train.fit(other, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(experiment, tmp_path, monkeypatch):
    def broken(state, batch, experiment):
        return state._replace(step=state.step + 1), {"loss": np.nan, "gradient_norm": 1.0}

    monkeypatch.setattr(train, "train_step", broken)
    with pytest.raises(ValueError, match="the loss is nan at step 1"):
        train.fit(experiment, tmp_path)


def test_only_matrices_decay():
    config = TrainConfig(learning_rate=1.0, warmup=0, weight_decay=0.1, steps=10)
    params = {"kernel": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}
    optimizer = train.make_optimizer(config)
    still = jax.tree.map(np.zeros_like, params)
    update, _ = optimizer.update(still, optimizer.init(params), params)
    new = optax.apply_updates(params, update)
    np.testing.assert_allclose(new["bias"], 1.0)
    np.testing.assert_allclose(new["kernel"], 0.9, rtol=1e-6)


def test_scores_tell_a_perfect_model_from_a_blind_one():
    truth = np.stack([world.scene(1, i).labels for i in range(300)])
    perfect = world.scores(truth, truth)
    assert all(score == 1.0 for score in perfect.values())
    blind = world.scores(np.random.default_rng(0).random(truth.shape), truth)
    assert 0.15 < blind["matched accuracy"] < 0.35


def test_settings_that_cannot_work_are_refused_before_a_folder_is_made(experiment, tmp_path):
    with pytest.raises(ValueError, match="each must be 1 or more"):
        replace(experiment.train, batch=0)
    with pytest.raises(ValueError, match="data moon:train is unknown"):
        train.fit(replace(experiment, data="moon"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
