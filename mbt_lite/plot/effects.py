"""Plot how interventions on the bottleneck and changes of the clip change the answer."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from mbt_lite.plot.style import (
    COLORS,
    CYCLE,
    DASHED,
    INK,
    add_colorbar,
    finish,
    grid_lines,
    hide_frame,
    name_rows,
    new_figure,
    percent,
    shortened,
    signed,
)

CHANGE_MAP = "PRGn"  # purple falls, green rises; neither is the color of a stream
FALLS, RISES = (colormaps[CHANGE_MAP](place) for place in (0.12, 0.88))
LEAST = 0.01  # logit: color scales of changes reach at least so far
PROBABILITY_MAP = "cividis"
LETTERS = 24  # of a clip's name


def effects(effects, label: str) -> Axes:
    """Axes with a bar for the change of the label's logit by each operation of an
    `explain.Effects`.
    """
    names, changes = _operations(effects, label)
    ax = new_figure(6.4, 0.3 * len(names) + 0.9).subplots()
    heights, reach = np.arange(len(names)), change_scale(changes).vmax
    ax.barh(heights, changes, 0.62, color=[RISES if c > 0 else FALLS for c in changes])
    for height, change in zip(heights, changes, strict=True):
        side, end = (-1, "right") if signed(change)[0] == "−" else (1, "left")
        place = {"ha": end, "va": "center", "color": INK, "size": 9}
        ax.text(change + 0.03 * side * reach, height, signed(change), **place)
    ax.axvline(0, color=INK, lw=0.8)
    low, high = min(0, *changes), max(0, *changes)
    ax.set(xlim=(low - 0.32 * reach, high + 0.32 * reach))
    ax.set_xlabel(f"change of the logit of “{label}”")
    grid_lines(ax, "x")
    return name_rows(ax, names)


def effects_alt(effects, label: str) -> str:
    """A sentence with the unchanged logit and its change by each operation."""
    logit = effects.logits[label_index(effects.labels, label)]
    pairs = zip(*_operations(effects, label), strict=True)
    parts = [f"{name} {signed(change)}" for name, change in pairs]
    return f"logit of {label}: {signed(logit)} as it is; changed by: " + "; ".join(parts)


def _operations(effects, label: str) -> tuple[list[str], np.ndarray]:
    """Names of the operations, and the change of the label's logit by each."""
    changes = effects.change[:, label_index(effects.labels, label)]
    return [operation.words for operation in effects.operations], changes


def change_scale(changes) -> Normalize:
    """A color scale for changes with 0 in its middle."""
    reach = max(np.nanmax(np.abs(changes)), LEAST)
    return Normalize(-reach, reach)


def label_index(labels: Sequence[str], label: str) -> int:
    """The index of a label; `ValueError` with all labels if there is no such label."""
    if label not in labels:
        raise ValueError(f"{label!r} is none of the labels, which are {', '.join(labels)}.")
    return list(labels).index(label)


# ---- changed clips ----


def swap(swap, label: str) -> Axes:
    """Axes with the label's probability for each video (down) with each audio (across) of an
    `explain.Swap`, and below it how much of the logit follows the video and how much the audio.
    """
    index = label_index(swap.labels, label)
    logits, probabilities = swap.logits[:, :, index], swap.probabilities[:, :, index]
    ax = new_figure(5.4, 4.0).subplots()
    image = ax.imshow(probabilities, cmap=PROBABILITY_MAP, vmin=0, vmax=1, aspect="auto")
    for (y, x), probability in np.ndenumerate(probabilities):
        place = {"ha": "center", "va": "center", "color": "white" if probability < 0.5 else INK}
        ax.text(x, y - 0.06, percent(probability), size=15, **place)
        ax.text(x, y + 0.16, f"logit {signed(logits[y, x])}", size=9, **place)
    names = [shortened(name, LETTERS) for name in swap.names]
    ax.set_xticks((0, 1), [f"audio of\n{name}" for name in names], parse_math=False)
    ax.set_yticks((0, 1), [f"video of\n{name}" for name in names], parse_math=False)
    ax.set_xlabel("\n".join(_parts(swap, label)))
    add_colorbar(ax, image, f"probability of “{label}”")
    hide_frame(ax)
    finish(ax, None).tick_params(length=0)
    return ax


def swap_alt(swap, label: str) -> str:
    """A sentence with the four probabilities, and the effects of video and audio."""
    probabilities = swap.probabilities[:, :, label_index(swap.labels, label)]
    cells = [
        f"video of {video} with audio of {audio} {percent(probabilities[y, x])}"
        for y, video in enumerate(swap.names)
        for x, audio in enumerate(swap.names)
    ]
    return f"probability of {label}: {', '.join(cells)}; " + " ".join(_parts(swap, label))


def _parts(swap, label: str) -> list[str]:
    """Two lines: effects of video, audio and their interaction; the audio's share if it exists."""
    names = ("video", "audio", "interaction")
    sizes = ", ".join(f"{name} {signed(getattr(swap, name)(label))}" for name in names)
    share = swap.audio_share(label)
    sizes += "" if share is None else f"; {percent(share)} audio"
    return ["logit with the first clip instead of the second:", sizes]


def shift(shift, label: str) -> Axes:
    """Axes with the label's probability over the delay in seconds of the audio of an
    `explain.Shift`. A ring marks the audio in place.
    """
    ax = new_figure(6.4, 3.2).subplots()
    ax.axvline(0, color=INK, lw=0.8, ls=DASHED)
    y, home = _by_delay(shift, label)
    ax.plot(shift.seconds, y, "-o", color=CYCLE[0], lw=1.6, ms=4)
    ax.plot(shift.seconds[home], y[home], "o", mfc="none", mec=INK, ms=10)
    ax.set(ylim=(-0.04, 1.04), ylabel=f"probability of “{label}”")
    ax.set_xlabel("audio later than the video by (s); 0: in place")
    grid_lines(ax, "y")
    return finish(ax, None)


def shift_alt(shift, label: str) -> str:
    """A sentence with the label's probability in place, and the highest and the lowest."""
    y, home = _by_delay(shift, label)
    places = (home, y.argmax(), y.argmin())
    here, most, least = (f"{percent(y[k])} at {_delay(shift.seconds[k])}" for k in places)
    span = " to ".join(_delay(end) for end in (np.min(shift.seconds), np.max(shift.seconds)))
    return f"probability with the audio {span} late: {label} {here}, highest {most}, lowest {least}"


def _by_delay(shift, label: str) -> tuple[np.ndarray, int]:
    """The label's probability for each delay, and the index of the smallest delay."""
    probabilities = shift.probabilities[:, label_index(shift.labels, label)]
    return probabilities, int(np.abs(shift.seconds).argmin())


def _delay(seconds: float | np.floating) -> str:
    return f"{seconds:g} s".replace("-", "−")


def perturbations(result, label: str) -> Axes:
    """Bars of the probability of a label for the clip of an `explain.Perturbations`
    unchanged and under each perturbation; a dashed line marks the unchanged one.
    """
    names, values = _conditions(result, label)
    ax = new_figure(5.4, 0.34 * len(names) + 0.9).subplots()
    heights = np.arange(len(names))
    bars = ax.barh(heights, values, 0.62, color=COLORS["both"], alpha=0.5)
    bars[0].set_alpha(1)
    look = {"color": INK, "size": 9.5, "va": "center"}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for height, value in zip(heights, values, strict=True):
        ax.text(value + 0.015, height, percent(value), bbox=box, **look)
    ax.axvline(values[0], color=INK, lw=0.8, ls=DASHED, zorder=0)
    ax.set(xlim=(0, 1.12), xticks=np.linspace(0, 1, 6), xlabel=f"probability of “{label}”")
    return name_rows(ax, names)


def perturbations_alt(result, label: str) -> str:
    """A sentence with the label's probability in each condition."""
    pairs = zip(*_conditions(result, label), strict=True)
    return f"probability of {label}: " + ", ".join(f"{name} {percent(p)}" for name, p in pairs)


def _conditions(result, label: str) -> tuple[list[str], np.ndarray]:
    values = result.probabilities[:, label_index(result.labels, label)]
    return ["as it is", *result.names], values
