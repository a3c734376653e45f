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


def loudness(found, half_window=0.02):
    """Level [T] of the audio around the middle of each frame's time on show."""
    middles = ((found.times + 0.02) * found.rate).astype(int)
    half = round(half_window * found.rate)
    pieces = [found.wave[max(0, middle - half) : middle + half] for middle in middles]
    return np.array([np.sqrt(np.mean(piece**2)) if len(piece) else 0 for piece in pieces])


def test_labels_csv_lists_every_clip_and_nothing_else():
    assert sorted(FILES) == sorted(path.name for path in SAMPLES.glob("*.mp4"))
    assert len(FROM_WORLD) == 6 and len(LIFE) == 6 and len(ROWS) == 12
    assert all(row["description"] for row in ROWS)


def test_all_clips_together_take_less_than_4_megabytes():
    assert sum((SAMPLES / file).stat().st_size for file in FILES) < 4e6


@pytest.mark.parametrize("file", FILES)
def test_a_clip_has_picture_and_sound_and_nothing_unusual(file):
    found = media.read(SAMPLES / file)
    some = found.frames[::12, ::2, ::2].astype(int)
    assert some.std() > 5 and np.abs(np.diff(some, axis=0)).max() > 20
    assert 0.05 < np.abs(found.wave).max() <= 1
    assert 1.9 < found.duration < 6.5
    assert found.notes == ()


@pytest.mark.parametrize("file", FILES)
def test_the_sources_tell_of_each_clip_and_of_its_licence(file):
    text = (SAMPLES / "SOURCES.md").read_text(encoding="utf-8")
    assert f"`{file}`" in text and "CC0 1.0" in text


def test_labels_are_labels_of_the_world_and_clips_of_life_have_none():
    assert all(set(row["labels"].split("|")) <= set(world.LABELS) for row in FROM_WORLD)
    assert not any(row["labels"] for row in LIFE)


def test_each_shape_sings_in_one_clip_and_its_name_says_which():
    for shape in world.SHAPES:
        (file,) = [r["file"] for r in FROM_WORLD if f"{shape} sings" in r["labels"].split("|")]
        assert file.startswith(f"{shape}_sings")


@pytest.mark.parametrize("row", FROM_WORLD, ids=lambda row: row["file"])
def test_a_world_clip_shows_and_sounds_what_its_labels_describe(row, monkeypatch):
    monkeypatch.syspath_prepend(SAMPLES)
    scene = pytest.importorskip("make").world_scene(row["file"].removesuffix(".mp4"))
    assert "|".join(scene.names) == row["labels"]
    found = media.read(SAMPLES / row["file"])
    some = slice(None, None, 7)
    expected = world.frames(scene, found.times[some], 256)
    assert np.abs(found.frames[some].astype(int) - expected).mean() < 4  # levels of 255
    wave = world.wave(scene)
    assert np.corrcoef(found.wave[: len(wave)], wave)[0, 1] > 0.9  # AAC changes hiss


def test_the_mouth_opens_with_the_voice():
    found = media.read(SAMPLES / "speech.mp4")
    mouth = found.frames[:, 145:180, 140:180].astype(float).mean(axis=(1, 2, 3))
    assert np.corrcoef(loudness(found), -mouth)[0, 1] > 0.8


def test_the_ball_is_heard_when_it_reaches_the_floor():
    found = media.read(SAMPLES / "ball.mp4")
    red = (found.frames[..., 0] > 150) & (found.frames[..., 1] < 80)
    lowest = np.array([np.nonzero(image.any(1))[0].max() for image in red])
    level = np.abs(found.wave[: 320 * 150]).reshape(-1, 320).max(1)  # 20 ms each, 3 s
    onsets = 0.02 * (1 + np.flatnonzero((level[1:] > 0.1) & (level[1:] > 2.5 * level[:-1])))
    assert len(onsets) >= 4
    for onset in onsets[:4]:
        around = np.abs(found.times - onset) < 0.2
        assert abs(found.times[around][lowest[around].argmax()] - onset) <= 0.06


def test_the_lamp_changes_with_the_tone_of_the_siren():
    found = media.read(SAMPLES / "siren.mp4")
    lamps = found.frames[:, 70:96, 130:180].astype(int).mean(axis=(1, 2))
    blue = lamps[:, 2] > lamps[:, 0]
    high = (found.times + 1e-6) % 1 < 0.5
    np.testing.assert_array_equal(blue, high)
    for second in range(5):
        for start, hz in ((0.1, 585), (0.6, 440)):
            piece = found.wave[round((second + start) * found.rate) :][:4800]
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(4800)))
            assert abs(spectrum.argmax() * found.rate / 4800 - hz) < 6
