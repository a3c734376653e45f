"""Plot probabilities as bars, and logged values as curves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbt_lite.plot.style import COLOURS, CYCLE, FAINT, INK, finish, hide_frame, new_figure


def bars(
    labels: Sequence[str],
    probabilities: Real[Any, " C"] | Sequence[float],
    ax: Axes | None = None,
    title: str | None = None,
    top: int = 5,
    colour: str = COLOURS["both"],
) -> Axes:
    """Axes with the `top` most probable labels as horizontal bars, the most probable on top."""
    pairs = _ranked(labels, probabilities, top)
    ax = ax or new_figure(4.2, 0.5 * len(pairs) + 0.6).subplots()
    heights = np.arange(len(pairs))
    ax.barh(heights, [1.0] * len(pairs), height=0.3, color=FAINT, alpha=0.55)
    ax.barh(heights, [p for _, p in pairs], height=0.3, color=colour, label="probability")
    for height, (label, probability) in zip(heights, pairs, strict=True):
        ax.text(0, height - 0.24, label, color=INK, size=9.5, va="bottom")
        ax.text(
            1, height - 0.24, _percent(probability), color=INK, size=9.5, va="bottom", ha="right"
        )
    ax.set(xlim=(0, 1), ylim=(len(pairs) - 0.6, -0.75), xticks=[], yticks=[])
    hide_frame(ax)
    return finish(ax, title)


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
        bars(labels, values, ax, name, top, COLOURS.get(name, COLOURS["both"]))
        ax.set_ylim(rows - 0.6, -0.75)
    return figure


def bars_alt(
    labels: Sequence[str], probabilities: Real[Any, " C"] | Sequence[float], top: int = 5
) -> str:
    """A sentence that lists the most probable labels with their probabilities."""
    pairs = _ranked(labels, probabilities, top)
    return "most probable: " + ", ".join(f"{label} {_percent(p)}" for label, p in pairs)


def _ranked(labels, probabilities, top: int) -> list[tuple[str, float]]:
    values = np.asarray(probabilities, np.float32)
    if len(labels) != len(values):
        raise ValueError(f"{len(labels)} labels do not name {len(values)} probabilities.")
    order = np.argsort(-values, kind="stable")[:top]
    return [(labels[i], float(values[i])) for i in order]


def _percent(probability: float) -> str:
    return "< 1 %" if 0 < probability < 0.005 else f"{probability:.0%}".replace("%", " %")


def curves(
    records: Iterable[Mapping[str, Any]],
    keys: Sequence[str] = ("loss",),
    ax: Axes | None = None,
    title: str | None = None,
    x: str = "step",
    colours: Mapping[str, str] | None = None,
) -> Axes:
    """Axes with one line per key over `x`, from rows such as {"step": 50, "loss": 3.1}.

    A row that lacks a key is left out of that key's line. `colours` are of single keys.
    """
    records = list(records)
    ax = ax or new_figure(6.4, 3.2).subplots()
    for key, colour in zip(keys, CYCLE, strict=False):
        across, up = _series(records, x, key)
        colour = (colours or {}).get(key, colour)
        ax.plot(across, up, color=colour, lw=1.8, label=f"{key} (last {up[-1]:.3g})")
        ax.plot(across[-1], up[-1], "o", color=colour, ms=4)
    ax.legend(frameon=False, labelcolor=INK, fontsize=9.5)
    ax.set(xlabel=x)
    ax.grid(axis="y", color=FAINT, lw=0.7)
    ax.set_axisbelow(True)
    return finish(ax, title)


def curves_alt(
    records: Iterable[Mapping[str, Any]], keys: Sequence[str] = ("loss",), x: str = "step"
) -> str:
    """A sentence that says where each line starts and ends."""
    records = list(records)
    lines = []
    for key in keys:
        across, up = _series(records, x, key)
        lines.append(
            f"{key} from {up[0]:.3g} at {x} {across[0]:g} to {up[-1]:.3g} at {x} {across[-1]:g}"
        )
    return "; ".join(lines)


def _series(records: list, x: str, key: str) -> tuple[list, list]:
    rows = [(row[x], row[key]) for row in records if x in row and key in row]
    if not rows:
        known = sorted({name for row in records for name in row})
        raise ValueError(f"no row has both {x!r} and {key!r}; the rows have {known}.")
    across, up = zip(*rows, strict=True)
    return list(across), list(up)
