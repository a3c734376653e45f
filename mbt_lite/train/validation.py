"""Score the weights during training, on clips that are never trained on.

Batches go through `predict_batches` of the evaluation, here on all devices.
"""

import math
from collections.abc import Iterator
from itertools import islice

import jax
import numpy as np
from jax.sharding import Mesh

from mbt_lite.config import Experiment
from mbt_lite.data import datasets, world
from mbt_lite.data.sources import Source
from mbt_lite.evaluation import metrics
from mbt_lite.evaluation.loop import predict_batches
from mbt_lite.model.label_heads import comparable, make_heads
from mbt_lite.progress import Progress, silent
from mbt_lite.train import sharding
from mbt_lite.train.signals import Signals
from mbt_lite.train.step import predict_step


class Validation:
    """The validation clips, and the compiled model that predicts them on all devices."""

    def __init__(self, experiment: Experiment, source: Source, mesh: Mesh, params):
        """`params` are the parameters, or their shapes, on the mesh."""
        config = experiment.train
        self.labels, self.mesh = tuple(source.labels), mesh
        self.heads = make_heads(config.loss, self.labels)
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
    ) -> dict[str, float] | None:
        """The scores of the parameters; None where it was interrupted."""
        self.loader.restore(self.start)
        stopped = False

        def batches() -> Iterator[tuple[np.ndarray, dict]]:
            for first in range(0, self.count, self.clips):
                if stopped:
                    return
                progress(first / self.count, desc=f"clip {first + 1} of {self.count}")
                batch = next(self.loader)
                del batch["id"]
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
        outputs = [output for _, output in predicted if output["mask"]]
        if stopped:
            return None
        if not outputs:
            raise ValueError("none of the validation clips could be read.")
        return self._scores(jax.tree.map(lambda *x: np.stack(x), *outputs))

    def _scores(self, outputs: dict) -> dict[str, float]:
        """The scores of `metrics.label_scores`, and the first of them for each stream's own logits.

        For the micro-world also its scores by kind of class. Scores that these clips do not define
        are left out.
        """
        logits, truth = comparable(outputs["logits"], self.heads), outputs["labels"]
        values = metrics.label_scores(logits, truth, self.labels)
        first, streams = next(iter(values)), outputs["stream_logits"]
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
