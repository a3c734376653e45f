"""Score a model on a labeled data set: metrics, a report to read, and front-end matching."""

from mbt_lite.evaluation.loop import evaluate

__all__ = ["evaluate"]
