"""The whole model at full size beside its usual formulation: forward pass, and train step."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import optax

from mbt_lite import losses, pace, sharding, step
from mbt_lite.augment import augment
from mbt_lite.bench.timing import compare
from mbt_lite.config import BASE, NONE, MBTConfig
from mbt_lite.experiment import Experiment
from mbt_lite.model import MBT, attention_rows, blank_clip, init_params, mean_of
from mbt_lite.optimizer import make_optimizer
from mbt_lite.reference import ReferenceMBT, translated

ROOM = 12 << 30  # bytes that a program may plan; what would take more is not begun
ROUNDS = 3


def forward(config: MBTConfig) -> dict | str:
    """Forward pass of one clip beside `reference.ReferenceMBT`: same weights, same answers."""
    params, key = init_params(config, jax.random.key(0)), jax.random.key(1)
    clip = jax.tree.map(lambda x: jax.random.normal(key, x.shape), blank_clip(config))
    theirs = translated(config, params)

    def usual(params, clip):
        return mean_of(ReferenceMBT(config).apply({"params": params}, clip))

    ours = compiled(jax.jit(partial(logits, config)), params, clip)
    other = compiled(jax.jit(usual), theirs, clip)
    calls = partial(ours[0], params, clip), partial(other[0], theirs, clip)
    return _compared(ours, other, calls, "the usual formulation", config.cost().flops)


def train(config: MBTConfig) -> dict | str:
    """Train step of one clip, all of it, beside the same with the usual formulation.

    Where that would take more than `ROOM` it computes its blocks again in the backward pass, and
    the row says so.
    """
    experiment, mesh = pace.experiment(config, 1, remat=False), sharding.make_mesh()
    batch = sharding.placed(mesh, pace.drawn_batch(experiment))
    state = step.first_state(experiment, mesh)
    params = jax.tree.map(jnp.copy, translated(config, state.params))  # both steps use theirs up
    theirs = params, make_optimizer(experiment.train).init(params)
    ours = compiled(step.train_step(experiment, pace.LABELS, mesh), state, batch)
    other, what = compiled(usual_step(experiment), theirs, batch), "the usual formulation"
    if planned(other[0]) > ROOM:
        kept = f"{planned(other[0]) / 2**30:.1f} GiB"
        what += f", blocks computed again (kept, they would take {kept})"
        other = compiled(usual_step(experiment, remat=True), theirs, batch)
    calls = _Steps(ours[0], state, batch), _Steps(other[0], theirs, batch)
    del state, params, theirs  # so that the steps can give their memory away
    return _compared(ours, other, calls, what, 3 * config.cost().flops)


def rows_of_the_bottleneck(config: MBTConfig = BASE) -> dict:
    """One clip with what its bottleneck reads, beside the plain forward pass.

    `more_bytes` is how much more memory XLA plans for the pass with rows.
    """
    params, clip = init_params(config, jax.random.key(0)), blank_clip(config)
    rows = attention_rows.lower(MBT(config), params, clip).compile()
    plain = jax.jit(partial(logits, config)).lower(params, clip).compile()
    calls = partial(rows, params, clip), partial(plain, params, clip)
    found = compare(*calls, "the plain forward pass", ROUNDS)
    return found | {"more_bytes": planned(rows) - planned(plain)}


def logits(config: MBTConfig, params: dict, clip) -> jax.Array:
    """The model's answer [B, C]."""
    return MBT(config).apply({"params": params}, clip).logits


def usual_step(experiment: Experiment, remat: bool = False) -> Callable:
    """The train step ((parameters, optimizer's state), batch) → both after it, loss, as usual.

    Input, loss and optimizer are ours.
    """
    config, optimizer = experiment.train, make_optimizer(experiment.train)
    network = ReferenceMBT(experiment.model, remat)

    def loss(params: dict, batch: dict):
        batch = augment(batch, jax.random.key(0), NONE, experiment.clip)
        logits = network.apply({"params": params}, step.as_clip(batch, experiment.model))
        told = config.loss, config.label_smoothing
        each = {s: losses.clip_losses(x, batch["labels"][s], *told) for s, x in logits.items()}
        return jnp.mean(mean_of(each))

    @partial(jax.jit, donate_argnums=0)
    def do(state, batch):
        params, held = state
        found, gradient = jax.value_and_grad(loss)(params, batch)
        update, held = optimizer.update(gradient, held, params)
        return (optax.apply_updates(params, update), held), found

    return do


class _Steps:
    """A train step that goes on from where its last call left off."""

    def __init__(self, do: Callable, state, batch: dict):
        self.do, self.state, self.batch = do, state, batch

    def __call__(self):
        self.state, found = self.do(self.state, self.batch)
        return self.state, found


def _compared(ours: tuple, other: tuple, calls: tuple, what: str, flops: float) -> dict | str:
    """The row of two (program, seconds that its compilation took), each side the first is ours.

    `of_peak` is ours as a share of what a large matrix product reaches, on the mean of just before
    and just after.
    """
    sizes = [planned(ours[0]), planned(other[0])]
    if max(sizes) > ROOM:
        mine, theirs = (f"{size / 2**30:.1f} GiB" for size in sizes)
        return f"ours would take {mine}, {what} {theirs}"
    before = sharding.peak_flops()
    row = compare(*calls, what, ROUNDS)
    of_peak = 2 * flops / row["seconds"] / (before + sharding.peak_flops())
    return row | {"of_peak": of_peak, "bytes": sizes, "compile_seconds": [ours[1], other[1]]}


def compiled(call: Callable, *arguments) -> tuple[Callable, float]:
    """The program of a jitted call, and the seconds that tracing and compilation took."""
    start = time.perf_counter()
    made = call.lower(*arguments).compile()
    return made, time.perf_counter() - start


def planned(program) -> int:
    """Bytes that a compiled program needs: what it is given, what it makes, and in between."""
    memory = program.memory_analysis()
    given, made = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return given + made + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def _still(task: Callable, name: str, place) -> dict | str:
    """A task on a full-size model that draws nothing."""
    return task(replace(pace.CASES[name], drop_path=0.0))


CASES = {f"forward, {name}": partial(_still, forward, name) for name in pace.CASES}
CASES |= {f"train step, {name}": partial(_still, train, name) for name in pace.CASES}
CASES["a clip with its attention rows"] = lambda place: rows_of_the_bottleneck()
