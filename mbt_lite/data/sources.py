"""Open sources of clips: labeled files, records, TFDS data sets, collages, the micro-world.

V windows of a clip   T frames   N spectrogram rows   M mel bins   C classes
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbt_lite.config import FrontEnd, from_dict
from mbt_lite.data import collage, records, tables, world
from mbt_lite.data.collage import CollageSource
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import THUMBNAIL, Rows, Source, file_key, multi_hot, write_window
from mbt_lite.data.videos import FileSource
from mbt_lite.features import black, crop, frame_times, log_mel, resize, silence

ALL_CLIPS = "all"  # how `mbt-lite prepare` calls the split of a table that has none
ONE_TRACK = "holds prepared clips of one track; choose it with mbt-lite prepare --audio-track."
WORLD_CLIPS = 2000  # of a split of the micro-world are scored by default


class WorldSource(Source):
    """Clips of a split of the micro-world, rendered when they are read.

    Without a seed they are the first clips of the split. With a seed, for training, they are other
    ones for each seed, degraded as by cameras and codecs, and labeled with `world.AUX_LABELS`, too.
    """

    def __init__(self, split: str, count: int = WORLD_CLIPS, seed: int | None = None):
        self.split, self.count, self.seed = split, count, seed
        if seed is None:
            self.labels = world.LABELS
        else:
            self.labels = (*world.LABELS, *world.AUX_LABELS)
            self.num_auxiliary_classes = len(world.AUX_LABELS)

    @property
    def fingerprint(self) -> dict:
        return {"world": self.split, "clips": self.count, "seed": self.seed}

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> world.Scene:
        return world.scene(world.SPLITS[self.split], (self.seed or 0) * 2**32 + index)

    def name(self, index: int) -> str:
        return f"world:{self.split} {index}"

    def targets(self, index: int) -> np.ndarray:
        scene = self.scene(index)
        return (
            scene.labels if self.seed is None else np.concatenate([scene.labels, scene.aux_labels])
        )

    def key(self, index: int) -> str:
        return self.name(index)

    def thumbnail(self, index: int) -> np.ndarray:
        return world.frames(self.scene(index), np.array([world.SECONDS / 2]), THUMBNAIL)[0]

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one clip; return its id. The seed and the index decide it, not `rng`."""
        own = None if self.seed is None else np.random.default_rng([self.seed, index, 3])
        sample = world.sample(self.scene(index), sampling.clip, own, sampling.streams)
        out["labels"][:] = sample["labels"]
        write_window(out, 0, sample.get("rgb"), sample.get("spec"))
        return self.name(index)


class RecordSource(Source):
    """Prepared clips: `records.Shards`, or `tfds.table.Clips` of a TFDS data set.

    `front` made their spectrograms; None if that is unknown.
    """

    def __init__(self, clips, labels: Sequence[str], front: FrontEnd | None):
        self.clips, self.labels, self.front = clips, tuple(labels), front

    def __len__(self) -> int:
        return len(self.clips)

    def name(self, index: int) -> str:
        return self._header(index)[0]

    def targets(self, index: int) -> np.ndarray:
        return multi_hot(self._header(index)[1], len(self.labels))

    def _header(self, index: int) -> tuple[str, tuple[int, ...]]:
        """Id and class numbers of a clip; if it cannot be read, its place and no classes."""
        try:
            return _header(self.clips, index)
        except (ValueError, OSError):
            is_record = isinstance(self.clips, records.Shards)
            return self.clips.location(index) if is_record else f"clip {index}", ()

    def file(self, index: int) -> Path | None:
        return self.clips.file(index) if isinstance(self.clips, records.Shards) else None

    def key(self, index: int) -> str:
        return file_key(self.file(index), self.name(index), index)

    def thumbnail(self, index: int) -> np.ndarray | None:
        example = self.clips[index]
        if not example.jpegs:
            return None
        frame = example.frame(len(example.jpegs) // 2)
        scale = THUMBNAIL / min(frame.shape[:2])
        return resize(frame, tuple(round(side * scale) for side in frame.shape[:2]))

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one clip, of which only the drawn frames are decoded; return its id."""
        example, clip = self.clips[index], sampling.clip
        spec = self._spectrogram(example, clip.front_end)
        seconds = len(example.jpegs) / records.FPS
        windows = sampling.windows({"rgb": seconds, "spec": len(spec) * clip.front_end.hop}, rng)
        size = sampling.frame_size
        out["labels"][:] = multi_hot(example.labels, len(self.labels))
        for view, starts in enumerate(windows):
            rgb, rows = black(clip, size), silence(clip)
            if "rgb" in starts:
                times = frame_times(clip, seconds, starts["rgb"])
                shown = np.minimum(times * records.FPS + 1e-6, len(example.jpegs) - 1)
                rgb = crop(example.frames(shown), clip.resize, size, sampling.corner(rng))
            if "spec" in starts:
                first = round(starts["spec"] / clip.front_end.hop)
                rows = np.take(spec, first + np.arange(clip.spec_frames), 0, mode="wrap")
            write_window(out, view, rgb, rows)
        return example.id

    def _spectrogram(self, example: records.Example, front: FrontEnd) -> np.ndarray:
        """The stored log-mel rows [N, M], or new ones if the model has another front end.

        If it is unknown how the stored ones were computed, they are used as they are.
        """
        if self.front is None or _without_statistics(front) == _without_statistics(self.front):
            stored = example.melspec.reshape(-1, records.MELS)
            if (front.mels, round(1 / front.hop)) == (records.MELS, records.ROWS):
                return stored
        elif len(example.wave):
            return log_mel(example.wave, front)
        raise ValueError(
            f"{example.source or example.id}: its spectrogram was not computed with front end "
            f"{front.name!r}, and there is no audio to compute it from; prepare the clips again."
        )


@lru_cache(maxsize=100_000)
def _header(clips, index: int) -> tuple[str, tuple[int, ...]]:
    example = clips[index]
    return example.id, example.labels


class DigitSource(Source):
    """The audio-video pairs of `av_digits`, see tfds/."""

    def __init__(self, builder, split: str):
        self.labels = tuple(builder.info.features["label"].names)
        self.stored = builder.as_data_source(split)
        self.fingerprint = {"digits": dict(builder.info.metadata), "split": split}

    def __len__(self) -> int:
        return len(self.stored)

    def name(self, index: int) -> str:
        return self.stored[index]["id"].decode()

    def targets(self, index: int) -> np.ndarray:
        return multi_hot([int(self.stored[index]["label"])], len(self.labels))

    def key(self, index: int) -> str:
        return file_key(None, str(self.fingerprint), index)

    def thumbnail(self, index: int) -> np.ndarray:
        image = self.stored[index]["image"]
        return resize(np.stack([image] * 3, axis=-1), (THUMBNAIL, THUMBNAIL))

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one pair, video and audio in full; return its id."""
        from mbt_lite.data.tfds import av_digits

        sample = av_digits.sample(self.stored[index], sampling.clip)
        out["labels"][:] = sample["labels"]
        write_window(out, 0, sample["rgb"], sample["spec"])
        return sample["id"]


class Location(NamedTuple):
    """Clips that exist at a path, before one of their splits is opened."""

    splits: tuple[str, ...]  # by name; empty if the clips are not divided
    open: Callable[[str | None], Source]  # a split, or None: all clips, of a TFDS data set "train"


def open_source(
    place: str | Path,
    split: str | None = None,
    videos: Path | None = None,
    names: Path | None = None,
    labels: Sequence[str] = (),
) -> Source:
    """Open the clips at a path, or one split of them: records, TFDS, files, sounds and pictures.

    Records are a folder of shards, a pattern or name@128; `labels`, or `names`, a file with them,
    are the classes of records without a dataset.json. A TFDS data set is the folder that
    `mbt-lite build` prints. Labeled files are what `tables.read` reads, with `videos` and `names`;
    folders of sounds and pictures those of `CollageSource`. ValueError if there are no clips to
    train on.
    """
    return find(place, videos, names, labels).open(split)


def find(
    place: str | Path,
    videos: Path | None = None,
    names: Path | None = None,
    labels: Sequence[str] = (),
    group: str = "",
) -> Location:
    """Find the clips at a path, without opening a split; arguments as `open_source`.

    `group` is for tables, see `tables.read`.
    """
    path = Path(place)
    if holds_tfds(path):
        return _find_tfds(path)
    if holds_records(path):
        has_description = (path / records.DESCRIPTION).exists()
        splits = records.describe(place)["splits"] if has_description else ()
        splits = tuple(split for split in splits if split != ALL_CLIPS)
        labels = labels or _read_labels(names)
        return Location(splits, lambda split: _open_shards(place, split, labels))
    if collage.is_collage(path):
        return Location(collage.splits(path), lambda split: CollageSource(path, split))
    if not path.exists():
        raise ValueError(f"there is no {place}; name a folder of records, a table (CSV) or videos.")
    table = tables.read(path, videos, names, group=group)
    splits = tuple(dict.fromkeys(row.split for row in table.rows if row.split))
    return Location(splits, lambda split: FileSource(table, split))


def holds_tfds(path: Path) -> bool:
    """Whether a path is the folder of a TFDS data set."""
    return (path / "dataset_info.json").exists()


def is_prepared(path: Path) -> bool:
    """Whether a path holds clips from `mbt-lite prepare` or `mbt-lite build`."""
    return holds_tfds(path) or holds_records(path)


def holds_records(path: Path) -> bool:
    """Whether a path is a shard, a folder of some, or a pattern for them."""
    inside = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    if records.DESCRIPTION in inside or re.search(r"[*@]", path.name):
        return True
    return any(map(records.SHARD.fullmatch, [path.name, *inside]))


def _read_labels(names: Path | None) -> tuple[str, ...]:
    """The classes in a file with class names, if there is one."""
    return tuple(dict.fromkeys(tables.read_names(names).values())) if names else ()


def _open_shards(place: str | Path, split: str | None, labels: Sequence[str]) -> RecordSource:
    has_description = (Path(place) / records.DESCRIPTION).exists()
    description = records.describe(place) if has_description else {}
    classes = tuple(description.get("labels", labels))
    if not classes or (labels and tuple(labels) != classes):
        own = f"has the classes {first(classes)}" if classes else "names no classes"
        raise ValueError(f"{place} {own}; the model's are {first(labels)}.")
    front = from_dict(FrontEnd, description["front_end"]) if description else None
    return RecordSource(records.Shards(place, split, len(classes)), classes, front)


def _find_tfds(folder: Path) -> Location:
    import tensorflow_datasets as tfds  # slow to import, and rarely needed

    builder = tfds.builder_from_directory(str(folder))
    splits = tuple(builder.info.splits)
    return Location(splits, lambda split: _open_tfds(builder, split or "train"))


def _open_tfds(builder, split: str) -> Source:
    from mbt_lite.data.tfds import table

    folder = builder.data_dir
    if split not in builder.info.splits:
        raise ValueError(f"{folder} has no split {split}; it has {', '.join(builder.info.splits)}.")
    if builder.name == "av_digits":
        return DigitSource(builder, split)
    if not {"jpegs", "melspec"} <= set(builder.info.features):
        raise ValueError(f"{folder} was not made by `mbt-lite build`.")
    clips = table.Clips(folder, split)
    return RecordSource(clips, clips.labels, from_dict(FrontEnd, dict(clips.front_end)))


def first(labels: Sequence[str]) -> str:
    """The first few of some classes, for a sentence."""
    return ", ".join([*labels[:3], *(["..."] if len(labels) > 3 else [])]) or "not given"


def _without_statistics(front: FrontEnd) -> FrontEnd:
    """The parameters of a front end that decide the values of a spectrogram."""
    return replace(front, name="", mean=0.0, std=1.0)
