"""The clips of training, validation and test, and cached clips."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mbt_lite import media
from mbt_lite.config import WORLD, WORLD_CLIP, ClipConfig, DataConfig, Experiment
from mbt_lite.data import (
    cache,
    datasets,
    records,
    sources,
    splits,
    tables,
    world,
)
from mbt_lite.data.loader import Loader
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import Subset

SMALL = ClipConfig(frames=2, fps=5.0, stride=1, size=16, resize=16, spec_frames=25)
TINY = replace(WORLD, rgb_shape=(2, 16, 16), spec_shape=(25, 128))


def row(number: int, label: str = "a", file: str = "", split: str | None = None):
    path = Path(file or f"{number}.mp4")
    return tables.Annotation(f"clip{number}", path, labels=(label,), split=split)


def listed(source) -> list[str]:
    """The ids of the clips of a source over a table."""
    if isinstance(source, Subset):
        return [listed(source.source)[index] for index in source.indices]
    return [one.id for one in source.rows]


def ids(source) -> set[str]:
    return set(listed(source))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six files of a cat and three of a dog, in folders with their names; nothing to decode."""
    folder = tmp_path_factory.mktemp("videos")
    for name, count in (("cat", 6), ("dog", 3)):
        (folder / name).mkdir()
        for number in range(count):
            (folder / name / f"{number}.mp4").write_bytes(b"")
    return folder


@pytest.fixture
def table(tmp_path):
    """A table of six clips to learn from and three to be scored on."""
    rows = []
    for number in range(9):
        (tmp_path / f"{number}.mp4").write_bytes(b"")
        rows.append(f"{number}.mp4,{'ab'[number % 2]},{'eval' if number > 5 else 'train'}")
    (tmp_path / "t.csv").write_text("\n".join(["path,labels,split", *rows]) + "\n")
    return tmp_path / "t.csv"


# ---- held out ----


def test_about_the_share_is_held_out_and_other_files_change_nothing():
    rows = [row(number) for number in range(2000)]
    held = splits.held_out(rows, 0.2)
    assert 0.17 < held.mean() < 0.23
    np.testing.assert_array_equal(splits.held_out(rows[::-1], 0.2), held[::-1])
    np.testing.assert_array_equal(splits.held_out(rows[::3], 0.2), held[::3])
    more = splits.held_out(rows, 0.4)
    assert more.sum() > held.sum() and more[held].all()


def test_rows_of_a_speaker_are_held_out_together(tmp_path):
    lines = ["file,labels,Speaker"]
    for number in range(60):
        (tmp_path / f"{number}.mp4").write_bytes(b"")
        lines.append(f"{number}.mp4,{number % 3},s{number % 5}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    options = {"group": "speaker", "holdout": 0.01, "train": None}
    config = DataConfig(str(tmp_path / "t.csv"), validation=None, test=None, **options)
    opened = {role: datasets.open_split(config, role) for role in datasets.ROLES}
    speakers = {role: {int(one) % 5 for one in ids(source)} for role, source in opened.items()}
    assert [len(speakers[role]) for role in datasets.ROLES] == [3, 1, 1]
    assert set.union(*speakers.values()) == set(range(5))
    assert sum(len(source) for source in opened.values()) == 60
    with pytest.raises(ValueError, match="t.csv has no column film; its first line says"):
        datasets.open_split(replace(config, group="film"), "train")
    with pytest.raises(ValueError, match="is no table: write one with a column speaker"):
        datasets.open_split(replace(config, path=str(tmp_path)), "train")


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_of_a_class_with_two_files_one_is_held_out_and_of_each_class_one_is_trained_on(share):
    counts = {"one": 1, "two": 2, "five": 5}
    names = [name for name, count in counts.items() for _ in range(count)]
    rows = [row(number, name) for number, name in enumerate(names)]
    for seed in range(20):
        moved = [replace(one, id=f"{seed} {one.id}") for one in rows]
        held = splits.held_out(moved, share)
        for name, count in counts.items():
            part = held[[one.labels == (name,) for one in rows]]
            assert part.sum() >= (count > 1) and not part.all()


def test_windows_of_one_file_stay_together():
    rows = [row(number, "ab"[number % 2], f"{number // 4}.mp4") for number in range(400)]
    held = splits.held_out(rows, 0.3)
    assert 0 < held.sum() < 400
    assert all(len(set(held[start : start + 4])) == 1 for start in range(0, 400, 4))


# ---- roles ----


def test_a_folder_without_splits_is_trained_on_and_scored_on_apart(folder):
    config = DataConfig(path=str(folder), holdout=0.3)
    train, validation, test = (datasets.open_split(config, role) for role in datasets.ROLES)
    whole = sources.open_source(folder)
    assert train.labels == validation.labels == test.labels == ("cat", "dog")
    parts = [ids(train), ids(validation), ids(test)]
    assert set.union(*parts) == ids(whole) and sum(map(len, parts)) == len(whole)
    for name in ("cat", "dog"):
        assert all(any(one.startswith(name) for one in ids(part)) for part in (train, test))


def test_the_splits_of_a_table_keep_their_names_and_share_all_classes(table):
    config = DataConfig(path=str(table), validation="eval", test=None)
    train, validation = (datasets.open_split(config, role) for role in datasets.ROLES[:2])
    assert (len(train), len(validation)) == (6, 3)
    assert train.labels == validation.labels == ("a", "b")
    assert datasets.open_split(config, "test") is None
    assert len(datasets.open_split(config, "validation", clips=2)) == 2


def test_what_is_held_out_stands_in_for_a_split_that_is_missing(table):
    config = DataConfig(path=str(table), test="eval", holdout=0.3)
    train, validation, test = (ids(datasets.open_split(config, role)) for role in datasets.ROLES)
    assert not train & validation and len(train | validation) == 6
    assert len(test) == 3 and not test & (train | validation)
    every = replace(config, validation="eval")  # nothing is missing, nothing is held out
    assert len(datasets.open_split(every, "train")) == 6


def test_clips_that_are_scored_are_spread_over_all(folder):
    config = DataConfig(path=str(folder), holdout=0.9)
    whole, few = (datasets.open_split(config, "test", clips=clips) for clips in (0, 2))
    assert len(few) == 2 < len(whole)
    assert {one[:3] for one in ids(few)} == {"cat", "dog"}


def test_missing_splits_are_refused_with_what_to_set(folder, table, tmp_path):
    with pytest.raises(
        ValueError, match="videos.* has no splits.*data.holdout=0.1.*validation=None"
    ):
        datasets.open_split(DataConfig(path=str(folder)), "validation")
    with pytest.raises(ValueError, match="data.test=test: .*has the splits train, eval"):
        datasets.open_split(DataConfig(path=str(table)), "test")
    with pytest.raises(ValueError, match="data.train=learn: .*has the splits train, eval"):
        datasets.open_split(DataConfig(path=str(table), train="learn"), "train")
    with pytest.raises(ValueError, match="even those that are to be scored: name a split"):
        datasets.open_split(DataConfig(path=str(table), train=None, test="eval"), "train")
    with pytest.raises(ValueError, match="role='eval' is none of train, validation, test"):
        datasets.open_split(DataConfig(), "eval")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "1.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="no class of .* has two files"):
        datasets.open_split(DataConfig(path=str(tmp_path), holdout=0.5), "test")


def test_prepared_records_are_divided_when_they_are_made(tmp_path):
    records.write_shard(tmp_path / records.shard_name("x", 0, 1), [])
    (tmp_path / "names.txt").write_text("a\nb\n")
    place = str(tmp_path / "x@1")
    config = DataConfig(path=place, labels=str(tmp_path / "names.txt"), test=None)
    assert datasets.open_split(config, "train").labels == ("a", "b")
    with pytest.raises(ValueError, match="has to be divided into splits when it is made"):
        datasets.open_split(replace(config, holdout=0.2), "validation")


# ---- the micro-world ----


def test_the_world_is_degraded_and_has_auxiliary_classes_only_in_training():
    train = datasets.open_split(DataConfig(), "train", seed=3, clips=70)
    assert (len(train), train.num_auxiliary_classes) == (70, 8)
    assert train.labels == (*world.LABELS, *world.AUX_LABELS)
    test = datasets.open_split(DataConfig(), "test", clips=5)
    assert (len(test), test.num_auxiliary_classes, test.labels) == (5, 0, world.LABELS)
    assert len(datasets.open_split(DataConfig(), "validation")) == 2000
    assert datasets.open_split(DataConfig(test=None), "test") is None
    batch = next(Loader(test, Sampling(WORLD_CLIP), 2))
    for index in range(2):
        sample = world.sample(world.scene(world.SPLITS["test"], index), WORLD_CLIP)
        for name in sample:
            np.testing.assert_allclose(batch[name][index], sample[name], atol=1e-3)
    with pytest.raises(ValueError, match="data.test=eval: the micro-world has train, test, valid"):
        datasets.open_split(DataConfig(test="eval"), "test")


def test_so_many_clips_of_the_world_come_again_in_another_order():
    experiment = small(clips=6)
    source = datasets.open_split(experiment.data, "train", clips=32)
    loader = datasets.make_loader(experiment, source, training=True, batch=6)
    first, second = next(loader), next(loader)
    assert sorted(first["id"]) == sorted(second["id"]) and first["id"] != second["id"]
    place = second["id"].index(first["id"][0])
    np.testing.assert_array_equal(first["rgb"][0], second["rgb"][place])
    new = small()
    batch = next(
        datasets.make_loader(new, datasets.open_split(new.data, "train", clips=32), training=True)
    )
    assert batch["id"] == [f"world:train {number}" for number in range(4)]


@pytest.mark.parametrize("rough", [True, False])
def test_a_stream_is_the_same_without_the_other(rough):
    for index in range(12):

        def sample(*streams, index=index):
            rng = np.random.default_rng(index) if rough else None
            return world.sample(world.scene(0, index), WORLD_CLIP, rng, streams)

        both, video, audio = sample("spec", "rgb"), sample("rgb"), sample("spec")
        assert set(video) == {"rgb", "labels"} and set(audio) == {"spec", "labels"}
        np.testing.assert_array_equal(video["rgb"], both["rgb"])
        np.testing.assert_array_equal(audio["spec"], both["spec"])


# ---- what a run's loader takes ----


def small(streams=("spec", "rgb"), **fields) -> Experiment:
    settings = DataConfig(**{"workers": 0} | fields)
    experiment = Experiment("small", replace(TINY, streams=streams), SMALL, settings)
    return replace(experiment, train=replace(experiment.train, batch=4))


def test_files_are_scored_in_views_and_a_clip_of_the_world_in_one(tmp_path):
    frames = np.zeros((50, 32, 32, 3), np.uint8)
    for name in ("a/1", "a/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        media.write(tmp_path / f"{name}.mp4", frames, 25.0, np.zeros(32_000, np.float32))
    experiment = small(path=str(tmp_path), views=3)
    loader = datasets.make_loader(
        experiment, sources.open_source(tmp_path), training=False, batch=1
    )
    assert loader.views == 3 and [len(batch["mask"]) for batch in loader] == [3, 3]
    scored = datasets.open_split(DataConfig(), "test", clips=2)
    loader = datasets.make_loader(small(), scored, training=False)
    assert loader.views == 1 and [batch["mask"].tolist() for batch in loader] == [[1, 1, 0, 0]]


def test_scoring_can_be_repeated():
    source = datasets.open_split(DataConfig(), "test", clips=6)
    loader = datasets.make_loader(small(clips=8), source, training=False)
    start = loader.state()
    first = [batch["id"] for batch in loader]
    loader.restore(start)
    assert [batch["id"] for batch in loader] == first and len(first) == 2


class Slow(sources.WorldSource):
    """Takes 0.2 s for a clip, and leaves a file for each that was begun."""

    def write(self, index, *arguments):
        (self.folder / str(index)).touch()
        time.sleep(0.2)
        return super().write(index, *arguments)


@pytest.mark.full
def test_a_loader_ends_before_its_busy_processes_have_filled_the_batch(tmp_path):
    source = Slow("train", 10**6, 0)
    source.folder = tmp_path
    with ThreadPoolExecutor(1) as elsewhere:
        with Loader(source, Sampling(SMALL), 128, workers=1) as loader:
            waiting = elsewhere.submit(next, loader)
            while not list(tmp_path.iterdir()):
                time.sleep(0.1)
        assert waiting.exception() and len(list(tmp_path.iterdir())) < 64


# ---- cached ----


@pytest.fixture
def counted(monkeypatch):
    """How many clips of the training split have been rendered, in this process."""
    rendered, original = [], sources.WorldSource.write

    def write(self, index, *arguments):
        rendered.append(index)
        return original(self, index, *arguments)

    monkeypatch.setattr(sources.WorldSource, "write", write)
    return rendered


@pytest.mark.parametrize("streams", [("spec", "rgb"), ("spec",)])
def test_cached_clips_are_bit_exact_and_rendered_once(tmp_path, counted, streams):
    experiment = small(streams, clips=9)
    source = datasets.open_split(experiment.data, "train")
    keeping = replace(experiment, data=replace(experiment.data, cache_dir=str(tmp_path)))
    direct = datasets.make_loader(experiment, source, training=True)
    cached = datasets.make_loader(keeping, source, training=True)
    for _ in range(4):
        one, other = next(direct), next(cached)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
    counted.clear()
    next(datasets.make_loader(keeping, source, training=True))
    assert counted == [0]  # the first clip tells whether the code is the same


def test_what_decides_the_values_decides_which_files_are_read(tmp_path, monkeypatch):
    sampling, streams = Sampling(SMALL, True), ("spec",)
    variants = [
        (sources.WorldSource("train", 3, 0), sampling),
        (sources.WorldSource("train", 4, 0), sampling),
        (sources.WorldSource("train", 3, 1), sampling),
        (sources.WorldSource("test", 3), sampling),
        (sources.WorldSource("train", 3, 0), replace(sampling, clip=replace(SMALL, fps=4.0))),
        (sources.WorldSource("train", 3, 0), replace(sampling, streams=streams)),
    ]
    folders = [cache.cached(*variant, tmp_path).folder for variant in variants]
    assert len(set(folders)) == len(variants)
    assert cache.cached(*variants[0], tmp_path).folder == folders[0]
    monkeypatch.setattr(world, "_excerpt", lambda rng, color: np.zeros(32_000, np.float32))
    assert cache.cached(*variants[0], tmp_path).folder not in folders  # the code has changed
    with pytest.raises(ValueError, match="clips of other sizes or windows"):
        next(Loader(cache.cached(*variants[0], tmp_path), replace(sampling, streams=streams), 1))


def test_an_audio_track_is_chosen_for_files_and_refused_for_prepared_clips(tmp_path):
    config = DataConfig(path=str(tmp_path), audio_track=2)
    experiment = Experiment(name="a", model=TINY, clip=SMALL, data=config)
    sampling = datasets.sampled(experiment, sources.WorldSource("test", 1), training=False)
    assert sampling.clip == replace(SMALL, audio_track=2) and experiment.clip.audio_track is None
    (tmp_path / records.DESCRIPTION).write_text("{}")
    with pytest.raises(ValueError, match="prepared clips of one track"):
        datasets.open_split(config, "train")
    with pytest.raises(ValueError, match="no files with tracks"):
        DataConfig(audio_track=2)


def test_two_runs_at_once_share_one_cache(tmp_path, counted):
    source = sources.WorldSource("train", 20, 0)
    sampling = Sampling(SMALL, True, padded_size=(16, 16))
    results = []
    runs = [
        threading.Thread(target=lambda: results.append(cache.cached(source, sampling, tmp_path)))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert results[0].folder == results[1].folder and results[0].ids == results[1].ids
    assert len(counted) == 20 + 2  # each looks at the first


def test_interrupted_rendering_leaves_nothing_behind_that_would_be_read(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    source, sampling = sources.WorldSource("test", 3), Sampling(SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(cache.Loader, "__next__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.cached(source, sampling, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(cache.cached(source, sampling, tmp_path)) == 3


def test_clips_that_cannot_be_cached_are_refused_with_a_reason(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="set data.clips, how many"):
        DataConfig(cache_dir=str(tmp_path))
    drawn = sources.open_source(folder)
    with pytest.raises(ValueError, match="the same in every epoch: those of the micro-world"):
        cache.cached(drawn, Sampling(SMALL), tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match="has 0.0 GiB left; take fewer with data.clips"):
        cache.cached(sources.WorldSource("test", 3), Sampling(SMALL), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
