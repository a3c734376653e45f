"""The recipe for your own clips adapts to them, and says what the result is worth."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mbt_lite import media
from mbt_lite.cli import main
from mbt_lite.config import WORLD_FRONT_END, DataConfig, TrainConfig
from mbt_lite.configs import folder
from mbt_lite.data import sources
from mbt_lite.data.source import Source
from mbt_lite.data.survey import DataFacts, survey
from mbt_lite.evaluation import diagnosis, yardstick
from mbt_lite.evaluation.diagnosis import Outcome
from mbt_lite.train.adapt import adapt
from mbt_lite.train.probe import Probed, probe

FRONT = replace(WORLD_FRONT_END, name="measured", mels=64, high=3900.0, mean=-4.5, std=2.0)
DIGITS = DataFacts(
    clips=2400,
    seconds=1.0,
    audio=1.0,
    video=1.0,
    short_side=28,
    moving=0.0,
    rate=8000,
    front_end=FRONT,
)


def test_the_clip_of_a_model_from_scratch_is_that_of_the_data():
    experiment, sentences = adapt(folder.experiment(), DIGITS)
    assert experiment.clip.audio_seconds == 1.0 and experiment.clip.front_end == FRONT
    assert (experiment.clip.frames, experiment.clip.size) == (2, 28)
    assert experiment.model.spec_shape == (100, 64) and experiment.model.spec_patch == (10, 64)
    assert experiment.model.rgb_shape == (2, 28, 28) and experiment.model.rgb_patch == (2, 7, 7)
    assert any("stored at 8,000 Hz" in sentence for sentence in sentences)


def test_videos_that_move_get_more_frames_and_long_ones_a_window():
    facts = replace(DIGITS, seconds=30.0, moving=1.0, short_side=360)
    clip = adapt(folder.experiment(), facts).experiment.clip
    assert clip.frames == 8 and clip.audio_seconds == clip.video_seconds == 5.0
    assert clip.size == 48


@pytest.mark.parametrize(
    "shares, streams",
    [((1.0, 0.1), ("spec",)), ((0.0, 1.0), ("rgb",)), ((1.0, 1.0), ("spec", "rgb"))],
)
def test_a_stream_that_most_files_lack_is_left_out(shares, streams):
    facts = replace(DIGITS, audio=shares[0], video=shares[1])
    assert adapt(folder.experiment(), facts).experiment.model.streams == streams


def test_what_was_given_stays_and_the_rest_follows_from_it():
    base = folder.experiment()
    given = replace(
        base,
        train=TrainConfig(batch=8),
        clip=replace(base.clip, spec_frames=50),
    )
    experiment, sentences = adapt(given, DIGITS, {"train.batch", "clip.spec_frames"})
    assert experiment.train.batch == 8 and experiment.model.spec_shape == (50, 64)
    assert "train.batch 8: as given" in sentences
    steps = replace(base, train=replace(base.train, epochs=0.0, steps=100))
    assert adapt(steps, DIGITS, {"train.steps"}).experiment.train.epochs == 0


def test_a_model_to_start_from_keeps_its_clip():
    base = folder.finetune()
    experiment = adapt(base, DIGITS).experiment
    assert (experiment.clip, experiment.model) == (base.clip, base.model)
    silent = adapt(base, replace(DIGITS, audio=0.0)).experiment
    assert silent.model.streams == ("rgb",) and silent.start.rewire


def test_the_embedded_model_is_the_start_where_its_features_are_better():
    better, worse = Probed(0.9, 0.4), Probed(0.9, 0.89)
    experiment, sentences = adapt(folder.experiment(), DIGITS, probed=better)
    tuned = folder.finetune()
    assert experiment.start == tuned.start and experiment.augment.mel_mask == 16
    assert experiment.train == replace(tuned.train, evaluate_every=250, save_every=250)
    assert "right on 90% of the clips with the features of world-tiny, on 40%" in sentences[1]
    kept = adapt(folder.experiment(), DIGITS, {"train.batch"}, better).experiment
    assert kept.train.batch == 64 and kept.train.learning_rate == tuned.train.learning_rate
    experiment = adapt(folder.experiment(), DIGITS, probed=worse).experiment
    assert experiment == adapt(folder.scratch(), DIGITS).experiment
    untried = adapt(folder.experiment(), DIGITS).sentences[1]
    assert untried.startswith("start.model None: world-tiny was not tried, which takes one class")


@pytest.mark.slow
def test_features_of_the_embedded_model_tell_which_shape_sings(tmp_path):
    arguments = ["--classes", "circle sings", "ring sings", "--out", str(tmp_path), "-n", "8"]
    assert main(["world", *arguments]) == 0
    experiment = replace(folder.experiment(), data=DataConfig(path=str(tmp_path), workers=0))
    probed = probe(experiment, sources.open_source(tmp_path))
    assert probed.frozen >= probed.simple + 0.2 and probed.frozen > 0.9


def test_clips_of_several_classes_and_rare_classes_are_not_probed():
    experiment = folder.experiment()
    world = sources.WorldSource("train", 16)
    assert probe(experiment, world) is None
    assert probe(experiment, _Labeled(np.eye(2)[[0, 0, 0, 0, 1, 1]])) is None


class _Labeled(Source):
    """Clips of which only the classes are known."""

    def __init__(self, rows: np.ndarray):
        self.rows, self.labels = rows, ("a", "b")

    def __len__(self) -> int:
        return len(self.rows)

    def targets(self, index: int) -> np.ndarray:
        return self.rows[index]


def test_long_clips_are_scored_in_several_windows():
    short, long = (adapt(folder.experiment(), replace(DIGITS, seconds=s)) for s in (1.0, 30.0))
    assert (short.experiment.data.views, long.experiment.data.views) == (1, 4)


def test_a_survey_finds_what_the_files_hold(tmp_path):
    rng = np.random.default_rng(0)
    for label, still in (("moving", False), ("still", True)):
        (tmp_path / label).mkdir()
        for number in range(2):
            frames = rng.integers(0, 255, (8, 32, 48, 3), np.uint8)
            frames = frames[:1].repeat(8, axis=0) if still else frames
            wave = rng.normal(0, 0.05, 8000).astype(np.float32)
            media.write(tmp_path / label / f"{number}.mp4", frames, 8.0, wave, 8000)
    facts = survey(sources.open_source(tmp_path), 64)
    assert (facts.clips, facts.audio, facts.video, facts.moving, facts.short_side) == (
        4,
        1.0,
        1.0,
        0.5,
        32,
    )
    assert facts.rate == 8000 and facts.front_end.high == 3900 and facts.front_end.mels == 64
    assert facts.seconds == pytest.approx(1.0, abs=0.2)


def blobs(seed: int, clips: int = 60) -> yardstick.Features:
    """Three classes that the audio tells apart and the video does not."""
    rng = np.random.default_rng(seed)
    truth = np.arange(clips) % 3
    audio = np.eye(3)[truth] * 4 + rng.standard_normal((clips, 3))
    return yardstick.Features({"spec": audio, "rgb": rng.standard_normal((clips, 4))}, truth)


def test_simple_models_learn_what_simple_features_hold():
    results = yardstick.scores(blobs(0), blobs(1))
    for by_stream in results.values():
        assert by_stream["spec"] > 0.9 and by_stream["rgb"] < 0.6
    assert yardstick.best(results)[1] == max(map(lambda x: max(x.values()), results.values()))


def test_features_are_those_of_parts_of_the_window_and_of_small_pictures():
    spec = np.repeat(np.arange(5.0), 20)[:, None] * np.ones(3)
    means = yardstick.audio_features(spec).reshape(5, 2, 3)
    np.testing.assert_allclose(means[:, 0, 0], range(5))
    np.testing.assert_allclose(means[:, 1], 0)
    rgb = np.zeros((2, 32, 32, 3), np.uint8)
    rgb[:, :, 16:] = 255
    mean, deviation = yardstick.video_features(rgb).reshape(2, 16, 16)
    np.testing.assert_allclose(mean[:, [7, 8]], [[0, 1]] * 16)
    np.testing.assert_allclose(deviation, 0)


SIMPLE = {
    "a linear model": {"spec": 0.93, "rgb": 0.5},
    "nearest neighbors": {"spec": 0.8, "rgb": 0.4},
}


@pytest.mark.parametrize(
    "outcome, said",
    [
        (Outcome(0.85, simple=SIMPLE), "top-1 of a linear model is 0.930: .* has learned less"),
        (Outcome(0.95, simple=SIMPLE), "has learned as much or more"),
        (Outcome(0.6, training=1.0), "on 1.000 of the clips .* on 0.600 of others: it overfits"),
        (Outcome(0.6, training=0.65, curve=(0.2, 0.4, 0.6)), "still rising: it underfits"),
        (
            Outcome(0.9, alone={"spec": 0.9, "rgb": 0.3}),
            "without video it is right on 0.900: it makes no use of the video",
        ),
        (Outcome(0.9, clips={"dog": 3, "cat": 30}), "fewer than 10 clips to learn from: dog"),
    ],
)
def test_a_run_says_what_its_numbers_mean(outcome, said):
    sentences = diagnosis.sentences(outcome)
    assert len(sentences) == 1
    assert re.search(said, sentences[0]), sentences


def test_a_good_run_has_nothing_to_say():
    good = Outcome(0.96, training=0.99, curve=(0.9, 0.95, 0.96), alone={"spec": 0.9, "rgb": 0.8})
    assert diagnosis.sentences(good) == []
