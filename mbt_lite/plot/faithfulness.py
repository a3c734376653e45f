"""Plot the faithfulness of importance maps: scores of methods, deletion and insertion curves."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbt_lite.plot.style import COLOURS, CYCLE, FAINT, INK, finish, new_figure

AIMS = {  # of columns in which more is not better
    "deletion": "less is better",
    "random weights": "near 0 is better",
}
LINES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ((0, (6, 1, 1, 1, 1, 1)), "v"))
ACROSS = 3  # panels in a row, at most
GREY = "#8b8f99"
RANDOM = "random"  # the method that deletion is compared with


def faithfulness(scores) -> Figure:
    """A figure with a panel for each column of an `explain.Faithfulness`: per method its mean and
    95 % interval; chance is dashed, and filled dots are better than it.
    """
    columns = len(scores.columns)
    rows = -(-columns // ACROSS)
    across = -(-columns // rows)
    figure = new_figure(2.3 * across + 1.5, rows * (0.26 * len(scores.methods) + 0.85) + 0.35)
    axes = figure.subplots(rows, across, squeeze=False, sharey=True)
    for ax in axes.flat[columns:]:
        ax.remove()
    for column, ax in enumerate(axes.flat[:columns]):
        _points(ax, scores, column)
    axes[0, 0].set_yticks(range(len(scores.methods)), scores.methods)
    axes[0, 0].set_ylim(len(scores.methods) - 0.5, -0.5)
    said = f"{scores.clips} clips, 95 % intervals; dashed: chance; filled: better than chance"
    if np.isnan(scores.chance).any():
        said += "; grey: no chance level"
    figure.suptitle(said, x=0.01, ha="left", color=INK, size=10)
    return figure


def _points(ax: Axes, scores, column: int) -> None:
    name, chance = scores.columns[column], scores.chance[column]
    colour = GREY if np.isnan(chance) else COLOURS["both"]
    better = _better(scores, column) | np.isnan(chance)
    for row, mean in enumerate(scores.mean[:, column]):
        half = scores.half[row, column]
        look = {"color": colour, "mfc": colour if better[row] else "white", "ms": 5.5}
        whisker = {"xerr": None if np.isnan(half) else half, "capsize": 2.5, "lw": 1.4}
        ax.errorbar(mean, row, fmt="o", **whisker, **look)
    if not np.isnan(chance):
        ax.axvline(chance, color=INK, lw=0.9, ls=(0, (4, 3)), zorder=0)
    ax.grid(axis="y", color=FAINT, lw=0.7)
    ax.margins(x=0.12)
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(AIMS.get(name, "more is better"))
    finish(ax, name).tick_params(axis="y", length=0)


def faithfulness_alt(scores) -> str:
    """Sentences that say, for each column, which method is best and which do no better than chance,
    as their interval reaches it."""
    parts = [_column(scores, column) for column in range(len(scores.columns))]
    return f"scores of {len(scores.methods)} methods on {scores.clips} clips. " + " ".join(parts)


def _column(scores, column: int) -> str:
    """Such as "Pointing: best gradient 0.42; no better than chance (0.25): attention." """
    name, chance, mean = scores.columns[column], scores.chance[column], scores.mean[:, column]
    distance = {"deletion": mean, "random weights": np.abs(mean)}.get(name, -mean)
    best = int(np.nanargmin(distance))
    first = f"{name[:1].upper()}{name[1:]}: best {scores.methods[best]} {mean[best]:.2f}"
    if np.isnan(chance):
        return f"{first}; no chance level."
    pairs = zip(scores.methods, _better(scores, column), mean, strict=True)
    poor = [method for method, better, value in pairs if not better and not np.isnan(value)]
    if not poor:
        return f"{first}; all better than chance ({chance:.2f})."
    return f"{first}; no better than chance ({chance:.2f}): {', '.join(poor)}."


def _better(scores, column: int) -> np.ndarray:
    """Whether each method's whole interval lies on the good side of chance; [M] of bool.

    Without an interval, or without a chance level, nothing is known to be better.
    """
    side = -1 if scores.columns[column] == "deletion" else 1
    ahead = side * (scores.mean[:, column] - scores.chance[column])
    return ahead > scores.half[:, column]


def deletion(curves) -> Figure:
    """A figure of an `explain.Curves`: a label's probability while the most important patches go
    (left) and come (right), a line per method; patches at random in grey.
    """
    figure = new_figure(8.4, 4.6)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, (aim, change), lines) in zip(axes, _panels(curves), strict=True):
        for place, (method, line) in enumerate(_random_last(lines)):
            label = f"{method} {np.mean(line):.2f}"
            ax.plot(100 * np.asarray(curves.fractions), line, label=label, **_look(method, place))
        ax.set(xlim=(0, 100), ylim=(-0.02, 1.02), xlabel=f"share of patches {change} (%)")
        ax.grid(color=FAINT, lw=0.7)
        ax.set_axisbelow(True)
        _legend(ax)
        finish(ax, f"{name}: {aim} is better")
    axes[0].set_ylabel("probability of the label")
    return finish(axes[0], None).figure


def _legend(ax: Axes) -> None:
    """Methods with the mean height of their lines, below the axes."""
    look = {"frameon": False, "labelcolor": INK, "fontsize": 9, "title_fontsize": 9, "ncols": 2}
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
    legend = ax.legend(title="method, mean of its line", columnspacing=1.2, **look, **place)
    legend.get_title().set_color(INK)


def _look(method: str, place: int) -> dict:
    if method == RANDOM:
        return {"color": GREY, "ls": (0, (4, 3)), "lw": 1.6}
    line, mark = LINES[place % len(LINES)]
    return {"color": CYCLE[place % len(CYCLE)], "ls": line, "marker": mark, "ms": 4, "lw": 1.6}


def deletion_alt(curves) -> str:
    """Sentences with the mean height of each method's line, the best first."""
    parts = []
    for _, (aim, change), lines in _panels(curves):
        side = 1 if aim == "lower" else -1
        means = {method: np.mean(line) for method, line in lines.items()}
        ranked = sorted(means, key=lambda method: side * means[method])
        listed = ", ".join(f"{method} {means[method]:.2f}" for method in ranked)
        parts.append(f"While patches are {change}, {aim} is better: {listed}.")
    return "Mean probability of the label over the share of patches. " + " ".join(parts)


def _panels(curves):
    """Of each panel its name, what is better and what is done to the patches, and its lines."""
    yield "deletion", ("lower", "taken away"), curves.deletion
    yield "insertion", ("higher", "shown"), curves.insertion


def _random_last(lines: Mapping) -> list:
    return sorted(lines.items(), key=lambda pair: pair[0] == RANDOM)
