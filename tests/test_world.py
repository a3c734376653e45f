"""The micro-world: its labels, its answer key, and that one modality alone is not enough."""

import csv
import json
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from scipy import stats

from mbt_lite.config import WORLD_CLIP
from mbt_lite.data import world
from mbt_lite.data.world import (
    BOTH,
    EVENTS,
    KINDS,
    LABELS,
    MOTIONS,
    RATE,
    SECONDS,
    SHAPES,
)
from mbt_lite.features import read_views

TIMES = (np.arange(8) + 0.5) / 4  # s
ENOUGH = 1e-3  # a chi-square test that gives less than this probability says "not uniform"


def scenes(count, where=lambda scene: True, seed=world.SPLITS["test"]):
    """The first `count` scenes for which `where` holds."""
    candidates = (world.scene(seed, index) for index in range(100 * count))
    return list(islice(filter(where, candidates), count))


def sings(scene):
    return scene.singer is not None and scene.tone is not None


def bare(scene, **changes):
    """The scene without its events."""
    return replace(scene, **{"events": (), "both": ()} | changes)


@pytest.fixture(scope="module")
def many():
    """4,000 descriptions in which a visible shape sings."""
    return scenes(4000, sings, seed=9)


# --- reproducible, at any size -------------------------------------------------------------------


def test_a_clip_follows_from_seed_and_index_alone():
    once, again = world.scene(3, 14), world.scene(3, 14)
    assert once == again
    first, second = world.sample(once, WORLD_CLIP), world.sample(again, WORLD_CLIP)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_every_index_and_every_split_has_other_scenes():
    drawn = [world.scene(seed, index) for seed in world.SPLITS.values() for index in range(50)]
    assert len(set(drawn)) == len(drawn) == 150


@pytest.mark.parametrize("index", range(2))
def test_a_frame_depends_neither_on_the_size_nor_on_the_other_times(index):
    # Edges are one pixel wide at each size, hence a mean of 1 and not 0 levels of 255.
    scene = replace(world.scene(1, index), both=("siren", "thunder"))
    large = world.frames(scene, TIMES, 4 * 48).reshape(8, 48, 4, 48, 4, 3).mean(axis=(2, 4))
    small = world.frames(scene, TIMES, 48)
    apart = np.abs(large - small)
    assert apart.mean() < 1 and np.quantile(apart, 0.99) < 12
    np.testing.assert_array_equal(small[3:5], world.frames(scene, TIMES[3:5], 48))


# --- labels --------------------------------------------------------------------------------------


def test_the_label_row_marks_exactly_the_names_which_fit_together():
    for scene in scenes(300):
        assert len(set(scene.names)) == len(scene.names)
        assert set(np.array(LABELS)[scene.labels == 1]) == set(scene.names)
        per_kind = {kind: int(scene.labels[KINDS[kind]].sum()) for kind in KINDS}
        assert per_kind["seen"] == len(scene.things) in (2, 3)
        assert per_kind["heard"] == (scene.tone is not None) + len(scene.events)
        assert per_kind["both"] == len(scene.both)
        assert per_kind["matched"] == (scene.singer is not None)
        motions = {thing.contour.motion for thing in scene.things}
        assert len({thing.shape for thing in scene.things}) == len(scene.things) == len(motions)
        if scene.tone and scene.singer is None:
            assert scene.tone.contour.motion not in motions


def test_every_label_occurs_in_1_to_40_of_100_scenes():
    share = np.mean([scene.labels for scene in scenes(2000)], axis=0)
    assert share.min() > 0.01 and share.max() < 0.40


# --- the matched label needs both modalities --------------------------------------------------


def other_singers(scene):
    """The scene once for each of its shapes as the singer."""
    return [
        replace(scene, singer=k, tone=replace(scene.tone, contour=thing.contour))
        for k, thing in enumerate(scene.things)
    ]


def other_shapes(scene):
    """The scene with its shapes assigned to its contours in each cyclic order."""
    shapes = [thing.shape for thing in scene.things]
    turns = [shapes[k:] + shapes[:k] for k in range(len(shapes))]
    return [
        replace(
            scene,
            things=tuple(
                replace(thing, shape=shape) for thing, shape in zip(scene.things, turn, strict=True)
            ),
        )
        for turn in turns
    ]


def answer(scene):
    return next(name for name in scene.names if name.endswith(" sings"))


@pytest.mark.parametrize("scene", scenes(4, sings))
def test_one_video_has_every_label_by_the_audio_and_one_audio_by_the_video(scene):
    count = len(scene.things)
    for variants, videos, waves in (
        (other_singers(scene), 1, count),
        (other_shapes(scene), count, 1),
    ):
        assert len({answer(v) for v in variants}) == count
        assert len({world.frames(v, TIMES, 48).tobytes() for v in variants}) == videos
        assert len({world.wave(v).tobytes() for v in variants}) == waves


VIDEO = {
    "place from the left": lambda thing: thing.x,
    "size": lambda thing: thing.radius,
    "brightness": lambda thing: sum(thing.color),
    "range of the motion": lambda thing: thing.swing,
    "kind of shape": lambda thing: SHAPES.index(thing.shape),
    "kind of motion": lambda thing: MOTIONS.index(thing.contour.motion),
    "bend of the motion": lambda thing: thing.contour.bend,
}


@pytest.mark.parametrize("visible", [2, 3])
@pytest.mark.parametrize("attribute", VIDEO)
@pytest.mark.full
def test_given_the_video_each_visible_shape_is_equally_likely_to_sing(many, attribute, visible):
    # Shapes are sorted by a visible attribute; the chance level is 1 / visible.
    ranks = Counter()
    for scene in many:
        if len(scene.things) == visible:
            order = sorted(scene.things, key=VIDEO[attribute])
            ranks[order.index(scene.things[scene.singer])] += 1
    counts = [ranks[k] for k in range(visible)]
    assert sum(counts) > 1000
    assert stats.chisquare(counts).pvalue > ENOUGH, counts
    best = max(counts) / sum(counts)  # of always guessing the most frequent rank
    assert best < 1 / visible + 0.05


AUDIO = {
    "motion of the pitch": lambda scene: scene.tone.contour.motion,
    "bend of the pitch": lambda scene: round(np.log2(scene.tone.contour.bend) * 2),
    "height of the pitch": lambda scene: round(np.log2(scene.tone.middle) * 3),
    "range of the pitch": lambda scene: round(scene.tone.octaves * 10),
    "loudness": lambda scene: round(scene.tone.level * 20),
    "events": lambda scene: len(scene.events),
    "siren, thunder, rain": lambda scene: scene.both,
}


@pytest.mark.parametrize("attribute", AUDIO)
def test_given_the_audio_each_kind_of_shape_is_equally_likely_to_sing(many, attribute):
    # The chance level is 1 / 4.
    table = {AUDIO[attribute](scene): np.zeros(len(SHAPES)) for scene in many}
    for scene in many:
        table[AUDIO[attribute](scene)][SHAPES.index(scene.things[scene.singer].shape)] += 1
    counts = np.array([row for row in table.values() if row.sum() >= 40])
    uniform = np.repeat(counts.mean(1, keepdims=True), len(SHAPES), axis=1)
    squares = ((counts - uniform) ** 2 / uniform).sum()
    assert stats.chi2.sf(squares, 3 * len(counts)) > ENOUGH, counts


def test_the_video_does_not_tell_whether_anything_sings():
    table = np.zeros((2, 2))
    for scene in scenes(2000, seed=8):
        table[len(scene.things) - 2, scene.singer is not None] += 1
    assert stats.chi2_contingency(table).pvalue > ENOUGH


# --- the answer key ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, size", [*((shape, 160) for shape in SHAPES), ("ring", 48)])
def test_the_box_of_the_key_covers_the_singing_shape_and_little_else(shape, size):
    for scene in scenes(4, lambda s: sings(s) and s.things[s.singer].shape == shape):
        singer = scene.things[scene.singer]
        key = world.answer_key(scene, TIMES)
        alone = world.frames(bare(scene, things=(singer,), singer=0), TIMES, size)
        without = world.frames(bare(scene, things=(), singer=None), TIMES, size)
        for changed, box in zip((alone != without).any(-1), key["box"] * size, strict=True):
            y, x = np.nonzero(changed)
            left, top, right, bottom = box
            slack = 1  # pixel: half of one is the soft edge, half of one its own width
            assert left - slack <= x.min() and x.max() + 1 <= right + slack
            assert top - slack <= y.min() and y.max() + 1 <= bottom + slack
            assert (x.max() + 1 - x.min()) > 0.7 * (right - left)
            assert (y.max() + 1 - y.min()) > 0.7 * (bottom - top)


def loudest_frequency(wave, times):
    """The loudest frequency [T] below 1.6 kHz in 64 ms around each time."""
    result = []
    for time in times:
        piece = wave[round(time * RATE) - 512 :][:1024] * np.hanning(1024)
        spectrum = np.abs(np.fft.rfft(piece, 1 << 15))
        result.append(np.fft.rfftfreq(1 << 15, 1 / RATE)[:3276][spectrum[:3276].argmax()])
    return np.array(result)


@pytest.mark.parametrize("scene", scenes(6, sings))
def test_the_pitch_of_the_key_is_the_loudest_frequency(scene):
    times = np.linspace(0.15, SECONDS - 0.15, 12)
    key = world.answer_key(scene, times)
    pitch = loudest_frequency(world.wave(bare(scene)), times)
    np.testing.assert_allclose(pitch, key["pitch"], rtol=0.04)


@pytest.mark.parametrize("scene", scenes(6, sings))
def test_the_pitch_follows_the_height_of_the_singing_shape(scene):
    times = np.linspace(0.15, SECONDS - 0.15, 12)
    singer = bare(scene, things=(scene.things[scene.singer],), singer=0)
    ground = bare(scene, things=(), singer=None)
    changed = world.frames(singer, times, 96) != world.frames(ground, times, 96)
    height = [-np.nonzero(image)[0].mean() for image in changed.any(-1)]
    pitch = np.log2(loudest_frequency(world.wave(singer), times))
    assert np.corrcoef(height, pitch)[0, 1] > 0.99


def test_without_a_singer_the_key_has_no_box_and_without_a_tone_no_pitch():
    nobody = scenes(1, lambda s: s.tone and s.singer is None)[0]
    silent = scenes(1, lambda s: s.tone is None)[0]
    assert world.answer_key(nobody, TIMES)["box"].shape == (0, 4)
    assert world.answer_key(nobody, TIMES)["pitch"].shape == (8,)
    assert world.answer_key(silent, TIMES)["pitch"].shape == (0,)


# --- every event is visible or audible ---------------------------------------------------------


def loudest(wave):
    """Level of each of 32 bands [32] in its loudest 20 ms."""
    pieces = wave[: len(wave) // 320 * 320].reshape(-1, 320)
    spectrum = np.abs(np.fft.rfft(pieces * np.hanning(320)))[:, :160]
    return spectrum.reshape(len(pieces), 32, 5).mean(2).max(0)


@pytest.mark.parametrize("audio", [*EVENTS, *BOTH])
def test_each_event_is_louder_than_the_noise(audio):
    part = "events" if audio in EVENTS else "both"
    for scene in scenes(20):
        quiet = bare(scene, tone=None, singer=None)
        noise = loudest(world.wave(quiet))
        event = loudest(world.wave(replace(quiet, **{part: (audio,)})))
        assert (event / noise).max() > 2  # 6 dB in some band at some time
        wave = world.wave(scene)
        assert wave.shape == (SECONDS * RATE,) and 0.01 < np.abs(wave).max() <= 1


@pytest.mark.parametrize("event", BOTH)
def test_siren_thunder_and_rain_are_visible(event):
    for scene in scenes(10):
        before = world.frames(bare(scene), TIMES, 48).astype(int)
        after = world.frames(bare(scene, both=(event,)), TIMES, 48).astype(int)
        changed = np.abs(after - before).max(-1) > 30  # of 255
        assert changed.any(axis=0).mean() > 0.005  # of the video, at some time


def test_the_flash_of_lightning_and_the_onset_of_thunder_coincide():
    for scene in scenes(10):
        stormy = bare(scene, tone=None, singer=None, things=(), both=("thunder",))
        times = np.arange(200) / 100
        light = world.frames(stormy, times, 8).mean(axis=(1, 2, 3))
        level = np.abs(world.wave(stormy))[: 200 * 160].reshape(200, 160).max(1)
        flash = times[np.diff(light).argmax() + 1]
        onset = times[np.argmax(level > 0.4 * level.max())]
        assert -0.015 < onset - flash < 0.1


def test_some_training_clips_are_black_or_silent_and_all_are_finite():
    silence = np.log(WORLD_CLIP.front_end.offset)
    black, silent = 0, 0
    for index in range(150):
        clip = world.sample(world.scene(0, index), WORLD_CLIP, np.random.default_rng(index))
        assert clip["rgb"].dtype == np.uint8 and np.isfinite(clip["spec"]).all()
        is_black, is_silent = clip["rgb"].mean() < 15, np.allclose(clip["spec"], silence)
        black, silent = black + is_black, silent + is_silent
        assert not (is_black and is_silent)
    assert 4 <= black <= 25 and 4 <= silent <= 25  # 8 % each


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Four scenes with everything in them, as files, and their descriptions."""
    chosen = [replace(scene, both=BOTH) for scene in scenes(2, sings)] + scenes(2)
    return world.render(chosen, tmp_path_factory.mktemp("world"), size=96), chosen


def test_a_rendered_clip_is_close_to_the_sample_of_its_scene(rendered):
    folder, chosen = rendered
    for number, scene in enumerate(chosen):
        view = read_views(folder / f"world_{number:04d}.mp4", WORLD_CLIP)[0]
        sample = world.sample(scene, WORLD_CLIP)
        # Levels of 255: H.264 alone, and with it that the frame on show is up to 40 ms old.
        shown = world.frames(scene, np.floor(view.times * 25 + 1e-6) / 25, WORLD_CLIP.size)
        assert np.abs(view.rgb.astype(int) - shown).mean() < 5
        assert np.abs(view.rgb.astype(int) - sample["rgb"]).mean() < 12
        # AAC loses most where little is heard; natural logarithms.
        loud = sample["spec"] > -3
        assert np.abs(view.spec - sample["spec"])[loud].mean() < 0.2
        assert not view.notes


def test_rendering_writes_the_labels_and_the_key_of_each_file(rendered):
    folder, chosen = rendered
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row["labels"].split("|")) for row in rows] == [scene.names for scene in chosen]
    keys = json.loads((folder / "key.json").read_text())
    for row, scene in zip(rows, chosen, strict=True):
        key = keys[row["file"]]
        expected = world.answer_key(scene, np.array(key["times"]))
        assert len(key["times"]) == 50
        for part in ("box", "pitch"):
            np.testing.assert_allclose(
                np.reshape(key[part], expected[part].shape), expected[part], atol=1e-4
            )
