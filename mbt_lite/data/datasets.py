"""Open the splits of a run and make its loader, from the run's settings."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from mbt_lite.config import DataConfig, Experiment
from mbt_lite.data import sources, world
from mbt_lite.data.cache import cached
from mbt_lite.data.filler import Source, Subset
from mbt_lite.data.loader import Loader
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.sources import (
    Place,
    Scenes,
    Table,
    World,
)
from mbt_lite.data.splits import held_out
from mbt_lite.data.workers import why_no_workers

log = logging.getLogger(__name__)
ROLES = ("train", "validation", "test")
MICRO_WORLD = "world"


def open_split(config: DataConfig, role: str, *, seed: int = 0, clips: int = 0) -> Source | None:
    """The clips to learn from, or those that are scored, by role: train, validation or test.

    Of the micro-world `clips` are the run's clips, all of them new unless `config.clips` says
    otherwise, or the first ones that are scored; of other data so many are scored, spread over all;
    0: all, of the micro-world 2000.

    Where the data is not divided, or a split that is to be scored is missing, `config.holdout` puts
    a share of the clips to learn from in its place. The classes are the same in all roles. None
    where nothing is to be scored; ValueError, saying what to set, where there are no such clips.
    """
    if role not in ROLES:
        raise ValueError(f"role={role!r} is none of {', '.join(ROLES)}.")
    if config.path == MICRO_WORLD:
        return _of_world(config, role, seed, clips)
    place = _find(config)
    source = _to_learn(config, place) if role == "train" else _to_score(config, role, place)
    if role != "train" and source is not None and 0 < clips < len(source):
        return Subset(source, np.linspace(0, len(source) - 1, clips).round().astype(int))
    return source


def _of_world(config: DataConfig, role: str, seed: int, clips: int) -> Source | None:
    split = getattr(config, role)
    if split is None and role != "train":
        return None
    if split not in world.SPLITS:
        raise ValueError(f"data.{role}={split}: the micro-world has {', '.join(world.SPLITS)}.")
    if role == "train":
        return World(config.clips or clips, seed, split)
    return Scenes(split, clips or sources.SCENES)


def _find(config: DataConfig) -> Place:
    path = Path(config.path)
    videos = Path(config.videos) if config.videos else None
    names = Path(config.labels) if config.labels else None
    if config.audio_track and sources.is_prepared(path):
        raise ValueError(
            f"data.audio_track={config.audio_track}: {config.path} {sources.ONE_TRACK}"
        )
    return sources.find(config.path, videos, names)


def _to_learn(config: DataConfig, place: Place) -> Source:
    """The training split, without what is held out of it."""
    source = place.open(_training_split(config, place))
    if not any(_is_held_out(config, role, place) for role in ROLES[1:]):
        return source
    return Subset(source, np.flatnonzero(~_held_out(config, source)))


def _to_score(config: DataConfig, role: str, place: Place) -> Source | None:
    """The split of a role, or what is held out in its stead."""
    if _is_held_out(config, role, place):
        source = place.open(_training_split(config, place))
        return Subset(source, np.flatnonzero(_held_out(config, source)))
    split = getattr(config, role)
    if split is None or split in place.splits:
        return split and place.open(split)
    raise ValueError(
        f"data.{role}={split}: {_told(config, place)}. Name another, hold clips out with "
        f"data.holdout=0.1, or score none with data.{role}=None."
    )


def _is_held_out(config: DataConfig, role: str, place: Place) -> bool:
    """Whether what is scored is held out of the clips to learn from."""
    split = getattr(config, role)
    asked = split is not None or not place.splits
    return config.holdout > 0 and asked and split not in place.splits


def _training_split(config: DataConfig, place: Place) -> str | None:
    """The name to open; None where the clips are not divided."""
    if not place.splits:
        return None
    if config.train is None and {config.validation, config.test} & set(place.splits):
        raise ValueError(
            "data.train=None takes all clips, even those that are to be scored: name a split."
        )
    if config.train not in (None, *place.splits):
        raise ValueError(f"data.train={config.train}: {_told(config, place)}.")
    return config.train


def _held_out(config: DataConfig, source: Source) -> np.ndarray:
    """Whether each clip is held out."""
    if not isinstance(source, Table):
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


def _told(config: DataConfig, place: Place) -> str:
    splits = f"the splits {', '.join(place.splits)}" if place.splits else "no splits"
    return f"{config.path} has {splits}"


def make_loader(
    experiment: Experiment,
    source: Source,
    training: bool,
    *,
    batch: int | None = None,
    host: int = 0,
    hosts: int = 1,
    workers: int | None = None,
    seed: int | None = None,
) -> Loader:
    """A `Loader` of what the experiment's model sees and hears of a source.

    In training it goes on without end, in another order each epoch, otherwise once over the clips.
    `batch` is the number of clips of this host, otherwise its part of `train.batch`. With
    `data.keep` the clips are made first, unless they are kept already, and read without processes,
    whose start takes longer than the reading of many clips. Without processes read scripts that
    have no `if __name__ == "__main__":`, too, and say so.
    """
    config = experiment.data
    sampling = sampled(experiment, source, training)
    workers = config.workers if workers is None else workers
    if config.keep:
        source = cached(source, sampling, Path(config.keep))
        workers = 0
    if workers and (why := why_no_workers()):
        log.warning("the clips are read in this process, without workers: %s.", why)
        workers = 0
    return Loader(
        source,
        sampling,
        batch or experiment.train.batch // hosts,
        seed=experiment.train.seed if seed is None else seed,
        epochs=None if training else 1,
        shuffle=training and not (config.path == MICRO_WORLD and not config.clips),
        host=host,
        hosts=hosts,
        workers=workers,
        on_error="skip" if config.skip_errors else "raise",
    )


def sampled(experiment: Experiment, source: Source, training: bool) -> Sampling:
    """What is taken of every clip; of one that is a single window, one view."""
    config, size = experiment.data, experiment.clip.size
    whole = source.made_of is not None
    return Sampling(
        replace(experiment.clip, audio_track=config.audio_track or experiment.clip.audio_track),
        training,
        views=1 if training or whole else config.views,
        pairing=config.pairing,
        streams=experiment.model.streams,
        padded_size=(size, size) if whole else None,
    )
