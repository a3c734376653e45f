"""Yardsticks: simple models on simple features of the same clips, to compare a trained model with.

The features are mean and deviation of each mel band in a few parts of the window, and small gray
pictures. The models are scikit-learn's: a linear one (discriminant analysis with shrinkage) and the
k nearest neighbors.

R rows of a batch   N spectrogram rows   M mel bins   T frames   H, W pixels   F features
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from mbt_lite.evaluation.loop import BOTH

PARTS = 5  # of the window in time
SIDE = 16  # pixels
NEIGHBORS = 5


class Features(NamedTuple):
    """Simple features of labeled clips."""

    values: dict[str, np.ndarray]  # {stream: [clips, F]}
    truth: np.ndarray  # int [clips], the number of a class


def audio_features(spec: np.ndarray) -> np.ndarray:
    """Mean and deviation of each mel band in each part of a spectrogram [N, M]: [2 PARTS M]."""
    parts = np.array_split(spec, min(PARTS, len(spec)))
    return np.concatenate([[part.mean(0), part.std(0)] for part in parts]).ravel()


def video_features(rgb: np.ndarray) -> np.ndarray:
    """The mean of frames [T, H, W, 3] as a gray picture, and how much each of its pixels varies."""
    frames = [Image.fromarray(frame).convert("L") for frame in rgb]
    small = np.stack([frame.resize((SIDE, SIDE), Image.Resampling.BOX) for frame in frames]) / 255
    return np.concatenate([small.mean(0), small.std(0)]).ravel()


def features(batches: Iterable[Mapping], views: int = 1, of: Callable | None = None) -> Features:
    """Features of the clips with one label in batches of a `Loader`; of several views, the middle.

    Training batches are taken as they are: padding is cut off, nothing is augmented. `of` yields
    (name, features [F]) of a batch and the number of its row, by default simple ones.
    """
    values: dict[str, list] = {}
    truth = []
    for batch in batches:
        for row in range(views // 2, len(batch["mask"]), views):
            if batch["mask"][row] and batch["labels"][row].sum() == 1:
                truth.append(int(batch["labels"][row].argmax()))
                for stream, vector in (of or _features_of)(batch, row):
                    values.setdefault(stream, []).append(vector)
    return Features({s: np.array(rows, np.float32) for s, rows in values.items()}, np.array(truth))


def _features_of(batch: Mapping, row: int) -> Iterator[tuple[str, np.ndarray]]:
    if "spec" in batch:
        yield "spec", audio_features(batch["spec"][row])
    if "rgb" in batch:
        rgb = batch["rgb"][row]
        height, width = batch["valid_size"][row] if "valid_size" in batch else rgb.shape[1:3]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        yield "rgb", video_features(rgb[:, top : top + side, left : left + side])


def scores(train: Features, test: Features) -> dict[str, dict[str, float]]:
    """{model: {stream, or both: top-1 on `test`}} of models that are fitted on `train`."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    models = {
        "a linear model": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        "nearest neighbors": KNeighborsClassifier(min(NEIGHBORS, len(train.truth))),
    }

    def score(model, train_rows: np.ndarray, test_rows: np.ndarray) -> float:
        fitted = make_pipeline(StandardScaler(), model).fit(train_rows, train.truth)
        return float(fitted.score(test_rows, test.truth))

    pairs = {name: (train.values[name], test.values[name]) for name in train.values}
    if len(pairs) > 1:
        parts = zip(*pairs.values(), strict=True)  # all features to fit; all to score
        pairs[BOTH] = tuple(np.concatenate(part, axis=1) for part in parts)
    return {
        name: {stream: score(model, *rows) for stream, rows in pairs.items()}
        for name, model in models.items()
    }


def best(results: Mapping[str, Mapping[str, float]]) -> tuple[str, float]:
    """The simple model that is right most often, with all streams or with one, and its top-1."""
    highest = {name: max(by_stream.values()) for name, by_stream in results.items()}
    name = max(highest, key=highest.__getitem__)
    return name, highest[name]
