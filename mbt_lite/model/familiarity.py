"""Tell whether a clip is like those that a model was trained on, by the model's features.

The distance is Mahalanobis's, from the mean of the features of known clips and in units of their
spread (Lee et al. 2018).

B clips   D features
"""

import math
from dataclasses import dataclass, replace

import numpy as np

KEPT = 0.99  # share of known clips that count as familiar
SHRINKAGE = 1e-3  # of the mean variance, added to each


@dataclass(frozen=True)
class Familiarity:
    """The distribution of the features of known clips."""

    mean: np.ndarray  # [D]
    precision: np.ndarray  # [D, D], the inverse of their covariance
    threshold: float  # distance from which on a clip is unfamiliar

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Distances [B] of features [B, D] from those of known clips."""
        apart = np.asarray(features, np.float64) - self.mean
        return np.sqrt(np.maximum(np.einsum("bi,ij,bj->b", apart, self.precision, apart), 0))

    def is_unfamiliar(self, features: np.ndarray) -> bool:
        """Whether the windows of a clip, with features [B, D], are mostly unlike known clips."""
        return bool(np.median(self.distance(features)) > self.threshold)

    def to_json(self) -> dict:
        """Lists of numbers with six digits."""
        return {
            "mean": [float(f"{x:.6g}") for x in self.mean],
            "precision": [[float(f"{x:.6g}") for x in row] for row in self.precision],
            "threshold": float(f"{self.threshold:.6g}"),
        }


def fit(known: np.ndarray, others: np.ndarray) -> Familiarity:
    """The distribution of features [B, D] of known clips; others set the threshold."""
    covariance = np.cov(np.asarray(known, np.float64).T)
    size = len(covariance)
    covariance += SHRINKAGE * np.trace(covariance) / size * np.eye(size)
    model = Familiarity(known.mean(0, dtype=np.float64), np.linalg.inv(covariance), math.inf)
    return replace(model, threshold=float(np.quantile(model.distance(others), KEPT)))


def from_json(values, size: int) -> Familiarity:
    """What `to_json` wrote, for D=`size` features; ValueError if anything was altered."""
    try:
        mean, precision = (np.array(values[name], np.float64) for name in ("mean", "precision"))
        threshold = float(values["threshold"])
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ValueError("its familiarity must be numbers: mean, precision, threshold") from None
    fits = mean.shape == (size,) and precision.shape == (size, size) and threshold > 0
    if not (fits and np.isfinite(mean).all() and np.isfinite(precision).all()):
        raise ValueError(f"its familiarity does not fit {size} features, or is not finite")
    return Familiarity(mean, precision, threshold)
