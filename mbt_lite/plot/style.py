"""What all pictures share: paper, colours that any colour vision tells apart, quiet axes."""

import io
import os
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK = "#33363d"
FAINT = "#d9dbe0"
COLOURS = {  # sound and picture in Okabe and Ito's palette, told apart with any colour vision
    "both": "#4b5a8a",
    "spec": "#d55e00",
    "sound alone": "#d55e00",
    "rgb": "#0072b2",
    "picture alone": "#0072b2",
}
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches outside pyplot, on white paper, so that a dark page frames it."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white", layout=layout)
    # A notebook asks for this method; Gradio knows the class by its name, so it stays plain.
    figure._repr_png_ = partial(to_png, figure)
    return figure


def to_png(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def finish(ax: Axes, title: str | None) -> Axes:
    """The axes, with a title on the left and its lines and letters in one quiet colour."""
    if title:
        ax.set_title(title, color=INK, size=11, loc="left")
    ax.tick_params(colors=INK, labelsize=9, length=3, width=0.7)
    ax.xaxis.label.set(color=INK, size=9.5)
    ax.yaxis.label.set(color=INK, size=9.5)
    for side, spine in ax.spines.items():
        spine.set(color=INK, linewidth=0.7)
        if side in ("top", "right"):
            spine.set_visible(False)
    return ax


def hide_frame(ax: Axes) -> None:
    for spine in ax.spines.values():
        spine.set_visible(False)


def add_colorbar(axes, image, label: str) -> None:
    first = axes[0] if isinstance(axes, list) else axes
    bar = first.figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05, aspect=18)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=8.5, length=2, width=0.7)
    bar.set_label(label, color=INK, size=9.5)


def save(figure: Figure, path: Path) -> Path:
    """The path of a new PNG, whole or not there at all; other endings are refused."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out {path}: only .png pictures can be written.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
