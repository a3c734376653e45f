"""Measure the cost of a forward pass as a model grows: more tokens, fused layers, bottlenecks."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from tqdm import tqdm

from benchmarks import train_step
from benchmarks.growth_plot import growth
from benchmarks.model import compiled, logits
from benchmarks.run import machine
from benchmarks.timing import seconds
from mbt_lite import paths, plot
from mbt_lite.config import BASE, MBTConfig
from mbt_lite.model.flops import model_cost
from mbt_lite.model.mbt import blank_clip, init_params
from mbt_lite.plot.training import FUSIONS

FRAMES, LAYERS, BOTTLENECKS = (4, 8, 16, 32), (0, 4, 8), (5, 64, 256, 1024)
ROUNDS = 2


def measure() -> dict:
    """{"machine", "points": [{"axis", "way", "at", "seconds", "gflop"}]}: one clip, float32.

    `axis` is what grows: video tokens of the released geometry, whose model of 32 frames has
    3,136; with 8 frames of a patch each (1,568 tokens) the first fused layer, and the bottlenecks.
    Seconds are the least of two after one that is not counted.
    """
    points = [
        {"axis": axis, "way": way, "at": at, "gflop": model_cost(config).gflops}
        | {"config": config}
        for axis, way, at, config in _cases()
    ]
    known: dict[MBTConfig, float] = {}
    for point in tqdm(points, desc="growth", unit="model"):
        config = point.pop("config")
        if config not in known:
            known[config] = _seconds(config)
        point["seconds"] = known[config]
    return {"machine": machine(), "points": points}


def _cases() -> Iterator[tuple[str, str, int, MBTConfig]]:
    eight = replace(train_step.CASES["8 frames"], drop_path=0.0)
    for way, changes in FUSIONS.items():
        for frames in FRAMES:
            config = replace(BASE, rgb_shape=(frames, *BASE.rgb_shape[1:]), **changes)
            yield "video tokens", way, config.patches("rgb"), config
        for layer in LAYERS:
            yield "fusion layer", way, layer, replace(eight, fusion_layer=layer, **changes)
        for count in BOTTLENECKS if way == "bottleneck" else ():
            yield "bottleneck tokens", way, count, replace(eight, bottlenecks=count)


def _seconds(config: MBTConfig) -> float:
    clip = blank_clip(config)
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)
    program, _ = compiled(jax.jit(partial(logits, config)), params, clip)
    call = partial(program, params, clip)
    seconds(call)
    return min(seconds(call) for _ in range(ROUNDS))


def save(found: dict, folder: Path) -> None:
    """Keep the figures as growth.json and as a video, growth.png."""
    folder.mkdir(parents=True, exist_ok=True)
    paths.write_text(folder / "growth.json", json.dumps(found, indent=1) + "\n")
    plot.save(growth(found["points"]), folder / "growth.png")


def table(found: dict) -> str:
    """The figures as a Markdown table."""
    lines = ["| what grows | fusion | at | s | GFLOP | GFLOP/s |", "| --- " * 6 + "|"]
    for point in found["points"]:
        speed = point["gflop"] / point["seconds"]
        lines.append(
            f"| {point['axis']} | {point['way']} | {point['at']:,} | {point['seconds']:.2f} "
            f"| {point['gflop']:,.0f} | {speed:.0f} |"
        )
    return "\n".join(lines)
