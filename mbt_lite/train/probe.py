"""Probe the embedded model: do its frozen features tell the classes of these clips apart?

A linear model on features costs seconds, and says whether to fine-tune or to start from scratch.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mbt_lite.config import Experiment, StartConfig
from mbt_lite.data import datasets
from mbt_lite.data.source import Source, Subset
from mbt_lite.evaluation import yardstick
from mbt_lite.features import normalize
from mbt_lite.inference import Classifier, load

MODEL = "world-tiny"
CLIPS = 240  # that are read at most, unless there are many classes
LEAST = 4  # clips of a class
BATCH = 16
MARGIN = 0.05  # by which the features of the model must be better


class Probed(NamedTuple):
    """Top-1 of linear models, fitted on half of the clips and scored on the other, both ways."""

    frozen: float  # on the features of the embedded model
    simple: float  # on simple features, see `yardstick`


def probe(experiment: Experiment, source: Source) -> Probed | None:
    """Compare features on clips to train on; None for several classes a clip or few clips a class.

    A bar shows the progress.
    """
    targets = np.stack([source.targets(index) for index in range(len(source))])
    if (targets.sum(1) != 1).any() or targets.sum(0).min() < LEAST:
        return None
    count = max(CLIPS, LEAST * len(source.labels))
    chosen = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
    model = load(MODEL)
    batches = list(_batches(experiment, Subset(source, chosen), model))
    simple = yardstick.features(batches)
    frozen = yardstick.features(batches, of=lambda batch, row: [("both", batch["features"][row])])
    return Probed(_score(frozen), _score(simple))


def _batches(experiment: Experiment, source: Source, model: Classifier) -> Iterator[Mapping]:
    """Batches of one window of each clip, as the model takes it, with its "features" of them."""
    data = replace(experiment.data, views=1, memory=0, cache_dir="")
    as_model = {"model": model.config, "clip": model.clip_config, "start": StartConfig()}
    with datasets.make_loader(
        replace(experiment, data=data, **as_model), source, False, batch=BATCH
    ) as loader:
        total = math.ceil(len(source) / BATCH)
        for batch in tqdm(loader, "probing", total, leave=False, disable=None, unit="batch"):
            clip = normalize(batch["rgb"], batch["spec"], model.clip_config.front_end)
            yield batch | {"features": model.features(clip)}


def _score(features: yardstick.Features) -> float:
    """Top-1 of the best linear model, in two folds that both have clips of every class."""
    order = np.argsort(features.truth, kind="stable")
    folds = [_rows(features, order[::2]), _rows(features, order[1::2])]
    scores = [yardstick.scores(*pair)["a linear model"] for pair in (folds, folds[::-1])]
    return max(float(np.mean([score[name] for score in scores])) for name in scores[0])


def _rows(features: yardstick.Features, rows: np.ndarray) -> yardstick.Features:
    values = {name: array[rows] for name, array in features.values.items()}
    return yardstick.Features(values, features.truth[rows])
