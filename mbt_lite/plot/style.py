"""Share colors, fonts, axes and number formats among all plots; save figures as PNG."""

import base64
import io
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mbt_lite.paths import replacing

INK = "#33363d"
FAINT = "#d9dbe0"
COLORS = {  # audio and video in Okabe and Ito's palette, which suits every color vision
    "both": "#4b5a8a",
    "spec": "#d55e00",
    "audio only": "#d55e00",
    "rgb": "#0072b2",
    "video only": "#0072b2",
}
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
LINES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ((0, (6, 1, 1, 1, 1, 1)), "v"))
DASHED = (0, (4, 3))
LEGEND = {"frameon": False, "labelcolor": INK, "fontsize": 9.5}
# Fonts with Chinese, Japanese and Korean letters; the first of each row that is installed is used.
WIDE_FONTS = (
    "Noto Sans CJK SC, Noto Sans CJK JP, Noto Sans CJK TC, Noto Sans CJK KR, Source Han Sans SC, "
    "Source Han Sans, Source Han Sans CN, Arial Unicode MS",
    "Microsoft YaHei, PingFang SC, PingFang HK, Hiragino Sans GB, Heiti TC, STHeiti, SimHei, "
    "WenQuanYi Zen Hei, WenQuanYi Micro Hei, Noto Sans SC",
    "Yu Gothic, Hiragino Sans, Meiryo, MS Gothic, IPAexGothic, IPAGothic, Noto Sans JP",
    "Malgun Gothic, Apple SD Gothic Neo, AppleGothic, NanumGothic, Noto Sans KR",
)


def installed_wide_fonts() -> list[str]:
    """The first font of each row of `WIDE_FONTS` that this machine has."""
    installed = {font.name for font in fontManager.ttflist}
    rows = ([name for name in row.split(", ") if name in installed] for row in WIDE_FONTS)
    return [row[0] for row in rows if row]


# Where a font lacks a letter, matplotlib tries the next one.
matplotlib.rcParams["font.family"] = [*matplotlib.rcParams["font.family"], *installed_wide_fonts()]


def render(figure: Figure, file, kind: str = "png", **options) -> None:
    """Save a figure, with one warning for all letters that no font has."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing from")
        figure.savefig(file, format=kind, **options)
    if any("missing from" in str(warning.message) for warning in caught):
        warnings.warn(
            "no font on this machine has all letters of the names in this figure, which shows "
            "boxes instead; install one, such as Noto Sans CJK, and start again (Debian, Ubuntu, "
            "Colab: apt-get install fonts-noto-cjk).",
            stacklevel=2,
        )


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, outside pyplot, on white, so that dark pages show it well."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white", layout=layout)
    # Notebooks call this method; Gradio checks the class by name, so this is no subclass.
    figure._repr_png_ = partial(to_png, figure)
    return figure


def to_png(figure: Figure) -> bytes:
    png = io.BytesIO()
    render(figure, png)
    return png.getvalue()


def data_uri(content: bytes, media_type: str) -> str:
    """A URI that holds its content; `media_type` such as "image/png"."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def finish(ax: Axes, title: str | None) -> Axes:
    """The axes, with a title on the left and all lines and letters in one color."""
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


def name_rows(ax: Axes, names: Sequence[str]) -> Axes:
    """The axes with a name for each row 0, 1, ..., from top to bottom, and no frame."""
    ax.set(ylim=(len(names) - 0.4, -0.6))
    ax.set_yticks(range(len(names)), names)
    hide_frame(ax)
    finish(ax, None).tick_params(axis="y", length=0)
    return ax


def grid_lines(ax: Axes, axis: str = "both") -> None:
    """Pale grid lines behind the data."""
    ax.grid(axis=axis, color=FAINT, lw=0.7)
    ax.set_axisbelow(True)


def add_colorbar(axes, image, label: str) -> None:
    first = axes[0] if isinstance(axes, list) else axes
    bar = first.figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05, aspect=18)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=8.5, length=2, width=0.7)
    bar.set_label(label, color=INK, size=9.5)


def percent(share: float | np.floating) -> str:
    """A share in words, such as "97 %" or "< 1 %"."""
    return "< 1 %" if 0 < share < 0.005 else f"{share:.0%}".replace("%", " %")


def signed(number: float | np.floating) -> str:
    """A number with its sign and two decimals, such as "+1.20" or "−0.03"."""
    return f"{round(float(number), 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0: no minus before 0


def shortened(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def save(figure: Figure, path: Path) -> Path:
    """Write a figure to a PNG file, completely or not at all; other endings are refused."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out {path}: only .png images can be written.")
    with replacing(path) as temporary:
        render(figure, temporary)
    return path
