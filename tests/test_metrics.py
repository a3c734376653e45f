"""Facts about the scores, against scikit-learn and against hand-made rankings."""

import numpy as np
import pytest

from mbt_lite.metrics import average_precision, average_precisions, mean_average_precision, top_k


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


def test_average_precision_does_not_depend_on_the_order_of_the_clips():
    rng = np.random.default_rng(1)
    for scores, truth in rankings(count=40):
        order = rng.permutation(len(scores))
        ours = average_precision(scores[order], truth[order])
        assert ours == pytest.approx(average_precision(scores, truth), abs=1e-12)


@pytest.mark.parametrize(
    "scores, truth, expected",
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 1, 0, 1], (1 / 2 + 2 / 4) / 2),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 0, 1], 1 / 4),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 1 / 4),  # all tied: the share of positives
        ([0.3], [1], 1.0),
    ],
)
def test_average_precision_is_the_mean_precision_at_each_positive(scores, truth, expected):
    assert average_precision(np.array(scores), np.array(truth)) == pytest.approx(expected)


def test_a_class_without_a_positive_has_no_average_precision_and_is_left_out_of_the_mean():
    scores, truth = np.random.default_rng(2).random((20, 3)), np.zeros((20, 3))
    truth[:5, 0] = truth[3:9, 2] = 1
    each = average_precisions(scores, truth)
    assert np.isnan(each).tolist() == [False, True, False]
    assert mean_average_precision(scores, truth) == pytest.approx((each[0] + each[2]) / 2)


def test_without_any_positive_the_mean_is_nan_and_nothing_is_warned_of():
    assert np.isnan(mean_average_precision(np.ones((4, 2)), np.zeros((4, 2))))


def test_top_k_is_the_share_of_clips_with_a_true_class_among_their_k_best():
    scores = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    truth = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]])
    assert [top_k(scores, truth, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_any_of_several_true_classes_counts_for_top_k():
    scores = np.array([[0.1, 0.7, 0.2]])
    assert top_k(scores, np.array([[1, 1, 0]]), 1) == 1
    assert top_k(scores, np.array([[1, 0, 1]]), 1) == 0
