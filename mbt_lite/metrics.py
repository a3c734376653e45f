"""Scores of predictions, in NumPy."""

import numpy as np


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the precision-recall steps of one class; nan where it has no positive.

    `scores` [clips] rank the clips, `truth` [clips] is 0 or 1. Clips of equal score enter
    together, so the result does not depend on their order.
    """
    truth = np.asarray(truth) > 0
    if not truth.any():
        return float("nan")
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked, hits = np.asarray(scores)[order], np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each tie
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(precision * np.diff(recall, prepend=0)))


def average_precisions(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision per class [C] from scores and truth [clips, C]."""
    return np.array([average_precision(s, t) for s, t in zip(scores.T, truth.T, strict=True)])


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """mAP over the classes that have a positive; nan where none has."""
    each = average_precisions(scores, truth)
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def top_k(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """Share of clips with a true class among the k highest scores; scores and truth [clips, C]."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(truth > 0, best, axis=1).any(axis=1).mean())
