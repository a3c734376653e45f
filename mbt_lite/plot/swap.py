"""Plot how an answer changes when the audio is swapped, shifted or perturbed."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mbt_lite.plot.effects import place_of, signed
from mbt_lite.plot.style import (
    COLOURS,
    CYCLE,
    FAINT,
    INK,
    add_colorbar,
    finish,
    hide_frame,
    new_figure,
)

PROBABILITY_MAP = "cividis"
NAMED = 24  # letters of a clip's name that are shown
LINES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"))  # told apart without any colour


def swap(swap, label: str, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Axes with the label's probability for each video (down) with each audio (across) of an
    `explain.Swap`, and below it how much of the logit follows the video and how much the audio.
    """
    column = place_of(swap.labels, label)
    logits, chances = swap.logits[:, :, column], swap.probabilities[:, :, column]
    ax = ax or new_figure(5.4, 4.0).subplots()
    image = ax.imshow(chances, cmap=PROBABILITY_MAP, vmin=0, vmax=1, aspect="auto")
    for (y, x), logit in np.ndenumerate(logits):
        ink = "white" if chances[y, x] < 0.5 else INK
        place = {"ha": "center", "va": "center", "color": ink}
        ax.text(x, y - 0.06, percent(chances[y, x]), size=15, **place)
        ax.text(x, y + 0.16, f"logit {signed(logit)}", size=9, **place)
    names = [_short(name) for name in swap.names]
    ax.set_xticks((0, 1), [f"audio of\n{name}" for name in names], parse_math=False)
    ax.set_yticks((0, 1), [f"video of\n{name}" for name in names], parse_math=False)
    ax.set_xlabel("\n".join(_parts(swap, label)))
    add_colorbar(ax, image, f"probability of “{label}”")
    hide_frame(ax)
    finish(ax, title).tick_params(length=0)
    return ax


def swap_alt(swap, label: str) -> str:
    """A sentence with the four probabilities, and what they owe to the video and the audio."""
    chances = swap.probabilities[:, :, place_of(swap.labels, label)]
    cells = [
        f"video of {video} with audio of {audio} {percent(chances[y, x])}"
        for y, video in enumerate(swap.names)
        for x, audio in enumerate(swap.names)
    ]
    return f"probability of {label}: {', '.join(cells)}; " + " ".join(_parts(swap, label))


def _parts(swap, label: str) -> list[str]:
    """Whose effects follow, and they; the share of the audio where there is one to speak of."""
    names = ("video", "audio", "interaction")
    sizes = ", ".join(f"{name} {signed(getattr(swap, name)(label))}" for name in names)
    share = swap.audio_share(label)
    sizes += "" if share is None else f"; {percent(share)} audio"
    return ["logit with the first clip instead of the second:", sizes]


def _short(name: str) -> str:
    return name if len(name) <= NAMED else f"{name[: NAMED - 1]}…"


def shift(
    shift, labels: str | Sequence[str], ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Axes with a line per label: its probability over the seconds by which the audio of an
    `explain.Shift` comes later than it should. A ring marks where it is in place.
    """
    ax = ax or new_figure(6.4, 3.2).subplots()
    ax.axvline(0, color=INK, lw=0.8, ls=(0, (4, 3)))
    home = _home(shift)
    for place, label in enumerate(_listed(labels)):
        up = shift.probabilities[:, place_of(shift.labels, label)]
        colour, (line, mark) = CYCLE[place % len(CYCLE)], LINES[place % len(LINES)]
        ax.plot(shift.seconds, up, line, marker=mark, color=colour, lw=1.6, ms=4, label=label)
        ax.plot(shift.seconds[home], up[home], "o", mfc="none", mec=INK, ms=10)
    ax.set(ylim=(-0.04, 1.04), ylabel="probability")
    ax.set_xlabel("audio later than the video by (s); 0: in place")
    ax.grid(axis="y", color=FAINT, lw=0.7)
    ax.set_axisbelow(True)
    ax.legend(edgecolor="none", labelcolor=INK, fontsize=9.5, loc="best")
    return finish(ax, title)


def shift_alt(shift, labels: str | Sequence[str]) -> str:
    """A sentence that says, per label, how probable it is in place, and where most and least."""
    parts = []
    for label in _listed(labels):
        up = shift.probabilities[:, place_of(shift.labels, label)]
        here, most, least = (
            f"{percent(up[k])} at {_clock(shift.seconds[k])}"
            for k in (_home(shift), up.argmax(), up.argmin())
        )
        parts.append(f"{label} {here}, highest {most}, lowest {least}")
    ends = [_clock(end) for end in (np.min(shift.seconds), np.max(shift.seconds))]
    return f"probability with the audio {' to '.join(ends)} late: " + "; ".join(parts)


def _clock(seconds: float | np.floating) -> str:
    return f"{seconds:g} s".replace("-", "−")


def _home(shift) -> int:
    """Where the audio is in place, or nearest to it."""
    return int(np.abs(shift.seconds).argmin())


def _listed(labels: str | Sequence[str]) -> Sequence[str]:
    return [labels] if isinstance(labels, str) else labels


def perturbations(result, label: str, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Bars of the probability of a label for the clip of an `explain.Perturbations`
    unchanged and under each perturbation; a dashed line marks the unchanged one.
    """
    names, values = _conditions(result, label)
    ax = ax or new_figure(5.4, 0.34 * len(names) + 0.9).subplots()
    heights = np.arange(len(names))
    bars = ax.barh(heights, values, 0.62, color=COLOURS["both"], alpha=0.5)
    bars[0].set_alpha(1)
    look = {"color": INK, "size": 9.5, "va": "center"}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for height, value in zip(heights, values, strict=True):
        ax.text(value + 0.015, height, percent(value), bbox=box, **look)
    ax.axvline(values[0], color=INK, lw=0.8, ls=(0, (4, 3)), zorder=0)
    ax.set(xlim=(0, 1.12), ylim=(len(names) - 0.4, -0.6))
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.set_yticks(heights, names)
    ax.set_xlabel(f"probability of “{label}”")
    hide_frame(ax)
    finish(ax, title).tick_params(axis="y", length=0)
    return ax


def perturbations_alt(result, label: str) -> str:
    """A sentence with the label's probability in each condition."""
    pairs = zip(*_conditions(result, label), strict=True)
    return f"probability of {label}: " + ", ".join(f"{name} {percent(p)}" for name, p in pairs)


def _conditions(result, label: str) -> tuple[list[str], np.ndarray]:
    values = result.probabilities[:, place_of(result.labels, label)]
    return ["as it is", *result.names], values


def percent(share: float | np.floating) -> str:
    """A share in words, such as "97 %" or "< 1 %"."""
    return "< 1 %" if 0 < share < 0.005 else f"{share:.0%}".replace("%", " %")
