"""Plot probabilities and their changes as bars, and logged values as curves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
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
    name_rows,
    new_figure,
    percent,
)


def compare_bars(predictions: Mapping[str, Iterable[tuple[str, float]]], top: int = 5) -> Figure:
    """A figure with the `top` labels of several predictions side by side, the first on top, such as
    {"both": [("bell heard", 0.97), ...], "audio only": [...], "video only": [...]}."""
    panels = {name: list(pairs)[:top] for name, pairs in predictions.items()}
    rows = max(map(len, panels.values()))
    figure = new_figure(3.1 * len(panels), 0.5 * rows + 0.6)
    figure.get_layout_engine().set(wspace=0.08)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    look = {"color": INK, "size": 9.5, "va": "bottom"}
    for ax, (name, pairs) in zip(axes, panels.items(), strict=True):
        heights, color = np.arange(len(pairs)), COLORS.get(name, COLORS["both"])
        ax.barh(heights, [1.0] * len(pairs), height=0.3, color=FAINT, alpha=0.55)
        ax.barh(heights, [p for _, p in pairs], height=0.3, color=color, label="probability")
        for height, (label, probability) in zip(heights, pairs, strict=True):
            ax.text(0, height - 0.24, label, **look)
            ax.text(1, height - 0.24, percent(probability), ha="right", **look)
        ax.set(xlim=(0, 1), ylim=(rows - 0.6, -0.75), xticks=[], yticks=[])
        hide_frame(ax)
        finish(ax, name)
    return figure


def chart(chart) -> Figure:
    """A figure of the bars of an `explain.html.Chart`, with their values and 95 % intervals."""
    names, values = [bar.label for bar in chart.bars], [bar.value for bar in chart.bars]
    ax = new_figure(6.4, 0.3 * len(names) + 1.1).subplots()
    drawn = ax.barh(range(len(names)), values, 0.62, color=[COLORS[b.stream] for b in chart.bars])
    ax.bar_label(drawn, [bar.number for bar in chart.bars], padding=4, color=INK, size=9)
    for row, bar in enumerate(chart.bars):
        if bar.low is not None:
            ax.plot([bar.low, bar.high], [row, row], color=INK, lw=1.4)
    ax.axvline(0, color=INK, lw=0.8)
    ax.margins(x=0.15)
    ax.set_xlabel(chart.axis)
    grid_lines(ax, "x")
    name_rows(ax, names).set_title(chart.title, color=INK, size=11, loc="left")
    return ax.figure


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
