"""Make the probabilities of a classifier agree with how often it is right.

N clips   C classes
"""

import numpy as np

from mbt_lite.data.source import Source
from mbt_lite.evaluation.loop import predict_source
from mbt_lite.inference import Classifier

BINS = 15


def calibrate(classifier: Classifier, source: Source) -> Classifier:
    """The classifier with logits scaled and shifted so that these clips are likeliest.

    One scale and one shift for all classes (Platt 1999), which its head takes up: ranks within a
    class, and explanations, stay. The clips must not have been trained on.
    """
    scale, shift = fit(*logits_and_truth(classifier, source))
    params = classifier.params
    head = {
        "kernel": scale * params["head"]["kernel"],
        "bias": scale * params["head"]["bias"] + shift,
    }
    return Classifier(
        classifier.config,
        params | {"head": head},
        classifier.clip_config,
        classifier.labels,
        classifier.card,
        classifier.label_heads,
        classifier.familiarity,
    )


def fit(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The scale and the shift of logits [N, C] with the least binary cross entropy."""
    from scipy.optimize import minimize

    def loss(values: np.ndarray) -> float:
        moved = values[0] * logits + values[1]
        return float((np.logaddexp(0, moved) - moved * truth).mean())

    scale, shift = minimize(loss, [1.0, 0.0], method="Nelder-Mead").x
    return float(scale), float(shift)


def logits_and_truth(classifier: Classifier, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels [N, C] of the clips of a source, one window each."""
    truth = np.stack([source.targets(index) for index in range(len(source))])
    return predict_source(classifier.logits, classifier, source), truth


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rows (mean probability, share that is true, count) of bins of equal width, [bins, 3].

    Both arrays are [N, C]; every label of every clip counts. Empty bins are left out.
    """
    p, true = np.ravel(probabilities), np.ravel(truth)
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    chosen = (bins == number for number in range(BINS))
    return np.array([(p[own].mean(), true[own].mean(), own.sum()) for own in chosen if own.any()])


def calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error: how far probabilities are from shares, weighted by count."""
    predicted, share, count = reliability(probabilities, truth).T
    return float((count * np.abs(predicted - share)).sum() / count.sum())
