"""Batches of training clips, deterministic in (seed, step), prepared in worker processes."""

import os
import signal
from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from mbt_lite import world
from mbt_lite.config import ClipConfig, Experiment

EVALUATION_BATCH = 50  # clips


class WorldSource:
    """Roughened clips of the micro-world's training split, made when they are asked for."""

    def __init__(self, experiment: Experiment):
        self.clip, self.count = experiment.clip, experiment.train.steps * experiment.train.batch
        self.seed = experiment.train.seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, index, 3])
        scene = world.scene(world.SPLITS["train"], self.seed * 2**32 + index)
        return world.sample(scene, self.clip, rng)


def batches(experiment: Experiment, start: int = 0, workers: int = 1) -> Iterator[dict]:
    """The run's batches from step `start` on: rgb uint8 [B, T, H, W, 3], spec [B, N, M], labels.

    They are prepared in worker processes, or with 0 workers in this one, which gives the same
    order as 1; Grain deals the batches of several workers out in another order.
    """
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers ask for flags that only absl programs set
    dataset = grain.MapDataset.source(WorldSource(experiment)).batch(experiment.train.batch)
    rest = dataset[start:].to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    if workers:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a worker's matrices are too small
        # At exit Python's tracker removes what Grain still shares, and would warn of it.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=8)
        rest = rest.mp_prefetch(options, worker_init_fn=_leave_interrupts_to_the_parent)
    return iter(rest)


def _leave_interrupts_to_the_parent(worker: int, workers: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def world_clips(clip: ClipConfig, split: str, count: int) -> Iterator[dict]:
    """The first `count` clips of a split, untouched, in batches; `visible` counts the shapes."""
    for start in range(0, count, EVALUATION_BATCH):
        indices = range(start, min(start + EVALUATION_BATCH, count))
        scenes = [world.scene(world.SPLITS[split], index) for index in indices]
        samples = [world.sample(s, clip) | {"visible": len(s.things)} for s in scenes]
        yield {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
