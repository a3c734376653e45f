"""What training makes small: Scenic's losses, mixed labels, verbs and nouns, parts of a batch.

Not here: Scenic's weights of single classes and its L2 penalty, which MBT's recipes do not use.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import golden, under

from mbt_lite.model.label_heads import stream_columns
from mbt_lite.model.mbt import Output
from mbt_lite.train.losses import (
    batch_losses,
    clip_losses,
    weighted_mean,
)

VALUES = {name: jnp.asarray(value) for name, value in golden("losses")[1].items()}
WANT = under(VALUES, "out/")
LABELS = {"sigmoid": "multihot", "softmax": "onehot"}
LOGITS = {"logits": "logits", "extreme": "logits_extreme"}
MASKS = {"none": None, "mask": VALUES["mask"], "frac": VALUES["mask_frac"]}
HEADS = {"verb": np.arange(5), "noun": np.arange(5, 11)}
SIMPLE = [name for name in WANT if "/smooth_" in name and "class_weights" not in name]


def agree(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5)


def told(logits="logits", labels=LABELS, kinds=("sigmoid", "softmax")):
    """(kind, logits [6, 11], labels [6, 11]) of each kind of loss."""
    return [(kind, VALUES[logits], VALUES[labels[kind]]) for kind in kinds]


def answers(rgb="logits_rgb", spec="logits_spectrogram", together="logits"):
    """What a model with two streams would have said."""
    each = {"rgb": VALUES[rgb], "spec": VALUES[spec]}
    return Output(VALUES[together], each, jnp.zeros((6, 1)))


def soft():
    return {"rgb": VALUES["soft_rgb"], "spec": VALUES["soft_spectrogram"]}


@pytest.mark.parametrize("name", SIMPLE)
def test_the_loss_of_a_batch_is_that_of_scenic(name):
    kind, logits, smoothing, mask = name.split("/")
    smoothing = float(smoothing.removeprefix("smooth_").replace("none", "0"))
    each = clip_losses(VALUES[LOGITS[logits]], VALUES[LABELS[kind]], kind, smoothing)
    assert each.shape == (6,)
    agree(weighted_mean(each, MASKS[mask.removeprefix("weights_")]), WANT[name])


@pytest.mark.parametrize("kind, logits, labels", told())
def test_the_pull_on_the_logits_is_that_of_scenic(kind, logits, labels):
    def loss(logits):
        return weighted_mean(clip_losses(logits, labels, kind, 0.3), VALUES["mask"])

    want = VALUES[f"grad_logits/{kind}_smooth_0.3_mask"]
    np.testing.assert_allclose(jax.grad(loss)(logits), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind, logits, labels", told("logits_extreme"))
def test_a_batch_of_nothing_but_padding_has_no_loss_and_pulls_at_nothing(kind, logits, labels):
    def loss(logits):
        return weighted_mean(clip_losses(logits, labels, kind), jnp.zeros(6))

    value, pull = jax.value_and_grad(loss)(logits)
    assert value == WANT["sigmoid/zero_mask"] == 0
    np.testing.assert_array_equal(pull, 0)


@pytest.mark.parametrize("kind, smoothing", [("sigmoid", 0.3), ("softmax", 0.1)])
def test_by_class_token_the_streams_losses_are_averaged_and_not_their_logits(kind, smoothing):
    name = {"sigmoid": "model_multilabel/dict", "softmax": "model_softmax/dict"}[kind]
    each = batch_losses(answers(), soft(), kind, smoothing)["loss"]
    agree(weighted_mean(each, VALUES["mask"]), WANT[name])


@pytest.mark.parametrize(
    "name, labels, kind, smoothing",
    [
        ("model_multilabel/array", "multihot", "sigmoid", 0.3),
        ("model_multilabel/array_all", "soft_rgb", "sigmoid", 0.3),
        ("model_softmax/array", "onehot", "softmax", 0.1),
    ],
)
def test_pooled_otherwise_the_one_answer_of_both_streams_counts(name, labels, kind, smoothing):
    same = dict.fromkeys(("rgb", "spec"), VALUES[labels])
    agree(
        weighted_mean(batch_losses(answers(), same, kind, smoothing, pool="mean")["loss"]),
        WANT[name],
    )


def test_labels_about_one_stream_count_for_its_loss_only():
    columns = stream_columns(("dog", "rgb: fur", "spec: bark", "spec: growl"), ("rgb", "spec"))
    assert {s: own.tolist() for s, own in columns.items()} == {"rgb": [0, 1], "spec": [0, 2, 3]}
    assert stream_columns(("dog", "cat"), ("rgb", "spec")) is None
    rng = np.random.default_rng(0)
    logits = {s: jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for s in columns}
    truth = {s: jnp.asarray(rng.integers(0, 2, (3, 4)), jnp.float32) for s in columns}
    output = Output(sum(logits.values()) / 2, logits, None)
    result = batch_losses(output, truth, "sigmoid", columns=columns)
    for s, own in columns.items():
        agree(result[f"loss_{s}"], clip_losses(logits[s][:, own], truth[s][:, own], "sigmoid"))
    agree(result["loss"], (result["loss_rgb"] + result["loss_spec"]) / 2)


def test_verbs_and_nouns_have_the_mean_of_two_losses_as_scenic_has_it():
    logits, labels = VALUES["logits_multihead"], VALUES["onehot_multihead"]
    each = clip_losses(logits, labels, "softmax", 0.1, HEADS)
    agree(weighted_mean(each, VALUES["mask"]), WANT["model_multihead/array"])
    apart = {"rgb": labels, "spec": labels[::-1]}
    each = batch_losses(answers(), apart, "softmax", 0.1, HEADS)["loss"]
    agree(weighted_mean(each, VALUES["mask"]), WANT["model_multihead/dict"])


@pytest.mark.parametrize("mask", [VALUES["mask"], VALUES["mask_frac"]], ids=["mask", "frac"])
def test_means_of_the_parts_of_a_batch_add_up_to_the_mean_of_the_whole(mask):
    each = clip_losses(VALUES["logits"], VALUES["multihot"], "sigmoid")
    parts = [weighted_mean(each[i : i + 2], mask[i : i + 2], mask.sum()) for i in (0, 2, 4)]
    agree(sum(parts), weighted_mean(each, mask))
