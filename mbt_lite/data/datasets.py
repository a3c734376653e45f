"""Open the splits of a run, the clips of an evaluation, and their loader."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mbt_lite.config import ClipConfig, DataConfig, Experiment
from mbt_lite.data import sources, tables, world
from mbt_lite.data.cache import cached
from mbt_lite.data.collage import is_collage
from mbt_lite.data.loader import Loader
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import Source, Subset
from mbt_lite.data.sources import Location, WorldSource
from mbt_lite.data.splits import for_test, held_out
from mbt_lite.data.videos import FileSource
from mbt_lite.data.workers import why_no_workers

log = logging.getLogger(__name__)
ROLES = ("train", "validation", "test")
MICRO_WORLD = "world"
WORLD_SPLITS = {f"world:{split}": split for split in world.SPLITS}


def open_split(config: DataConfig, role: str, *, seed: int = 0, clips: int = 0) -> Source | None:
    """Open the clips of a role: train, validation or test; None if no clips are to be scored.

    For training on the micro-world, `clips` is the number of clips of the run, which are all new
    unless `config.clips` says otherwise. For validation and test, so many clips are scored: the
    first ones of the micro-world, of other data evenly spaced ones; 0: all, of the micro-world
    2000.

    If the data is not divided, or the split of a role is missing, a share `config.holdout` of the
    training clips is held out for it; if both are missing, half of that share for each. All roles
    have the same classes. ValueError, saying what to set, if there are no such clips.
    """
    if role not in ROLES:
        raise ValueError(f"role={role!r} is none of {', '.join(ROLES)}.")
    if config.path == MICRO_WORLD:
        return _open_world(config, role, seed, clips)
    source = _open_role(config, role, _find(config))
    if role != "train" and source is not None and 0 < clips < len(source):
        return Subset(source, np.linspace(0, len(source) - 1, clips).round())
    return source


def split_names(config: DataConfig) -> tuple[str, ...]:
    """The splits that labeled files or prepared clips name; none of the micro-world."""
    return () if config.path == MICRO_WORLD else _find(config).splits


def _open_world(config: DataConfig, role: str, seed: int, clips: int) -> Source | None:
    split = getattr(config, role)
    if split is None and role != "train":
        return None
    if split not in world.SPLITS:
        raise ValueError(f"data.{role}={split}: the micro-world has {', '.join(world.SPLITS)}.")
    if role == "train":
        return WorldSource(split, config.clips or clips, seed)
    return WorldSource(split, clips or sources.WORLD_CLIPS)


def _find(config: DataConfig) -> Location:
    path = Path(config.path)
    videos = Path(config.videos) if config.videos else None
    names = Path(config.labels) if config.labels else None
    if config.audio_track and sources.is_prepared(path):
        raise ValueError(
            f"data.audio_track={config.audio_track}: {config.path} {sources.ONE_TRACK}"
        )
    return sources.find(config.path, videos, names, group=config.group)


def _open_role(config: DataConfig, role: str, location: Location) -> Source | None:
    """The split of a role; if clips are held out, those, and for training all others."""
    missing = [other for other in ROLES[1:] if _is_held_out(config, other, location)]
    split = getattr(config, role)
    if role != "train" and role not in missing:
        if split is None or split in location.splits:
            return split and location.open(split)
        raise ValueError(
            f"data.{role}={split}: {_in_words(config, location)}. Name another, hold clips out "
            f"with data.holdout=0.1, or score none with data.{role}=None."
        )
    source = location.open(_training_split(config, location))
    if not missing:
        return source
    held = _held_out(config, source)
    if role == "train":
        return Subset(source, np.flatnonzero(~held))
    if len(missing) > 1:
        held &= for_test(source.rows, held) == (role == "test")
    return Subset(source, np.flatnonzero(held)) if held.any() else None


def _is_held_out(config: DataConfig, role: str, location: Location) -> bool:
    """Whether the clips of a role are held out of the training clips."""
    split = getattr(config, role)
    scored = split is not None or not location.splits
    return config.holdout > 0 and scored and split not in location.splits


def _training_split(config: DataConfig, location: Location) -> str | None:
    """The split to train on; None if the clips are not divided."""
    if not location.splits:
        return None
    if config.train is None and {config.validation, config.test} & set(location.splits):
        raise ValueError(
            "data.train=None takes all clips, even those that are to be scored: name a split."
        )
    if config.train not in (None, *location.splits):
        raise ValueError(f"data.train={config.train}: {_in_words(config, location)}.")
    return config.train


def _held_out(config: DataConfig, source: Source) -> np.ndarray:
    """Whether each clip is held out."""
    if not isinstance(source, FileSource):
        raise ValueError(
            f"data.holdout={config.holdout}: clips are held out of tables and folders of files; "
            f"{config.path} has to be divided into splits when it is made."
        )
    held = held_out(source.rows, config.holdout)
    if not held.any():
        raise ValueError(
            f"data.holdout={config.holdout}: no class of {config.path} has two files, of which one "
            "could be held out."
        )
    return held


def _in_words(config: DataConfig, location: Location) -> str:
    splits = f"the splits {', '.join(location.splits)}" if location.splits else "no splits"
    return f"{config.path} has {splits}"


# ---- evaluation ----


def open_labeled(
    data: str | Path | DataConfig,
    labels: Sequence[str],
    *,
    clip: ClipConfig,
    count: int | None = None,
    split: str | None = None,
) -> Source:
    """Open the clips to evaluate a model with these labels on; the first `count`, or all.

    `data` is "world:test" (or train, validation), labeled files, see `tables.read`, prepared
    records, a TFDS data set, or the data of an experiment. `split` names a split of it; of an
    experiment it is a role, validation or test. ValueError if the classes are not the model's.
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} clips cannot be scored; ask for one or more.")
    if isinstance(data, DataConfig):
        role = split or "test"
        source = open_split(data, role)
        if source is None:
            raise ValueError(f"data.{role} is None: the experiment names no clips for it.")
    elif data in WORLD_SPLITS:
        if split:
            raise ValueError(f"{data} names its split already; leave {split} out.")
        source = WorldSource(WORLD_SPLITS[data])
    elif sources.is_prepared(Path(data)) or is_collage(Path(data)):
        if clip.audio_track and not is_collage(Path(data)):
            raise ValueError(f"--audio-track {clip.audio_track}: {data} {sources.ONE_TRACK}")
        source = _open_prepared(data, labels, split)
    elif Path(data).exists():
        source = open_files(data, labels, split, count)
    else:
        raise ValueError(
            f"data {data} is unknown; use one of {', '.join(WORLD_SPLITS)}, labeled files (a table "
            "or a folder), prepared records or a TFDS data set."
        )
    if isinstance(source, WorldSource):
        if tuple(labels) != world.LABELS:
            raise ValueError(f"world:{source.split} needs a model with the micro-world's labels.")
        return WorldSource(source.split, count or len(source))
    if tuple(source.labels) != tuple(labels):
        raise ValueError(
            f"{title(data, split)} has {len(source.labels)} classes "
            f"({sources.first(source.labels)}), and the model {len(labels)} "
            f"({sources.first(labels)}); they must be the same."
        )
    return source if count is None else Subset(source, range(min(count, len(source))))


def evaluation_sampling(
    data: str | Path | DataConfig, source: Source, clip: ClipConfig, views: int
) -> Sampling:
    """The `Sampling` of `open_labeled` clips; a source whose clips are one window has one view."""
    views = 1 if source.fingerprint is not None else views
    if not isinstance(data, DataConfig):
        return Sampling(clip, views=views)
    clip = replace(clip, audio_track=data.audio_track or clip.audio_track)
    return Sampling(clip, views=views, pairing=data.pairing)


def title(data: str | Path | DataConfig, split: str | None = None) -> str:
    """The name of a data set in a report."""
    if isinstance(data, DataConfig):
        name = getattr(data, split or "test") or split or "test"
        return f"{data.path}:{name}" if data.path == MICRO_WORLD else f"{data.path}, {name}"
    return f"{data}, {split}" if split else str(data)


def _open_prepared(data: str | Path, labels: Sequence[str], split: str | None) -> Source:
    """The split of records or of a TFDS data set; all clips of one that is not divided."""
    location = sources.find(data, labels=labels)
    if split is None and len(location.splits) > 1:
        raise ValueError(f"{data} has the splits {', '.join(location.splits)}; name one of them.")
    return location.open(split or next(iter(location.splits), None))


def open_files(
    data: str | Path, labels: Sequence[str], split: str | None = None, count: int | None = None
) -> FileSource:
    """Open labeled files with the classes of a model, see `tables.read`; the first `count`.

    The end of a row is ignored: a row with a start is one window.
    """
    table = tables.read(data, classes=labels, split=split, strict=True)
    rows = [replace(row, end=None) for row in table.rows[:count]]
    return FileSource(replace(table, rows=rows))


# ---- loading ----


def make_loader(
    experiment: Experiment,
    source: Source,
    training: bool,
    *,
    batch: int | None = None,
    host: int = 0,
    hosts: int = 1,
) -> Loader:
    """The `Loader` of an experiment: the streams of its model and its settings of the data.

    In training it is endless, in another order each epoch; otherwise it passes once over the clips.
    `batch` is the number of clips of this host, by default its part of `train.batch`. With
    `data.cache_dir` the clips are first written to the cache, unless they are there, and read
    without worker processes, which take longer to start than to read many clips. Scripts without
    `if __name__ == "__main__":` read without worker processes too, and log it.
    """
    config = experiment.data
    sampling = sampled(experiment, source, training)
    workers, memory = config.workers, config.memory
    all_new = training and config.path == MICRO_WORLD and not config.clips
    if config.cache_dir:
        source = cached(source, sampling, Path(config.cache_dir))
        workers = memory = 0
    if workers and (why := why_no_workers()):
        log.warning("the clips are read in this process, without workers: %s.", why)
        workers = 0
    return Loader(
        source,
        sampling,
        batch or experiment.train.batch // hosts,
        seed=experiment.train.seed,
        epochs=None if training else 1,
        shuffle=training and not all_new,
        host=host,
        hosts=hosts,
        workers=workers,
        memory=0 if all_new or source.new_each_epoch else memory,
        on_error="skip" if config.skip_errors else "raise",
    )


def sampled(experiment: Experiment, source: Source, training: bool) -> Sampling:
    """The `Sampling` of an experiment; a source whose clips are one window has one view."""
    config, size = experiment.data, experiment.clip.size
    sampling = evaluation_sampling(config, source, experiment.clip, config.views)
    return replace(
        sampling,
        training=training,
        views=1 if training else sampling.views,
        streams=experiment.model.streams,
        padded_size=None if source.fingerprint is None else (size, size),
    )
