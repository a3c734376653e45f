"""Plot evaluation scores: precision and recall, one modality against two, front ends ranked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mbt_lite.plot.style import (
    COLORS,
    CYCLE,
    FAINT,
    INK,
    LEGEND,
    LINES,
    add_colorbar,
    finish,
    grid_lines,
    name_rows,
    new_figure,
    percent,
    shortened,
)

STEPS = 200  # points of a curve that are drawn
MARKS = {"audio only": ("^", -0.22), "video only": ("s", 0.22)}  # and how far below the row
LETTERS = 30  # of a label
TIED, BEHIND = CYCLE[2], CYCLE[0]
FAR = 2.0  # nats behind the best, where the color scale ends


def precision_recall(
    curves: Mapping[str, tuple[Real[Any, " n"], Real[Any, " n"]]], title: str | None = None
) -> Axes:
    """Axes with one line per name, from (precision, recall), both in 0..1, recall rising."""
    ax = new_figure(4.6, 3.6).subplots()
    for place, (name, (precision, recall)) in enumerate(curves.items()):
        shown = _rises(np.asarray(recall))
        x = np.concatenate([[0.0], np.asarray(recall)[shown]])
        y = np.concatenate([precision[:1], np.asarray(precision)[shown]])
        color, (line, _) = CYCLE[place % len(CYCLE)], LINES[place % len(LINES)]
        ax.plot(x, y, ls=line, color=color, lw=1.8, label=shortened(name, LETTERS))
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
    grid_lines(ax)
    ax.legend(loc="best", **LEGEND)
    return finish(ax, title)


def _rises(recall: np.ndarray) -> np.ndarray:
    """Indices of the points to draw: those where recall rises, at most `STEPS` of them."""
    rises = np.flatnonzero(np.diff(recall, prepend=-1.0))
    return rises[np.unique(np.linspace(0, len(rises) - 1, STEPS).round().astype(int))]


def precision_recall_alt(curves: Mapping[str, tuple[Real[Any, " n"], Real[Any, " n"]]]) -> str:
    """A sentence with the precision of each class at a recall of one half."""
    parts = [
        f"{name} {percent(precision[int(np.searchsorted(recall, 0.5))])}"
        for name, (precision, recall) in curves.items()
    ]
    return "precision where half of the clips are found: " + ", ".join(parts)


def conditions(labels: Sequence[str], scores: Mapping[str, Sequence[float]]) -> Axes:
    """Axes with a row per label and a mark per condition ("both", "audio only", ...).

    Scores lie in 0..1; a thin line joins the marks of a row, the first label is on top.
    """
    ax = new_figure(5.4, 0.27 * len(labels) + 1.0).subplots()
    values, heights = np.array([*scores.values()]), np.arange(len(labels))
    ax.hlines(heights, values.min(0), values.max(0), color=FAINT, lw=2.2, zorder=1)
    for name, row in scores.items():
        mark, shift = MARKS.get(name, ("o", 0.0))
        color = COLORS.get(name, COLORS["both"])
        ax.scatter(row, heights + shift, s=26, marker=mark, color=color, label=name, zorder=2)
    ax.set(xlim=(-0.03, 1.03), xlabel="average precision")
    grid_lines(ax, "x")
    name_rows(ax, [shortened(label, LETTERS) for label in labels])
    place = {"loc": "outside upper center", "handletextpad": 0.1, "columnspacing": 1.2}
    handles = ax.get_legend_handles_labels()
    ax.figure.legend(*handles, ncols=len(scores), **place, **LEGEND)
    return ax


def conditions_alt(labels: Sequence[str], scores: Mapping[str, Sequence[float]]) -> str:
    """A sentence with the mean, the best and the worst label of each condition."""
    parts = []
    for name, values in scores.items():
        best, worst = labels[int(np.argmax(values))], labels[int(np.argmin(values))]
        parts.append(f"{name} {np.mean(values):.2f} (best {best}, worst {worst})")
    return f"mean average precision of {len(labels)} classes: " + "; ".join(parts)


def turned(counts: Mapping[str, tuple[int, int]]) -> Axes:
    """Axes with, per stream that was added, how many clips became wrong and how many right.

    `counts` is {"video added": (wrong, right), ...}; wrong goes to the left, hatched.
    """
    ax = new_figure(5.4, 0.6 * len(counts) + 0.4).subplots()
    heights = np.arange(len(counts))
    wrong, right = np.array([*counts.values()]).T
    ax.barh(heights, -wrong, 0.5, color="white", edgecolor=COLORS["spec"], hatch="////")
    ax.barh(heights, right, 0.5, color=COLORS["rgb"])
    reach = max(1, int(max(wrong.max(), right.max())))
    look = {"va": "center", "color": INK, "size": 9.5}
    for height, (lost, won) in zip(heights, counts.values(), strict=True):
        ax.text(-lost - 0.04 * reach, height, f"{lost} became wrong", ha="right", **look)
        ax.text(won + 0.04 * reach, height, f"{won} became right", ha="left", **look)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set(xlim=(-2.1 * reach, 2.1 * reach), xticks=[])
    return name_rows(ax, [*counts])


def turned_alt(counts: Mapping[str, tuple[int, int]]) -> str:
    """A sentence that says how many clips each added stream made wrong and right."""
    parts = [
        f"{name}: {lost} clips became wrong, {won} right" for name, (lost, won) in counts.items()
    ]
    return "; ".join(parts)


# ---- front ends ----


def front_end_match(result) -> Figure:
    """A figure of log-likelihood and mAP through every front end, the likeliest on top.

    A bar is the 95 % interval of the difference to the best; rows that cannot be told from the
    likeliest are filled.
    """
    figure = new_figure(9.6, 1.4 + 0.24 * len(result.rows))
    nats, precision = figure.subplots(1, 2, sharey=True)
    _dots(nats, result, "log_likelihood")
    _dots(precision, result, "mean_average_precision")
    nats.set_yticks(range(len(result.rows)), [row.label for row in result.rows])
    nats.invert_yaxis()
    finish(nats, f"{result.clips} clips through {len(result.rows)} front ends")
    finish(precision, None)
    nats.set_xlabel("log-likelihood (nats per clip)")
    precision.set_xlabel(f"mAP over {result.classes} classes")
    dot = {"marker": "o", "ms": 5.5, "ls": "none"}
    handles = [
        Line2D([], [], color=TIED, label="not told apart from the first", **dot),
        Line2D([], [], color=BEHIND, mfc="white", label="behind it", **dot),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, **LEGEND)
    return figure


def _dots(ax: Axes, result, measure: str) -> None:
    """One row per front end: its score, and the interval of its difference to the best."""
    best = max(getattr(row, measure) for row in result.rows)
    for place, row in enumerate(result.rows):
        color = TIED if row.within_ci else BEHIND
        low, high = getattr(row, f"{measure}_gap_ci95")
        ax.plot([best - high, best - low], [place, place], color=color, lw=2.2, alpha=0.6)
        face = color if row.within_ci else "white"
        ax.plot(getattr(row, measure), place, "o", color=color, mfc=face, ms=5.5)
    ax.axvline(best, color=INK, lw=0.7, ls=":")
    grid_lines(ax, "y")


def front_end_match_alt(result) -> str:
    """A sentence that names the best front end, its ties, and the first that is behind it."""
    best = result.best
    ties = [row.label for row in result.ties if row is not best]
    others = [row for row in result.rows if not row.within_ci]
    parts = [
        f"{len(result.rows)} front ends ranked on {result.clips} clips",
        f"best is {best.label} with log-likelihood {best.log_likelihood:.2f} and mAP "
        f"{best.mean_average_precision:.3f}",
        f"tied with it: {', '.join(ties) or 'none'}",
    ]
    if others:
        first, last = others[0], others[-1]
        parts.append(f"next {first.label} with {first.log_likelihood:.2f}")
        parts.append(f"last {last.label} with {last.log_likelihood:.2f}")
    return "; ".join(parts)


def front_end_recovery(trials) -> Figure:
    """Draw `front_end_recovery.Trial`s: how far behind the best a model answers, by the front end
    of its training (rows) and that of the test (columns). A dot marks the best, a ring its ties.
    """
    own = [r.front_end.name for r in trials[0].match.rows if r.own_statistics]
    names = list(dict.fromkeys([*(trial.hidden for trial in trials), *own]))
    ax = new_figure(0.3 * len(names) + 3.6, 0.3 * len(trials) + 2.2).subplots()
    nats = np.array([[_row(trial, name).log_likelihood for name in names] for trial in trials])
    behind = nats.max(1, keepdims=True) - nats
    image = ax.imshow(behind, cmap="magma_r", vmin=0, vmax=FAR, aspect="auto")
    for y, trial in enumerate(trials):
        for x, row in enumerate(_row(trial, name) for name in names):
            if row.within_ci:
                face = INK if row is trial.match.best else "none"
                ax.plot(x, y, "o", mec=INK, mfc=face, ms=6)
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(trials)), [trial.hidden for trial in trials])
    ax.set(xlabel="front end in the test", ylabel="hidden front end")
    add_colorbar(ax, image, f"nats behind the best\n({FAR:g} or more: dark)")
    return finish(ax, "Which front end matching finds").figure


def front_end_recovery_alt(trials) -> str:
    """A sentence that lists the front ends that were found, tied and missed."""
    parts = [f"{len(trials)} front ends hidden in small models"]
    for answer in ("found", "tied", "missed"):
        names = [trial.hidden for trial in trials if trial.answer == answer]
        parts.append(f"{answer}: {', '.join(names) or 'none'}")
    return "; ".join(parts)


def _row(trial, name: str):
    """The row of a front end with the statistics of the clips."""
    rows = (row for row in trial.match.rows if row.own_statistics)
    return next(row for row in rows if row.front_end.name == name)
