"""The embedded model has the scores of its model card."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

import mbt_lite
from mbt_lite import features
from mbt_lite.data import world
from mbt_lite.evaluation import metrics
from mbt_lite.evaluation.loop import evaluate
from mbt_lite.inference import load

WEIGHTS = Path(mbt_lite.__file__).parent / "weights"
SAMPLES = Path(__file__).parent.parent / "data_samples"


@pytest.fixture(scope="module")
def classifier():
    return load("world-tiny")


def card_scores() -> dict[str, list[float]]:
    """The rows of the card's table: both streams, audio only, video only."""
    lines = (WEIGHTS / "world-tiny.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| m")]
    return {name: [float(value) for value in values] for name, *values in rows}


@pytest.mark.slow
def test_it_has_the_scores_of_its_card_on_unseen_clips(classifier):
    """Above all, it is at chance where one modality is not enough."""
    scores = evaluate(classifier, count=2000, quiet=True)
    both, chance = scores["both"], scores["chance of matched"]
    assert min(both[f"mAP {kind}"] for kind in ("seen", "heard", "both")) >= 0.97
    assert both["matched accuracy"] >= 0.95
    for alone in ("audio only", "video only"):
        assert abs(scores[alone]["matched accuracy"] - chance[alone]) <= 0.05
    for name, values in card_scores().items():
        measured = [scores[condition][name] for condition in ("both", "audio only", "video only")]
        np.testing.assert_allclose(measured, values, atol=1e-3, err_msg=name)


def test_it_is_small_and_its_card_counts_its_parameters(classifier):
    card = (WEIGHTS / "world-tiny.md").read_text()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(classifier.params))
    assert f"{parameters:,} parameters" in card and len(card_scores()) == 5
    assert (WEIGHTS / "world-tiny.safetensors").stat().st_size < 5e6


def test_it_predicts_the_labels_of_the_world_samples(classifier):
    with (SAMPLES / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["labels"]]
    assert len(rows) >= 6
    for row in rows:
        answer = classifier.predict(SAMPLES / row["file"])
        predicted = {label for label, probability in answer.top(12) if probability > 0.5}
        assert predicted == set(row["labels"].split("|")), row["file"]


@pytest.mark.slow
def test_files_score_within_two_points_of_the_clips_they_were_rendered_from(classifier, tmp_path):
    scenes = [world.scene(world.SPLITS["test"], i) for i in range(200)]
    world.render(scenes, tmp_path)
    front = classifier.clip_config.front_end
    read, direct = [], []
    for number, scene in enumerate(scenes):
        clip = features.read_clip(tmp_path / f"world_{number:04d}.mp4", classifier.clip_config)
        sample = world.sample(scene, classifier.clip_config)
        direct_clip = features.normalize(sample["rgb"][None], sample["spec"][None], front)
        read.append(classifier.logits(clip._replace(rgb=clip.rgb[None], spec=clip.spec[None])))
        direct.append(classifier.logits(direct_clip))
    truth = np.stack([scene.labels for scene in scenes])
    scores = [metrics.world_scores(np.concatenate(logits), truth) for logits in (read, direct)]
    assert all(abs(scores[0][name] - score) <= 0.02 for name, score in scores[1].items())
