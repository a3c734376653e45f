"""Facts about the clips that come with the package."""

import csv
from pathlib import Path

import numpy as np
import pytest

from mbt_lite import media
from mbt_lite.data import world

SAMPLES = Path(__file__).resolve().parent.parent / "data_samples"
with open(SAMPLES / "labels.csv", newline="", encoding="utf-8") as table:
    ROWS = list(csv.DictReader(table))
FILES = [row["file"] for row in ROWS]
FROM_WORLD = [row for row in ROWS if row["kind"] == "world"]
LIFE = [row for row in ROWS if row["kind"] == "life"]


def test_labels_csv_and_sources_list_every_clip_and_nothing_else():
    assert sorted(FILES) == sorted(path.name for path in SAMPLES.glob("*.mp4"))
    assert len(FROM_WORLD) == 6 and len(LIFE) == 6 and len(ROWS) == 12
    assert all(row["description"] for row in ROWS)
    assert sum((SAMPLES / file).stat().st_size for file in FILES) < 4e6
    sources = (SAMPLES / "SOURCES.md").read_text(encoding="utf-8")
    assert all(f"`{file}`" in sources for file in FILES) and "CC0 1.0" in sources
    assert all(set(row["labels"].split("|")) <= set(world.LABELS) for row in FROM_WORLD)
    assert not any(row["labels"] for row in LIFE)


@pytest.mark.parametrize("file", FILES)
def test_a_clip_has_video_and_audio_and_nothing_unusual(file):
    clip = media.read(SAMPLES / file)
    frames = clip.frames[::12, ::2, ::2].astype(int)
    assert frames.std() > 5 and np.abs(np.diff(frames, axis=0)).max() > 20
    assert 0.05 < np.abs(clip.wave).max() <= 1
    assert 1.9 < clip.duration < 6.5
    assert clip.notes == ()


def test_each_shape_sings_in_one_clip_and_its_name_says_which():
    for shape in world.SHAPES:
        (file,) = [r["file"] for r in FROM_WORLD if f"{shape} sings" in r["labels"].split("|")]
        assert file.startswith(f"{shape}_sings")


@pytest.mark.parametrize("row", FROM_WORLD, ids=lambda row: row["file"])
def test_a_world_clip_shows_and_sounds_what_its_labels_describe(row, monkeypatch):
    monkeypatch.syspath_prepend(SAMPLES)
    scene = pytest.importorskip("make").world_scene(row["file"].removesuffix(".mp4"))
    assert "|".join(scene.names) == row["labels"]
    clip = media.read(SAMPLES / row["file"])
    expected = world.frames(scene, clip.times[::7], 256)
    assert np.abs(clip.frames[::7].astype(int) - expected).mean() < 4  # levels of 255
    wave = world.wave(scene)
    assert np.corrcoef(clip.wave[: len(wave)], wave)[0, 1] > 0.9  # AAC changes hiss
