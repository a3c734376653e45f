"""Score the weights during training, on clips that are never trained on.

Batches go through `predict_batches` of the evaluation, here on all devices.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mbt_lite.config import Experiment
from mbt_lite.data import datasets, world
from mbt_lite.data.sources import Source
from mbt_lite.evaluation import metrics
from mbt_lite.evaluation.loop import predict_batches
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


class _ValidationResult(NamedTuple):
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
        self.clips = clips * jax.process_count()  # of all processes in a batch
        shapes = sharding.batch_shapes(mesh, self.loader.fields)
        self.predict = predict_step(experiment, mesh).lower(params, shapes).compile()

    def __call__(
        self, params: dict, signals: Signals, progress: Progress = silent
    ) -> _ValidationResult | None:
        """Scores and samples of the parameters; None where it was interrupted."""
        self.loader.restore(self.start)
        shown, stopped = [], False  # the first clips of this process, with a frame

        def batches() -> Iterator[tuple[np.ndarray, dict]]:
            for first in range(0, self.count, self.clips):
                if stopped:
                    return
                progress(first / self.count, desc=f"clip {first + 1} of {self.count}")
                batch = next(self.loader)
                names = batch.pop("id")[:: self.views]
                if not first:
                    shown.extend(zip(names, self._frames(batch), strict=True))
                yield np.repeat(np.arange(first, first + self.clips), self.views), batch

        def apply(batch: dict) -> dict:
            nonlocal stopped
            arrays = sharding.shard_batch(self.mesh, batch, signals.received)
            output = jax.device_get(self.predict(params, arrays))
            stop = output.pop("stop", None)  # of all processes, where there are several
            stopped = bool(signals.received if stop is None else stop.any())
            mask = {"mask": output.pop("mask")}
            return mask | jax.tree.map(lambda x: x[:, : len(self.labels)], output)

        predicted = islice(predict_batches(apply, batches()), self.count)
        outputs = [output for _, output in predicted]
        if stopped:
            return None
        valid = [output for output in outputs if output["mask"]]
        if not valid:
            raise ValueError("none of the validation clips could be read.")
        first = list(zip(shown, outputs, strict=False))[: self.samples]
        samples = [self._sample(*clip, output) for clip, output in first if output["mask"]]
        return _ValidationResult(self._scores(valid), samples)

    def _frames(self, batch: dict) -> np.ndarray | list[None]:
        """A frame from the middle of each clip's first window, or None where there is no video."""
        rgb = batch.get("rgb")
        if rgb is None:
            return [None] * (len(batch["mask"]) // self.views)
        return rgb[:: self.views, rgb.shape[1] // 2].copy()  # the loader fills its arrays anew

    def _sample(self, name: str, frame: np.ndarray | None, output: dict) -> Sample:
        chances = probabilities(output["logits"], self.heads)
        best = ranked(chances, self.heads)[:3]
        truth = tuple(self.labels[c] for c in np.flatnonzero(output["labels"]))
        return Sample(name, frame, truth, [(self.labels[c], float(chances[c])) for c in best])

    def _scores(self, outputs: list[dict]) -> dict[str, float]:
        """The scores of `metrics.label_scores`, and the first of them for each stream's own logits.

        For the micro-world also its scores by kind of class. Scores that these clips do not define
        are left out.
        """
        rows = jax.tree.map(lambda *x: np.stack(x), *outputs)
        logits, truth = comparable(rows["logits"], self.heads), rows["labels"]
        values = metrics.label_scores(logits, truth, self.labels)
        first, streams = next(iter(values)), rows["stream_logits"]
        if len(streams) > 1:
            for stream, own in streams.items():
                own_scores = metrics.label_scores(comparable(own, self.heads), truth, self.labels)
                values[f"{first} {stream}"] = own_scores[first]
        if self.labels == world.LABELS:
            values |= metrics.world_scores(logits, truth)
        return {name: float(value) for name, value in values.items() if math.isfinite(value)}

    def close(self) -> None:
        self.loader.close()


def _clips_per_batch(rows: int, views: int) -> int:
    """Clips of this process whose views together are about `rows`, the same for each device."""
    devices = jax.local_device_count()
    return max(1, rows // (views * jax.device_count())) * devices
