"""Plot front ends ranked by a model's answers, and how often the right one is found."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mbt_lite.plot.style import CYCLE, FAINT, INK, add_colorbar, finish, new_figure

TIED, BEHIND = CYCLE[2], CYCLE[0]
FAR = 2.0  # nats behind the best, where the colour ends


def front_end_match(result) -> Figure:
    """A figure of log-likelihood and mAP through every front end, the likeliest on top.

    A bar is the 95 % interval of the difference to the best; rows that cannot be told from the
    likeliest are filled, as a legend below says.
    """
    figure = new_figure(9.6, 1.4 + 0.24 * len(result.rows))
    nats, points = figure.subplots(1, 2, sharey=True)
    _dots(nats, result, "log_likelihood")
    _dots(points, result, "mean_average_precision")
    nats.set_yticks(range(len(result.rows)), [row.label for row in result.rows])
    nats.invert_yaxis()
    finish(nats, f"{result.clips} clips through {len(result.rows)} front ends")
    finish(points, None)
    nats.set_xlabel("log-likelihood (nats per clip)")
    points.set_xlabel(f"mAP over {result.classes} classes")
    look = {"frameon": False, "labelcolor": INK, "fontsize": 9.5, "ncols": 2}
    figure.legend(handles=_marks(), loc="outside lower center", **look)
    return figure


def _marks() -> list[Line2D]:
    """What the dots of a ranking mean, for its legend."""
    dot = {"marker": "o", "ms": 5.5, "ls": "none"}
    return [
        Line2D([], [], color=TIED, label="not told apart from the first", **dot),
        Line2D([], [], color=BEHIND, mfc="white", label="behind it", **dot),
    ]


def front_end_match_alt(result) -> str:
    """A sentence that names the best, what ties with it, and the first that does not."""
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


def _dots(ax: Axes, result, measure: str) -> None:
    """One row per front end: its score, and where the interval of its difference puts it."""
    best = max(getattr(row, measure) for row in result.rows)
    for place, row in enumerate(result.rows):
        colour = TIED if row.within_ci else BEHIND
        low, high = getattr(row, f"{measure}_gap_ci95")
        ax.plot([best - high, best - low], [place, place], color=colour, lw=2.2, alpha=0.6)
        face = colour if row.within_ci else "white"
        ax.plot(getattr(row, measure), place, "o", color=colour, mfc=face, ms=5.5)
    ax.axvline(best, color=INK, lw=0.7, ls=":")
    ax.grid(axis="y", color=FAINT, lw=0.7)
    ax.set_axisbelow(True)


def front_end_recovery(trials) -> Figure:
    """Draw `front_end_recovery.Trial`s: how far behind the best a model answers, by the front end
    of its training (rows) and that of the test (columns). A dot marks the best, a ring its ties.
    """
    own = [r.front_end.name for r in trials[0].match.rows if r.own_statistics]
    names = list(dict.fromkeys([*(trial.hidden for trial in trials), *own]))
    ax = new_figure(0.3 * len(names) + 3.6, 0.3 * len(trials) + 2.2).subplots()
    behind = np.array([[_row(trial, name).log_likelihood for name in names] for trial in trials])
    behind = behind.max(1, keepdims=True) - behind
    image = ax.imshow(behind, cmap="magma_r", vmin=0, vmax=FAR, aspect="auto")
    for y, trial in enumerate(trials):
        for x, name in enumerate(names):
            row = _row(trial, name)
            if row.within_ci:
                face = INK if row is trial.match.best else "none"
                ax.plot(x, y, "o", mec=INK, mfc=face, ms=6)
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(trials)), [trial.hidden for trial in trials])
    ax.set(xlabel="heard through", ylabel="trained through, hidden")
    add_colorbar(ax, image, f"nats behind the best ({FAR:g} or more: dark)")
    return finish(ax, "Which front end matching finds").figure


def front_end_recovery_alt(trials) -> str:
    """A sentence that counts what was found and names what was not."""
    parts = [f"{len(trials)} front ends hidden in small models"]
    for answer in ("found", "tied", "missed"):
        names = [trial.hidden for trial in trials if trial.answer == answer]
        parts.append(f"{answer}: {', '.join(names) or 'none'}")
    return "; ".join(parts)


def _row(trial, name: str):
    """The row of a front end with the statistics of the given audio."""
    rows = (row for row in trial.match.rows if row.own_statistics)
    return next(row for row in rows if row.front_end.name == name)
