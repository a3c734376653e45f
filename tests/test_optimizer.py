"""How a gradient becomes an update: Scenic's schedule and momentum, AdamW, averaged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_parity import case, golden, under

from mbt_lite.checkpoints.io import flatten
from mbt_lite.config import TrainConfig
from mbt_lite.train import optimizer
from mbt_lite.train.optimizer import (
    ema_update,
    group_norms,
    make_optimizer,
    schedule,
)

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RELEASED = TrainConfig(
    steps=15_900,
    optimizer="momentum",
    learning_rate=0.5,
    warmup=795.0,
    weight_decay=0.0,
    clip_norm=0.0,
)
VALUES = golden("optimizer")[1]
VARIANTS = {
    "momentum": {},
    "momentum_wd0.01": {"weight_decay": 0.01},
    "momentum0.5": {"momentum": 0.5},
    "momentum_clip1": {"clip_norm": 1.0},
    "sgd": {"momentum": 0.0},
}


def changed(config: TrainConfig, **settings) -> TrainConfig:
    return TrainConfig(**(vars(config) | settings))


def tree(prefix: str) -> dict:
    """The golden arrays under a prefix, nested as their names say."""
    found = {}
    for name, value in under(VALUES, prefix).items():
        *folders, leaf = name.split("/")
        place = found
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = jnp.asarray(value)
    return found


def same(got: dict, want: dict, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), got, want)


def steps(config: TrainConfig, params: dict, gradients):
    """(parameters, state of the optimizer) after each of the gradients."""
    chain = make_optimizer(config)
    state, update = chain.init(params), jax.jit(chain.update)
    for gradient in gradients:
        change, state = update(gradient, state, params)
        params = optax.apply_updates(params, change)
        yield params, state


# --- the learning rate ---------------------------------------------------------------------------


def test_the_learning_rate_is_that_of_the_released_recipe_and_begins_anew_after_it():
    want = golden("lr_schedule")[1]
    at, rates = want["audioset_base/steps"], want["audioset_base/lr"]
    assert at.max() > RELEASED.steps
    np.testing.assert_allclose(schedule(RELEASED)(jnp.asarray(at)), rates, rtol=1e-5, atol=1e-6)
    share = schedule(changed(RELEASED, warmup=0.05))
    np.testing.assert_allclose(share(jnp.asarray(at)), rates, rtol=1e-5, atol=1e-6)
    rate = schedule(changed(RELEASED, schedule="constant"))
    np.testing.assert_allclose([rate(0), rate(318), rate(10**6)], [0, 0.2, 0.5], rtol=1e-6)


# --- momentum ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, settings", VARIANTS.items())
def test_five_updates_are_those_of_scenic(name, settings, monkeypatch):
    rates = jnp.asarray(VALUES["lrs"])
    monkeypatch.setattr(optimizer, "schedule", lambda *_: lambda step: rates[step])
    gradients = [tree(f"grads/{number}/") for number in range(5)]
    config = changed(RELEASED, **settings)
    after = list(steps(config, tree("params/"), gradients))
    for number in (0, 1, 4):
        same(after[number][0], tree(f"out/{name}/step{number}/params/"))
    if config.momentum:
        want = under(VALUES, f"out/{name}/final/")
        trace = dict(flatten(optax.tree.get(after[-1][1], "trace")))
        same(trace, {leaf.removesuffix("/momentum"): value for leaf, value in want.items()})


# --- averages and norms --------------------------------------------------------------------------


def test_averaged_weights_soon_forget_what_training_began_with():
    average, decays = {"w": jnp.ones(())}, []
    for step in range(3):
        before = float(average["w"])
        average = ema_update(average, {"w": jnp.zeros(())}, jnp.int32(step), 0.999)
        decays.append(float(average["w"]) / before)
    np.testing.assert_allclose(decays, [1 / 10, 2 / 11, 3 / 12], rtol=1e-6)


def test_the_norms_of_two_streams_leave_out_what_they_share():
    _, params, *_ = case("fwd_bottleneck_sr")
    norms = group_norms(params, ("spec", "rgb"))
    shared = {k: v for k, v in params.items() if k in ("bottleneck", "final_norm", "head")}
    assert len(shared) == 3
    squares = [norm**2 for norm in (*norms.values(), optax.tree.norm(shared))]
    np.testing.assert_allclose(sum(squares) ** 0.5, optax.tree.norm(params), rtol=1e-5)


def test_the_backbone_may_learn_more_slowly_than_the_head():
    params = {"head": {"kernel": jnp.ones((2, 2))}, "rgb_block_0": {"kernel": jnp.ones((2, 2))}}
    gradient = jax.tree.map(lambda p: 0.1 * p, params)
    for kind in ("adamw", "momentum"):
        settings = {"optimizer": kind, "warmup": 0, "weight_decay": 0.0, "learning_rate": 1.0}
        tx = make_optimizer(TrainConfig(backbone_rate=0.01, **settings))
        update, _ = tx.update(gradient, tx.init(params), params)
        ratio = update["rgb_block_0"]["kernel"] / update["head"]["kernel"]
        np.testing.assert_allclose(ratio, 0.01, rtol=1e-5)
