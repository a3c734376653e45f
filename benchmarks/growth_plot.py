"""Plot the cost of growing models: measured seconds above counted operations."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mbt_lite.plot.style import CYCLE, FAINT, INK, finish, new_figure

ROWS = {"seconds": "measured, s", "gflop": "counted, GFLOP"}


def growth(points: Sequence[dict]) -> Figure:
    """Figure with a column for each axis: measured seconds above counted operations.

    A point has `axis`, `way` (to fuse), `at`, `seconds` and `gflop`.
    """
    axes = list(dict.fromkeys(point["axis"] for point in points))
    ways = list(dict.fromkeys(point["way"] for point in points))
    figure = new_figure(3.5 * len(axes), 5.2)
    panels = figure.subplots(len(ROWS), len(axes), sharex="col", squeeze=False)
    for row, (value, label) in zip(panels, ROWS.items(), strict=True):
        for ax, axis in zip(row, axes, strict=True):
            for way, color in zip(ways, CYCLE, strict=False):
                across, up = _line(points, axis, way, value)
                ax.plot(across, up, "o-", color=color, lw=1.8, ms=4, label=way)
            if axis == "bottleneck tokens":
                ax.set_xscale("log")
            ax.set_xticks(sorted({point["at"] for point in points if point["axis"] == axis}))
            ax.xaxis.set_major_formatter("{x:,.0f}")
            ax.minorticks_off()
            ax.set_ylim(bottom=0)
            ax.grid(axis="y", color=FAINT, lw=0.7)
            ax.set_axisbelow(True)
        row[0].set_ylabel(label)
    for ax, axis in zip(panels[-1], axes, strict=True):
        ax.set_xlabel(axis)
    for ax in panels.flat:
        finish(ax, None)
    panels[0, 0].legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def _line(points: Sequence[dict], axis: str, way: str, value: str) -> tuple[list, list]:
    line = sorted((p["at"], p[value]) for p in points if p["axis"] == axis and p["way"] == way)
    return [at for at, _ in line], [up for _, up in line]
