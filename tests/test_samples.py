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


def loudness(clip, half_window=0.02):
    """Level [T] of the audio around the middle of each frame's time on show."""
    middles = ((clip.times + 0.02) * clip.rate).astype(int)
    half = round(half_window * clip.rate)
    pieces = [clip.wave[max(0, middle - half) : middle + half] for middle in middles]
    return np.array([np.sqrt(np.mean(piece**2)) if len(piece) else 0 for piece in pieces])


def test_labels_csv_lists_every_clip_and_nothing_else():
    assert sorted(FILES) == sorted(path.name for path in SAMPLES.glob("*.mp4"))
    assert len(FROM_WORLD) == 6 and len(LIFE) == 6 and len(ROWS) == 12
    assert all(row["description"] for row in ROWS)


def test_all_clips_together_take_less_than_4_megabytes():
    assert sum((SAMPLES / file).stat().st_size for file in FILES) < 4e6


@pytest.mark.parametrize("file", FILES)
def test_a_clip_has_video_and_audio_and_nothing_unusual(file):
    clip = media.read(SAMPLES / file)
    frames = clip.frames[::12, ::2, ::2].astype(int)
    assert frames.std() > 5 and np.abs(np.diff(frames, axis=0)).max() > 20
    assert 0.05 < np.abs(clip.wave).max() <= 1
    assert 1.9 < clip.duration < 6.5
    assert clip.notes == ()


@pytest.mark.parametrize("file", FILES)
def test_sources_lists_each_clip_with_its_license(file):
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
    clip = media.read(SAMPLES / row["file"])
    expected = world.frames(scene, clip.times[::7], 256)
    assert np.abs(clip.frames[::7].astype(int) - expected).mean() < 4  # levels of 255
    wave = world.wave(scene)
    assert np.corrcoef(clip.wave[: len(wave)], wave)[0, 1] > 0.9  # AAC changes hiss


def test_the_mouth_opens_with_the_voice():
    clip = media.read(SAMPLES / "speech.mp4")
    mouth = clip.frames[:, 145:180, 140:180].astype(float).mean(axis=(1, 2, 3))
    assert np.corrcoef(loudness(clip), -mouth)[0, 1] > 0.8


def test_the_ball_is_heard_when_it_reaches_the_floor():
    clip = media.read(SAMPLES / "ball.mp4")
    red = (clip.frames[..., 0] > 150) & (clip.frames[..., 1] < 80)
    lowest = np.array([np.nonzero(image.any(1))[0].max() for image in red])
    level = np.abs(clip.wave[: 320 * 150]).reshape(-1, 320).max(1)  # 20 ms each, 3 s
    onsets = 0.02 * (1 + np.flatnonzero((level[1:] > 0.1) & (level[1:] > 2.5 * level[:-1])))
    assert len(onsets) >= 4
    for onset in onsets[:4]:
        around = np.abs(clip.times - onset) < 0.2
        assert abs(clip.times[around][lowest[around].argmax()] - onset) <= 0.06


def test_the_lamp_changes_with_the_tone_of_the_siren():
    clip = media.read(SAMPLES / "siren.mp4")
    lamps = clip.frames[:, 70:96, 130:180].astype(int).mean(axis=(1, 2))
    blue = lamps[:, 2] > lamps[:, 0]
    high = (clip.times + 1e-6) % 1 < 0.5
    np.testing.assert_array_equal(blue, high)
    for second in range(5):
        for start, hz in ((0.1, 585), (0.6, 440)):
            piece = clip.wave[round((second + start) * clip.rate) :][:4800]
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(4800)))
            assert abs(spectrum.argmax() * clip.rate / 4800 - hz) < 6
