"""Plot probabilities as bars, and logged values as curves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbt_lite.plot.style import (
    COLORS,
    CYCLE,
    FAINT,
    INK,
    LEGEND,
    finish,
    grid_lines,
    hide_frame,
    new_figure,
    percent,
)


def bars(
    labels: Sequence[str],
    probabilities: Real[Any, " C"] | Sequence[float],
    ax: Axes | None = None,
    title: str | None = None,
    top: int = 5,
    color: str = COLORS["both"],
) -> Axes:
    """Axes with the `top` most probable labels as horizontal bars, the most probable on top."""
    pairs = _ranked(labels, probabilities, top)
    ax = ax or new_figure(4.2, 0.5 * len(pairs) + 0.6).subplots()
    heights = np.arange(len(pairs))
    ax.barh(heights, [1.0] * len(pairs), height=0.3, color=FAINT, alpha=0.55)
    ax.barh(heights, [p for _, p in pairs], height=0.3, color=color, label="probability")
    look = {"color": INK, "size": 9.5, "va": "bottom"}
    for height, (label, probability) in zip(heights, pairs, strict=True):
        ax.text(0, height - 0.24, label, **look)
        ax.text(1, height - 0.24, percent(probability), ha="right", **look)
    ax.set(xlim=(0, 1), ylim=(len(pairs) - 0.6, -0.75), xticks=[], yticks=[])
    hide_frame(ax)
    return finish(ax, title)


def bars_alt(
    labels: Sequence[str], probabilities: Real[Any, " C"] | Sequence[float], top: int = 5
) -> str:
    """A sentence that lists the most probable labels with their probabilities."""
    pairs = _ranked(labels, probabilities, top)
    return "most probable: " + ", ".join(f"{label} {percent(p)}" for label, p in pairs)


def _ranked(labels, probabilities, top: int) -> list[tuple[str, float]]:
    values = np.asarray(probabilities, np.float32)
    if len(labels) != len(values):
        raise ValueError(f"{len(labels)} labels do not name {len(values)} probabilities.")
    order = np.argsort(-values, kind="stable")[:top]
    return [(labels[i], float(values[i])) for i in order]


def compare_bars(predictions: Mapping[str, Iterable[tuple[str, float]]], top: int = 5) -> Figure:
    """A figure with the bars of several predictions side by side, such as
    {"both": [("bell heard", 0.97), ...], "audio only": [...], "video only": [...]}."""
    panels = {name: list(pairs) for name, pairs in predictions.items()}
    rows = max(min(top, len(pairs)) for pairs in panels.values())
    figure = new_figure(3.1 * len(panels), 0.5 * rows + 0.6)
    figure.get_layout_engine().set(wspace=0.08)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (name, pairs) in zip(axes, panels.items(), strict=True):
        labels, values = zip(*pairs, strict=True)
        bars(labels, values, ax, name, top, COLORS.get(name, COLORS["both"]))
        ax.set_ylim(rows - 0.6, -0.75)
    return figure


def curves(
    records: Iterable[Mapping[str, Any]],
    keys: Sequence[str] = ("loss",),
    ax: Axes | None = None,
    title: str | None = None,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Axes with one line per key over the steps, from rows such as {"step": 50, "loss": 3.1}.

    A row that lacks a key is left out of that key's line. `colors` {key: color} replaces the
    usual colors.
    """
    records = list(records)
    ax = ax or new_figure(6.4, 3.2).subplots()
    for key, color in zip(keys, CYCLE, strict=False):
        steps, values = _series(records, key)
        color = (colors or {}).get(key, color)
        ax.plot(steps, values, color=color, lw=1.8, label=f"{key} (last {values[-1]:.3g})")
        ax.plot(steps[-1], values[-1], "o", color=color, ms=4)
    ax.legend(**LEGEND)
    ax.set(xlabel="step")
    grid_lines(ax, "y")
    return finish(ax, title)


def curves_alt(records: Iterable[Mapping[str, Any]], keys: Sequence[str] = ("loss",)) -> str:
    """A sentence that says where each line starts and ends."""
    records, lines = list(records), []
    for key in keys:
        steps, values = _series(records, key)
        first = f"{key} from {values[0]:.3g} at step {steps[0]:g}"
        lines.append(f"{first} to {values[-1]:.3g} at step {steps[-1]:g}")
    return "; ".join(lines)


def _series(records: list, key: str) -> tuple[tuple, tuple]:
    rows = [(row["step"], row[key]) for row in records if "step" in row and key in row]
    if not rows:
        names = sorted({name for row in records for name in row})
        raise ValueError(f"no row has both 'step' and {key!r}; the rows have {names}.")
    return tuple(zip(*rows, strict=True))
