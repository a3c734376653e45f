"""Plot how faithful the methods of importance maps are."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbt_lite.plot.style import (
    COLORS,
    CYCLE,
    DASHED,
    INK,
    LEGEND,
    LINES,
    finish,
    grid_lines,
    new_figure,
)

AIMS = {  # of columns in which more is not better
    "deletion": "less is better",
    "random weights": "near 0 is better",
}
GRAY = "#8b8f99"
RANDOM = "random"  # the method that deletion is compared with


def faithfulness(scores) -> Figure:
    """A figure with a panel for each column of an `explain.Faithfulness`: per method its mean and
    95 % interval; chance is dashed, and filled dots are better than it.
    """
    figure = new_figure(8.4, 2 * (0.26 * len(scores.methods) + 0.85) + 0.35)
    axes = figure.subplots(2, 3, sharey=True)
    for name, ax in zip(scores.columns, axes.flat, strict=True):
        _points(ax, scores, name)
    axes[0, 0].set_yticks(range(len(scores.methods)), scores.methods)
    axes[0, 0].set_ylim(len(scores.methods) - 0.5, -0.5)
    title = f"{scores.clips} clips, 95 % intervals; dashed: chance; filled: better than chance"
    title += "; gray: no chance level"
    figure.suptitle(title, x=0.01, ha="left", color=INK, size=10)
    return figure


def _points(ax: Axes, scores, name: str) -> None:
    column = scores.columns.index(name)
    chance = scores.chance[column]
    color = GRAY if np.isnan(chance) else COLORS["both"]
    for row, method in enumerate(scores.methods):
        filled = np.isnan(chance) or scores.beats_chance(method, name)
        look = {"color": color, "mfc": color if filled else "white", "ms": 5.5, "capsize": 2.5}
        mean, half = scores.mean[row, column], scores.half[row, column]
        ax.errorbar(mean, row, fmt="o", xerr=half, lw=1.4, **look)
    if not np.isnan(chance):
        ax.axvline(chance, color=INK, lw=0.9, ls=DASHED, zorder=0)
    grid_lines(ax, "y")
    ax.margins(x=0.12)
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(AIMS.get(name, "more is better"))
    finish(ax, name).tick_params(axis="y", length=0)


def faithfulness_alt(scores) -> str:
    """Sentences that name, for each column, the best method and those no better than chance."""
    parts = [_column(scores, name) for name in scores.columns]
    return f"scores of {len(scores.methods)} methods on {scores.clips} clips. " + " ".join(parts)


def _column(scores, name: str) -> str:
    """Such as "Pointing: best gradient 0.42; no better than chance (0.25): attention." """
    column = scores.columns.index(name)
    chance, mean = scores.chance[column], scores.mean[:, column]
    best = int({"deletion": mean, "random weights": np.abs(mean)}.get(name, -mean).argmin())
    first = f"{name[:1].upper()}{name[1:]}: best {scores.methods[best]} {mean[best]:.2f}"
    if np.isnan(chance):
        return f"{first}; no chance level."
    poor = [method for method in scores.methods if not scores.beats_chance(method, name)]
    if not poor:
        return f"{first}; all better than chance ({chance:.2f})."
    return f"{first}; no better than chance ({chance:.2f}): {', '.join(poor)}."


def deletion(curves) -> Figure:
    """A figure of an `explain.Curves`: a label's probability while the most important patches are
    removed (left) and inserted (right), a line per method; patches at random in gray.
    """
    figure = new_figure(8.4, 4.6)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, aim, change, lines) in zip(axes, _panels(curves), strict=True):
        for place, (method, line) in enumerate(lines.items()):
            label = f"{method} {np.mean(line):.2f}"
            ax.plot(100 * np.asarray(curves.fractions), line, label=label, **_look(method, place))
        ax.set(xlim=(0, 100), ylim=(-0.02, 1.02), xlabel=f"share of patches {change} (%)")
        grid_lines(ax)
        look = {"title_fontsize": 9, "ncols": 2, "columnspacing": 1.2, **LEGEND, "fontsize": 9}
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
        legend = ax.legend(title="method, mean of its line", **look, **place)
        legend.get_title().set_color(INK)
        finish(ax, f"{name}: {aim} is better")
    axes[0].set_ylabel("probability of the label")
    return finish(axes[0], None).figure


def _look(method: str, place: int) -> dict:
    if method == RANDOM:
        return {"color": GRAY, "ls": DASHED, "lw": 1.6}
    line, mark = LINES[place % len(LINES)]
    return {"color": CYCLE[place % len(CYCLE)], "ls": line, "marker": mark, "ms": 4, "lw": 1.6}


def deletion_alt(curves) -> str:
    """Sentences with the mean height of each method's line, the best first."""
    parts = []
    for _, aim, change, lines in _panels(curves):
        means = {method: np.mean(line) for method, line in lines.items()}
        ranked = sorted(means, key=means.get, reverse=aim == "higher")
        listed = ", ".join(f"{method} {means[method]:.2f}" for method in ranked)
        parts.append(f"While patches are {change}, {aim} is better: {listed}.")
    return "Mean probability of the label over the share of patches. " + " ".join(parts)


def _panels(curves):
    """The name of each panel, the better direction, what happens to the patches, the lines.

    The line of the random order is the last.
    """
    for name, aim, change in (
        ("deletion", "lower", "removed"),
        ("insertion", "higher", "inserted"),
    ):
        lines = getattr(curves, name)
        yield name, aim, change, dict(sorted(lines.items(), key=lambda pair: pair[0] == RANDOM))
