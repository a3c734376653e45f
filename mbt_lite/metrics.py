"""Scores of predictions, in NumPy."""

import numpy as np


def precision_recall(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall [thresholds] of one class, from the strictest threshold on.

    `scores` [clips] rank the clips, `truth` [clips] is 0 or 1, at least once 1. Clips of equal
    score enter together, so the result does not depend on their order.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked, hits = np.asarray(scores)[order], np.cumsum(np.asarray(truth)[order] > 0)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each tie
    return hits[last] / (last + 1), hits[last] / hits[-1]


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the precision-recall steps of one class; nan where it has no positive."""
    if not (np.asarray(truth) > 0).any():
        return float("nan")
    precision, recall = precision_recall(scores, truth)
    return float(np.sum(precision * np.diff(recall, prepend=0)))


def average_precisions(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision per class [C] from scores and truth [clips, C]."""
    return np.array([average_precision(s, t) for s, t in zip(scores.T, truth.T, strict=True)])


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """mAP over the classes that have a positive; nan where none has."""
    each = average_precisions(scores, truth)
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def among_top_k(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether a true class is among the k highest scores of each clip [clips], both [clips, C]."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(truth > 0, best, axis=1).any(axis=1)


def top_k(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """Share of clips with a true class among the k highest scores; scores and truth [clips, C]."""
    return float(among_top_k(scores, truth, k).mean())


def pair_among_top_k(
    scores: tuple[np.ndarray, np.ndarray], truth: tuple[np.ndarray, np.ndarray], k: int = 1
) -> np.ndarray:
    """Whether the true pair of two heads, such as verb and noun, is among the k best pairs [clips].

    Each head has one true class per clip. A pair scores the sum of its logits, which ranks like the
    product of the two softmax probabilities (Scenic's joint accuracy). Of equal pairs the first
    counts as better.
    """
    first, second = (np.argmax(one, axis=1) for one in truth)
    right = np.zeros(len(first), bool)
    for clip, (a, b) in enumerate(zip(*scores, strict=True)):
        pairs = a[:, None].astype(np.float64) + b
        own, place = pairs[first[clip], second[clip]], first[clip] * len(b) + second[clip]
        better = (pairs > own).sum() + (pairs.ravel()[:place] == own).sum()
        right[clip] = better < k
    return right


def cross_entropy(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Sigmoid cross entropy of each clip [clips], summed over classes, in nats."""
    return np.sum(np.logaddexp(0, logits) - logits * truth, axis=1)
