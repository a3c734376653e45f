"""Every recipe builds its model and one step, without making an array, and says what it reaches."""

import importlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from mbt_lite import configs
from mbt_lite.cli.train import read_experiment, read_function
from mbt_lite.config import (
    PAPER,
    RELEASED,
    DataConfig,
    Experiment,
    StartConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from mbt_lite.data.datasets import sampled
from mbt_lite.data.source import Source, batch_fields
from mbt_lite.model.flops import model_cost
from mbt_lite.train import sharding, step

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]

RECIPES = Path(configs.__file__).parent.glob("[a-z]*.py")
NAMES = sorted({path.stem for path in RECIPES} - {"fusion_grid"})
VARIANTS = [
    *((name, "experiment") for name in NAMES),
    *((name, v) for name in ("audioset_mini", "audioset_500k") for v in ("paper", "released")),
    ("av_digits", "clean"),
    ("folder", "finetune"),
    ("folder", "probe"),
    ("folder", "vit"),
]


class Labels(Source):
    """A source that only has classes; with a fingerprint its clips are single windows."""

    def __init__(self, count: int, one_window: bool):
        self.labels = tuple(f"class {i}" for i in range(count))
        self.fingerprint = {} if one_window else None


def made(name: str, variant: str) -> Experiment:
    return getattr(importlib.import_module(f"mbt_lite.configs.{name}"), variant)()


def abstract_step(experiment: Experiment):
    """Shapes of the state before and after a step of this experiment on one device."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "shard"))
    few = replace(experiment.model, depth=2, fusion_layer=min(experiment.model.fusion_layer, 1))
    experiment = replace(experiment, model=few)  # more layers are the same again
    source = Labels(experiment.model.classes, experiment.data.path.startswith(("world", "tfds")))
    sampling = sampled(experiment, source, training=True)
    shapes = sharding.batch_shapes(mesh, batch_fields(source, sampling, experiment.train.batch))
    state = step.abstract_state(experiment, mesh)
    do = step.train_step(experiment, source.labels, mesh)
    return state, jax.eval_shape(do, state, shapes)


@pytest.mark.parametrize("name, variant", VARIANTS)
def test_a_recipe_builds_its_model_and_one_step(name, variant):
    experiment = made(name, variant)
    before, (after, result) = abstract_step(experiment)
    assert jax.tree.map(lambda x: x.shape, before) == jax.tree.map(lambda x: x.shape, after)
    assert {"loss", "gradient_norm", "finite"} <= set(result)
    assert from_dict(Experiment, json.loads(json.dumps(to_dict(experiment)))) == experiment


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_its_command_its_hardware_and_what_it_reaches(name):
    text = importlib.import_module(f"mbt_lite.configs.{name}").__doc__
    assert "mbt-lite train --config" in text
    assert "(paper" in text or "measured" in text or "no score" in text


def test_the_two_recipes_of_audioset_differ_as_text_and_code_do():
    paper, released = made("audioset_mini", "paper"), made("audioset_mini", "released")
    assert (
        model_cost(paper.model).parameters == 173_214_479
    )  # one bottleneck less than the light model
    assert model_cost(released.model).parameters == 175_009_295
    assert (paper.augment, released.augment) == (PAPER, RELEASED)
    assert paper.clip.video_seconds == paper.clip.audio_seconds == 8
    assert (released.clip.video_seconds, released.clip.audio_seconds) == (2.56, 8)
    assert (paper.train.label_smoothing, released.train.label_smoothing) == (0, 0.3)
    assert (paper.start.bottleneck, released.start.bottleneck) == ("normal", "positions")
    assert {(e.train.steps, e.train.warmup_steps) for e in (paper, released)} == {(15900, 795)}


def test_a_recipe_is_named_or_a_file_or_a_run_and_changed_on_the_command_line(tmp_path):
    changed = read_experiment(
        Path("audioset_mini"), "released", ("--train.batch", "8", "--data.path", "here")
    )
    assert changed.train.batch == 8 and changed.data.path == "here"
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(to_dict(changed)))
    assert read_experiment(path, None, ()) == changed
    own = tmp_path / "mine.py"
    own.write_text("from mbt_lite.configs.world import experiment\n")
    assert read_experiment(own, None, ("--train.steps", "7")).train.steps == 7
    with pytest.raises(ValueError, match="name one, or one of .*audioset_mini"):
        read_experiment(Path("nowhere"), None, ())
    with pytest.raises(ValueError, match=r"defines no papr\(\); it has .*paper"):
        read_function(Path("audioset_mini"), "papr")


def test_settings_that_cannot_work_are_refused_in_a_sentence():
    for make, said in (
        (partial(TrainConfig, batch=10, accumulate=4), "does not divide into 4 parts"),
        (partial(TrainConfig, loss="hinge"), "train.loss='hinge' is none of sigmoid, softmax"),
        (partial(TrainConfig, ema=1.0), "train.ema=1.0 must be at least 0 and below 1"),
        (partial(TrainConfig, learning_rate=0.0), "train.learning_rate=0.0 must be above 0"),
        (partial(DataConfig, pairing="loose"), "data.pairing='loose' is none of"),
        (partial(StartConfig, model="a", vit="b"), "a model starts from one of them"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_a_warm_up_below_one_is_a_share_of_the_steps():
    assert TrainConfig(steps=200, warmup=0.05).warmup_steps == 10
    assert replace(TrainConfig(), warmup=795).warmup_steps == 795
