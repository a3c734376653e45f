"""Plot a training run: losses, scores and gradient norms, and predictions on single clips."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mbt_lite.config import MODALITIES
from mbt_lite.plot.scores import curves, curves_alt
from mbt_lite.plot.style import COLOURS, FAINT, INK, finish, hide_frame, new_figure

FEW = 5  # lines in one panel
LEGEND = {"frameon": False, "labelcolor": INK, "fontsize": 9.5, "borderaxespad": 0}
TICK = " ✓"
BEST = ("mAP", "top-1", "action top-1", "verb top-1", "noun top-1", "matched accuracy")


def training(records: Iterable[Mapping[str, Any]]) -> Figure:
    """Figure of a run's log: losses, validation scores, and how strongly each stream is pulled.

    A panel whose rows are not there yet, such as the scores before the first validation, is left
    out. Below each panel stands what its lines are, so that nothing covers a line.
    """
    records = list(records)
    panels = _panels(records)
    lines = max(map(len, panels.values()))
    figure = new_figure(4.4 * len(panels), 3.4 + 0.22 * lines)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, keys) in zip(axes, panels.items(), strict=True):
        streams = {key: COLOURS[s] for key in keys for s in MODALITIES if key.endswith(f"_{s}")}
        rest = dict.fromkeys(("loss", "gradient_norm"), COLOURS["both"])
        curves(records, keys, ax, title, colours=streams | rest)
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.17), **LEGEND)
    if "validation scores" in panels:
        axes[list(panels).index("validation scores")].set(ylim=(0, 1.02))
    if "gradient norm" in panels:
        axes[list(panels).index("gradient norm")].set(yscale="log")
    return figure


def training_alt(records: Iterable[Mapping[str, Any]]) -> str:
    """A sentence that says where each line of `training` starts and ends."""
    records = list(records)
    return "; ".join(curves_alt(records, keys) for keys in _panels(records).values())


def _panels(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """{title: keys} of what there is to draw."""
    known = list(dict.fromkeys(name for row in records for name in row))
    scores = [name for name in known if name in BEST or name.startswith("mAP ")]
    scores = [name for name in scores if name.rpartition(" ")[2] not in MODALITIES]
    panels = {
        "training loss": [name for name in known if name.startswith("loss")],
        "validation scores": scores[-FEW:] if len(scores) > FEW else scores,
        "gradient norm": [name for name in known if name.startswith("gradient_norm")],
    }
    return {title: keys for title, keys in panels.items() if keys}


def samples(clips: Sequence) -> Figure:
    """Figure of validation clips: a frame of each, what is true, and what the model says.

    What it says rightly has a tick, as not all that is true fits in. Each has `frame` (uint8
    [H, W, 3] or None), `truth` (labels) and `said` (labels with their probabilities, the likeliest
    first).
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
        ax.set_title(_lines(clip), color=INK, size=8, loc="left")
    return figure


def samples_alt(clips: Sequence) -> str:
    """A sentence for each clip: what is true, and what the model says."""
    return " ".join(
        f"True: {', '.join(clip.truth) or 'nothing'}; said: {_said(clip)}." for clip in clips
    )


def _lines(clip) -> str:
    truth = "\n".join(clip.truth[:3]) or "no label"
    more = f", {len(clip.truth) - 3} more" if len(clip.truth) > 3 else ""
    said = (f"{label} {p:.0%}{TICK * (label in clip.truth)}" for label, p in clip.said)
    return f"{truth}{more}\n→ " + "\n→ ".join(said)


def _said(clip) -> str:
    return ", ".join(f"{label} {chance:.0%}" for label, chance in clip.said)
