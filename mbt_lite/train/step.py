"""One train step as a pure function of (state, batch), and the matching prediction step.

The same compiled step runs on one CPU and on many hosts: the batch is dealt over the mesh's
devices, and what a device lacks for the mean gradient JAX fetches from the others.

B clips of a batch   A parts that are accumulated   C classes
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from mbt_lite.config import NONE, DataConfig, Experiment, MBTConfig, StartConfig, TrainConfig
from mbt_lite.model.label_heads import label_heads
from mbt_lite.model.mbt import (
    MBT,
    Clip,
    Output,
    init_params,
)
from mbt_lite.train import losses, sharding
from mbt_lite.train.augment import augment
from mbt_lite.train.optimizer import (
    HEAD,
    ema_update,
    group_norms,
    make_optimizer,
    schedule,
)


class State(NamedTuple):
    """Everything that training changes."""

    step: Array  # int32, batches seen
    params: dict
    optimizer: optax.OptState
    ema: dict | None  # running average of what is trained; None: there is none
    key: Array  # uint32 [2], of all that is drawn
    skipped: Array  # int32, steps that changed nothing, because their loss was no number

    @property
    def weights(self) -> dict:
        """The parameters to evaluate and to give away: averaged, where they are."""
        return self.params if self.ema is None else self.params | self.ema


def trainable_params(params: dict, config: TrainConfig) -> dict:
    """The parameters that a gradient is wanted of."""
    if config.trained == "all":
        return params
    return {name: leaf for name, leaf in params.items() if name in HEAD}


def first_state(experiment: Experiment, mesh: Mesh, params: dict | None = None) -> State:
    """The state before the first step, on the mesh; fresh parameters are drawn from the seed."""
    config, drawn = experiment.train, params is None
    if drawn:  # by nobody else, so their memory is the state's
        params = init_params(experiment.model, jax.random.key(config.seed))

    def made(params: dict) -> State:
        trained = trainable_params(params, config)
        optimizer = make_optimizer(config).init(trained)
        ema = jax.tree.map(jnp.copy, trained) if config.ema else None
        key = jax.random.key_data(jax.random.key(config.seed))
        zero = jnp.zeros((), jnp.int32)
        return State(zero, params, optimizer, ema, key, zero)

    lies = sharding.sharded(mesh, jax.eval_shape(made, params))
    return jax.jit(made, out_shardings=lies, donate_argnums=(0,) if drawn else ())(params)


def abstract_state(experiment: Experiment, mesh: Mesh) -> State:
    """Shape, type and place of every leaf of the state, without making one."""
    params = jax.eval_shape(partial(init_params, experiment.model), jax.random.key(0))
    state = jax.eval_shape(partial(first_state, experiment, mesh), params)

    def described(leaf, lies) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies)

    return jax.tree.map(described, state, sharding.sharded(mesh, state))


def train_step(
    experiment: Experiment, labels: Sequence[str], mesh: Mesh
) -> Callable[[State, dict], tuple[State, dict]]:
    """The compiled step (state, batch) → (state after it, scalars to log); it uses the state up.

    `batch` is what `data.Loader` gives in training without its ids, on the mesh. `labels` tell
    whether there are two heads, verbs and nouns. Where loss or gradient is no number, the state
    keeps its parameters, and `finite` says so.
    """
    return _train_step(_what_compiles(experiment), tuple(labels), mesh)


def answer(experiment: Experiment, mesh: Mesh) -> Callable[[dict, dict], dict]:
    """The compiled (parameters, batch) → all that is to be scored, whole on every process.

    `batch` is what `data.Loader` gives without training. Back come logits [B, C], stream_logits
    {stream: [B, C]}, labels and mask.
    """
    return _answer(_what_compiles(experiment), mesh)


def _what_compiles(experiment: Experiment) -> Experiment:
    """The experiment without what makes no difference to the compiled step, such as its seed."""
    quiet = TrainConfig()
    free = ("epochs", "seed", "log_every", "save_every", "evaluate_every", "evaluate_clips")
    free += ("test_clips", "keep", "best", "skip_nonfinite", "samples", "shards")
    train = replace(experiment.train, **{name: getattr(quiet, name) for name in free})
    return replace(experiment, name="", data=DataConfig(), start=StartConfig(), train=train)


@lru_cache(maxsize=32)
def _train_step(experiment: Experiment, labels: tuple[str, ...], mesh: Mesh):
    @partial(jax.jit, donate_argnames="state")
    def step(state: State, batch: dict) -> tuple[State, dict]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        change, drop = jax.random.split(key)
        groups = experiment.train.mixup_groups
        changed = augment(batch, change, experiment.augment, experiment.clip, groups)
        new, metrics = update_step(state, changed, drop, experiment, labels, mesh)
        if "stop" in batch:
            metrics["stop"] = batch["stop"].max()
        return jax.lax.with_sharding_constraint(new, sharding.sharded(mesh, new)), metrics

    return step


@lru_cache(maxsize=32)
def _answer(experiment: Experiment, mesh: Mesh):
    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def answered(params: dict, batch: dict) -> dict:
        still = augment(batch, jax.random.key(0), NONE, experiment.clip)
        output = MBT(experiment.model).apply({"params": params}, as_clip(still, experiment.model))
        kept = {name: batch[name] for name in ("labels", "mask", "stop") if name in batch}
        return kept | {"logits": output.logits, "stream_logits": output.stream_logits}

    return answered


def as_clip(batch: dict, model: MBTConfig) -> Clip:
    """The model's `Clip` of an augmented batch; the log-mel is repeated on three channels."""
    there = {stream: batch[stream] for stream in model.streams}
    if "spec" in there:
        spec = there["spec"][..., None]
        there["spec"] = jnp.broadcast_to(spec, (*spec.shape[:-1], 3))
    return Clip(**there)


def update_step(
    state: State, batch: dict, key: Array, experiment: Experiment, labels: tuple, mesh: Mesh
) -> tuple[State, dict]:
    """The state after one augmented batch, and scalars to log.

    The order is Scenic's: mixed batch, gradient of the masked mean, clipped as a whole, momentum.
    Scenic clips on each device before it takes the mean; here the mean is clipped, so that the
    number of devices makes no difference.
    """
    config = experiment.train
    found, gradient = _gradient(state.params, batch, key, experiment, labels, mesh)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(found["loss"]) & jnp.isfinite(norm)
    rate = schedule(config)(state.step - state.skipped)

    def advanced(old: State) -> State:
        trained = trainable_params(old.params, config)
        optimizer = make_optimizer(config, lambda _: rate)  # computed once, not for every leaf
        update, held = optimizer.update(gradient, old.optimizer, trained)
        after = optax.apply_updates(trained, update)
        ema = None if old.ema is None else ema_update(old.ema, after, old.step, config.ema)
        return old._replace(params=old.params | after, optimizer=held, ema=ema)

    def skipped(old: State) -> State:
        return old._replace(skipped=old.skipped + 1)

    new = jax.lax.cond(finite, advanced, skipped, state)  # in place: a `where` copies the momentum
    new = new._replace(step=state.step + 1)
    found |= {"gradient_norm": norm, "learning_rate": rate}
    norms = group_norms(gradient, experiment.model.streams)
    found |= {f"gradient_norm_{stream}": value for stream, value in norms.items()}
    return new, found | {"finite": finite}


def _gradient(params: dict, batch: dict, key: Array, experiment, labels, mesh) -> tuple[dict, dict]:
    """Losses, averaged over the batch's clips, and the gradient of what is trained.

    The parts of the batch add up to what the whole would give, masks included; only stochastic
    depth and dropout draw otherwise than they would for the whole.
    """
    config, count = experiment.train, experiment.train.accumulate
    trained = trainable_params(params, config)
    clips = batch["mask"].sum()

    def total(trained: dict, part: dict, key: Array):
        each = _losses(params | trained, part, key, experiment, labels)
        sums = {k: losses.weighted_mean(x, part["mask"], clips) for k, x in each.items()}
        return sums["loss"], sums

    def of(part: dict, key: Array):
        (_, sums), gradient = jax.value_and_grad(total, has_aux=True)(trained, part, key)
        return sums, gradient

    rows = {name: batch[name] for name in (*experiment.model.streams, "labels", "mask")}
    if count == 1:
        found, gradient = of(rows, key)
    else:
        found, gradient = _summed(of, _parts(rows, count, mesh), jax.random.split(key, count))
    if config.l2:
        penalty, pull = jax.value_and_grad(losses.l2_penalty)(trained)
        found["loss"] += config.l2 * penalty
        gradient = jax.tree.map(lambda g, p: g + config.l2 * p, gradient, pull)
    return found, gradient


def _summed(of: Callable, parts: dict, keys: Array):
    """The sum of `of(part, key)` over all parts, one after the other."""
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of, first, keys[0]))

    def add(sums, one):
        return jax.tree.map(jnp.add, sums, of(*one)), None

    return jax.lax.scan(add, zeros, (parts, keys))[0]


def _parts(rows: dict, count: int, mesh: Mesh) -> dict:
    """[A, B / A, ...] of every [B, ...]; a part takes its share of each device's rows."""

    def cut(x: Array) -> Array:
        return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

    parts = jax.tree.map(cut, rows)
    return jax.lax.with_sharding_constraint(parts, sharding.batch_sharding(mesh, parts=True))


def _losses(params: dict, batch: dict, key: Array, experiment, labels) -> dict[str, Array]:
    """{"loss": [B], and "loss_rgb", "loss_spec": [B]} of every clip."""
    config, model = experiment.train, experiment.model
    network = MBT(model, config.remat)
    clip = as_clip(batch, model)
    output: Output = network.apply({"params": params}, clip, train=True, rngs={"dropout": key})
    heads = label_heads(labels) if config.loss == "softmax" else None
    told = (batch["labels"], config.loss, config.label_smoothing, heads)
    streams = losses.stream_losses(output, *told)
    loss = losses.total_loss(output, *told, pool=model.pool)
    return {"loss": loss} | {f"loss_{stream}": value for stream, value in streams.items()}
