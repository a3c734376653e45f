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
    """Forward pass of one clip beside `reference.ReferenceMBT`: same weights, same answers."""
    params, key = init_params(config, jax.random.key(0)), jax.random.key(1)
    clip = jax.tree.map(lambda x: jax.random.normal(key, x.shape), blank_clip(config))
    theirs = translated(config, params)

    def usual(params, clip):
        return mean_of(ReferenceMBT(config).apply({"params": params}, clip))

    ours = compiled(jax.jit(partial(logits, config)), params, clip)
    other = compiled(jax.jit(usual), theirs, clip)
    calls = partial(ours[0], params, clip), partial(other[0], theirs, clip)
    before = sharding.peak_flops()
    found = compare(*calls, "the usual formulation", ROUNDS)
    found["bytes"] = [planned(ours[0]), planned(other[0])]
    found["compile_seconds"] = [ours[1], other[1]]
    return found | {"of_peak": _share(model_cost(config).flops, found, before)}


def train(name: str, together: bool) -> dict | str:
    """Train step of one clip, all of it, beside the same with the usual formulation.

    Each side is a process, so that `peak_bytes` tells the memory that it took, [ours, the other's].
    They take turns or, where a laptop does not hold both, come one after the other.
    """
    before = sharding.peak_flops()
    try:
        sides = _in_turn(name) if together else [_alone(side, name) for side in ("ours", "usual")]
    except ValueError as error:
        return str(error)
    found = row(*(side["seconds"] for side in sides), "the usual formulation")
    for fact in ("bytes", "peak_bytes", "compile_seconds"):
        found[fact] = [side[fact] for side in sides]
    return found | {"of_peak": _share(3 * model_cost(train_step.CASES[name]).flops, found, before)}


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
    """Ours as a share of what a large matrix product reaches, the mean of just before and now."""
    return 2 * flops / row["seconds"] / (before + sharding.peak_flops())


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


def usual_step(experiment: Experiment) -> Callable:
    """The train step ((parameters, optimizer's state), batch) → both after it, loss, as usual.

    Input, loss and optimizer are ours.
    """
    config, optimizer = experiment.train, make_optimizer(experiment.train)
    network = ReferenceMBT(experiment.model)

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


def compiled(call: Callable, *arguments) -> tuple[Callable, float]:
    """The program of a jitted call, and the seconds that tracing and compilation took."""
    jax.block_until_ready(arguments)  # what still computes them would compete
    start = time.perf_counter()
    made = call.lower(*arguments).compile()
    return made, time.perf_counter() - start


def planned(program) -> int:
    """Bytes that a compiled program needs: what it is given, what it makes, and in between."""
    memory = program.memory_analysis()
    given, made = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return given + made + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def _forward(name: str, place) -> dict:
    return forward(replace(train_step.CASES[name], drop_path=0.0))


def _train(name: str, place) -> dict | str:
    return train(name, name in TOGETHER)


CASES = {f"train step, {name}": partial(_train, name) for name in train_step.CASES}
CASES |= {f"forward, {name}": partial(_forward, name) for name in train_step.CASES}
CASES["a clip with its attention rows"] = lambda place: rows_of_the_bottleneck()
