"""Plot a `doctor.Report` on one sheet: the file, the frames, the audio."""

import math
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from mbt_lite.plot.audio import AUDIO_MAP, draw_spectrogram
from mbt_lite.plot.style import COLOURS, CYCLE, FAINT, INK, drawable, finish, hide_frame, new_figure

MARKS = {"fault": CYCLE[1], "warning": CYCLE[5], "note": CYCLE[4]}
WIDTH, LEFT, RIGHT = 8.4, 0.85, 0.3  # inches: the sheet and its margins
SHOWN = 6  # frames at most
SLICES = 800  # of the wave, each drawn as one line from its lowest to its highest sample
GAP = 0.08  # inches between frames
HEADING, LINE = 0.45, 0.21  # inches, of the sheet's heading and of a line of findings
LETTERS = 112  # in such a line
ABOVE, BELOW = 0.35, 0.5  # inches, for the title of a panel and for its axis


def doctor(report) -> Figure:
    """A figure of a file that could be read: its frames with the part that the model sees, its
    streams in time with the part where the model looks, and there the wave and the spectrogram.
    """
    if report.view is None:
        raise ValueError(f"{report.path} could not be read; there is nothing to draw.")
    seen, heard = len(report.found.frames) > 0, len(report.found.wave) > 0
    panels = [(_frames, _strip_height(report))] if seen else []
    panels += [(_timeline, 0.75)]
    panels += [(_wave, 0.8), (_spectrogram, 1.7)] if heard else []
    said = _lines(report)
    height = HEADING + LINE * len(said) + sum(inches + ABOVE + BELOW for _, inches in panels)
    figure, top = new_figure(WIDTH, height), height - HEADING - LINE * len(said)
    figure.set_layout_engine("none")  # panels stand in inches, so that their left edges agree
    _heading(figure, report, said)
    for draw, inches in panels:
        top -= ABOVE + inches
        draw(figure, report, (top, inches))
        top -= BELOW
    return figure


def _lines(report) -> list[tuple[str, str]]:
    """The findings, cut into lines, each with the colour of its mark; none before a second line."""
    made = []
    for finding in report.findings:
        first, *more = textwrap.wrap(finding.found, LETTERS)
        made += [(MARKS[finding.severity], first), *(("white", line) for line in more)]
    return made


def _heading(figure: Figure, report, said: list[tuple[str, str]]) -> None:
    """The verdict, and below it the findings."""
    height = figure.get_size_inches()[1]
    place = {"transform": figure.dpi_scale_trans, "color": INK, "parse_math": False}
    title = f"{drawable(report.path.name)}: {report.verdict}"
    figure.text(0.12, height - 0.3, title, size=12, **place)
    for row, (colour, line) in enumerate(said):
        y = height - HEADING - LINE * (row + 0.6)
        mark = Circle((0.2, y + 0.045), 0.05, color=colour, transform=figure.dpi_scale_trans)
        figure.add_artist(mark)
        figure.text(0.36, y, line, size=9.5, **place)


def _axes(figure: Figure, place: tuple[float, float], left=LEFT, width=WIDTH - LEFT - RIGHT):
    """Axes at a place (bottom, height), everything in inches."""
    (bottom, height), (across, up) = place, figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def doctor_alt(report) -> str:
    """Sentences that say what the figure shows: verdict, where the model looks, what was found."""
    start = report.found.start
    parts = [
        f"{report.path.name}: {report.verdict}",
        f"the model looks at {start:.1f} to {start + report.found.duration:.1f} s",
    ]
    if len(report.found.frames):
        across, down = report.kept
        parts.append(f"it sees {across * down:.0%} of the video, its middle")
    parts += [finding.found.rstrip(".") for finding in report.findings]
    return "; ".join(parts)


# Video


def _strip_height(report) -> float:
    """Inches, of frames side by side over the whole width, but 2.4 at most."""
    height, width = report.found.frames.shape[1:3]
    count = len(_chosen(report))
    return min(((WIDTH - LEFT - RIGHT + GAP) / count - GAP) * height / width, 2.4)


def _chosen(report) -> np.ndarray:
    """Which of the model's moments are shown."""
    moments = len(report.view.times)
    return np.unique(np.linspace(0, moments - 1, min(SHOWN, moments)).round().astype(int))


def _frames(figure: Figure, report, place) -> None:
    """Frames in full, what the model does not see behind a veil."""
    found, size = report.found, report.found.frames.shape[1:3]
    width = place[1] * size[1] / size[0]
    for column, moment in enumerate(_chosen(report)):
        ax = _axes(figure, place, LEFT + column * (width + GAP), width)
        time = report.view.times[moment]
        index = max(np.searchsorted(found.times, time - found.start + 1e-6, side="right") - 1, 0)
        ax.imshow(found.frames[index])
        _veil(ax, size, report.kept)
        ax.set(xticks=[], yticks=[], xlabel=f"{time:.2f} s")
        hide_frame(ax)
        across, down = report.kept
        seen = "all of it" if across * down > 0.98 else f"the middle {across * down:.0%} of it"
        finish(ax, None if column else f"video: the model sees {seen}")


def _veil(ax: Axes, size: tuple[int, int], kept: tuple[float, float]) -> None:
    """Paper over what is cropped, and a line around what is left."""
    height, width = size
    across, down = kept[0] * width, kept[1] * height
    left, top = (width - across) / 2, (height - down) / 2
    for x, y, w, h in (
        (0, 0, left, height),
        (width - left, 0, left, height),
        (left, 0, across, top),
        (left, height - top, across, top),
    ):
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), w, h, color="white", alpha=0.72, lw=0))
    edge = {"fill": False, "edgecolor": INK, "linewidth": 1.6}
    ax.add_patch(Rectangle((left - 0.5, top - 0.5), across, down, **edge))


# Time


def _timeline(figure: Figure, report, place) -> None:
    """Bars of video and audio on the clock of the file, and boxes where the model looks."""
    ax, survey = _axes(figure, place), report.survey
    tracks = {"video": (survey.video, "rgb"), "audio": (survey.audio, "spec")}
    end = max([track.end for track, _ in tracks.values() if track] + [survey.total or 0.0])
    for row, (name, (track, stream)) in enumerate(tracks.items()):
        ax.barh(row, end, 0.6, color="white", edgecolor=FAINT, hatch="///", linewidth=0.8)
        if track:
            ax.barh(row, track.end - track.start, 0.6, track.start, color=COLOURS[stream])
        else:
            words = {"color": INK, "size": 9, "ha": "center", "va": "center"}
            ax.text(end / 2, row, f"no {name}", bbox={"color": "white"}, **words)
    edge = {"fill": False, "edgecolor": INK, "linewidth": 1.6, "clip_on": False, "zorder": 3}
    for stream, (start, stop) in report.spans.items():
        row = (stream == "spec") - 0.44
        ax.add_patch(Rectangle((start, row), max(stop - start, end / 300), 0.88, **edge))
    ax.set(yticks=[0, 1], yticklabels=list(tracks), xlim=(0, end), ylim=(1.6, -0.6))
    ax.set_xlabel("time in the file (s)")
    hide_frame(ax)
    finish(ax, "file: the model looks in the boxes").tick_params(axis="y", length=0)


# Audio


def _wave(figure: Figure, report, place) -> None:
    """The outline of the wave, lowest to highest sample, and marks where it is clipped."""
    ax, view, rate = _axes(figure, place), report.view, report.found.rate
    slices = np.array_split(view.wave, min(SLICES, len(view.wave)))
    low, high = ([edge(part) for part in slices] for edge in (np.min, np.max))
    times = view.start + (np.arange(len(slices)) + 0.5) * len(view.wave) / len(slices) / rate
    ax.fill_between(times, low, high, color=COLOURS["spec"], lw=0.6)
    end = view.start + len(view.wave) / rate
    hits = report.clipped[(report.clipped >= view.start) & (report.clipped < end)]
    ax.plot(hits, np.full(len(hits), 1.05), "|", color=INK, ms=6, mew=0.8, clip_on=False)
    ax.set(xlim=(view.start, end), ylim=(-1, 1), yticks=[-1, 0, 1], ylabel="wave")
    loudness = report.statistics["loudness"]
    said = f"{loudness:.0f} dB" if math.isfinite(loudness) else "silence"
    finish(ax, f"audio: {said}{', clipped at the marks' if len(hits) else ''}")


def _spectrogram(figure: Figure, report, place) -> None:
    """The spectrogram as the model gets it, with lines where a short audio begins again."""
    ax, view, front = _axes(figure, place), report.view, report.config.front_end
    draw_spectrogram(ax, view.spec, front, AUDIO_MAP, view.start)
    end, length = view.start + len(view.spec) * front.hop, max(report.found.duration, 0.02)
    for start in np.arange(view.start + length, end - 0.05, length):
        ax.axvline(start, color="white", linewidth=1.2, linestyle=(0, (4, 2)))
    off = report.statistics["mean_off"]
    side = "above" if off > 0 else "below"
    finish(ax, f"spectrogram: {abs(off):.1f} standard deviations {side} what the model knows")
