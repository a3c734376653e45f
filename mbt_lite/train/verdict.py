"""What a finished run is worth: simple models on the same clips, and sentences about its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import jax
import numpy as np
from jax.sharding import Mesh

from mbt_lite.config import Experiment
from mbt_lite.data import datasets
from mbt_lite.data.loader import Loader
from mbt_lite.data.source import Source, Subset
from mbt_lite.evaluation import diagnosis, yardstick
from mbt_lite.evaluation.loop import ALONE, BOTH
from mbt_lite.model.label_heads import label_heads
from mbt_lite.train.logger import Row
from mbt_lite.train.signals import Signals
from mbt_lite.train.validation import Validation

TOP_1 = "top-1"
SEEN = 200  # training clips that are scored, to compare them with the others


def verdict(
    experiment: Experiment,
    loader: Loader,
    mesh: Mesh,
    weights: Mapping,
    rows: Sequence[Row],
    scores: Mapping,
) -> dict:
    """{"simple models": their top-1 by stream, "verdict": sentences}; {} where it does not apply.

    It applies to a run of one process where each clip has one class, and clips are scored that are
    not trained on. `loader` is that of the training, which may have all its clips in memory.
    """
    source = datasets.open_split(experiment.data, "train")
    test = datasets.open_split(experiment.data, "test")
    single = experiment.train.loss == "softmax" and label_heads(source.labels) is None
    if not single or test is None or jax.process_count() > 1:
        return {}
    top_1 = {name: scores[name][TOP_1] for name in (BOTH, *ALONE.values()) if name in scores}
    simple = _simple(experiment, loader, test)
    targets = np.stack([source.targets(index) for index in range(len(source))]).sum(0)
    outcome = diagnosis.Outcome(
        held_out=top_1.get(BOTH, next(iter(top_1.values()))),
        training=_seen(experiment, source, mesh, weights),
        curve=[row[TOP_1] for row in rows if TOP_1 in row],
        alone={stream: top_1[name] for stream, name in ALONE.items() if BOTH in top_1},
        simple=simple,
        clips=dict(zip(source.labels, targets.astype(int).tolist(), strict=True)),
    )
    return {"simple models": simple, "verdict": diagnosis.sentences(outcome)}


def _simple(experiment: Experiment, loader: Loader, test: Source) -> dict:
    """The top-1 of simple models that learn from one window of each training clip."""
    loader.restore(loader.state() | {"batches": 0})
    train = yardstick.features(islice(loader, loader.batches_per_epoch))
    with datasets.make_loader(experiment, test, False) as loader:
        views = datasets.sampled(experiment, test, False).views
        return yardstick.scores(train, yardstick.features(loader, views))


def _seen(experiment: Experiment, source: Source, mesh: Mesh, weights: Mapping) -> float:
    """Top-1 on some of the clips that the model was trained on."""
    chosen = Subset(source, np.unique(np.linspace(0, len(source) - 1, SEEN).round()))
    quiet = replace(experiment, train=replace(experiment.train, evaluate_clips=0))
    validation = Validation(quiet, chosen, mesh, weights)
    try:
        return validation(weights, Signals())[TOP_1]
    finally:
        validation.close()
