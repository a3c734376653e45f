"""A model says of a clip that it is unlike what it was trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from mbt_lite import cli, inference
from mbt_lite.checkpoints import io
from mbt_lite.config import UNFAMILIAR
from mbt_lite.data import doctor
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.sources import WorldSource
from mbt_lite.evaluation.familiarity import learn_familiarity
from mbt_lite.features import normalize, read_views
from mbt_lite.model import familiarity
from mbt_lite.model.mbt import Clip

SAMPLES = Path(__file__).parent.parent / "data_samples"
EVERYDAY = ["ball", "bell", "guitar", "siren", "speech", "storm"]


@pytest.fixture(scope="module")
def classifier():
    return inference.load("world-tiny")


def normal(seed: int, clips: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((clips, 5)) @ np.diag([1, 2, 3, 4, 5]) + 7


def test_the_distance_is_that_of_scipy_and_the_threshold_keeps_known_clips():
    known, others = normal(0), normal(1)
    model = familiarity.fit(known, others)
    expected = [mahalanobis(row, model.mean, model.precision) for row in others]
    np.testing.assert_allclose(model.distance(others), expected)
    assert np.mean(model.distance(others) > model.threshold) == pytest.approx(0.01)
    assert not model.is_unfamiliar(known[:3]) and model.is_unfamiliar(known[:1] + 100)
    assert not model.is_unfamiliar(np.stack([known[0], known[1], known[2] + 100]))  # the median


def test_json_keeps_it_and_altered_numbers_are_refused():
    model = familiarity.fit(normal(0), normal(1))
    values = json.loads(json.dumps(model.to_json()))
    again = familiarity.from_json(values, 5)
    np.testing.assert_allclose(again.distance(normal(2)), model.distance(normal(2)), rtol=1e-4)
    for altered in ([], {}, {**values, "mean": "x"}, {**values, "precision": [[1]]}):
        with pytest.raises(ValueError, match="familiarity"):
            familiarity.from_json(altered, 5)
    for altered in ({"threshold": -1}, {"threshold": float("nan")}, {"mean": [float("inf")] * 5}):
        with pytest.raises(ValueError, match="familiarity"):
            familiarity.from_json(values | altered, 5)


def test_real_clips_are_unfamiliar_to_the_embedded_model_and_its_own_world_is_not(classifier):
    answers = {path.stem: classifier.predict(path) for path in sorted(SAMPLES.glob("*.mp4"))}
    assert [name for name, answer in answers.items() if answer.unfamiliar] == EVERYDAY
    assert answers["speech"].notes[0] == UNFAMILIAR
    assert UNFAMILIAR not in answers["nobody_sings"].notes
    config = classifier.clip_config
    windows = [WorldSource("test", 200).read(i, Sampling(config)) for i in range(200)]
    rgb, spec = (np.concatenate([getattr(w, s) for w in windows]) for s in ("rgb", "spec"))
    features = classifier.features(normalize(rgb, spec, config.front_end))
    distances = classifier.familiarity.distance(features)
    assert np.mean(distances <= classifier.familiarity.threshold) >= 0.95


def test_a_model_learns_what_its_clips_are_like(classifier):
    learned = learn_familiarity(classifier, WorldSource("validation", 300), count=100)
    clip = read_views(SAMPLES / "siren.mp4", classifier.clip_config)[0].clip
    features = classifier.features(Clip(clip.rgb[None], clip.spec[None]))
    assert learned.is_unfamiliar(features) and learned.mean.shape == (96,)


def test_a_saved_model_keeps_it_and_another_fusion_has_none(classifier, tmp_path):
    folder = classifier.save(tmp_path / "saved")
    again = inference.load(folder)
    assert again.familiarity.threshold == classifier.familiarity.threshold
    assert again.predict(SAMPLES / "speech.mp4").unfamiliar
    other = inference.load(folder, fusion_layer=2)
    assert other.familiarity is None and other.predict(SAMPLES / "ball.mp4").unfamiliar is None
    config, params, meta = io.load(folder)
    meta["familiarity"]["mean"] = meta["familiarity"]["mean"][1:]
    io.save(tmp_path / "altered.safetensors", params, config, **meta)
    with pytest.raises(ValueError, match="altered.*does not fit 96 features"):
        inference.load(tmp_path / "altered.safetensors")


def test_commands_say_it(capsys, tmp_path):
    clip, figure = str(SAMPLES / "speech.mp4"), str(tmp_path / "a.png")
    model = ["--model", "world-tiny"]
    assert cli.main(["predict", clip, *model]) == 0
    assert capsys.readouterr().out.splitlines()[2].strip() == UNFAMILIAR  # before the answers
    assert cli.main(["predict", clip, *model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unfamiliar"] is True
    assert cli.main(["attention", clip, "--out", figure]) == 0
    assert f"{clip}: {UNFAMILIAR}" in capsys.readouterr().err
    assert cli.main(["doctor", clip, *model]) == 0
    assert f"warning: The clip is {UNFAMILIAR}." in capsys.readouterr().out
    assert not doctor.examine(clip).findings  # without a model
