"""Clips put together from folders of sounds and pictures."""

import shutil
import wave
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mbt_lite.config import (
    WORLD,
    WORLD_CLIP,
    DataConfig,
    Experiment,
    StartConfig,
    TrainConfig,
)
from mbt_lite.data import collage, datasets, sources
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import batch_fields, zeros
from mbt_lite.data.survey import survey
from mbt_lite.train import setup

CLIP = replace(WORLD_CLIP, frames=4, size=32, resize=32, spec_frames=100)


def tone(path, hertz, seconds=0.7):
    samples = 8000 * np.sin(2 * np.pi * hertz * np.arange(round(16000 * seconds)) / 16000)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.astype("<i2").tobytes())


def picture(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 48), color).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everyday")
    for split in ("train", "validation"):
        for take in range(3):
            tone(folder / split / "sounds/dog" / f"bark_{take}.wav", 500 + take)
            tone(folder / split / "sounds/rain" / f"drops_{take}.wav", 3000 + take, 2.0)
            tone(folder / split / "sounds/other" / f"hum_{take}.wav", 100)
            picture(folder / split / "pictures/dog" / f"red_{take}.png", (200, 20, 20))
            picture(folder / split / "pictures/chair" / f"green_{take}.png", (20, 200, 20))
            picture(folder / split / "pictures/other" / f"gray_{take}.png", (90, 90, 90))
    return folder


@pytest.fixture(scope="module")
def source(folder):
    return sources.open_source(folder, "train")


def written(source, index, sampling, seed=0):
    out = zeros(batch_fields(source, sampling, 1))
    name = source.write(index, out, sampling, np.random.default_rng(seed))
    return name, out


def shown(name: str) -> set[str]:
    """The labels of a clip by the names of its files."""
    words = {"dog": "sounds/dog", "rain": "sounds/rain", "chair": "pictures/chair"}
    labels = {label for label, word in words.items() if word in name}
    return labels | ({"dog"} if "pictures/dog" in name else set())


def test_labels_are_what_is_heard_and_what_is_seen(source):
    assert source.labels == ("chair", "dog", "rain") and len(source) == 18
    sampling = Sampling(CLIP, training=True)
    sizes = []
    for index in range(60):
        name, out = written(source, index, sampling, seed=index)
        labels = {source.labels[i] for i in np.flatnonzero(out["labels"][0])}
        assert labels == shown(name)
        sizes.append(len(labels))
        has = [kind in name for kind in ("sounds/", "pictures/")]
        loud = out["spec"][0].max() > CLIP.front_end.silence + 1
        assert [loud, out["rgb"].any()] == has
    assert set(sizes) == {0, 1, 2}


def test_training_clips_are_new_ones_and_evaluated_ones_are_the_same(source):
    training, fixed = Sampling(CLIP, training=True), Sampling(CLIP)
    same = [written(source, 2, fixed, seed)[1] for seed in (0, 1)]
    other = [written(source, 2, training, seed)[1] for seed in (0, 1)]
    assert all((same[0][name] == same[1][name]).all() for name in same[0])
    assert any((other[0][name] != other[1][name]).any() for name in ("rgb", "spec"))
    windows = source.read(2, Sampling(CLIP, views=3))
    assert len(windows.rgb) == 1 and (windows.rgb == same[0]["rgb"]).all()
    assert (source.targets(2) == same[0]["labels"][0]).all()
    assert source.name(2) and source.key(2) != source.key(3)


def test_a_picture_keeps_its_color_and_a_sound_its_pitch():
    rng = np.random.default_rng(0)
    for _ in range(20):
        frames = collage.filmed(Image.new("RGB", (90, 60), (200, 40, 40)), CLIP, rng)
        assert frames.shape == (4, 32, 32, 3) and frames.dtype == np.uint8
        red, green, blue = frames.reshape(-1, 3).mean(0)
        assert red > green + 30 and red > blue + 30
        sound = np.sin(2 * np.pi * 500 * np.arange(16000) / 16000).astype(np.float32)
        heard = np.abs(np.fft.rfft(collage.recorded(sound, 16000, rng)))
        assert heard.argmax() == 500  # Hz


def test_a_run_reads_its_splits_and_an_evaluation_names_one(folder):
    (folder / "train/sounds/notes.txt").write_text("where they are from")
    (folder / "train/pictures/dog/.hidden").write_text("of a file manager")
    data = DataConfig(path=str(folder), test=None, workers=0)
    train, validation = (datasets.open_split(data, role) for role in ("train", "validation"))
    assert train.labels == validation.labels and len(validation) == 18
    labeled = datasets.open_labeled(folder, train.labels, clip=CLIP, split="validation", count=4)
    assert len(labeled) == 4
    experiment = Experiment("collage", WORLD, CLIP, data, train=TrainConfig(batch=18))
    with datasets.make_loader(experiment, train, training=True) as loader:
        epochs = [next(loader) for _ in range(2)]
    assert set(epochs[0]["id"]) != set(epochs[1]["id"])
    assert not loader.note  # nothing is kept
    with pytest.raises(ValueError, match="can be chosen by video files only"):
        survey(train, 64)


def test_the_head_may_begin_with_the_frequency_of_each_class(folder):
    data, start = DataConfig(path=str(folder)), StartConfig(prior=True)
    resolved = setup.resolve(Experiment("collage", WORLD, CLIP, data, start=start))
    targets = np.stack([resolved.source.targets(index) for index in range(len(resolved.source))])
    bias = np.asarray(resolved.params()["head"]["bias"])
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), targets.mean(0), rtol=1e-5)


def test_a_file_that_is_no_picture_costs_its_clip_and_is_named(tmp_path):
    tone(tmp_path / "sounds/dog/bark.wav", 500)
    (tmp_path / "pictures/dog").mkdir(parents=True)
    (tmp_path / "pictures/dog/red.jpg").write_text("no picture")
    source = collage.CollageSource(tmp_path)
    with pytest.raises(ValueError, match=r"red\.jpg is no picture that can be read"):
        written(source, 0, Sampling(CLIP))
    (tmp_path / "empty/sounds").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no folders sounds/CLASS or pictures/CLASS"):
        collage.CollageSource(tmp_path / "empty")


def test_soft_labels_of_another_model_are_auxiliary_classes(folder, tmp_path):
    copy = tmp_path / "everyday"
    shutil.copytree(folder, copy)
    files = [
        path.relative_to(copy / "train/sounds").as_posix()
        for path in sorted(copy.glob("train/sounds/*/*"))
    ]
    scores = np.linspace(0, 1, 2 * len(files), dtype=np.float16).reshape(len(files), 2)
    np.savez(
        copy / "train/sounds" / collage.SOFT_LABELS,
        labels=["Bark", "Drip"],
        files=files,
        scores=scores,
    )
    source = sources.open_source(copy, "train")
    assert source.labels == ("chair", "dog", "rain", "spec: Bark", "spec: Drip")
    assert source.num_auxiliary_classes == 2
    assert sources.open_source(copy, "validation").labels == ("chair", "dog", "rain")
    for index in range(12):
        name, out = written(source, index, Sampling(CLIP, training=True), seed=index)
        heard = [
            row
            for row, file in enumerate(files)
            if name.startswith(str(copy / "train/sounds" / file))
        ]
        expected = scores[heard[0]] if heard else [0, 0]
        np.testing.assert_array_equal(out["labels"][0, 3:], expected)
