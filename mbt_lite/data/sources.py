"""Sources of clips: labeled files, prepared records, TFDS datasets, the micro-world.

Each kind of clip is a `filler.Source`: it decodes only what was drawn.

V windows of a clip   T frames   N spectrogram rows   M mel bins
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbt_lite.config import FrontEnd, from_dict
from mbt_lite.data import records, tables, world
from mbt_lite.data.filler import Rows, Source
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.videos import Table
from mbt_lite.data.windows import Stream, multi_hot, write
from mbt_lite.features import log_mel

WHOLE = "all"  # how `mbt-lite prepare` calls the split of a table that has none
ONE_TRACK = "holds prepared clips of one track; choose it with mbt-lite prepare --audio-track."
SCENES = 2000  # of a split of the micro-world are scored where no count is given


class World:
    """Roughened clips of a split of the micro-world, made when they are asked for.

    They are also asked for `world.AUX_LABELS`. Every seed has its own.
    """

    labels = (*world.LABELS, *world.AUX_LABELS)
    auxiliary = len(world.AUX_LABELS)
    notes = ()

    def __init__(self, count: int, seed: int, split: str = "train"):
        self.count, self.seed, self.split = count, seed, split

    @property
    def made_of(self) -> dict:
        return {"rough world": self.split, "clips": self.count, "seed": self.seed}

    def __len__(self) -> int:
        return self.count

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Clip `index` of the seed, which is random enough: nothing more is drawn."""
        own = np.random.default_rng([self.seed, index, 3])
        scene = world.scene(world.SPLITS[self.split], self.seed * 2**32 + index)
        made = world.sample(scene, sampling.clip, own, sampling.streams)
        _put(made, out, sampling.clip.size)
        return f"world:{self.split} {index}"


class Scenes:
    """The first clips of a split of the micro-world, untouched."""

    labels = world.LABELS
    auxiliary = 0
    notes = ()

    def __init__(self, split: str, count: int = SCENES):
        self.split, self.count = split, count

    @property
    def made_of(self) -> dict:
        return {"world": self.split, "clips": self.count}

    def __len__(self) -> int:
        return self.count

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        scene = world.scene(world.SPLITS[self.split], index)
        made = world.sample(scene, sampling.clip, streams=sampling.streams)
        _put(made, out, sampling.clip.size)
        return f"world:{self.split} {index}"


def _put(made: dict, out: Rows, size: int) -> None:
    """Write a clip that is one window, its video [T, size, size, 3] whole on the canvas."""
    if "valid_size" in out:
        out["valid_size"][:] = size
    for name in out.keys() & made.keys():
        view = out[name]
        if name == "rgb":
            view[:] = 0  # of the canvas, what the video does not fill
            view = view[:, :, :size, :size]
        view[:] = made[name]


class Records:
    """Prepared clips: `records.Shards`, or `builders.table.Clips` of a TFDS dataset.

    `front` is what made their spectrograms; None where nobody says.
    """

    auxiliary = 0
    made_of = None

    def __init__(self, clips, labels: Sequence[str], front: FrontEnd | None):
        self.clips, self.labels, self.front, self.notes = clips, tuple(labels), front, ()

    def __len__(self) -> int:
        return len(self.clips)

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one clip, of which only the drawn frames are decoded; its id."""
        example, clip = self.clips[index], sampling.clip
        spectrogram = self._spectrogram(example, clip.front_end)
        count = round(len(example.jpegs) / records.FPS * clip.fps)

        def frames(chosen: np.ndarray) -> Iterator[np.ndarray]:
            stored = (chosen * (records.FPS / clip.fps) + 1e-6).astype(int)
            scratch = None
            for index in np.minimum(stored, len(example.jpegs) - 1).tolist():
                scratch = example.frame(index, scratch)
                yield scratch

        def rows(chosen: np.ndarray) -> np.ndarray:
            return spectrogram[chosen]

        multi_hot(out["labels"], example.labels)
        write(out, sampling, rng, Stream(count, frames), Stream(len(spectrogram), rows))
        return example.id

    def _spectrogram(self, example: records.Example, front: FrontEnd) -> np.ndarray:
        """float32 [rows, M]: the stored one, or that of the audio where the model hears otherwise.

        Where nobody says how the stored ones were made, they are taken as they are.
        """
        if self.front is None or _alike(front) == _alike(self.front):
            stored = example.melspec.reshape(-1, records.MELS)
            if (front.mels, round(1 / front.hop)) == (records.MELS, records.ROWS):
                return stored
        elif len(example.wave):
            return log_mel(example.wave, front)
        raise ValueError(
            f"{example.source or example.id}: its spectrogram is made otherwise than front end "
            f"{front.name!r} would, and there is no audio to make it anew; prepare the clips again."
        )


class Digits:
    """The pairs of `av_digits`, see builders/."""

    auxiliary = 0
    notes = ()

    def __init__(self, builder, split: str):
        self.labels = tuple(builder.info.features["label"].names)
        self.stored = builder.as_data_source(split)
        self.made_of = {"digits": dict(builder.info.metadata), "split": split}

    def __len__(self) -> int:
        return len(self.stored)

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one pair, video and audio whole; its id."""
        from mbt_lite.data.tfds import av_digits

        made = av_digits.sample(self.stored[index], sampling.clip)
        name = made.pop("id")
        _put(made, out, sampling.clip.size)
        return name


class Place(NamedTuple):
    """What was found at a place."""

    splits: tuple[str, ...]  # by name; none: its clips are not divided
    open: Callable[[str | None], Source]  # a split, or None: all there is, of TFDS its "train"


def open_source(
    place: str | Path,
    split: str | None = None,
    videos: Path | None = None,
    names: Path | None = None,
    labels: Sequence[str] = (),
) -> Source:
    """The `Source` at a place, or one split of it: records, a TFDS dataset, or labelled files.

    Records are a folder of shards, a pattern or name@128; `labels`, or `names`, a file with them,
    are the classes of those that have no dataset.json. A TFDS dataset is the folder that
    `mbt-lite build` names. Labelled files are what `tables.read` takes, with `videos` and
    `names`. ValueError where there is nothing to learn from.
    """
    return find(place, videos, names, labels).open(split)


def find(
    place: str | Path,
    videos: Path | None = None,
    names: Path | None = None,
    labels: Sequence[str] = (),
) -> Place:
    """The `Place` of clips, its splits not yet opened; as `open_source`."""
    path = Path(place)
    if holds_tfds(path):
        return _tfds_at(path)
    if holds_records(path):
        told = records.describe(place) if (path / records.DESCRIPTION).exists() else {"splits": ()}
        splits = tuple(split for split in told["splits"] if split != WHOLE)
        labels = labels or _named(names)
        return Place(splits, lambda split: _from_shards(place, split, labels))
    if not path.exists():
        raise ValueError(f"there is no {place}; name a folder of records, a table (CSV) or videos.")
    rows = tables.read(path, videos, names)
    splits = tuple(dict.fromkeys(row.split for row in rows.rows if row.split))
    return Place(splits, lambda split: Table(rows, split))


def holds_tfds(path: Path) -> bool:
    """Whether a path is the folder of a TFDS dataset."""
    return (path / "dataset_info.json").exists()


def is_prepared(path: Path) -> bool:
    """Whether a path is what `mbt-lite prepare` or `mbt-lite build` made."""
    return holds_tfds(path) or holds_records(path)


def holds_records(path: Path) -> bool:
    """Whether a path is a shard, a folder of some, or a pattern for them."""
    inside = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    known = records.DESCRIPTION in inside or re.search(r"[*@]", path.name)
    return bool(known or any(map(records.SHARD.fullmatch, [path.name, *inside])))


def _named(names: Path | None) -> tuple[str, ...]:
    """The classes in a file with class names, if there is one."""
    return tuple(dict.fromkeys(tables.read_names(names).values())) if names else ()


def _from_shards(place: str | Path, split: str | None, labels: Sequence[str]) -> Records:
    told = records.describe(place) if (Path(place) / records.DESCRIPTION).exists() else {}
    found = tuple(told.get("labels", labels))
    if not found or (labels and tuple(labels) != found):
        said = f"has the classes {first(found)}" if found else "names no classes"
        raise ValueError(f"{place} {said}; the model's are {first(labels)}.")
    front = from_dict(FrontEnd, told["front_end"]) if told else None
    return Records(records.Shards(place, split, len(found)), found, front)


def _tfds_at(folder: Path) -> Place:
    import tensorflow_datasets as tfds  # slow to come, and rarely needed

    builder = tfds.builder_from_directory(str(folder))
    return Place(tuple(builder.info.splits), lambda split: _from_tfds(builder, split or "train"))


def _from_tfds(builder, split: str) -> Source:
    from mbt_lite.data.tfds import table

    folder = builder.data_dir
    if split not in builder.info.splits:
        raise ValueError(f"{folder} has no split {split}; it has {', '.join(builder.info.splits)}.")
    if builder.name == "av_digits":
        return Digits(builder, split)
    if not {"jpegs", "melspec"} <= set(builder.info.features):
        raise ValueError(f"{folder} holds no clips that `mbt-lite build` made.")
    clips = table.Clips(folder, split)
    return Records(clips, clips.labels, from_dict(FrontEnd, dict(clips.front_end)))


def first(labels: Sequence[str]) -> str:
    """The first few of some classes, for a sentence."""
    return ", ".join([*labels[:3], *(["..."] if len(labels) > 3 else [])]) or "not given"


def _alike(front: FrontEnd) -> FrontEnd:
    """What decides the values of a spectrogram."""
    return replace(front, name="", mean=0.0, std=1.0)
