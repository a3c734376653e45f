"""Labelled clips to be scored on: files of a table, or a split of the micro-world.

V windows of a clip   T frames   N spectrogram frames   M mel bins   C classes
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbt_lite import features, media, tables, world
from mbt_lite.config import ClipConfig

WORLD = {f"world:{split}": split for split in world.SPLITS}
WORLD_CLIPS = 2000  # of a split of the micro-world are scored where no count is given
THUMBNAIL = 160  # pixels, short side


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
        state = item.path.stat() if item.path.exists() else None
        found = f"{state.st_size}|{state.st_mtime_ns}" if state else "missing"
        text = f"{item.path.absolute()}|{item.start}|{found}"
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


def find(
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
