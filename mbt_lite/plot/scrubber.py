"""Plot one setting of a grid of models: its answer, and the scores of all settings."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mbt_lite.plot.scores import bars
from mbt_lite.plot.style import COLOURS, FAINT, INK, finish, new_figure


def scrubber(
    group: str,
    settings: Sequence[str],
    reached: Mapping[str, tuple[float, float]],
    chosen: int,
    answers: Sequence[tuple[str, float]],
) -> Figure:
    """A figure of the answers [(label, probability)] of one setting, beside the accuracy of all.

    `reached` {setting: (mean, half of its 95 % interval)} is drawn in the order of `settings`,
    the chosen one filled.
    """
    figure = new_figure(8.4, 2.7)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    labels, chances = zip(*answers, strict=True)
    bars(list(labels), list(chances), left, top=len(labels), title=f"{group} {settings[chosen]}")
    means, halves = np.array([reached[name] for name in settings]).T
    places = np.arange(len(settings))
    up, down = np.minimum(halves, 1 - means), np.minimum(halves, means)
    look = {"color": COLOURS["both"], "lw": 1.4, "capsize": 3}
    right.errorbar(places, means, yerr=(down, up), marker="o", mfc="white", ms=7, **look)
    right.plot(places[chosen], means[chosen], "o", color=COLOURS["both"], ms=11)
    right.set(ylim=(0, 1.04), xlabel=group, ylabel="share of test clips")
    right.set_xticks(places, settings)
    right.grid(axis="y", color=FAINT, lw=0.7)
    right.tick_params(colors=INK)
    finish(right, "singer named, mean and 95 % interval")
    return figure


def scrubber_alt(
    group: str,
    settings: Sequence[str],
    reached: Mapping[str, tuple[float, float]],
    chosen: int,
    answers: Sequence[tuple[str, float]],
) -> str:
    """Two sentences: what the chosen setting answers, and what models like it reach."""
    name = settings[chosen]
    said = ", ".join(f"{label} {p:.0%}" for label, p in answers)
    mean, half = reached[name]
    return (
        f"{group} {name}: {said}. On test clips models like this one name the singer in "
        f"{mean:.0%} (95 % interval ± {100 * half:.0f})."
    )
