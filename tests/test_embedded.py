"""The embedded model has the scores of its model card."""

import csv
from pathlib import Path

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
    return load()


def check(scores: dict, slack: float) -> None:
    """Check the scores that the card promises; `slack` is for measurements on fewer clips."""
    both, chance = scores["both"], scores["chance of matched"]
    assert min(both[f"mAP {kind}"] for kind in ("seen", "heard", "both")) >= 0.97 - slack
    assert both["matched accuracy"] >= 0.95 - slack
    for alone in ("audio only", "video only"):
        assert abs(scores[alone]["matched accuracy"] - chance[alone]) <= 0.05 + slack


def card_scores() -> dict[str, list[float]]:
    """The rows of the card's table: both streams, audio only, video only."""
    lines = (WEIGHTS / "world-tiny.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| m")]
    return {name: [float(value) for value in values] for name, *values in rows}


@pytest.mark.slow
@pytest.mark.parametrize("count, slack, atol", [(300, 0.03, 0.08), (2000, 0.0, 1e-3)])
def test_it_has_the_scores_of_its_card_on_unseen_clips(classifier, count, slack, atol):
    """Above all, it is at chance where one modality is not enough."""
    scores = evaluate(classifier, count=count, quiet=True)
    check(scores, slack)
    for name, values in card_scores().items():
        measured = [scores[condition][name] for condition in ("both", "audio only", "video only")]
        np.testing.assert_allclose(measured, values, atol=atol, err_msg=name)


def test_it_is_small_and_its_card_counts_its_parameters(classifier):
    card = (WEIGHTS / "world-tiny.md").read_text()
    parameters = sum(leaf.size for leaf in _leaves(classifier.params))
    assert f"{parameters:,} parameters" in card and len(card_scores()) == 5
    assert (WEIGHTS / "world-tiny.safetensors").stat().st_size < 5e6


def _leaves(tree):
    return [x for v in tree.values() for x in (_leaves(v) if isinstance(v, dict) else [v])]


def test_it_predicts_the_labels_of_the_world_samples(classifier):
    with (SAMPLES / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["labels"]]
    assert len(rows) >= 6
    for row in rows:
        answer = classifier.predict(SAMPLES / row["file"])
        predicted = {label for label, probability in answer.top(12) if probability > 0.5}
        assert predicted == set(row["labels"].split("|")), row["file"]


def rendered_and_direct(classifier, folder, count: int):
    """Logits of clips rendered to mp4 and read back, of the same clips direct, and the truth."""
    scenes = [world.scene(world.SPLITS["test"], i) for i in range(count)]
    world.render(scenes, folder)
    front = classifier.clip_config.front_end
    read, direct = [], []
    for number, scene in enumerate(scenes):
        clip = features.read_clip(folder / f"world_{number:04d}.mp4", classifier.clip_config)
        sample = world.sample(scene, classifier.clip_config)
        direct_clip = features.normalize(sample["rgb"][None], sample["spec"][None], front)
        read.append(classifier.logits(clip._replace(rgb=clip.rgb[None], spec=clip.spec[None])))
        direct.append(classifier.logits(direct_clip))
    truth = np.stack([scene.labels for scene in scenes])
    return np.concatenate(read), np.concatenate(direct), truth


@pytest.mark.slow
def test_a_file_is_classified_like_the_clip_it_was_rendered_from(classifier, tmp_path):
    read, direct, truth = rendered_and_direct(classifier, tmp_path, 30)
    agree = ((read > 0) == (direct > 0)).mean()
    assert agree > 0.98
    hits = [metrics.top_k(x, truth, 1) for x in (read, direct)]
    assert abs(hits[0] - hits[1]) <= 0.05


@pytest.mark.slow
def test_files_score_within_two_points_of_direct_clips_on_200(classifier, tmp_path):
    read, direct, truth = rendered_and_direct(classifier, tmp_path, 200)
    assert all(
        abs(metrics.world_scores(read, truth)[name] - score) <= 0.02
        for name, score in metrics.world_scores(direct, truth).items()
    )
