"""Benchmark the full-size model beside its usual formulation: forward pass and train step."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import optax

from benchmarks import train_step
from benchmarks.reference import ReferenceMBT, translated
from benchmarks.timing import Program, compare, row
from mbt_lite.config import BASE, NONE, Experiment, MBTConfig
from mbt_lite.model.flops import model_cost
from mbt_lite.model.mbt import MBT, blank_clip, init_params, mean_of
from mbt_lite.model.observe import attention_rows
from mbt_lite.train import losses, sharding, step
from mbt_lite.train.augment import augment
from mbt_lite.train.optimizer import make_optimizer

ROUNDS = 3
SIDE = sys.executable, "-m", "benchmarks.side"
TOGETHER = ("8 frames",)  # train steps of which a laptop holds both sides


def forward(config: MBTConfig) -> dict:
    """Forward pass of one clip beside `reference.ReferenceMBT`: same weights, same logits."""
    params, key = init_params(config, jax.random.key(0)), jax.random.key(1)
    clip = jax.tree.map(lambda x: jax.random.normal(key, x.shape), blank_clip(config))
    theirs = translated(config, params)

    def usual(params, clip):
        return mean_of(ReferenceMBT(config).apply({"params": params}, clip))

    ours = compiled(jax.jit(partial(logits, config)), params, clip)
    other = compiled(jax.jit(usual), theirs, clip)
    calls = partial(ours[0], params, clip), partial(other[0], theirs, clip)
    before = sharding.peak_flops()
    result = compare(*calls, "the usual formulation", ROUNDS)
    result["bytes"] = [planned(ours[0]), planned(other[0])]
    result["compile_seconds"] = [ours[1], other[1]]
    return result | {"of_peak": _share(model_cost(config).flops, result, before)}


def train(name: str, together: bool) -> dict | str:
    """Complete train step of one clip, beside the same with the usual formulation.

    Each side is a process, so that `peak_bytes` is its memory, [ours, the other's]. They alternate,
    or run one after the other if a laptop's memory does not hold both.
    """
    before = sharding.peak_flops()
    try:
        sides = _in_turn(name) if together else [_alone(side, name) for side in ("ours", "usual")]
    except ValueError as error:
        return str(error)
    result = row(*(side["seconds"] for side in sides), "the usual formulation")
    for fact in ("bytes", "peak_bytes", "compile_seconds"):
        result[fact] = [side[fact] for side in sides]
    return result | {
        "of_peak": _share(3 * model_cost(train_step.CASES[name]).flops, result, before)
    }


def _in_turn(name: str) -> list[dict]:
    with Program(*SIDE, "ours", name) as ours, Program(*SIDE, "usual", name) as other:
        rounds = [(ours().seconds, other().seconds) for _ in range(ROUNDS)]
        return [
            side.facts | {"seconds": seconds, "peak_bytes": side.peak_bytes()}
            for side, seconds in zip((ours, other), zip(*rounds, strict=True), strict=True)
        ]


def _alone(side: str, name: str) -> dict:
    with Program(*SIDE, side, name) as program:
        seconds = [program().seconds for _ in range(ROUNDS)]
        return program.facts | {"seconds": seconds, "peak_bytes": program.peak_bytes()}


def _share(flops: float, row: dict, before: float) -> float:
    """Our FLOP/s as a share of a large matrix product's, the mean of just before and now."""
    return 2 * flops / row["seconds"] / (before + sharding.peak_flops())


def rows_of_the_bottleneck(config: MBTConfig = BASE) -> dict:
    """Forward pass with the bottleneck's attention rows, beside the plain forward pass.

    `more_bytes` is the additional memory that XLA plans for the rows.
    """
    params, clip = init_params(config, jax.random.key(0)), blank_clip(config)
    rows = attention_rows.lower(MBT(config), params, clip).compile()
    plain = jax.jit(partial(logits, config)).lower(params, clip).compile()
    calls = partial(rows, params, clip), partial(plain, params, clip)
    result = compare(*calls, "the plain forward pass", ROUNDS)
    return result | {"more_bytes": planned(rows) - planned(plain)}


def logits(config: MBTConfig, params: dict, clip) -> jax.Array:
    """The model's logits [B, C]."""
    return MBT(config).apply({"params": params}, clip).logits


def usual_step(experiment: Experiment) -> Callable:
    """The train step of the usual formulation: (state, batch) → (state, loss).

    Input, loss and optimizer are ours.
    """
    config, optimizer = experiment.train, make_optimizer(experiment.train)
    network = ReferenceMBT(experiment.model)

    def loss(params: dict, batch: dict):
        batch = augment(batch, jax.random.key(0), NONE, experiment.clip)
        logits = network.apply({"params": params}, step.as_clip(batch, experiment.model))
        options = config.loss, config.label_smoothing
        each = {s: losses.clip_losses(x, batch["labels"][s], *options) for s, x in logits.items()}
        return jnp.mean(mean_of(each))

    @partial(jax.jit, donate_argnums=0)
    def train_step(state, batch):
        params, optimizer_state = state
        value, gradient = jax.value_and_grad(loss)(params, batch)
        update, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, update), optimizer_state), value

    return train_step


def compiled(call: Callable, *arguments) -> tuple[Callable, float]:
    """The program of a jitted call, and the seconds that tracing and compilation took."""
    jax.block_until_ready(arguments)  # their computation would compete with the measurement
    start = time.perf_counter()
    program = call.lower(*arguments).compile()
    return program, time.perf_counter() - start


def planned(program) -> int:
    """Bytes that a compiled program needs: arguments, outputs and temporaries."""
    memory = program.memory_analysis()
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return arguments + outputs + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def _forward(name: str, place) -> dict:
    return forward(replace(train_step.CASES[name], drop_path=0.0))


def _train(name: str, place) -> dict | str:
    return train(name, name in TOGETHER)


CASES = {f"train step, {name}": partial(_train, name) for name in train_step.CASES}
CASES |= {f"forward, {name}": partial(_forward, name) for name in train_step.CASES}
CASES["a clip with its attention rows"] = lambda place: rows_of_the_bottleneck()
