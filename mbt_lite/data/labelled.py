"""Labeled clips for evaluation: files of a table, a split of the micro-world, or any source.

V windows of a clip   T frames   N spectrogram frames   M mel bins   C classes
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbt_lite import features, media
from mbt_lite.config import ClipConfig, DataConfig
from mbt_lite.data import (
    datasets,
    sources,
    tables,
    workers,
    world,
)
from mbt_lite.data.filler import BatchMaker, Source, Subset
from mbt_lite.data.sampling import Sampling

WORLD = {f"world:{split}": split for split in world.SPLITS}
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

    def thumbnail(self, index: int) -> np.ndarray | None:
        """A frame from the middle, uint8 [H, W, 3]."""
        return world.frames(self.scene(index), np.array([world.SECONDS / 2]), THUMBNAIL)[0]


@dataclass(frozen=True)
class Files:
    """The labelled files of a table, each seen and heard in `views` windows, evenly spread."""

    items: list[tables.Annotation]
    labels: Sequence[str]
    clip: ClipConfig
    views: int
    notes: tuple[str, ...] = ()  # what was left out of the table

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def truth(self) -> np.ndarray:
        """float32 [clips, C], 0 or 1."""
        return tables.multi_hot(self.items, self.labels)

    def name(self, index: int) -> str:
        item = self.items[index]
        return f"{item.path}" + ("" if item.start is None else f" from {item.start:g} s")

    def key(self, index: int) -> str:
        """What stays the same as long as the file does."""
        item = self.items[index]
        return _key(item.path, item.start)

    def read(self, index: int) -> Windows:
        """Raises ValueError or OSError for a file that cannot be used."""
        item = self.items[index]
        views = features.read_views(item.path, self.clip, self._views(item), item.start)
        notes = tuple(dict.fromkeys(note for view in views for note in view.notes))
        rgb, spec = (np.stack([getattr(view, name) for view in views]) for name in ("rgb", "spec"))
        return Windows(rgb, spec, notes)

    def _views(self, item: tables.Annotation) -> int:
        """One where a start is given, or where all windows would be the same."""
        if item.start is not None:
            return 1
        seconds = media.seconds(item.path, self.clip.audio_track)
        window = max(self.clip.video_seconds, self.clip.audio_seconds)
        return 1 if seconds is not None and seconds <= window else self.views

    def thumbnail(self, index: int) -> np.ndarray | None:
        """A frame from the middle, uint8 [H, W, 3]; None where the file has no video."""
        item = self.items[index]
        start = item.start
        if start is None:
            start = (media.seconds(item.path) or 0) / 2
        found = media.read(item.path, start, 0.1, short_side=THUMBNAIL)
        return found.frames[0] if len(found.frames) else None


@dataclass(frozen=True)
class Drawn:
    """The first clips of a `Source`, such as prepared records, as a loader would take them."""

    source: Source
    place: str  # where they are, for people
    sampling: Sampling
    count: int
    known: dict[int, tuple[str, np.ndarray]] = field(default_factory=dict)  # see `_told`

    def __len__(self) -> int:
        return self.count

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self.source.notes)

    @cached_property
    def truth(self) -> np.ndarray:
        """float32 [clips, C], 0 or 1; zeros where a clip cannot be read."""
        return np.stack([self._told(index)[1] for index in range(self.count)])

    def name(self, index: int) -> str:
        return self._told(index)[0]

    def key(self, index: int) -> str:
        """What stays the same as long as the file does that holds the clip."""
        return _key(_file(self.source, index), f"{self.place}|{index}")

    def read(self, index: int) -> Windows:
        """Raises ValueError or OSError for a clip that cannot be used."""
        out = self._write(index, self.sampling)
        same = all((out[name] == out[name][:1]).all() for name in ("rgb", "spec"))
        views = 1 if same else self.sampling.views
        return Windows(out["rgb"][:views], out["spec"][:views])

    def thumbnail(self, index: int) -> np.ndarray | None:
        """A frame from the middle, uint8 [H, W, 3]; None where the clip has no video."""
        views = self.read(index).rgb  # [V, T, H, W, 3]
        frame = views[len(views) // 2, views.shape[1] // 2]
        return frame if frame.any() else None

    def _write(self, index: int, sampling: Sampling) -> dict[str, np.ndarray]:
        """The rows of a clip; its id and its labels are remembered."""
        out = workers.blank(BatchMaker(self.source, sampling, 0).fields(1))
        name = self.source.write(index, out, sampling, np.random.default_rng(0))
        self.known[index] = name, out["labels"][0]
        return out

    def _told(self, index: int) -> tuple[str, np.ndarray]:
        """The id of a clip and which classes are true of it [C]."""
        if index not in self.known:
            try:
                self._write(index, Sampling(self.sampling.clip, streams=("spec",)))
            except (ValueError, OSError):
                blank = np.zeros(len(self.source.labels), np.float32)
                self.known[index] = f"{self.place}, clip {index}", blank
        return self.known[index]


Clips = WorldClips | Files | Drawn


def find(
    source: str | Path | DataConfig,
    labels: Sequence[str],
    clip: ClipConfig,
    views: int = 1,
    count: int | None = None,
    split: str | None = None,
) -> Clips:
    """The labelled clips of "world:test" (or train, validation), or of what `open_source` takes.

    A source that is divided needs the name of a `split`; of the data of an experiment that is the
    role, validation or test. The first `count` of the clips; without it all, or 2000 of the
    micro-world. ValueError where the classes are not the model's.
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} clips cannot be scored; ask for one or more.")
    if isinstance(source, DataConfig):
        return _of_experiment(source, labels, clip, views, count, split or "test")
    if source in WORLD:
        if split:
            raise ValueError(f"{source} names its split already; leave {split} out.")
        return _of_world(WORLD[source], labels, clip, count)
    if sources.is_prepared(Path(source)):
        if clip.audio_track:
            raise ValueError(f"--audio-track {clip.audio_track}: {source} {sources.ONE_TRACK}")
        opened = _prepared(source, labels, split)
        return _drawn(opened, title(source, split), labels, Sampling(clip, views=views), count)
    if not Path(source).exists():
        raise ValueError(
            f"data {source} is unknown; use one of {', '.join(WORLD)}, labelled files (a table or "
            "a folder), prepared records or a TFDS dataset."
        )
    table = tables.read(source, classes=labels, split=split, strict=True)
    return Files(table.rows[:count], labels, clip, views, table.notes)


def title(source: str | Path | DataConfig, split: str | None = None) -> str:
    """What people call it."""
    if isinstance(source, DataConfig):
        name = getattr(source, split or "test") or split or "test"
        return f"{source.path}:{name}" if source.path == "world" else f"{source.path}, {name}"
    return f"{source}, {split}" if split else str(source)


def _of_world(split: str, labels: Sequence[str], clip: ClipConfig, count: int | None) -> WorldClips:
    if tuple(labels) != world.LABELS:
        raise ValueError(f"world:{split} needs a model with the micro-world's labels.")
    return WorldClips(split, clip, count or sources.SCENES)


def _of_experiment(config: DataConfig, labels, clip, views: int, count, role: str) -> Clips:
    opened = datasets.open_split(config, role)
    if opened is None:
        raise ValueError(f"data.{role} is None: the experiment names no clips for it.")
    if isinstance(opened, sources.Scenes):
        return _of_world(opened.split, labels, clip, count)
    clip = replace(clip, audio_track=config.audio_track or clip.audio_track)
    sampling = Sampling(clip, views=views, pairing=config.pairing)
    return _drawn(opened, title(config, role), labels, sampling, count)


def _prepared(source: str | Path, labels: Sequence[str], split: str | None) -> Source:
    """The split of records or of a TFDS dataset; all of what is not divided."""
    place = sources.find(source, labels=labels)
    if split is None and len(place.splits) > 1:
        raise ValueError(f"{source} has the splits {', '.join(place.splits)}; name one of them.")
    return place.open(split or next(iter(place.splits), None))


def _drawn(opened: Source, place: str, labels, sampling: Sampling, count: int | None) -> Drawn:
    if tuple(opened.labels) != tuple(labels):
        raise ValueError(
            f"{place} has {len(opened.labels)} classes ({sources.first(opened.labels)}), and the "
            f"model {len(labels)} ({sources.first(labels)}); they must be the same."
        )
    return Drawn(opened, place, sampling, min(count or len(opened), len(opened)))


def _file(source: Source, index: int) -> Path | None:
    """The file that holds a clip, where it is known."""
    if isinstance(source, Subset):
        return _file(source.whole, int(source.chosen[index]))
    if isinstance(source, sources.Table):
        return source.rows[index].path
    where = getattr(getattr(source, "clips", None), "file", None)  # of records in shards
    return where and where(index)


def _key(path: Path | None, place) -> str:
    """A digest of a file, its state, and the place in it."""
    state = path.stat() if path and path.exists() else None
    found = f"{state.st_size}|{state.st_mtime_ns}" if state else "missing"
    text = f"{path and path.absolute()}|{place}|{found}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def prefetched(clips: Clips, wanted: Sequence[int]) -> Iterator[tuple[int, Windows | Exception]]:
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
