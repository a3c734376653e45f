"""Plot importance maps of several methods, and how faithful these methods are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mbt_lite.config import ClipConfig
from mbt_lite.features import View
from mbt_lite.plot.maps import (
    attention_on_frames_alt,
    attention_on_spectrogram,
    attention_on_spectrogram_alt,
    common_scale,
    gray,
    overlay,
    span,
    spread,
    under_maps,
    upsample,
)
from mbt_lite.plot.style import (
    COLORS,
    CYCLE,
    DASHED,
    INK,
    LEGEND,
    LINES,
    finish,
    grid_lines,
    hide_frame,
    new_figure,
)

MOST = 5  # frames in a row
SIDE = 1.25  # inches, of a frame
BOX = "#56d4ff"  # light blue: in no color map, and visible on dark and on light
AIMS = {  # of columns in which more is not better
    "deletion": "less is better",
    "random weights": "near 0 is better",
}
ACROSS = 3  # panels in a row, at most
GRAY = "#8b8f99"
RANDOM = "random"  # the method that deletion is compared with


# ---- maps ----


def saliencies(
    view: View,
    rows: Sequence,
    clip_config: ClipConfig,
    captions: Mapping[str, str] | None = None,
    box: Real[Any, "T 4"] | None = None,
) -> Figure:
    """A figure with a row for each `explain.Saliency` of one clip: frames, then the audio.

    Every map has its own scale, from zero to its highest value; negative values, which speak
    against the label, are not drawn. `captions` {method: note} are added to the titles of the rows;
    `box` (left, top, right, bottom in parts of the side, per frame) is the true place of the
    answer. Frames that share a map are shown as their mean.
    """
    streams = [s for s in ("rgb", "spec") if getattr(rows[0], s) is not None]
    shown = spread(np.abs(rows[0].rgb), MOST) if "rgb" in streams else []
    widths = [SIDE] * len(shown) + [3.0] * ("spec" in streams)
    figure = new_figure(sum(widths) + 0.6, (SIDE + 0.75) * len(rows) + 0.1)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        axes = part.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
        for ax, index in zip(axes, shown, strict=False):
            _frame(ax, view, row.rgb, index, box)
        if "spec" in streams:
            front, look = clip_config.front_end, {"colorbar": False, "start": view.start}
            attention_on_spectrogram(view.spec, np.maximum(row.spec, 0), front, axes[-1], **look)
        note = (captions or {}).get(row.method)
        title = f"{row.title}: {note}" if note else row.title
        part.suptitle(title, x=0.01, ha="left", color=INK, size=9.5)
    return figure


def saliencies_alt(view: View, rows: Sequence, clip_config: ClipConfig) -> str:
    """A sentence for each map: when and where it is highest."""
    front, seconds = clip_config.front_end, len(view.spec) * clip_config.front_end.hop
    parts = []
    for row in rows:
        words = []
        if row.rgb is not None:
            words.append(attention_on_frames_alt(row.rgb, view.times))
        if row.spec is not None:
            words.append(attention_on_spectrogram_alt(row.spec, seconds, front, view.start))
        parts.append(f"{row.method}: {'; '.join(words).replace('attention', 'importance')}")
    return ". ".join(parts)


def _frame(ax: Axes, view: View, maps: np.ndarray, index: int, box) -> None:
    group, maps = under_maps(len(view.rgb), len(maps))[index], np.maximum(maps, 0)
    image = view.rgb[group].mean(0)
    ax.imshow(gray(image), interpolation="nearest")
    overlay(ax, upsample(maps[index], image.shape[:2]), common_scale(maps))
    if box is not None:
        sides = np.asarray(box[group]) * len(image) - 0.5
        (left, top), (right, bottom) = sides[:, :2].min(0), sides[:, 2:].max(0)
        edge = {"fill": False, "edgecolor": BOX, "lw": 1.6}
        ax.add_patch(Rectangle((left, top), right - left, bottom - top, **edge))
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(span(view.times[group]), color=INK, size=8.5)
    hide_frame(ax)


# ---- scores of methods ----


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
    title = f"{scores.clips} clips, 95 % intervals; dashed: chance; filled: better than chance"
    if np.isnan(scores.chance).any():
        title += "; gray: no chance level"
    figure.suptitle(title, x=0.01, ha="left", color=INK, size=10)
    return figure


def _points(ax: Axes, scores, column: int) -> None:
    name, chance = scores.columns[column], scores.chance[column]
    color = GRAY if np.isnan(chance) else COLORS["both"]
    better = _better(scores, column) | np.isnan(chance)
    for row, mean in enumerate(scores.mean[:, column]):
        half = scores.half[row, column]
        look = {"color": color, "mfc": color if better[row] else "white", "ms": 5.5}
        whisker = {"xerr": None if np.isnan(half) else half, "capsize": 2.5, "lw": 1.4}
        ax.errorbar(mean, row, fmt="o", **whisker, **look)
    if not np.isnan(chance):
        ax.axvline(chance, color=INK, lw=0.9, ls=DASHED, zorder=0)
    grid_lines(ax, "y")
    ax.margins(x=0.12)
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(AIMS.get(name, "more is better"))
    finish(ax, name).tick_params(axis="y", length=0)


def faithfulness_alt(scores) -> str:
    """Sentences that name, for each column, the best method and those no better than chance."""
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
    """Which methods have all of their interval on the good side of chance; [M] of bool.

    Methods without an interval, and columns without a chance level, count as not better.
    """
    side = -1 if scores.columns[column] == "deletion" else 1
    ahead = side * (scores.mean[:, column] - scores.chance[column])
    return ahead > scores.half[:, column]


def deletion(curves) -> Figure:
    """A figure of an `explain.Curves`: a label's probability while the most important patches are
    removed (left) and inserted (right), a line per method; patches at random in gray.
    """
    figure = new_figure(8.4, 4.6)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, (aim, change), lines) in zip(axes, _panels(curves), strict=True):
        for place, (method, line) in enumerate(sorted(lines.items(), key=_is_random)):
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
    for _, (aim, change), lines in _panels(curves):
        side = 1 if aim == "lower" else -1
        means = {method: np.mean(line) for method, line in lines.items()}
        ranked = sorted(means, key=lambda method: side * means[method])
        listed = ", ".join(f"{method} {means[method]:.2f}" for method in ranked)
        parts.append(f"While patches are {change}, {aim} is better: {listed}.")
    return "Mean probability of the label over the share of patches. " + " ".join(parts)


def _panels(curves):
    """The name of each panel, the better direction, what happens to the patches, the lines."""
    yield "deletion", ("lower", "removed"), curves.deletion
    yield "insertion", ("higher", "inserted"), curves.insertion


def _is_random(pair: tuple) -> bool:
    return pair[0] == RANDOM
