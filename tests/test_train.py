"""Runs: what they learn, show, leave behind and refuse, at tiny size."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from mbt_lite import configs, media, plot
from mbt_lite.config import DataConfig, StartConfig, TrainConfig
from mbt_lite.data import tfrecord, world
from mbt_lite.evaluation.loop import evaluate
from mbt_lite.inference import load
from mbt_lite.train import dry_run, loop, setup
from mbt_lite.train.logger import MetricLogger

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]


@pytest.fixture(scope="module")
def experiment():
    made = configs.world.experiment()
    model = replace(made.model, width=16, heads=2, mlp_dim=16, depth=2, fusion_layer=1)
    settings = TrainConfig(
        steps=4,
        batch=4,
        warmup=1,
        log_every=1,
        save_every=2,
        evaluate_every=2,
        evaluate_clips=8,
        test_clips=10,
    )
    return replace(made, model=model, train=settings, data=DataConfig(workers=0))


def changed(experiment, **settings):
    return replace(experiment, train=replace(experiment.train, **settings))


def same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """A run that has ended, and how many rows there were each time one was added."""
    seen = []
    folder = tmp_path_factory.mktemp("finished")
    run = loop.fit(experiment, folder, quiet=True, live=lambda rows: seen.append(len(rows)))
    return run, seen


@pytest.fixture
def brief(experiment):
    """Nothing but four steps: no scores."""
    quiet = changed(experiment, evaluate_every=0)
    return replace(quiet, data=replace(quiet.data, validation=None, test=None))


def test_a_finished_run_is_a_model_to_load(finished):
    run, _ = finished
    assert run.finished
    again = load(run.folder)
    assert again.labels == world.LABELS and again.config.classes == 31
    assert again.card["training"]["steps"] == 4
    same(again.params, run.classifier.params)
    card = (run.folder / "README.md").read_text()
    assert "| matched accuracy | " in card and "on 10 clips of `world:test`" in card
    assert "4 steps, sigmoid loss" in card and "![loss from" in card
    scores = json.loads((run.folder / "scores.json").read_text())
    again_scored = evaluate(again, "world:test", count=10, quiet=True)
    assert scores["both"] == again_scored["both"]
    assert np.asarray(Image.open(run.folder / "curves.png")).std() > 5


def test_a_run_logs_losses_scores_speed_and_how_strongly_each_stream_is_pulled(finished):
    run, seen = finished
    steps = [row for row in run.records if "loss" in row]
    scored = [row for row in run.records if "mAP" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert [row["step"] for row in scored] == [2, 4]
    names = {"loss_rgb", "loss_spec", "gradient_norm_rgb", "gradient_norm_spec", "learning_rate"}
    assert names | {"clips_per_s", "waiting", "mfu", "seconds"} <= set(steps[0])
    assert {"mAP rgb", "mAP spec", "mAP seen", "matched accuracy"} <= set(scored[0])
    classes = len(world.LABELS) + len(world.AUX_LABELS)
    np.testing.assert_allclose(steps[0]["loss"], classes * np.log(2), rtol=1e-4)  # heads of zeros
    assert all(0 <= row["waiting"] <= 1 and 0 < row["mfu"] < 1 for row in steps)
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == run.records
    assert seen == [1, 2, 3, 4, 5, 6]


def test_tensorboard_can_read_the_scores(finished):
    (path,) = (finished[0].folder / "tensorboard").glob("events.*")
    index = tfrecord.index(path)
    places = zip(index.offsets, index.lengths, strict=True)
    records = [tfrecord.read(path, at, length) for at, length in places]
    events = [Event.FromString(record) for record in records]
    values = [(event.step, value) for event in events for value in event.summary.value]
    losses = [step for step, value in values if value.tag == "loss"]
    assert losses == [1, 2, 3, 4]


def test_a_run_resumes_with_other_logging_but_not_with_other_weights(
    experiment, finished, tmp_path
):
    shutil.copytree(finished[0].folder, tmp_path, dirs_exist_ok=True)
    loop.fit(changed(experiment, log_every=2, keep_checkpoints=3), tmp_path, quiet=True)
    with pytest.raises(ValueError, match="train.learning_rate was 0.0015, and is 1.0"):
        loop.fit(changed(experiment, learning_rate=1.0), tmp_path, quiet=True)
    path = tmp_path / "experiment.json"
    path.write_text(path.read_text().replace("keep_checkpoints", "keep"))  # its name once
    with pytest.raises(ValueError, match="no field keep. This version .* cannot resume .*choose"):
        loop.fit(experiment, tmp_path, quiet=True)


def test_settings_that_cannot_work_are_refused_before_a_folder_is_made(experiment, tmp_path):
    with pytest.raises(ValueError, match="train.batch=0 must be 1 or more"):
        changed(experiment, batch=0)
    with pytest.raises(ValueError, match="there is no moon"):
        loop.fit(replace(experiment, data=DataConfig(path="moon")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart(experiment, tmp_path):
    few = replace(experiment, data=DataConfig(workers=0, clips=4, validation=None, test=None))
    many = changed(few, steps=120, warmup=5, learning_rate=1e-2, log_every=10, save_every=200)
    run = loop.fit(many, tmp_path, quiet=True)
    assert run.records[-1]["loss"] < 0.2 * run.records[0]["loss"]
    assert "No clips were kept for a test" in (tmp_path / "README.md").read_text()


def poison(monkeypatch, at):
    """The batches number `at` have NaN as audio."""
    next_batch = loop._next_batch
    numbers = iter(range(10**6))

    def poisoned(context, meter):
        batch, names = next_batch(context, meter)
        if next(numbers) in at:
            batch = batch | {"spec": batch["spec"] * np.nan}
        return batch, names

    monkeypatch.setattr(loop, "_next_batch", poisoned)


def test_a_non_finite_loss_stops_the_run_and_names_the_clips(brief, tmp_path, monkeypatch):
    poison(monkeypatch, {2})
    with pytest.raises(ValueError, match="the loss is nan at step 3.*nonfinite_000003_0.json"):
        loop.fit(brief, tmp_path, quiet=True)
    report = json.loads((tmp_path / "nonfinite_000003_0.json").read_text())
    assert report["ids"] == [f"world:train {number}" for number in range(8, 12)]
    assert report["loss"] == "nan" and report["step"] == 3


def test_steps_with_a_non_finite_loss_are_skipped_on_request(brief, tmp_path, monkeypatch):
    poison(monkeypatch, {1})
    run = loop.fit(changed(brief, skip_nonfinite=1), tmp_path / "one", quiet=True)
    losses = {row["step"]: row.get("loss") for row in run.records if "seconds" in row}
    assert run.finished and losses[2] is None and np.isfinite([losses[1], losses[4]]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.classifier.params))
    poison(monkeypatch, {1, 2})
    with pytest.raises(ValueError, match=r"the loss is nan .* \(now 1\)"):
        loop.fit(changed(brief, skip_nonfinite=1), tmp_path / "two", quiet=True)


def test_a_model_to_start_from_brings_its_geometry_and_its_weights(experiment, finished):
    first, folder = finished[0].classifier, str(finished[0].folder)
    again = replace(experiment, start=StartConfig(model=folder))
    resolved = setup.resolve(replace(again, model=configs.world.experiment().model))
    assert resolved.experiment.model == replace(first.config, classes=39)
    same(resolved.params()["rgb_block_0"], first.params["rgb_block_0"])
    old_columns = resolved.params()["head"]["bias"][:31]
    np.testing.assert_array_equal(old_columns, first.params["head"]["bias"])
    late = replace(experiment.model, fusion="late")
    rewired = setup.resolve(replace(again, model=late, start=StartConfig(folder, rewire=True)))
    assert rewired.experiment.model.fusion == "late" and "bottleneck" not in rewired.params()


@pytest.mark.slow
def test_a_folder_of_videos_is_learnt_from_with_a_fifth_held_out(experiment, tmp_path):
    rng = np.random.default_rng(0)
    for label, color in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        for number in range(5):
            frames = np.tile(np.uint8(color), (25, 64, 64, 1)) + rng.integers(
                0, 20, (25, 64, 64, 3), np.uint8
            )
            wave = rng.normal(0, 0.05, 16_000).astype(np.float32)
            (tmp_path / "videos" / label).mkdir(parents=True, exist_ok=True)
            media.write(tmp_path / "videos" / label / f"{number}.mp4", frames, 25.0, wave, 16_000)
    recipe = configs.folder.probe()
    data = replace(recipe.data, path=str(tmp_path / "videos"), workers=0)
    settings = replace(recipe.train, epochs=10, batch=4)
    run = loop.fit(replace(recipe, data=data, train=settings), tmp_path / "run", quiet=True)
    assert run.classifier.labels == ("blue", "red")
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert 2 <= scores["clips"] <= 5 and scores["both"]["top-1"] == 1.0
    assert run.finished and 0 < run.records[-1]["step"] <= 20  # 10 epochs, or fewer by patience


def test_a_dry_run_says_what_a_run_would_take(experiment):
    estimate = dry_run.dry_run(experiment)
    assert estimate["parameters"] == estimate["trained parameters"] > 1000
    assert estimate["batch"]["rgb"] == "uint8 [4, 8, 48, 48, 3]"
    assert estimate["MiB a device"]["state and batch"] >= 4 * estimate["parameters"] >> 20
    assert estimate["seconds a step"] > 0


def test_the_line_of_progress_shows_loss_score_speed_waiting_and_mfu(tmp_path, capsys):
    book = MetricLogger(tmp_path, "run", 0, 10)
    book.add(1, {"loss": 3.14159, "clips_per_s": 12.0, "waiting": 0.25, "mfu": 0.5})
    book.add(1, {"mAP": 0.1234})
    book.advance()
    book.close()
    shown = capsys.readouterr().err
    assert "loss 3.142, mAP 0.123, 12 clips/s, waiting 25%, MFU 50%" in shown


def test_rows_after_the_step_that_a_run_goes_on_from_are_forgotten(tmp_path):
    rows = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*rows, '{"step": 4, "lo']))
    book = MetricLogger(tmp_path, "run", 2, 10, quiet=True)
    book.close()
    assert [row["step"] for row in book.rows] == [1, 2]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_curves_of_a_run_have_a_panel_for_what_was_logged():
    rows = [
        {"step": s, "loss": 9.0 / s, "loss_rgb": 8.0 / s, "gradient_norm": 1.0} for s in (1, 2, 3)
    ]
    assert len(plot.training(rows).axes) == 2
    scored = [*rows, {"step": 3, "mAP": 0.5, "mAP rgb": 0.4, "top-1": 0.7}]
    figure = plot.training(scored)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "training loss",
        "validation scores",
        "gradient norm",
    ]
    assert "mAP from 0.5 at step 3" in plot.training_alt(scored)
    assert "mAP rgb" not in plot.training_alt(scored)


def test_what_a_model_says_rightly_has_a_tick_also_where_not_all_that_is_true_is_shown():
    said = [("d", 0.9), ("x", 0.5)]
    [ax] = plot.samples([plot.Sample("clip", None, ("a", "b", "c", "d"), said)]).axes
    assert ax.get_title(loc="left") == "a\nb\nc, 1 more\n→ d 90% ✓\n→ x 50%"
