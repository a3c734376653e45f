"""One step of training: Scenic's numbers, parts of a batch, frozen backbones, number types."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import golden, in_scenic_names, ours, probe, under

from mbt_lite.config import WORLD, WORLD_CLIP, Experiment, TrainConfig
from mbt_lite.model.mbt import MBT, Clip, init_params
from mbt_lite.train import sharding, step
from mbt_lite.train.augment import mix
from mbt_lite.train.losses import clip_losses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

LABELS = tuple(f"class {number}" for number in range(6))
TINY = replace(
    WORLD, classes=6, width=16, heads=2, mlp_dim=16, depth=2, fusion_layer=1, bottlenecks=2
)


def make(model=TINY, **settings) -> Experiment:
    quick = {"batch": 8, "steps": 20, "warmup": 2, "learning_rate": 0.02, "optimizer": "momentum"}
    quick |= {"weight_decay": 0.0} | settings
    return Experiment("tiny", model, WORLD_CLIP, train=TrainConfig(**quick))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "rgb": rng.integers(0, 256, (8, *TINY.rgb_shape, 3), np.uint8),
        "spec": rng.normal(-1, 1.7, (8, *TINY.spec_shape)).astype(np.float32),
        "labels": (rng.random((8, 6)) < 0.3).astype(np.float32),
        "mask": np.float32([1, 1, 1, 1, 1, 1, 1, 0]),
        "valid_size": np.full((8, 2), 48, np.int32),
    }


def run(experiment, batch, steps=3, labels=LABELS):
    """The state and the results after so many steps on the same batch."""
    mesh = sharding.make_mesh()
    state, results = step.first_state(experiment, mesh), []
    train_step = step.train_step(experiment, labels, mesh)
    for _ in range(steps):
        state, result = train_step(state, sharding.shard_batch(mesh, batch))
        results.append(jax.device_get(result))
    return state, results


def close(tree, other, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=0), tree, other)


def test_four_whole_steps_are_those_of_scenic(agree, monkeypatch):
    # The recorded spectrograms have three channels that differ.
    monkeypatch.setattr(step, "as_clip", lambda rows, model: Clip(rows["rgb"], rows["spec"]))
    meta, want = golden("train_steps")
    config, first = meta["config"], under(want, "batch/0/inputs/")
    model, params, _ = ours(under(want, "params/"), config, first)
    lr = meta["train_config"]["lr_configs"]
    experiment = Experiment(
        "golden",
        model,
        WORLD_CLIP,
        train=TrainConfig(
            steps=lr["steps_per_cycle"],
            batch=4,
            optimizer="momentum",
            learning_rate=lr["base_learning_rate"],
            warmup=lr["warmup_steps"],
            weight_decay=0.0,
            clip_norm=meta["train_config"]["max_grad_norm"],
            label_smoothing=meta["train_config"]["label_smoothing"],
            ema=0.0,
        ),
    )
    mesh, weight = sharding.make_mesh(), jnp.array(meta["mixup_weight"])
    state = step.first_state(experiment, mesh, params)
    names = tuple(f"class {number}" for number in range(model.classes))
    key = jax.random.key(0)
    update = jax.jit(lambda s, b: step.update_step(s, b, key, experiment, names, mesh))
    predict = jax.jit(lambda params, clip: MBT(model).apply({"params": params}, clip).stream_logits)
    for number in range(meta["steps"]):
        inputs = under(want, f"batch/{number}/inputs/")
        labels = want[f"batch/{number}/label"]
        rows = {"rgb": inputs["rgb"], "spec": inputs["spectrogram"]}
        rows |= {"labels": {"rgb": labels, "spec": labels}, "mask": np.ones(4, np.float32)}
        mixed = mix(jax.tree.map(jnp.asarray, rows), {"rgb": weight, "spec": weight})
        logits = predict(state.params, step.as_clip(mixed, model))
        loss = clip_losses(logits["rgb"], mixed["labels"]["rgb"], "sigmoid")  # not smoothed
        logged, _ = want[f"metrics/{number}/loss"]
        agree(f"loss {number}", loss.sum() / logged, 1.0, 1e-5)
        state, result = update(state, mixed)
        agree(f"lr {number}", result["learning_rate"], want[f"lr/{number}"], 1e-6)
        after = in_scenic_names(state.params, model)
        for what, of in (("norms", np.linalg.norm), ("probes", probe)):
            got = np.array([of(np.float64(after[name].ravel())) for name in want["names"]])
            agree(f"{what} {number}", got, want[f"after/{number}/{what}"], 1e-5)


@pytest.fixture(scope="module")
def usual(batch):
    """The state and the results after three steps of the plain experiment."""
    return run(make(), batch)


@pytest.mark.slow
def test_parts_of_a_batch_add_up_to_the_whole(batch, usual):
    whole, first = usual
    parts, second = run(make(accumulate=4), batch)
    close(whole.params, parts.params)
    for one, other in zip(first, second, strict=True):
        close(one, other)


@pytest.mark.slow
def test_blocks_computed_again_change_nothing(batch, usual):
    assert not make().train.remat
    close(usual[0].params, run(make(remat=True), batch)[0].params, atol=1e-6)


@pytest.mark.full
def test_padding_counts_for_nothing(batch, usual):
    other = {k: x.copy() for k, x in batch.items()}
    other["rgb"][-1], other["spec"][-1], other["labels"][-1] = 7, 3.0, 1.0
    close(usual[1][-1], run(make(), other)[1][-1], atol=1e-6)


@pytest.mark.slow
def test_in_bfloat16_parameters_and_logits_stay_float32(batch, usual):
    half = make(replace(TINY, dtype="bfloat16"))
    state, results = run(half, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
    np.testing.assert_allclose(results[-1]["loss"], usual[1][-1]["loss"], rtol=0.02)
    answered = step.predict_step(half, sharding.make_mesh())(state.params, batch)
    assert answered["logits"].dtype == np.float32
    clip = step.as_clip(batch | {"rgb": batch["rgb"] / 127.5 - 1}, TINY)
    look = jax.jit(lambda p, c: MBT(half.model).apply({"params": p}, c, mutable=["intermediates"]))
    _, seen = look(state.params, clip)
    weights = seen["intermediates"]["rgb_block_0"]["attention"]["weights"][0]
    assert weights.dtype == np.float32  # the softmax


def test_a_frozen_backbone_stays_and_its_head_learns(batch):
    frozen = make(trained="head", ema=0.9)
    params = init_params(TINY, jax.random.key(0))
    state, results = run(frozen, batch, steps=6)
    for name in params:
        same = jax.tree.map(np.array_equal, state.params[name], params[name])
        assert all(jax.tree.leaves(same)) == (name != "head"), name
    assert results[-1]["loss"] < results[0]["loss"]
    assert set(state.ema) == {"head"} and set(state.weights) == set(params)


def test_a_non_finite_loss_changes_nothing_but_the_count(batch):
    bad = batch | {"spec": np.full_like(batch["spec"], np.nan)}
    good, _ = run(make(), batch, steps=1)
    before = jax.tree.map(np.array, good)
    mesh = sharding.make_mesh()
    after, result = step.train_step(make(), LABELS, mesh)(good, sharding.shard_batch(mesh, bad))
    assert not result["finite"] and int(after.step) == 2 and int(after.skipped) == 1
    close(before.params, after.params, atol=0)
    close(before.optimizer, after.optimizer, atol=0)


@pytest.mark.slow
def test_the_state_is_changed_in_place_with_no_copy_beside_it(batch):
    """What a wide model needs besides its state is little more than the gradient."""
    experiment, mesh = make(replace(TINY, width=256, mlp_dim=1024)), sharding.make_mesh()
    state, one = step.abstract_state(experiment, mesh), jax.tree.map(lambda x: x[:1], batch)
    compiled = step.train_step(experiment, LABELS, mesh).lower(state, one).compile()
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes > 3 * parameters  # and momentum, and moving average
    assert memory.temp_size_in_bytes < 1.5 * parameters


@pytest.mark.slow
def test_verbs_and_nouns_have_a_softmax_each(batch):
    labels = ("verb:cut", "verb:wash", "noun:onion", "noun:pan", "noun:tap", "noun:cup")
    truth = np.zeros((8, 6), np.float32)
    truth[:, 0] = truth[:, 3] = 1
    _, results = run(make(loss="softmax"), batch | {"labels": truth}, 1, labels)
    np.testing.assert_allclose(results[0]["loss"], (np.log(2) + np.log(4)) / 2, rtol=1e-5)


def test_runs_that_differ_in_seed_logging_or_numbers_share_a_compiled_step():
    mesh = sharding.make_mesh()
    one = step.train_step(make(seed=1, log_every=7, weight_decay=0.1), LABELS, mesh)
    numbers = {"steps": 77, "learning_rate": 1.0, "warmup": 3, "weight_decay": 0.3, "ema": 0.5}
    others = make(seed=2, keep_checkpoints=5, weight_decay=0.1), make(**numbers)
    assert all(one is step.train_step(other, LABELS, mesh) for other in others)
    assert one is not step.train_step(make(), LABELS, mesh)


@pytest.mark.slow
def test_single_streams_and_pooled_models_are_trained(batch):
    for model in (replace(TINY, streams=("spec",)), replace(TINY, pool="mean")):
        rows = {k: x for k, x in batch.items() if k in model.streams or k not in ("rgb", "spec")}
        _, results = run(make(model), rows, steps=8)
        assert results[-1]["loss"] < results[0]["loss"]
