"""Plot a grid of trainings: the score of each variant, with its interval and seeds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbt_lite.plot.style import COLOURS, FAINT, INK, finish, new_figure


def sweep(outcomes: Sequence, score: str) -> Figure:
    """Figure with a panel for each group: a dot for the mean over seeds, a bar for its 95 %
    interval, a small ring for each seed.

    An outcome has `group`, `variant`, `mean`, `half` (of the interval, nan for one seed) and
    `values` of the seeds.
    """
    groups = _groups(outcomes)
    widths = [len(found) + 1 for found in groups.values()]
    figure = new_figure(0.62 * sum(widths) + 1, 3.9)
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True, width_ratios=widths)[0]
    for ax, (group, found) in zip(axes, groups.items(), strict=True):
        _panel(ax, found)
        finish(ax, group)
    axes[0].set(ylim=(0, 1.04))
    axes[0].set_ylabel(score)
    finish(axes[0], next(iter(groups)))
    return figure


def _panel(ax: Axes, found: Sequence) -> None:
    places = np.arange(len(found))
    means, halves = [one.mean for one in found], np.nan_to_num([one.half for one in found])
    for place, one in zip(places, found, strict=True):
        seeds = np.full(len(one.values), place + 0.22)
        ax.plot(seeds, one.values, "o", mfc="none", mec=INK, mew=0.7, ms=3.5)
    ax.errorbar(places, means, halves, fmt="o", color=COLOURS["both"], capsize=3, lw=1.4, ms=5)
    ax.set_xticks(places, [one.variant for one in found], rotation=40, ha="right")
    ax.set(xlim=(-0.6, len(found) - 0.2))
    ax.grid(axis="y", color=FAINT, lw=0.7)
    ax.set_axisbelow(True)


def sweep_alt(outcomes: Sequence, score: str) -> str:
    """A sentence that says what each variant of each group reaches."""
    parts = []
    for group, found in _groups(outcomes).items():
        reached = ", ".join(f"{one.variant} {one.mean:.2f}" for one in found)
        parts.append(f"{group}: {reached}")
    return f"{score}, mean over the seeds. " + "; ".join(parts)


def _groups(outcomes: Sequence) -> dict[str, list]:
    groups: dict[str, list] = {}
    for one in outcomes:
        groups.setdefault(one.group, []).append(one)
    return groups
