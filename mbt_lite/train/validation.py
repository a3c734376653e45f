"""Score the weights during training, on clips that are never trained on.

R rows of a batch   V windows of a clip   C classes
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
from mbt_lite.train import sharding, step
from mbt_lite.train.signals import Signals


class Sample(NamedTuple):
    """A validation clip and what the model says of it."""

    name: str
    frame: np.ndarray | None  # uint8 [H, W, 3], from its middle; None: the model sees none
    truth: tuple[str, ...]
    said: list[tuple[str, float]]  # the likeliest labels with their probabilities


class Found(NamedTuple):
    """What a validation found."""

    scores: dict[str, float]
    samples: list[Sample]


class Validation:
    """Clips to score on, and the compiled model that answers them on all devices."""

    def __init__(self, experiment: Experiment, source: Source, mesh: Mesh, params):
        """`params` are the parameters, or their shapes, on the mesh."""
        config = experiment.train
        self.labels, self.mesh = tuple(source.labels), mesh
        self.heads = make_heads(config.loss, self.labels)
        self.samples = config.samples
        self.count = min(config.evaluate_clips or len(source), len(source))
        self.views = datasets.sampled(experiment, source, training=False).views
        clips = _clips_at_once(config.batch // config.accumulate, self.views)
        self.loader = datasets.make_loader(
            experiment, source, False, batch=clips, **sharding.hosts()
        )
        shapes = sharding.batch_shapes(mesh, self.loader.fields)
        self.answer = step.answer(experiment, mesh).lower(params, shapes).compile()

    def __call__(self, params: dict, stop: Signals, progress: Progress = silent) -> Found | None:
        """Scores and samples of the parameters; None where it was interrupted."""
        answers, samples, seen = [], [], 0
        self.loader.seek(0)
        while seen < self.count:
            progress(seen / self.count, desc=f"clip {seen + 1} of {self.count}")
            batch = next(self.loader)
            names = batch.pop("id")
            found = self.answer(params, sharding.shard_batch(self.mesh, batch, stop.asked))
            found = jax.device_get(found)
            if stop.asked if "stop" not in found else found["stop"].any():
                return None
            if not answers:
                samples = self._samples(batch, names, found)
            answers.append(found)
            seen += len(found["mask"]) // self.views
        logits, streams, truth = self._of_clips(answers)
        logits = comparable(logits, self.heads)
        streams = {s: comparable(x, self.heads) for s, x in streams.items()}
        return Found(scores(logits, streams, truth, self.labels), samples)

    def _of_clips(self, answers: Sequence[dict]) -> tuple[np.ndarray, dict, np.ndarray]:
        """Logits, those of each stream, and labels [clips, C] of all clips that could be read."""
        rows = jax.tree.map(lambda *parts: np.concatenate(parts)[:: self.views], *answers)
        summed = jax.tree.map(lambda *parts: _mean(np.concatenate(parts), self.views), *answers)
        there = np.flatnonzero(rows["mask"][: self.count] > 0)
        if not len(there):
            raise ValueError("none of the validation clips could be read.")
        asked = slice(len(self.labels))
        streams = {s: x[there, asked] for s, x in summed["stream_logits"].items()}
        return summed["logits"][there, asked], streams, rows["labels"][there, asked]

    def _samples(self, batch: dict, names: Sequence[str], found: dict) -> list[Sample]:
        """The first clips of this process's batch."""
        local = len(names) * jax.process_index()
        made = []
        for row in range(0, len(names), self.views)[: self.samples]:
            if batch["mask"][row]:
                logits = found["logits"][local + row : local + row + self.views].mean(0)
                chances = probabilities(logits[: len(self.labels)], self.heads)
                best = ranked(chances, self.heads)[:3]
                truth = tuple(self.labels[c] for c in np.flatnonzero(batch["labels"][row]))
                frame = batch["rgb"][row][len(batch["rgb"][row]) // 2] if "rgb" in batch else None
                said = [(self.labels[c], float(chances[c])) for c in best]
                made.append(Sample(names[row], frame, truth, said))
        return made

    def close(self) -> None:
        self.loader.close()


def _clips_at_once(rows: int, views: int) -> int:
    """Clips of this process whose windows together are about `rows`, dealt evenly over devices."""
    devices = jax.local_device_count()
    return max(1, rows // (views * jax.device_count())) * devices


def scores(
    logits: np.ndarray, streams: dict[str, np.ndarray], truth: np.ndarray, labels: Sequence[str]
) -> dict[str, float]:
    """What `metrics.label_scores` tells, and its first score for each stream's own logits.

    Of the micro-world also its scores by kind of class. What the clips cannot tell is left out.
    """
    found = metrics.label_scores(logits, truth, labels)
    first = next(iter(found))
    if len(streams) > 1:
        for stream, own in streams.items():
            found[f"{first} {stream}"] = metrics.label_scores(own, truth, labels)[first]
    if tuple(labels) == world.LABELS:
        found |= metrics.world_scores(logits, truth)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _mean(rows: np.ndarray, views: int) -> np.ndarray:
    """The mean over the windows of each clip: [R / V, ...] of [R, ...]."""
    return rows.reshape(-1, views, *rows.shape[1:]).mean(1)
