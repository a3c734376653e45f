"""Plot trainings: the log of one run, single predictions, many models compared."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbt_lite.plot.scores import curves, curves_alt
from mbt_lite.plot.style import (
    COLORS,
    FAINT,
    INK,
    LEGEND,
    finish,
    grid_lines,
    hide_frame,
    new_figure,
)

_FEW = 5  # lines in one panel
_SINGER = "singer named"
_BEST = ("mAP", "top-1", "action top-1", "verb top-1", "noun top-1", "matched accuracy")


# ---- one run ----


def training(records: Iterable[Mapping[str, Any]]) -> Figure:
    """Figure of a run's log: training losses, validation scores, and gradient norms per stream.

    A panel without rows, such as the scores before the first validation, is left out. The legends
    are below the panels, so that they cover no line.
    """
    records = list(records)
    panels = _panels(records)
    lines = max(map(len, panels.values()))
    figure = new_figure(4.4 * len(panels), 3.4 + 0.22 * lines)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, keys) in zip(axes, panels.items(), strict=True):
        colors = dict.fromkeys(("loss", "gradient_norm"), COLORS["both"])
        colors |= {k: COLORS[s] for k in keys for s in ("rgb", "spec") if k.endswith(f"_{s}")}
        curves(records, keys, ax, title, colors)
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.17), borderaxespad=0, **LEGEND)
        if title == "validation scores":
            ax.set(ylim=(0, 1.02))
        if title == "gradient norm":
            ax.set(yscale="log")
    return figure


def training_alt(records: Iterable[Mapping[str, Any]]) -> str:
    """A sentence that says where each line of `training` starts and ends."""
    records = list(records)
    return "; ".join(curves_alt(records, keys) for keys in _panels(records).values())


def _panels(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """{title: keys} of the panels that have rows."""
    names = list(dict.fromkeys(name for row in records for name in row))
    scores = [name for name in names if name in _BEST or name.startswith("mAP ")]
    scores = [name for name in scores if name.rpartition(" ")[2] not in ("rgb", "spec")]
    panels = {
        "training loss": [name for name in names if name.startswith("loss")],
        "validation scores": scores[-_FEW:],
        "gradient norm": [name for name in names if name.startswith("gradient_norm")],
    }
    return {title: keys for title, keys in panels.items() if keys}


class Sample(NamedTuple):
    """A clip and a model's answer."""

    name: str
    frame: np.ndarray | None  # uint8 [H, W, 3]; None: there is no video
    truth: tuple[str, ...]
    said: list[tuple[str, float]]  # the most probable labels with their probabilities


def samples(clips: Sequence[Sample]) -> Figure:
    """Figure of clips: a frame of each, its true labels, and the model's answer.

    Correct labels of the answer have a tick.
    """
    columns = min(4, len(clips))
    rows = -(-len(clips) // columns)
    figure = new_figure(2.6 * columns, 2.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        hide_frame(ax)
    for ax, clip in zip(axes, clips, strict=False):
        if clip.frame is not None:
            ax.imshow(clip.frame)
        else:
            ax.text(0.5, 0.5, "audio only", color=INK, ha="center", transform=ax.transAxes)
            ax.set_facecolor(FAINT)
        finish(ax, None)
        ax.set_title(_caption(clip), color=INK, size=8, loc="left")
    return figure


def samples_alt(clips: Sequence[Sample]) -> str:
    """A sentence for each clip: its true labels, and the model's answer."""
    return " ".join(
        f"True: {', '.join(clip.truth) or 'nothing'}; said: {_answer(clip.said)}." for clip in clips
    )


def _caption(clip: Sample) -> str:
    truth = "\n".join(clip.truth[:3]) or "no label"
    more = f", {len(clip.truth) - 3} more" if len(clip.truth) > 3 else ""
    answer = [f"→ {label} {p:.0%}{' ✓' * (label in clip.truth)}" for label, p in clip.said]
    return "\n".join([truth + more, *answer])


def _answer(pairs: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{label} {probability:.0%}" for label, probability in pairs)


# ---- many models ----


def sweep(outcomes: Sequence, score: str) -> Figure:
    """Figure with a panel for each group: a dot for the mean over seeds, a bar for its 95 %
    interval, a small ring for each seed.

    An outcome has `group`, `variant`, `mean`, `half` (of the interval, nan for one seed) and
    `values` of the seeds.
    """
    groups = _groups(outcomes)
    widths = [len(rows) + 1 for rows in groups.values()]
    figure = new_figure(0.62 * sum(widths) + 1, 3.9)
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True, width_ratios=widths)[0]
    axes[0].set(ylim=(0, 1.04), ylabel=score)
    for ax, (group, rows) in zip(axes, groups.items(), strict=True):
        places = np.arange(len(rows))
        for place, row in zip(places, rows, strict=True):
            seeds = np.full(len(row.values), place + 0.22)
            ax.plot(seeds, row.values, "o", mfc="none", mec=INK, mew=0.7, ms=3.5)
        means = [(row.mean, np.nan_to_num(row.half)) for row in rows]
        _means(ax, means, group, "o")
        ax.set_xticks(places, [row.variant for row in rows], rotation=40, ha="right")
        ax.set(xlim=(-0.6, len(rows) - 0.2))
    return figure


def _means(ax: Axes, means: Sequence[tuple[float, float]], title: str, form: str) -> None:
    """A dot for each mean, with its interval (half of it is given) within 0..1."""
    values, halves = np.array(means).T
    interval = np.minimum(halves, values), np.minimum(halves, 1 - values)
    look = {"color": COLORS["both"], "lw": 1.4, "capsize": 3, "ms": 5}
    ax.errorbar(range(len(values)), values, interval, fmt=form, **look)
    grid_lines(ax, "y")
    finish(ax, title)


def sweep_alt(outcomes: Sequence, score: str) -> str:
    """A sentence with the mean score of each variant in each group."""
    parts = []
    for group, rows in _groups(outcomes).items():
        means = ", ".join(f"{row.variant} {row.mean:.2f}" for row in rows)
        parts.append(f"{group}: {means}")
    return f"{score}, mean over the seeds. " + "; ".join(parts)


def _groups(outcomes: Sequence) -> dict[str, list]:
    groups: dict[str, list] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.group, []).append(outcome)
    return groups
