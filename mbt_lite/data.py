"""Clips for training, deterministic in (seed, step), and labelled clips for evaluation.

V windows of a clip   T frames   N spectrogram frames   M mel bins   C classes
"""

import hashlib
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from absl import flags

from mbt_lite import features, media, tables, world
from mbt_lite.config import ClipConfig, Experiment

WORLD = {f"world:{split}": split for split in world.SPLITS}
WORLD_CLIPS = 2000  # of a split of the micro-world are evaluated where no count is given
THUMBNAIL = 160  # pixels, short side


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


class Windows(NamedTuple):
    """What the model is to see and hear of one clip."""

    rgb: np.ndarray  # uint8 [V, T, H, W, 3]
    spec: np.ndarray  # float32 [V, N, M], log-mel, not standardised
    notes: tuple[str, ...] = ()  # what was unusual about the file


@dataclass(frozen=True)
class WorldClips:
    """The first clips of a split of the micro-world, untouched."""

    split: str
    clip: ClipConfig
    count: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> world.Scene:
        return world.scene(world.SPLITS[self.split], index)

    @cached_property
    def truth(self) -> np.ndarray:
        """float32 [clips, C], 0 or 1."""
        return np.stack([self.scene(i).labels for i in range(self.count)])

    @cached_property
    def visible(self) -> np.ndarray:
        """How many shapes each clip shows [clips]."""
        return np.array([len(self.scene(i).things) for i in range(self.count)])

    def name(self, index: int) -> str:
        return f"world:{self.split} {index}"

    def key(self, index: int) -> str:
        """What stays the same as long as the clip does."""
        return self.name(index)

    def read(self, index: int) -> Windows:
        sample = world.sample(self.scene(index), self.clip)
        return Windows(sample["rgb"][None], sample["spec"][None])

    def picture(self, index: int) -> np.ndarray | None:
        """A frame from the middle, uint8 [H, W, 3]."""
        return world.frames(self.scene(index), np.array([world.SECONDS / 2]), THUMBNAIL)[0]


@dataclass(frozen=True)
class Files:
    """The labelled files of a table, each seen and heard in `views` windows, evenly spread."""

    items: list[tables.Item]
    clip: ClipConfig
    views: int
    notes: tuple[str, ...] = ()  # what was left out of the table

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def truth(self) -> np.ndarray:
        """float32 [clips, C], 0 or 1."""
        return np.stack([item.truth for item in self.items])

    def name(self, index: int) -> str:
        item = self.items[index]
        return f"{item.path}" + ("" if item.start is None else f" from {item.start:g} s")

    def key(self, index: int) -> str:
        """What stays the same as long as the file does."""
        item = self.items[index]
        state = item.path.stat()
        text = f"{item.path.absolute()}|{item.start}|{state.st_size}|{state.st_mtime_ns}"
        return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()

    def read(self, index: int) -> Windows:
        """Raises ValueError or OSError for a file that cannot be used."""
        item = self.items[index]
        views = features.read_views(item.path, self.clip, self._views(item), item.start)
        notes = tuple(dict.fromkeys(note for view in views for note in view.notes))
        rgb, spec = (np.stack([getattr(view, name) for view in views]) for name in ("rgb", "spec"))
        return Windows(rgb, spec, notes)

    def _views(self, item: tables.Item) -> int:
        """One where a start is given, or where all windows would be the same."""
        if item.start is not None:
            return 1
        seconds = media.probe(item.path).duration
        window = max(self.clip.video_seconds, self.clip.sound_seconds)
        return 1 if seconds is not None and seconds <= window else self.views

    def picture(self, index: int) -> np.ndarray | None:
        """A frame from the middle, uint8 [H, W, 3]; None where the file has no picture."""
        item = self.items[index]
        start = item.start
        if start is None:
            start = (media.probe(item.path).duration or 0) / 2
        found = media.read(item.path, start, 0.1, short_side=THUMBNAIL)
        return found.frames[0] if len(found.frames) else None


def labelled(
    source: str | Path,
    labels: Sequence[str],
    clip: ClipConfig,
    views: int = 1,
    count: int | None = None,
) -> WorldClips | Files:
    """The labelled clips of "world:test" (or train, validation), or of what `tables.read` takes.

    The first `count` of them; without it all files, or 2000 clips of the micro-world.
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} clips cannot be scored; ask for one or more.")
    if source in WORLD:
        if tuple(labels) != world.LABELS:
            raise ValueError(f"{source} needs a model with the micro-world's labels.")
        return WorldClips(WORLD[source], clip, count or WORLD_CLIPS)
    if not Path(source).exists():
        raise ValueError(
            f"data {source} is unknown; use one of {', '.join(WORLD)}, or labelled files: a table "
            "(CSV) or a folder."
        )
    table = tables.read(source, labels)
    return Files(table.items[:count], clip, views, table.notes)


def prefetched(
    clips: WorldClips | Files, wanted: Sequence[int]
) -> Iterator[tuple[int, Windows | Exception]]:
    """(index, its `Windows` or the error that reading it raised), in order, read ahead in threads.

    At most two clips per thread wait at a time, whatever the number of clips.
    """
    threads = min(8, os.cpu_count() or 1)
    pool, waiting = ThreadPoolExecutor(threads), deque()
    try:
        for index in wanted:
            waiting.append((index, pool.submit(clips.read, index)))
            if len(waiting) >= 2 * threads:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(index: int, future: Future) -> tuple[int, Windows | Exception]:
    try:
        return index, future.result()
    except (ValueError, OSError) as error:
        return index, error
