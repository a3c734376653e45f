"""Generated sounds show which front end a model was made for, and the order of its classes."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest

from benchmarks import front_end_recovery
from mbt_lite import cli, features
from mbt_lite.checkpoints import zoo
from mbt_lite.config import WORLD
from mbt_lite.data import probe_sounds
from mbt_lite.evaluation import self_test
from mbt_lite.inference import Classifier, load
from mbt_lite.model.mbt import init_params

pytestmark = pytest.mark.full

FEW = ("linear-mel", "ln-magnitude-1e-3", "kaldi")  # one is hidden
CONFIG = replace(
    WORLD, streams=("spec",), classes=len(probe_sounds.CLASSES), width=16, depth=1, heads=2,
    mlp_dim=16, fusion_layer=0, spec_shape=(256, 128), spec_patch=(64, 32),
)  # fmt: skip
_probe = cache(self_test._probe)
_log_mel = front_end_recovery.remembered(features.log_mel)


@pytest.fixture(autouse=True)
def sounds_are_heard_once_and_through_few_front_ends(monkeypatch):
    monkeypatch.setattr(self_test, "_probe", _probe)
    monkeypatch.setattr(features, "log_mel", _log_mel)
    monkeypatch.setattr(features, "FRONT_ENDS", {n: features.FRONT_ENDS[n] for n in FEW})


def untrained() -> Classifier:
    params = init_params(CONFIG, jax.random.key(0))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), (16, CONFIG.classes))
    clip = replace(zoo.released_clip(), front_end=features.FRONT_ENDS["kaldi"])
    return Classifier(CONFIG, params, replace(clip, spec_frames=256), probe_sounds.CLASSES)


class Templates(Classifier):
    """Knows the mean spectrum of each class through one front end; `order`: class of each output.

    It stands for a model that was trained through this front end.
    """

    def __init__(self, front, order):
        model = untrained()
        super().__init__(model.config, model.params, model.clip_config, model.labels)
        names = [probe_sounds.CLASSES[i] for i in order]
        waves = {name: [_probe(name, variant) for variant in (0, 1)] for name in names}
        mean, std = features.statistics([w for pair in waves.values() for w in pair], front)
        logs = {n: np.stack([features.log_mel(w, front) for w in waves[n]]) for n in names}
        self.templates = np.stack([(logs[n].mean((0, 1)) - mean) / std for n in names])

    def logits(self, clip, without=None):
        spectra = np.asarray(clip.spec[..., 0]).mean(1)[:, None]  # [B, 1, M]
        near = np.exp(-30 * np.square(spectra - self.templates).mean(-1)) + 1e-9
        share = np.clip(near / near.sum(1, keepdims=True), 1e-4, 1 - 1e-4)
        return np.log(share / (1 - share))


def test_sounds_are_reproducible_different_each_time_and_fit_a_file():
    for name in probe_sounds.CLASSES:
        one, again, other = (
            probe_sounds.render(name, np.random.default_rng(seed), 0.5) for seed in (1, 1, 2)
        )
        assert one.dtype == np.float32 and one.shape == (8000,) and np.abs(one).max() <= 1
        assert np.array_equal(one, again) and (name == "Silence" or not np.allclose(one, other))
    with pytest.raises(ValueError, match="no sound is made for 'Yodeling'"):
        probe_sounds.render("Yodeling", np.random.default_rng(0), 1.0)


def test_a_hidden_front_end_is_found_with_classes_in_official_order():
    hidden = "ln-magnitude-1e-3"
    model = Templates(features.FRONT_ENDS[hidden], np.arange(CONFIG.classes))
    test = self_test.self_test(model)
    assert test.in_order and test.recognized and test.match.best.front_end.name == hidden
    assert "in the order of their names" in test.verdict() and hidden in test.verdict()
    assert {row.front_end.name for row in test.match.rows} == set(FEW)


def test_classes_in_another_order_are_noticed_and_found_again():
    order = np.random.default_rng(3).permutation(CONFIG.classes)
    test = self_test.self_test(Templates(features.FRONT_ENDS["kaldi"], order))
    assert test.recognized and not test.in_order
    assert test.match.best.front_end.name == "kaldi"
    found = [order[test.outputs[name]] == i for i, name in enumerate(probe_sounds.CLASSES)]
    assert np.mean(found) > 0.8
    assert "are not in the order of their names" in test.verdict()


def test_the_result_is_stored_beside_the_weights_and_used_when_they_are_loaded(
    tmp_path, capsys, monkeypatch
):
    path = untrained().save(tmp_path / "model.safetensors")
    assert cli.main(["zoo", "verify", str(path)]) == 1  # it knows nothing
    assert "The self-test failed" in capsys.readouterr().out
    assert load(path).caution.startswith("The self-test failed")
    kind = features.FRONT_ENDS["linear-mel"]
    model = Templates(features.FRONT_ENDS["ln-magnitude-1e-3"], np.arange(CONFIG.classes))
    test = self_test.self_test(model)
    monkeypatch.setattr(self_test, "self_test", lambda *a, **k: test)
    assert cli.main(["zoo", "verify", str(path)]) == 0
    assert test.verdict() in capsys.readouterr().out
    loaded = load(path)
    assert loaded.caution == test.verdict()
    assert loaded.clip_config.front_end == test.match.best.front_end
    assert load(path, front_end=kind).clip_config.front_end == kind
    zoo.self_test_file(path).write_text("{}")
    with pytest.raises(ValueError, match="is damaged .*delete it or test again"):
        load(path)


def test_models_without_audio_or_without_the_classes_are_refused():
    deaf = replace(CONFIG, streams=("rgb",))
    model = Classifier(deaf, {}, untrained().clip_config, probe_sounds.CLASSES)
    with pytest.raises(ValueError, match="no audio stream"):
        self_test.self_test(model)
    with pytest.raises(ValueError, match="of the 34 that sounds are made for, it has 0"):
        self_test.self_test(
            Classifier(CONFIG, {}, untrained().clip_config, [str(i) for i in range(34)])
        )
