"""Plot a `doctor.Report` on one sheet: frames, the window in the file, and the spectrogram."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle

from mbt_lite.plot.audio import AUDIO_MAP, draw_spectrogram
from mbt_lite.plot.style import COLORS, FAINT, INK, finish, hide_frame, new_figure

WIDTH = 8.4  # inches
MOST = 6  # frames in a row
LETTERS = 110  # in a line of findings
EDGE = {"fill": False, "edgecolor": INK, "linewidth": 1.6}


def doctor(report) -> Figure:
    """A figure of a file that could be read.

    It shows the findings, sampled frames with the part that the model sees, the streams in time
    with the window that the model takes, and the spectrogram of that window.
    """
    if report.view is None:
        raise ValueError(f"{report.path} could not be read; there is nothing to draw.")
    rows = [(_timeline, 1.3)]  # and their heights in inches
    if len(report.window.frames):
        height, width = report.window.frames.shape[1:3]
        inches = 0.88 * WIDTH / len(_shown_times(report)) * height / width
        rows.insert(0, (_frames, min(inches, 2.4) + 0.6))
    if len(report.window.wave):
        rows.append((_spectrogram, 2.4))
    lines = [f"{report.path.name}: {report.verdict}"]
    for finding in report.findings:
        lines += textwrap.wrap(f"{finding.severity}: {finding.problem}", LETTERS)
    heights = [inches for _, inches in rows]
    figure = new_figure(WIDTH, sum(heights) + 0.2 * len(lines) + 0.2)
    grid = figure.add_gridspec(len(rows), height_ratios=heights)
    for cell, (draw, _) in zip(grid, rows, strict=True):
        draw(figure, cell, report)
    place = {"x": 0.01, "ha": "left", "size": 10, "color": INK}
    figure.suptitle("\n".join(lines), parse_math=False, **place)
    return figure


def _shown_times(report) -> np.ndarray:
    """Times in seconds of the sampled frames that are drawn."""
    times = report.view.times
    return times[np.unique(np.linspace(0, len(times) - 1, MOST).round().astype(int))]


def _frames(figure: Figure, cell: SubplotSpec, report) -> None:
    """Frames side by side, with a box around what the crop leaves of each."""
    ax, window, times = figure.add_subplot(cell), report.window, _shown_times(report)
    height, width = window.frames.shape[1:3]
    lefts = [i * round(1.04 * width) for i in range(len(times))]
    strip = np.full((height, lefts[-1] + width, 3), 255, np.uint8)
    indices = np.searchsorted(window.times, times - window.start + 1e-6, side="right") - 1
    across, down = report.crop[0] * width, report.crop[1] * height
    for left, index in zip(lefts, indices, strict=True):
        strip[:, left : left + width] = window.frames[max(index, 0)]
        corner = left + (width - across) / 2 - 0.5, (height - down) / 2 - 0.5
        ax.add_patch(Rectangle(corner, across, down, **EDGE))
    ax.imshow(strip)
    ax.set_xticks([left + width / 2 - 0.5 for left in lefts], [f"{time:.2f} s" for time in times])
    ax.set(yticks=[], anchor="W")
    hide_frame(ax)
    share = np.prod(report.crop)
    title = "all of it" if share > 0.98 else f"the middle {share:.0%} of it"
    finish(ax, f"video: the model sees {title}").tick_params(length=0)


def _timeline(figure: Figure, cell: SubplotSpec, report) -> None:
    """Bars of video and audio on the clock of the file, and boxes where the model looks."""
    ax, survey = figure.add_subplot(cell), report.survey
    bars = {"video": (survey.video, "rgb"), "audio": (survey.audio, "spec")}
    end = max([bar.end for bar, _ in bars.values() if bar] + [survey.total or 0.0])
    for row, (name, (bar, stream)) in enumerate(bars.items()):
        ax.barh(row, end, 0.6, color="white", edgecolor=FAINT, hatch="///", linewidth=0.8)
        if bar:
            ax.barh(row, bar.end - bar.start, 0.6, bar.start, color=COLORS[stream])
        else:
            look = {"color": INK, "size": 9, "ha": "center", "va": "center"}
            ax.text(end / 2, row, f"no {name}", bbox={"color": "white"}, **look)
    for stream, (start, stop) in report.spans.items():
        corner = (start, (stream == "spec") - 0.44)
        box = Rectangle(corner, max(stop - start, end / 300), 0.88, clip_on=False, zorder=3, **EDGE)
        ax.add_patch(box)
    ax.set(yticks=[0, 1], yticklabels=list(bars), xlim=(0, end), ylim=(1.6, -0.6))
    ax.set_xlabel("time in the file (s)")
    hide_frame(ax)
    finish(ax, "file: the model looks in the boxes").tick_params(axis="y", length=0)


def _spectrogram(figure: Figure, cell: SubplotSpec, report) -> None:
    """The model's spectrogram."""
    ax, view, front = figure.add_subplot(cell), report.view, report.config.front_end
    draw_spectrogram(ax, view.spec, front, AUDIO_MAP, view.start)
    off = report.statistics["mean_off"]
    side = "above" if off > 0 else "below"
    finish(ax, f"spectrogram: {abs(off):.1f} standard deviations {side} what the model knows")
