"""Scores of predictions in NumPy: average precision, top-k, cross entropy, per label head."""

from collections.abc import Sequence

import numpy as np

from mbt_lite.data import world
from mbt_lite.model.label_heads import Head, comparable, head_columns, label_heads


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the precision-recall steps of one class; NaN if it has no positive.

    `scores` [clips] rank the clips, `truth` [clips] is 0 or 1. Clips of equal score enter together,
    so the result does not depend on their order.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked, hits = np.asarray(scores)[order], np.cumsum(np.asarray(truth)[order] > 0)
    if not hits[-1]:
        return float("nan")
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each tie
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(precision * np.diff(recall, prepend=0)))


def average_precisions(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision per class [C] from scores and truth [clips, C]."""
    return np.array([average_precision(s, t) for s, t in zip(scores.T, truth.T, strict=True)])


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """mAP over the classes that have a positive; NaN if none has."""
    precisions = average_precisions(scores, truth)
    return float(np.nanmean(precisions)) if np.isfinite(precisions).any() else float("nan")


def _among_top_k(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether a true class is among the k highest scores of each clip [clips], both [clips, C]."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(truth > 0, best, axis=1).any(axis=1)


def top_k(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """Share of clips with a true class among the k highest scores; NaN without clips.

    Scores and truth are [clips, C].
    """
    return float(_among_top_k(scores, truth, k).mean()) if len(scores) else float("nan")


def _pair_among_top_k(
    scores: tuple[np.ndarray, np.ndarray], truth: tuple[np.ndarray, np.ndarray], k: int = 1
) -> np.ndarray:
    """Whether the true pair of two heads, such as verb and noun, is among the k best pairs [clips].

    Each head has one true class per clip. A pair scores the sum of its logits, which ranks like the
    product of the two softmax probabilities (Scenic's joint accuracy). Of equal pairs the first
    counts as better.
    """
    first, second = (np.argmax(head, axis=1) for head in truth)
    right = np.zeros(len(first), bool)
    for clip, (a, b) in enumerate(zip(*scores, strict=True)):
        pairs = a[:, None].astype(np.float64) + b
        own, place = pairs[first[clip], second[clip]], first[clip] * len(b) + second[clip]
        better = (pairs > own).sum() + (pairs.ravel()[:place] == own).sum()
        right[clip] = better < k
    return right


def cross_entropy(logits: np.ndarray, truth: np.ndarray, heads: Sequence[Head] = ()) -> np.ndarray:
    """Cross entropy of each clip [..., clips], in nats, from logits [..., clips, C].

    Without heads, and for sigmoid heads, it is summed over classes; for several heads it is the
    mean over heads, as in training.
    """
    logits = comparable(logits, heads)
    sigmoid = np.logaddexp(0, logits) - logits * truth
    if not heads:
        return sigmoid.sum(-1)
    softmax = -logits * truth
    per_head = [
        (softmax if head.kind == "softmax" else sigmoid)[..., columns].sum(-1)
        for head, columns in head_columns(heads)
    ]
    return np.mean(per_head, axis=0)


def questions(labels: Sequence[str]) -> list[np.ndarray]:
    """The columns of each question that a clip answers: verbs and nouns separately, else all."""
    heads = label_heads(labels)
    return list(heads.values()) if heads else [np.arange(len(labels))]


def best_is_true(logits: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Whether the highest logit is that of a true class [clips]; for verbs and nouns, both."""
    right = [_among_top_k(logits[:, c], truth[:, c]) for c in questions(labels)]
    return np.all(right, axis=0)


def label_scores(logits: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """mAP, top-1 and (of more than five classes) top-5; logits and truth [clips, C].

    For labels "verb:..." and "noun:...", top-1 and top-5 are computed per head over the clips that
    have a label of it, and for the action, verb and noun together, over the clips that have both.
    """
    scores, heads = {"mAP": mean_average_precision(logits, truth)}, label_heads(labels)
    if heads is None:
        return scores | _top("", logits, truth)
    labeled = {head: truth[:, columns].any(1) for head, columns in heads.items()}
    for head, columns in heads.items():
        clips = np.ix_(labeled[head], columns)
        scores |= _top(f"{head} ", logits[clips], truth[clips])
    both = np.all(list(labeled.values()), axis=0)
    pair = [tuple(x[np.ix_(both, columns)] for columns in heads.values()) for x in (logits, truth)]
    right = {k: _pair_among_top_k(*pair, k) for k in (1, 5)}
    return scores | {f"action top-{k}": float(r.mean()) for k, r in right.items() if len(r)}


def _top(name: str, logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    ks = (1, 5) if logits.shape[1] > 5 else (1,)
    return {f"{name}top-{k}": top_k(logits, truth, k) for k in ks}


def world_scores(logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """mAP per kind of class, and the accuracy of the singing shape; both arrays [clips, 31].

    "matched accuracy" is the share of clips with a singing shape in which its logit is the highest
    of the four shapes.
    """
    scores = {
        f"mAP {kind}": mean_average_precision(logits[:, columns], truth[:, columns])
        for kind, columns in world.KINDS.items()
    }
    matched = world.KINDS["matched"]
    sung = truth[:, matched].any(1)
    accuracy = top_k(logits[sung, matched], truth[sung, matched])
    return {**scores, "matched accuracy": accuracy}
