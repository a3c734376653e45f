"""Plot evaluation scores: one modality against two, front ends ranked."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mbt_lite.plot.style import (
    COLORS,
    CYCLE,
    FAINT,
    INK,
    LEGEND,
    finish,
    grid_lines,
    name_rows,
    new_figure,
    shortened,
)

_MARKS = {"audio only": ("^", -0.22), "video only": ("s", 0.22)}  # and how far below the row
_LETTERS = 30  # of a label
_TIED, _BEHIND = CYCLE[2], CYCLE[0]


def conditions(labels: Sequence[str], scores: Mapping[str, Sequence[float]]) -> Axes:
    """Axes with a row per label and a mark per condition ("both", "audio only", ...).

    Scores lie in 0..1; a thin line joins the marks of a row, the first label is on top.
    """
    ax = new_figure(5.4, 0.27 * len(labels) + 1.0).subplots()
    values, heights = np.array([*scores.values()]), np.arange(len(labels))
    ax.hlines(heights, values.min(0), values.max(0), color=FAINT, lw=2.2, zorder=1)
    for name, row in scores.items():
        mark, shift = _MARKS.get(name, ("o", 0.0))
        color = COLORS.get(name, COLORS["both"])
        ax.scatter(row, heights + shift, s=26, marker=mark, color=color, label=name, zorder=2)
    ax.set(xlim=(-0.03, 1.03), xlabel="average precision")
    grid_lines(ax, "x")
    name_rows(ax, [shortened(label, _LETTERS) for label in labels])
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


# ---- front ends ----


def front_end_match(result) -> Figure:
    """A figure of log-likelihood and mAP through every front end, the likeliest on top.

    A bar is the 95 % interval of the difference to the likeliest; rows that cannot be told from it
    are filled.
    """
    figure = new_figure(9.6, 1.4 + 0.24 * len(result.rows))
    nats, precision = figure.subplots(1, 2, sharey=True)
    best = result.best.log_likelihood
    for place, row in enumerate(result.rows):
        color, face = (_TIED, _TIED) if row.within_ci else (_BEHIND, "white")
        low, high = row.gap_ci95
        nats.plot([best - high, best - low], [place, place], color=color, lw=2.2, alpha=0.6)
        for ax, score in ((nats, row.log_likelihood), (precision, row.mean_average_precision)):
            ax.plot(score, place, "o", color=color, mfc=face, ms=5.5)
    nats.axvline(best, color=INK, lw=0.7, ls=":")
    nats.set_yticks(range(len(result.rows)), [row.label for row in result.rows])
    nats.set_xlabel("log-likelihood (nats per clip)")
    precision.set_xlabel(f"mAP over {result.classes} classes")
    nats.invert_yaxis()
    for ax in (nats, precision):
        grid_lines(ax, "y")
    finish(nats, f"{result.clips} clips through {len(result.rows)} front ends")
    finish(precision, None)
    dot = {"marker": "o", "ms": 5.5, "ls": "none"}
    handles = [
        Line2D([], [], color=_TIED, label="not told apart from the first", **dot),
        Line2D([], [], color=_BEHIND, mfc="white", label="behind it", **dot),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, **LEGEND)
    return figure


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
