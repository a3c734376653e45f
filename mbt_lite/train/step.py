"""The train step, a pure function of (state, batch), and the matching prediction step.

The same compiled step runs on one CPU and on many hosts: the batch is sharded over the mesh's
devices, and JAX exchanges what the mean gradient needs.

B clips of a batch   A accumulation steps   C classes
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
from mbt_lite.model.label_heads import label_heads, stream_columns
from mbt_lite.model.mbt import MBT, Clip, init_params
from mbt_lite.train import losses, sharding
from mbt_lite.train.augment import augment
from mbt_lite.train.optimizer import (
    HEAD,
    Hyperparameters,
    ema_update,
    group_norms,
    make_optimizer,
    schedule,
)


class State(NamedTuple):
    """Everything that training changes, and the hyperparameters that it goes by."""

    step: Array  # int32, batches seen
    params: dict
    optimizer: optax.OptState
    ema: dict | None  # moving average of the trainable parameters; None: there is none
    key: Array  # uint32 [2], for all random draws
    skipped: Array  # int32, steps that changed nothing, because their loss was non-finite
    hyperparameters: Hyperparameters  # of the run

    @property
    def weights(self) -> dict:
        """The parameters for evaluation and release: averaged, where there is an average."""
        return self.params if self.ema is None else self.params | self.ema


def trainable_params(params: dict, config: TrainConfig) -> dict:
    """The parameters that get a gradient."""
    if config.trained == "all":
        return params
    return {name: leaf for name, leaf in params.items() if name in HEAD}


def first_state(experiment: Experiment, mesh: Mesh, params: dict | None = None) -> State:
    """The state before the first step, on the mesh; fresh parameters are drawn from the seed."""
    config, fresh = experiment.train, params is None
    if fresh:
        params = init_params(experiment.model, jax.random.key(config.seed))

    def init(params: dict) -> State:
        trained = trainable_params(params, config)
        optimizer = make_optimizer(config).init(trained)
        ema = jax.tree.map(jnp.copy, trained) if config.ema else None
        key = jax.random.key_data(jax.random.key(config.seed))
        zero = jnp.zeros((), jnp.int32)
        hyperparameters = Hyperparameters.of(config)
        return State(zero, params, optimizer, ema, key, zero, hyperparameters)

    shardings = sharding.sharded(mesh, jax.eval_shape(init, params))
    donated = (0,) if fresh else ()  # a caller's parameters stay usable
    return jax.jit(init, out_shardings=shardings, donate_argnums=donated)(params)


def abstract_state(experiment: Experiment, mesh: Mesh) -> State:
    """Shape, type and sharding of every leaf of the state, without computing it."""
    params = jax.eval_shape(partial(init_params, experiment.model), jax.random.key(0))
    state = jax.eval_shape(partial(first_state, experiment, mesh), params)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        sharding.sharded(mesh, state),
    )


def train_step(
    experiment: Experiment, labels: Sequence[str], mesh: Mesh
) -> Callable[[State, dict], tuple[State, dict]]:
    """The compiled step (state, batch) → (next state, scalars to log); it donates the state.

    `batch` is what `data.Loader` yields in training, without its ids, on the mesh. `labels` decide
    whether there are two heads, verbs and nouns. Where loss or gradient is non-finite, the
    parameters stay, and the scalar `finite` is false.
    """
    return _train_step(_compiled_settings(experiment), tuple(labels), mesh)


def compiled_step(experiment: Experiment, labels: Sequence[str], mesh: Mesh, fields: dict):
    """The `train_step`, compiled for batches of these fields, see `data.Loader.fields`."""
    shapes = sharding.batch_shapes(mesh, fields)
    step = train_step(experiment, labels, mesh)
    return step.lower(abstract_state(experiment, mesh), shapes).compile()


def predict_step(experiment: Experiment, mesh: Mesh) -> Callable[[dict, dict], dict]:
    """The compiled (parameters, batch) → what is scored, replicated in every process.

    `batch` is what `data.Loader` yields outside training. The result has logits [B, C],
    stream_logits {stream: [B, C]}, labels and mask.
    """
    return _predict_step(_compiled_settings(experiment), mesh)


def _compiled_settings(experiment: Experiment) -> Experiment:
    """The experiment without settings that do not change the compiled step, such as its seed.

    Of a number that is an argument of the step, it only matters whether it is 0.
    """
    config, defaults = experiment.train, TrainConfig()
    free = ("steps", "epochs", "seed", "log_every", "save_every", "evaluate_every")
    free += ("evaluate_clips", "test_clips", "keep_checkpoints", "patience", "skip_nonfinite")
    values = {name: getattr(defaults, name) for name in (*free, "shards")}
    arguments = set(Hyperparameters._fields) - {"steps"}
    values |= {name: 0.5 if getattr(config, name) else 0 for name in arguments}
    train = replace(config, **values)
    return replace(experiment, name="", data=DataConfig(), start=StartConfig(), train=train)


@lru_cache(maxsize=32)
def _train_step(experiment: Experiment, labels: tuple[str, ...], mesh: Mesh):
    @partial(jax.jit, donate_argnames="state")
    def step(state: State, batch: dict) -> tuple[State, dict]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        augment_key, dropout_key = jax.random.split(key)
        rows = augment(batch, augment_key, experiment.augment, experiment.clip)
        new, metrics = update_step(state, rows, dropout_key, experiment, labels, mesh)
        if "stop" in batch:
            metrics["stop"] = batch["stop"].max()
        return jax.lax.with_sharding_constraint(new, sharding.sharded(mesh, new)), metrics

    return step


@lru_cache(maxsize=32)
def _predict_step(experiment: Experiment, mesh: Mesh):
    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def predict(params: dict, batch: dict) -> dict:
        rows = augment(batch, jax.random.key(0), NONE, experiment.clip)
        output = MBT(experiment.model).apply({"params": params}, as_clip(rows, experiment.model))
        passed = {name: batch[name] for name in ("labels", "mask", "stop") if name in batch}
        return passed | {"logits": output.logits, "stream_logits": output.stream_logits}

    return predict


def as_clip(batch: dict, model: MBTConfig) -> Clip:
    """The model's `Clip` of an augmented batch; the log-mel is repeated on three channels."""
    streams = {stream: batch[stream] for stream in model.streams}
    if "spec" in streams:
        spec = streams["spec"][..., None]
        streams["spec"] = jnp.broadcast_to(spec, (*spec.shape[:-1], 3))
    return Clip(**streams)


def update_step(
    state: State, batch: dict, key: Array, experiment: Experiment, labels: tuple, mesh: Mesh
) -> tuple[State, dict]:
    """The state after one augmented batch, and scalars to log.

    The order is Scenic's: mixed batch, gradient of the masked mean, clipped as a whole, momentum.
    Scenic clips on each device before it takes the mean; here the mean is clipped, so that the
    number of devices makes no difference.
    """
    config, hyperparameters = experiment.train, state.hyperparameters
    metrics, gradient = _gradient(state, batch, key, experiment, labels, mesh)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
    rate = schedule(config, hyperparameters)(state.step - state.skipped)

    def update(old: State) -> State:
        trained = trainable_params(old.params, config)
        # The rate is computed once, not for every leaf.
        optimizer = make_optimizer(config, hyperparameters, lambda _: rate)
        updates, optimizer_state = optimizer.update(gradient, old.optimizer, trained)
        trained = optax.apply_updates(trained, updates)
        ema = old.ema and ema_update(old.ema, trained, old.step, hyperparameters.ema)
        return old._replace(params=old.params | trained, optimizer=optimizer_state, ema=ema)

    def skip(old: State) -> State:
        return old._replace(skipped=old.skipped + 1)

    new = jax.lax.cond(finite, update, skip, state)  # in place: a `where` copies the momentum
    new = new._replace(step=state.step + 1)
    metrics |= {"gradient_norm": norm, "learning_rate": rate, "finite": finite}
    norms = group_norms(gradient, experiment.model.streams)
    return new, metrics | {f"gradient_norm_{stream}": value for stream, value in norms.items()}


def _gradient(state: State, batch: dict, key: Array, experiment, labels, mesh) -> tuple[dict, dict]:
    """Losses, averaged over the batch's clips, and the gradient of the trainable parameters.

    The parts of an accumulated batch sum to the result of the whole batch, masks included; only
    stochastic depth and dropout have other draws.
    """
    count, params = experiment.train.accumulate, state.params
    trained = trainable_params(params, experiment.train)
    smoothing = state.hyperparameters.label_smoothing
    clips = batch["mask"].sum()

    def total(trained: dict, part: dict, key: Array):
        per_clip = _losses(params | trained, part, key, experiment, labels, smoothing)
        sums = {k: losses.weighted_mean(x, part["mask"], clips) for k, x in per_clip.items()}
        return sums["loss"], sums

    def gradient_of(part: dict, key: Array):
        (_, sums), gradient = jax.value_and_grad(total, has_aux=True)(trained, part, key)
        return sums, gradient

    rows = {name: batch[name] for name in (*experiment.model.streams, "labels", "mask")}
    if count == 1:
        sums, gradient = gradient_of(rows, key)
    else:
        keys = jax.random.split(key, count)
        sums, gradient = _accumulated(gradient_of, _parts(rows, count, mesh), keys)
    return sums, gradient


def _accumulated(function: Callable, parts: dict, keys: Array):
    """The sum of `function(part, key)` over all parts, one after the other."""
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(function, first, keys[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(sums, part_and_key):
        return jax.tree.map(jnp.add, sums, function(*part_and_key)), None

    return jax.lax.scan(add, zeros, (parts, keys))[0]


def _parts(rows: dict, count: int, mesh: Mesh) -> dict:
    """[A, B / A, ...] of every [B, ...]; a part takes its share of each device's rows."""

    def split(x: Array) -> Array:
        return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

    parts = jax.tree.map(split, rows)
    return jax.lax.with_sharding_constraint(parts, sharding.batch_sharding(mesh, parts=True))


def _losses(
    params: dict, batch: dict, key: Array, experiment, labels, smoothing: Array
) -> dict[str, Array]:
    """{"loss": [B], and "loss_rgb", "loss_spec": [B]} of every clip."""
    config, model = experiment.train, experiment.model
    output = MBT(model, config.remat).apply(
        {"params": params}, as_clip(batch, model), train=True, rngs={"dropout": key}
    )
    heads = label_heads(labels) if config.loss == "softmax" else None
    columns = stream_columns(labels, model.streams) if config.loss == "sigmoid" else None
    options = (config.loss, smoothing, heads, model.pool, columns)
    return losses.batch_losses(output, batch["labels"], *options)
