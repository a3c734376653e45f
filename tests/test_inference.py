"""Predictions of a classifier, with a random model of the micro-world's geometry."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from mbt_lite import checkpoints, features, media
from mbt_lite.config import WORLD, WORLD_CLIP, ClipConfig, MBTConfig, from_dict
from mbt_lite.data import world
from mbt_lite.inference import Classifier, load
from mbt_lite.model import attention, mbt
from mbt_lite.model.flops import model_cost
from mbt_lite.model.label_heads import Head, make_heads
from mbt_lite.model.mbt import MBT, Clip, init_params

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def classifier():
    params = init_params(WORLD, jax.random.key(0))
    head = params["head"]
    random = jax.random.normal(jax.random.key(1), head["kernel"].shape)
    params = {**params, "head": {**head, "kernel": random}}  # a fresh head is zero
    return Classifier(WORLD, params, WORLD_CLIP, world.LABELS)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    scene, path = world.scene(1, 3), tmp_path_factory.mktemp("clips") / "scene.mp4"
    times = np.arange(50) / 25
    media.write(path, world.frames(scene, times, 96), 25.0, world.wave(scene))
    return path


def test_a_file_and_its_clip_get_the_same_prediction(classifier, path):
    clip = features.read_clip(path, classifier.clip_config)
    by_path, by_clip = classifier.predict(path), classifier.predict(clip)
    np.testing.assert_array_equal(by_path.probabilities, by_clip.probabilities)
    assert by_path.top(3) == by_clip.top(3)
    probabilities = [p for _, p in by_path.top(31)]
    assert probabilities == sorted(probabilities, reverse=True)


def test_the_prediction_of_one_stream_does_not_depend_on_the_other(classifier, path):
    clip = features.read_clip(path, classifier.clip_config)
    other = clip._replace(rgb=-clip.rgb)
    first, second = classifier.predict(clip), classifier.predict(other)
    assert not np.allclose(first.probabilities, second.probabilities)
    assert not np.allclose(first.streams["rgb"].probabilities, second.streams["rgb"].probabilities)
    np.testing.assert_array_equal(
        first.streams["spec"].probabilities, second.streams["spec"].probabilities
    )


def test_views_average_the_logits_of_windows_over_the_file(classifier, tmp_path):
    scenes, times = [world.scene(1, i) for i in (5, 6)], np.arange(50) / 25
    frames = np.concatenate([world.frames(s, times, 64) for s in scenes])
    wave = np.concatenate([world.wave(s) for s in scenes])
    media.write(tmp_path / "long.mp4", frames, 25.0, wave)
    views = features.read_views(tmp_path / "long.mp4", classifier.clip_config, views=2)
    assert [round(view.start, 1) for view in views] == [0.0, 2.0]
    logits = [classifier.logits(jax.tree.map(lambda x: x[None], view.clip)) for view in views]
    answer = classifier.predict(tmp_path / "long.mp4", views=2)
    expected = 1 / (1 + np.exp(-np.mean(logits, axis=(0, 1))))
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)


def test_a_short_file_is_covered_and_its_windows_are_reported(classifier, tmp_path):
    frames = np.concatenate([world.frames(world.scene(1, 5), np.arange(50) / 25, 64)] * 5)
    media.write(tmp_path / "four.mp4", frames[:100], 25.0)
    answer = classifier.predict(tmp_path / "four.mp4")
    assert answer.asked == "classified 0.0-2.0 s and 2.0-4.0 s of 4.0 s"
    twice = classifier.predict(tmp_path / "four.mp4", views=2)
    np.testing.assert_array_equal(answer.probabilities, twice.probabilities)
    one, later = ({"views": 1}, "1.0-3.0"), ({"start": 0.5}, "0.5-2.5")
    for options, seconds in (one, later):
        answer = classifier.predict(tmp_path / "four.mp4", **options)
        assert answer.asked == f"classified {seconds} s of 4.0 s"
    media.write(tmp_path / "ten.mp4", frames, 25.0)
    long = classifier.predict(tmp_path / "ten.mp4")
    assert len(long.windows) == features.COVER and long.seconds == pytest.approx(10)
    assert "4 windows do not cover all 10.0 s; ask for more (views)" in long.notes


def softmax(classifier, labels):
    heads = make_heads("softmax", labels)
    return Classifier(WORLD, classifier.params, WORLD_CLIP, labels, {}, heads)


KITCHEN = tuple(f"verb:{i}" for i in range(11)) + tuple(f"noun:{i}" for i in range(20))


def test_probabilities_of_a_softmax_model_sum_to_one_and_are_kept_so(classifier, path, tmp_path):
    one = softmax(classifier, world.LABELS)
    answer = load(one.save(tmp_path / "one")).predict(path)
    assert answer.kind == "softmax" and not answer.caution
    for each in (answer, *answer.streams.values()):
        assert each.probabilities.sum() == pytest.approx(1, abs=1e-6)
    logits = one.logits(jax.tree.map(lambda x: x[None], features.read_clip(path, WORLD_CLIP)))
    np.testing.assert_allclose(answer.probabilities, jax.nn.softmax(logits[0]), atol=1e-6)
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["label_heads"] == [{"name": "", "kind": "softmax", "classes": 31}]
    card = (tmp_path / "one" / "README.md").read_text()
    assert "| probabilities | softmax: one of 31 labels |" in card
    assert classifier.predict(path).kind == "sigmoid"


def test_verbs_and_nouns_sum_to_one_each_and_the_best_of_both_come_first(classifier, path):
    answer = softmax(classifier, KITCHEN).predict(path)
    assert answer.probabilities[:11].sum() == pytest.approx(1, abs=1e-6)
    assert answer.probabilities[11:].sum() == pytest.approx(1, abs=1e-6)
    best = [label for label, _ in answer.top(2)]
    assert [label[:5] for label in best] == ["verb:", "noun:"] * 2
    assert best[0] == KITCHEN[answer.probabilities[:11].argmax()]


def test_a_file_without_a_loss_gets_sigmoids_and_a_caution(classifier, tmp_path):
    file, about = tmp_path / "old.safetensors", {"clip": WORLD_CLIP, "labels": world.LABELS}
    checkpoints.save(file, classifier.params, WORLD, **about)
    old = load(file)
    assert old.label_heads == (Head("", "sigmoid", 31),)
    assert old.caution.startswith("The file does not say with which loss its model was trained")
    softmax_model = load(file, loss="softmax")
    assert softmax_model.label_heads[0].kind == "softmax" and not softmax_model.caution
    checkpoints.save(
        file, classifier.params, WORLD, **about, card={"training": {"loss": "softmax"}}
    )
    assert load(file).label_heads[0].kind == "softmax" and not load(file).caution
    heads = [{"name": "", "kind": "softmax", "classes": 30}]
    checkpoints.save(file, classifier.params, WORLD, **about, label_heads=heads)
    with pytest.raises(ValueError, match="heads of 30 classes do not fit a model of 31"):
        load(file)


def test_a_stream_without_content_has_no_prediction(classifier, tmp_path):
    frames = world.frames(world.scene(1, 3), np.arange(50) / 25, 96)
    media.write(tmp_path / "silent.mp4", frames, 25.0)
    answer = classifier.predict(tmp_path / "silent.mp4")
    assert set(answer.streams) == {"rgb"} and "no audio" in answer.notes


def test_attention_is_on_the_grids_of_both_streams(classifier, path):
    maps = classifier.attention(path)
    assert maps.layers == (1, 2)
    assert maps.rgb.shape == (2, WORLD.heads, WORLD.bottlenecks, *WORLD.rgb_grid)
    assert maps.spec.shape == (2, WORLD.heads, WORLD.bottlenecks, *WORLD.spec_grid)
    assert (maps.rgb >= 0).all() and maps.rgb.sum((-1, -2, -3)).max() < 1
    one = classifier.attention(path, layers=(-2,))
    assert one.layers == (2,)
    np.testing.assert_allclose(one.rgb[0], maps.rgb[-1], atol=1e-6)
    np.testing.assert_allclose(maps.mean("spec"), maps.spec[-1].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(maps.mean("rgb", 0, head=1, token=2), maps.rgb[0, 1, 2])


@pytest.mark.slow
def test_attention_of_one_patch_and_the_mean_over_all(classifier, path):
    clip = features.read_views(path, classifier.clip_config)[0].clip
    batch = jax.tree.map(lambda x: x[None], clip)
    _, state = MBT(WORLD).apply({"params": classifier.params}, batch, mutable=["intermediates"])
    maps = [
        np.asarray(state["intermediates"][f"{s}_block_2"]["attention"]["weights"][0][0])
        for s in ("rgb", "spec")
    ]  # [H, tokens, tokens], the class token first and the bottleneck tokens last
    one = classifier.attention(clip, ("rgb", 1, 2, 3), layers=(2,))
    assert one.spec is None and one.query == "rgb patch (1, 2, 3)"
    number = 1 + np.ravel_multi_index((1, 2, 3), WORLD.rgb_grid)
    expected = maps[0][:, number, 1 : 1 + WORLD.patches("rgb")].reshape(-1, *WORLD.rgb_grid)
    np.testing.assert_allclose(one.rgb[0, :, 0], expected, atol=1e-6)
    every = classifier.attention(clip, "mean", layers=(2,))
    rows = slice(1, 1 + WORLD.patches("spec"))
    expected = maps[1][:, rows, rows].mean(1).reshape(-1, *WORLD.spec_grid)
    np.testing.assert_allclose(every.spec[0, :, 0], expected, atol=1e-6)
    for place in (("rgb", 9, 0, 0), ("spec", 1), ("smell", 0, 0)):
        with pytest.raises(ValueError, match="query: "):
            classifier.attention(clip, place)


@pytest.mark.full
def test_the_layers_shown_are_those_that_the_logits_depend_on(classifier, path, monkeypatch):
    clip = features.read_views(path, classifier.clip_config)[0].clip
    batch = jax.tree.map(lambda x: x[None], clip)
    plain = classifier.logits(batch)
    weights, places, z = attention.attention_weights, [], WORLD.bottlenecks

    def blind(q, k):
        """Attention whose bottleneck, in one block, reads itself and nothing else."""
        rows = weights(q, k)
        places.append(len(places))
        if places[-1] not in cut:
            return rows
        return rows.at[:, :, -z:, :-z].set(0)

    monkeypatch.setattr(attention, "attention_weights", blind)
    changes = {}
    for layer in range(WORLD.depth):
        cut = {2 * layer, 2 * layer + 1}  # blocks run layer by layer, stream by stream
        places.clear()
        output = mbt.MBT(WORLD).apply({"params": classifier.params}, batch)
        changes[layer] = float(np.abs(output.logits - plain).max())
    shown = classifier.attention(path).layers
    assert shown == tuple(i for i in range(WORLD.fusion_layer, WORLD.depth) if changes[i] > 1e-4)


@pytest.mark.full
def test_a_single_stream_model_takes_a_clip_with_both_streams(path):
    config = replace(WORLD, streams=("spec",))
    params = init_params(config, jax.random.key(0))
    classifier = Classifier(config, params, WORLD_CLIP, world.LABELS)
    answer = classifier.predict(features.read_clip(path, WORLD_CLIP))
    assert np.isfinite(answer.probabilities).all() and answer.streams == {}


def test_wrong_sources_are_refused_in_a_sentence(classifier, tmp_path):
    with pytest.raises(
        ValueError,
        match="nowhere is no file, and the zoo has no 'nowhere'. It has .*as500k-rgb-spec",
    ):
        load("nowhere")
    with pytest.raises(ValueError, match="3 labels do not fit a head of 31"):
        Classifier(WORLD, classifier.params, WORLD_CLIP, ("a", "b", "c"))
    with pytest.raises(media.MediaError, match="no.mp4"):
        classifier.predict(tmp_path / "no.mp4")
    empty = Clip(rgb=np.zeros((8, 48, 47, 3)), spec=np.zeros((200, 128, 3)))
    with pytest.raises(ValueError, match="this model needs"):
        classifier.predict(empty)


def test_a_saved_folder_predicts_as_before_and_has_a_model_card(classifier, path, tmp_path):
    cautious = Classifier(
        WORLD,
        classifier.params,
        WORLD_CLIP,
        world.LABELS,
        {"name": "bells", "license": "CC0-1.0", "caution": "Made of random numbers."},
    )
    folder = cautious.save(tmp_path / "bells")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    again, alone = load(folder), load(folder / "model.safetensors")
    assert again.card == alone.card == cautious.card and again.labels == world.LABELS
    assert again.clip_config == WORLD_CLIP
    answer = again.predict(path)
    np.testing.assert_array_equal(answer.probabilities, cautious.predict(path).probabilities)
    assert answer.caution == answer.streams["rgb"].caution == "Made of random numbers."
    values = json.loads((folder / "config.json").read_text())
    assert from_dict(MBTConfig, values["model"]) == WORLD
    assert from_dict(ClipConfig, values["clip"]) == WORLD_CLIP
    card = (folder / "README.md").read_text()
    assert "license: cc0-1.0" in card and "Made of random numbers." in card
    assert f"{model_cost(WORLD).parameters:,} parameters" in card and "circle rises" in card


def test_another_front_end_can_be_selected(classifier, tmp_path):
    folder = classifier.save(tmp_path / "model")
    assert load(folder, front_end="vggish").clip_config.front_end.name == "vggish"
    with pytest.raises(ValueError, match="no front end 'loud'; the presets are .*vggish"):
        load(folder, front_end="loud")
