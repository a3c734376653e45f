"""Score the weights during training, on clips that are never trained on.

R rows of a batch   V views of a clip   C classes
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mbt_lite.config import Experiment
from mbt_lite.data import datasets, world
from mbt_lite.data.sources import Source
from mbt_lite.evaluation import metrics
from mbt_lite.model.label_heads import comparable, make_heads, probabilities, ranked
from mbt_lite.progress import Progress, silent
from mbt_lite.train import sharding
from mbt_lite.train.signals import Signals
from mbt_lite.train.step import predict_step


class Sample(NamedTuple):
    """A validation clip and the model's predictions."""

    name: str
    frame: np.ndarray | None  # uint8 [H, W, 3], the middle one; None: the model has no rgb stream
    truth: tuple[str, ...]
    said: list[tuple[str, float]]  # the likeliest labels with their probabilities


class ValidationResult(NamedTuple):
    """The scores of a validation, and some of its clips."""

    scores: dict[str, float]
    samples: list[Sample]


class Validation:
    """The validation clips, and the compiled model that predicts them on all devices."""

    def __init__(self, experiment: Experiment, source: Source, mesh: Mesh, params):
        """`params` are the parameters, or their shapes, on the mesh."""
        config = experiment.train
        self.labels, self.mesh = tuple(source.labels), mesh
        self.heads = make_heads(config.loss, self.labels)
        self.samples = config.samples
        self.count = min(config.evaluate_clips or len(source), len(source))
        self.views = datasets.sampled(experiment, source, training=False).views
        clips = _clips_per_batch(config.batch // config.accumulate, self.views)
        self.loader = datasets.make_loader(
            experiment, source, False, batch=clips, **sharding.hosts()
        )
        self.start = self.loader.state()
        shapes = sharding.batch_shapes(mesh, self.loader.fields)
        self.predict = predict_step(experiment, mesh).lower(params, shapes).compile()

    def __call__(
        self, params: dict, signals: Signals, progress: Progress = silent
    ) -> ValidationResult | None:
        """Scores and samples of the parameters; None where it was interrupted."""
        outputs, samples, seen = [], [], 0
        self.loader.restore(self.start)
        while seen < self.count:
            progress(seen / self.count, desc=f"clip {seen + 1} of {self.count}")
            batch = next(self.loader)
            names = batch.pop("id")
            arrays = sharding.shard_batch(self.mesh, batch, signals.received)
            output = jax.device_get(self.predict(params, arrays))
            stop = output.pop("stop", None)  # of all processes, where there are several
            if signals.received if stop is None else stop.any():
                return None
            if not outputs:
                samples = self._samples(batch, names, output)
            outputs.append(output)
            seen += len(output["mask"]) // self.views
        logits, stream_logits, truth = self._of_clips(outputs)
        logits = comparable(logits, self.heads)
        stream_logits = {s: comparable(x, self.heads) for s, x in stream_logits.items()}
        return ValidationResult(scores(logits, stream_logits, truth, self.labels), samples)

    def _of_clips(self, outputs: Sequence[dict]) -> tuple[np.ndarray, dict, np.ndarray]:
        """Logits, those of each stream, and labels [clips, C] of all clips that could be read.

        Logits are the mean over the views of a clip.
        """
        rows = jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)
        valid = np.flatnonzero(rows["mask"][:: self.views][: self.count] > 0)
        if not len(valid):
            raise ValueError("none of the validation clips could be read.")

        def mean(x: np.ndarray) -> np.ndarray:
            views = x.reshape(-1, self.views, *x.shape[1:])
            return views.mean(1)[valid, : len(self.labels)]

        truth = rows["labels"][:: self.views][valid, : len(self.labels)]
        streams = {s: mean(x) for s, x in rows["stream_logits"].items()}
        return mean(rows["logits"]), streams, truth

    def _samples(self, batch: dict, names: Sequence[str], output: dict) -> list[Sample]:
        """The first clips of this process's batch, as many as are drawn."""
        first = len(names) * jax.process_index()  # of this process's rows in the whole batch
        samples = []
        for row in range(0, len(names), self.views)[: self.samples]:
            if batch["mask"][row]:
                logits = output["logits"][first + row : first + row + self.views].mean(0)
                chances = probabilities(logits[: len(self.labels)], self.heads)
                best = ranked(chances, self.heads)[:3]
                truth = tuple(self.labels[c] for c in np.flatnonzero(batch["labels"][row]))
                frame = batch["rgb"][row][len(batch["rgb"][row]) // 2] if "rgb" in batch else None
                predictions = [(self.labels[c], float(chances[c])) for c in best]
                samples.append(Sample(names[row], frame, truth, predictions))
        return samples

    def close(self) -> None:
        self.loader.close()


def _clips_per_batch(rows: int, views: int) -> int:
    """Clips of this process whose views together are about `rows`, the same for each device."""
    devices = jax.local_device_count()
    return max(1, rows // (views * jax.device_count())) * devices


def scores(
    logits: np.ndarray, streams: dict[str, np.ndarray], truth: np.ndarray, labels: Sequence[str]
) -> dict[str, float]:
    """The scores of `metrics.label_scores`, and the first of them for each stream's own logits.

    For the micro-world also its scores by kind of class. Scores that these clips do not define are
    left out.
    """
    values = metrics.label_scores(logits, truth, labels)
    first = next(iter(values))
    if len(streams) > 1:
        for stream, own in streams.items():
            values[f"{first} {stream}"] = metrics.label_scores(own, truth, labels)[first]
    if tuple(labels) == world.LABELS:
        values |= metrics.world_scores(logits, truth)
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
