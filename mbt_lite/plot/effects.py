"""Plot how interventions change the logit of a label."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from mbt_lite.config import MODALITIES
from mbt_lite.plot.style import FAINT, INK, add_colorbar, finish, hide_frame, new_figure

CHANGE_MAP = "PRGn"  # purple falls, green rises: no colour of a stream, told apart by any eye
FALLS, RISES = (colormaps[CHANGE_MAP](place) for place in (0.12, 0.88))
LEAST = 0.01  # of a logit; scales of changes reach at least so far


def effects(
    effects, label: str, top: int | None = None, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Axes with a bar for the change of the label's logit by each operation of an
    `explain.Effects`: all of them as they were given, or the `top` largest, the largest on top.
    """
    rows = _rows(effects, label, top)
    ax = ax or new_figure(6.4, 0.3 * len(rows) + 0.9).subplots()
    heights, changes = np.arange(len(rows)), [change for _, change in rows]
    ax.barh(heights, changes, 0.62, color=[RISES if c > 0 else FALLS for c in changes])
    reach = change_scale(changes).vmax
    for height, change in zip(heights, changes, strict=True):
        side, end = (-1, "right") if signed(change)[0] == "−" else (1, "left")
        place = {"ha": end, "va": "center", "color": INK, "size": 9}
        ax.text(change + 0.03 * side * reach, height, signed(change), **place)
    ax.axvline(0, color=INK, lw=0.8)
    low, high = min(0, *changes), max(0, *changes)
    ax.set(xlim=(low - 0.32 * reach, high + 0.32 * reach), ylim=(len(rows) - 0.4, -0.6))
    ax.set_yticks(heights, [words for words, _ in rows])
    ax.set_xlabel(f"change of the logit of “{label}”")
    ax.grid(axis="x", color=FAINT, lw=0.7)
    ax.set_axisbelow(True)
    hide_frame(ax)
    finish(ax, title).tick_params(axis="y", length=0)
    return ax


def effects_alt(effects, label: str, top: int | None = None) -> str:
    """A sentence with the logit as it is and what each operation does to it."""
    logit = effects.logits[place_of(effects.labels, label)]
    parts = [f"{words} {signed(change)}" for words, change in _rows(effects, label, top)]
    return f"logit of {label}: {signed(logit)} as it is; changed by: " + "; ".join(parts)


def _rows(effects, label: str, top: int | None) -> list[tuple[str, float]]:
    changes = effects.change[:, place_of(effects.labels, label)]
    order = range(len(changes)) if top is None else np.argsort(-np.abs(changes), kind="stable")
    return [(effects.operations[k].words, float(changes[k])) for k in order][:top]


def bottleneck_tokens(
    effects,
    label: str,
    kind: str = "zero",
    reader: str | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Axes with a table, layers down and bottleneck tokens across, of the change of the label's logit by the
    operations of one kind (and, of cuts, one reader) in an `explain.Effects`.
    """
    layers, places, changes = _table(effects, label, kind, reader)
    ax = ax or new_figure(0.72 * len(places) + 2.6, max(0.48 * len(layers) + 1.2, 2.3)).subplots()
    scale = change_scale(changes)
    image = ax.imshow(changes, cmap=CHANGE_MAP, norm=scale, aspect="auto")
    for (y, x), change in np.ndenumerate(changes):
        words = "not done" if np.isnan(change) else signed(change)
        ink = "white" if abs(change) > 0.55 * scale.vmax else INK
        ax.text(x, y, words, color=ink, size=9, ha="center", va="center")
    ax.set_xticks(range(len(places)), [_token(token) for token in places])
    ax.set_yticks(range(len(layers)), [_layer(layer) for layer in layers])
    ax.set_xlabel(f"operation: {kind}" + (f", for the {MODALITIES[reader]}" if reader else ""))
    add_colorbar(ax, image, f"change of the logit\nof “{label}”")
    hide_frame(ax)
    finish(ax, title).tick_params(length=0)
    return ax


def bottleneck_tokens_alt(
    effects, label: str, kind: str = "zero", reader: str | None = None
) -> str:
    """A sentence that names the bottleneck token that matters most to the label, and the next two."""
    done = sorted(_done(effects, label, kind, reader), key=lambda pair: -abs(pair[1]))
    most, *others = (f"{operation.words} ({signed(change)})" for operation, change in done[:3])
    words = f"logit of {label}: most changed by {most}"
    return f"{words}; then by {', '.join(others)}" if others else words


def _done(effects, label: str, kind: str, reader: str | None) -> list:
    """The operations of one kind, each with its change of the label's logit."""
    changes = effects.change[:, place_of(effects.labels, label)]
    pairs = zip(effects.operations, changes, strict=True)
    wanted = (kind, reader)
    done = [(one, float(change)) for one, change in pairs if (one.kind, one.reader) == wanted]
    if not done:
        known = sorted({(one.kind, one.reader or "") for one in effects.operations})
        raise ValueError(f"no operation is {kind!r} with reader={reader!r}; there are {known}.")
    return done


def _table(effects, label: str, kind: str, reader: str | None):
    """Layers, bottleneck tokens, and the changes [layers, bottleneck tokens] with nan where nothing was done."""
    found = {(one.layer, one.token): x for one, x in _done(effects, label, kind, reader)}
    layers, places = (_in_order({where[axis] for where in found}) for axis in (0, 1))
    changes = [[found.get((layer, token), np.nan) for token in places] for layer in layers]
    return layers, places, np.array(changes)


def _in_order(numbers: set) -> list:
    """Numbers rising, then None, which stands for all of them."""
    return sorted(numbers, key=lambda number: (number is None, number or 0))


def _token(number: int | None) -> str:
    return "all bottleneck tokens" if number is None else f"bottleneck token {number}"


def _layer(number: int | None) -> str:
    return "after every layer" if number is None else f"after layer {number}"


def change_scale(changes) -> Normalize:
    """A colour scale for changes with 0 in its middle."""
    reach = max(np.nanmax(np.abs(changes)), LEAST)
    return Normalize(-reach, reach)


def place_of(labels: Sequence[str], label: str) -> int:
    """The index of a label; one that is not there is answered with those that are."""
    if label not in labels:
        raise ValueError(f"{label!r} is none of the labels, which are {', '.join(labels)}.")
    return list(labels).index(label)


def signed(number: float | np.floating) -> str:
    """A number with its sign and two decimals, such as "+1.20" or "−0.03"."""
    return f"{round(float(number), 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0: no minus before 0
