"""Facts about the scores, against scikit-learn and against hand-made rankings."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mbt_lite.evaluation import calibration
from mbt_lite.evaluation.metrics import (
    _among_top_k,
    _pair_among_top_k,
    average_precision,
    average_precisions,
    cross_entropy,
    mean_average_precision,
    top_k,
)
from mbt_lite.model.label_heads import comparable, make_heads, probabilities, ranked
from mbt_lite.train.losses import clip_losses

GOLDEN = Path(__file__).parent / "golden" / "scores.npz"  # what Scenic's own functions gave


def rankings(count=200, clips=50):
    """Random scores with and without ties, and truth with at least one positive."""
    rng = np.random.default_rng(0)
    for levels in np.resize([2, 5, 20, 10**9], count):  # few levels: many ties
        truth = rng.random(clips) < rng.uniform(0.02, 0.9)
        truth[rng.integers(clips)] = True
        yield rng.integers(levels, size=clips) / levels, truth


def test_average_precision_is_that_of_scikit_learn_also_with_ties():
    reference = pytest.importorskip("sklearn.metrics").average_precision_score
    for scores, truth in rankings():
        assert average_precision(scores, truth) == pytest.approx(reference(truth, scores), abs=1e-9)


def test_top_k_is_the_share_of_clips_with_a_true_class_among_their_k_best():
    scores = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    truth = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]])
    assert [top_k(scores, truth, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert top_k(scores, truth + [[1, 0, 0], [1, 0, 0], [0, 0, 1]], 1) == 1  # any true class counts


def test_without_clips_or_positives_scores_are_nan_and_nothing_is_warned_of():
    assert np.isnan(mean_average_precision(np.ones((4, 2)), np.zeros((4, 2))))
    assert np.isnan(top_k(np.zeros((0, 3)), np.zeros((0, 3))))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def test_average_precision_is_the_references_and_absent_classes_are_no_zeros(golden):
    each = average_precisions(golden["map_logits"], golden["map_labels"])
    np.testing.assert_allclose(each, golden["ap"], atol=1e-9)
    ours = mean_average_precision(golden["map_logits"], golden["map_labels"])
    assert ours == pytest.approx(float(golden["map_absent_skipped"]), abs=1e-9)
    assert np.nan_to_num(each).mean() == pytest.approx(float(golden["map_absent_as_0"]), abs=1e-9)


@pytest.mark.parametrize("name", ["multihead", "multihead_nomask"])
@pytest.mark.parametrize("k, suffix", [(1, ""), (5, "_top_5")])
def test_verb_noun_and_action_are_counted_as_the_reference_counts_them(golden, name, k, suffix):
    rows = golden["mask"] > 0 if name == "multihead" else slice(None)
    verbs = int(golden["class_splits"][0])
    logits, truth = golden["heads_logits"][rows], golden["heads_truth"][rows]
    heads = (logits[:, :verbs], logits[:, verbs:]), (truth[:, :verbs], truth[:, verbs:])
    expected = {
        "verb": _among_top_k(heads[0][0], heads[1][0], k),
        "noun": _among_top_k(heads[0][1], heads[1][1], k),
        "verb-noun": _pair_among_top_k(*heads, k),
    }
    for head, right in expected.items():
        counted = golden[f"{name}/{head}_accuracy{suffix}"]  # how many right, of how many
        assert [right.sum(), len(right)] == counted.tolist(), head


def test_the_best_pair_is_the_best_of_each_head_and_the_true_one_may_follow():
    verbs, nouns = np.array([[2.0, 0.0]]), np.array([[0.0, 1.0, -3.0]])
    first = np.array([[1, 0]]), np.array([[1, 0, 0]])  # sum 2.0: second best after 3.0
    assert [bool(_pair_among_top_k((verbs, nouns), first, k)[0]) for k in (1, 2)] == [False, True]
    level = np.zeros((1, 2)), np.zeros((1, 3))
    last = np.array([[0, 1]]), np.array([[0, 0, 1]])  # of six equal pairs
    assert [bool(_pair_among_top_k(level, last, k)[0]) for k in (5, 6)] == [False, True]


def test_cross_entropy_is_summed_over_classes_and_stays_finite():
    logits, truth = np.array([[0.0, 0.0], [1e4, -1e4]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(cross_entropy(logits, truth), [2 * np.log(2), 1e4])


HEADS = make_heads("softmax", ["verb:a", "verb:b", "noun:a", "noun:b", "noun:c"])


def test_probabilities_are_those_of_the_loss_and_stay_finite():
    logits = np.array([[1e4, 0.0, 2.0, 1.0, -1e4]], np.float32)
    chances = probabilities(logits, HEADS)
    np.testing.assert_allclose(chances[0], [1, 0, 0.7310586, 0.2689414, 0], atol=1e-6)
    assert chances.dtype == np.float32
    np.testing.assert_allclose(
        probabilities(logits)[0], [1, 0.5, 0.8807971, 0.7310586, 0], atol=1e-6
    )
    np.testing.assert_allclose(probabilities(comparable(logits, HEADS), HEADS), chances, atol=1e-6)
    np.testing.assert_array_equal(ranked(chances[0], HEADS), [0, 2, 1, 3, 4])
    np.testing.assert_array_equal(ranked(chances[0], HEADS, 1), [0, 2])


def test_softmax_cross_entropy_is_that_of_training():
    logits, truth = np.random.default_rng(0).normal(size=(4, 5)), np.eye(5)[[0, 1, 0, 1]]
    truth += np.eye(5)[[2, 3, 4, 2]]
    columns = {"verb": np.arange(2), "noun": np.arange(2, 5)}
    want = clip_losses(*map(jnp.asarray, (logits, truth)), "softmax", heads=columns)
    np.testing.assert_allclose(cross_entropy(logits, truth, HEADS), want, rtol=1e-5)


def test_mixed_verbs_and_nouns_are_refused_for_a_softmax():
    with pytest.raises(ValueError, match="mixed: list all of one kind first"):
        make_heads("softmax", ["verb:a", "noun:a", "verb:b"])
    assert [head.name for head in make_heads("softmax", ["noun:a", "verb:a"])] == ["noun", "verb"]


def test_calibration_finds_the_scale_and_the_shift_of_overconfident_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, (4000, 3))
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    scale, shift = calibration.fit(3 * logits - 2, truth)
    np.testing.assert_allclose([scale, shift], [1 / 3, 2 / 3], atol=0.05)
    before, after = (1 / (1 + np.exp(-x)) for x in (3 * logits - 2, logits))
    assert calibration.calibration_error(before, truth) > 0.05
    assert calibration.calibration_error(after, truth) < 0.02


def test_reliability_counts_every_label_once():
    probabilities = np.array([[0.1, 0.9], [0.12, 0.92]])
    rows = calibration.reliability(probabilities, np.array([[0, 1], [1, 1]]))
    np.testing.assert_allclose(rows, [[0.11, 0.5, 2], [0.91, 1, 2]])
    assert calibration.calibration_error(
        probabilities, np.array([[0, 1], [1, 1]])
    ) == pytest.approx((2 * 0.39 + 2 * 0.09) / 4)
