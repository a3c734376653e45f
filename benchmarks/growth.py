"""Measure the cost of a forward pass as a model grows: more tokens, fused layers, bottlenecks."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks import train_step
from benchmarks.model import compiled, logits
from benchmarks.run import machine
from benchmarks.timing import seconds
from mbt_lite import paths, plot
from mbt_lite.config import BASE, MBTConfig
from mbt_lite.model.flops import model_cost
from mbt_lite.model.mbt import blank_clip, init_params
from mbt_lite.plot.style import CYCLE, FAINT, INK, finish, new_figure

FRAMES, LAYERS, BOTTLENECKS = (4, 8, 16, 32), (0, 4, 8), (5, 64, 256, 1024)
ROUNDS = 2
FUSIONS = {
    "bottleneck": {"fusion": "bottleneck"},
    "joint, one encoder": {"fusion": "joint", "shared_encoder": True},
    "joint, an encoder each": {"fusion": "joint", "shared_encoder": False},
}
ROWS = {"seconds": "measured, s", "gflop": "counted, GFLOP"}


def measure() -> dict:
    """{"machine", "points": [{"axis", "way", "at", "seconds", "gflop"}]}: one clip, float32.

    `axis` is what grows: the video tokens of the released geometry (3,136 with 32 frames), or, with
    8 frames of one patch each (1,568 tokens), the first fused layer or the bottlenecks. Seconds are
    the lower of two after a warm-up.
    """
    points = [
        {"axis": axis, "way": way, "at": at, "gflop": model_cost(config).gflops}
        | {"config": config}
        for axis, way, at, config in _cases()
    ]
    seconds_of: dict[MBTConfig, float] = {}
    for point in tqdm(points, desc="growth", unit="model"):
        config = point.pop("config")
        if config not in seconds_of:
            seconds_of[config] = _seconds(config)
        point["seconds"] = seconds_of[config]
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


def save(measured: dict, folder: Path) -> None:
    """Save the measurements as growth.json and as a figure, growth.png."""
    folder.mkdir(parents=True, exist_ok=True)
    paths.write_text(folder / "growth.json", json.dumps(measured, indent=1) + "\n")
    plot.save(_figure(measured["points"]), folder / "growth.png")


def table(measured: dict) -> str:
    """The measurements as a Markdown table."""
    lines = ["| what grows | fusion | at | s | GFLOP | GFLOP/s |", "| --- " * 6 + "|"]
    for point in measured["points"]:
        speed = point["gflop"] / point["seconds"]
        lines.append(
            f"| {point['axis']} | {point['way']} | {point['at']:,} | {point['seconds']:.2f} "
            f"| {point['gflop']:,.0f} | {speed:.0f} |"
        )
    return "\n".join(lines)


def _figure(points: Sequence[dict]) -> Figure:
    """Figure with a column for each axis: measured seconds above counted operations.

    A point has `axis`, `way` (to fuse), `at`, `seconds` and `gflop`.
    """
    axes = list(dict.fromkeys(point["axis"] for point in points))
    ways = list(dict.fromkeys(point["way"] for point in points))
    figure = new_figure(3.5 * len(axes), 5.2)
    panels = figure.subplots(len(ROWS), len(axes), sharex="col", squeeze=False)
    for row, (value, label) in zip(panels, ROWS.items(), strict=True):
        for ax, axis in zip(row, axes, strict=True):
            for way, color in zip(ways, CYCLE, strict=False):
                across, up = _line(points, axis, way, value)
                ax.plot(across, up, "o-", color=color, lw=1.8, ms=4, label=way)
            if axis == "bottleneck tokens":
                ax.set_xscale("log")
            ax.set_xticks(sorted({point["at"] for point in points if point["axis"] == axis}))
            ax.xaxis.set_major_formatter("{x:,.0f}")
            ax.minorticks_off()
            ax.set_ylim(bottom=0)
            ax.grid(axis="y", color=FAINT, lw=0.7)
            ax.set_axisbelow(True)
        row[0].set_ylabel(label)
    for ax, axis in zip(panels[-1], axes, strict=True):
        ax.set_xlabel(axis)
    for ax in panels.flat:
        finish(ax, None)
    panels[0, 0].legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def _line(points: Sequence[dict], axis: str, way: str, value: str) -> tuple[list, list]:
    line = sorted((p["at"], p[value]) for p in points if p["axis"] == axis and p["way"] == way)
    return [at for at, _ in line], [up for _, up in line]
