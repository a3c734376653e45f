"""Plot evaluation scores: precision and recall, one modality against two."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.axes import Axes

from mbt_lite.plot.style import COLOURS, CYCLE, FAINT, INK, finish, hide_frame, new_figure

STEPS = 200  # points of a curve that are drawn
LINES = ("-", "--", "-.", ":")  # told apart without any colour
MARKS = {"audio only": ("^", -0.22), "video only": ("s", 0.22)}  # and how far below the row
NAMED = 30  # letters of a label that are shown


def precision_recall(
    curves: Mapping[str, tuple[Real[Any, " n"], Real[Any, " n"]]],
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Axes with one line per name, from (precision, recall), both in 0..1, recall rising."""
    ax = ax or new_figure(4.6, 3.6).subplots()
    for place, (name, (precision, recall)) in enumerate(curves.items()):
        shown = _bends(np.asarray(recall))
        across = np.concatenate([[0.0], np.asarray(recall)[shown]])
        up = np.concatenate([precision[:1], np.asarray(precision)[shown]])
        colour, line = CYCLE[place % len(CYCLE)], LINES[place % len(LINES)]
        ax.plot(across, up, line, color=colour, lw=1.8, label=_short(name))
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
    ax.grid(color=FAINT, lw=0.7)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, labelcolor=INK, fontsize=9, loc="best")
    return finish(ax, title)


def _bends(recall: np.ndarray) -> np.ndarray:
    """Which points to draw: those where another clip is found, thinned out if there are many."""
    rises = np.flatnonzero(np.diff(recall, prepend=-1.0))
    return rises[np.unique(np.linspace(0, len(rises) - 1, STEPS).round().astype(int))]


def precision_recall_alt(curves: Mapping[str, tuple[Real[Any, " n"], Real[Any, " n"]]]) -> str:
    """A sentence that says how precise each class is when half of its clips are found."""
    halfway = []
    for name, (precision, recall) in curves.items():
        at = int(np.searchsorted(recall, 0.5))
        halfway.append(f"{name} {precision[at]:.0%}".replace("%", " %"))
    return "precision where half of the clips are found: " + ", ".join(halfway)


def conditions(
    labels: Sequence[str],
    scores: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Axes with a row per label and a mark per condition ("both", "audio only", ...).

    Scores lie in 0..1; a thin line joins the marks of a row, the first label is on top.
    """
    ax = ax or new_figure(5.4, 0.27 * len(labels) + 1.0).subplots()
    values, heights = np.array([*scores.values()]), np.arange(len(labels))
    ax.hlines(heights, values.min(0), values.max(0), color=FAINT, lw=2.2, zorder=1)
    for name, across in scores.items():
        mark, shift = MARKS.get(name, ("o", 0.0))
        colour = COLOURS.get(name, COLOURS["both"])
        ax.scatter(across, heights + shift, s=26, marker=mark, color=colour, label=name, zorder=2)
    ax.set(xlim=(-0.03, 1.03), ylim=(len(labels) - 0.4, -0.6), xlabel="average precision")
    ax.set_yticks(heights, [_short(label) for label in labels])
    ax.grid(axis="x", color=FAINT, lw=0.7)
    ax.set_axisbelow(True)
    hide_frame(ax)
    finish(ax, title).tick_params(axis="y", length=0)
    ax.figure.legend(
        *ax.get_legend_handles_labels(),
        frameon=False,
        labelcolor=INK,
        fontsize=9.5,
        ncols=len(scores),
        loc="outside upper center",
        handletextpad=0.1,
        columnspacing=1.2,
    )
    return ax


def _short(label: str) -> str:
    return label if len(label) <= NAMED else f"{label[: NAMED - 1]}…"


def conditions_alt(labels: Sequence[str], scores: Mapping[str, Sequence[float]]) -> str:
    """A sentence with the mean of each condition, and the label that it is best and worst at."""
    parts = []
    for name, values in scores.items():
        best, worst = labels[int(np.argmax(values))], labels[int(np.argmin(values))]
        parts.append(f"{name} {np.mean(values):.2f} (best {best}, worst {worst})")
    return f"mean average precision of {len(labels)} classes: " + "; ".join(parts)


def turned(
    counts: Mapping[str, tuple[int, int]], ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Axes with, per stream that was added, how many clips became wrong and how many right.

    `counts` is {"video added": (wrong, right), ...}; wrong goes to the left, hatched.
    """
    ax = ax or new_figure(5.4, 0.6 * len(counts) + 0.4).subplots()
    heights = np.arange(len(counts))
    wrong, right = np.array([*counts.values()]).T
    ax.barh(heights, -wrong, 0.5, color="white", edgecolor=COLOURS["spec"], hatch="////")
    ax.barh(heights, right, 0.5, color=COLOURS["rgb"])
    reach = max(1, int(max(wrong.max(), right.max())))
    words = {"va": "center", "color": INK, "size": 9.5}
    for height, (lost, won) in zip(heights, counts.values(), strict=True):
        ax.text(-lost - 0.04 * reach, height, f"{lost} became wrong", ha="right", **words)
        ax.text(won + 0.04 * reach, height, f"{won} became right", ha="left", **words)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set(xlim=(-2.1 * reach, 2.1 * reach), ylim=(len(counts) - 0.5, -0.5), xticks=[])
    ax.set_yticks(heights, [*counts])
    hide_frame(ax)
    finish(ax, title).tick_params(axis="y", length=0)
    return ax


def turned_alt(counts: Mapping[str, tuple[int, int]]) -> str:
    """A sentence that says how many clips each added stream made wrong and right."""
    parts = [
        f"{name}: {lost} clips became wrong, {won} right" for name, (lost, won) in counts.items()
    ]
    return "; ".join(parts)
