"""Plot one frame beside the audio, with the attention to both at that moment.

T frames   t y x attention grid   N spectrogram frames   M mel bins
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from mbt_lite.config import ClipConfig, FrontEnd
from mbt_lite.features import View
from mbt_lite.plot.audio import HERTZ, mel_bin, peak, pitch
from mbt_lite.plot.maps import (
    ATTENTION_MAP,
    IMPORTANCE,
    QUERIES,
    attention_on_spectrogram,
    common_scale,
    grey,
    overlay,
    place,
    reading,
    streams,
    unit_of,
    upsample,
)
from mbt_lite.plot.style import INK, add_colorbar, hide_frame, new_figure

WIDTHS = {"rgb": 3.3, "spec": 5.6}  # inches


def explorer(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
    frame: int = 0,
) -> Figure:
    """A figure of one frame and of the audio under what `maps`, an `inference.AttentionMaps`, read.

    A line stands on the audio at the frame's time. The colours of the frame are on the scale of
    all frames. `head` and `token` as in `AttentionMaps.mean`.
    """
    shown = {stream: maps.mean(stream, layer, head, token) for stream in streams(maps)}
    widths = [WIDTHS[stream] for stream in shown]
    figure = new_figure(sum(widths), 3.1)
    axes = figure.subplots(1, len(shown), squeeze=False, width_ratios=widths)[0]
    time = moments(view, clip_config)[frame]
    for ax, (stream, values) in zip(axes, shown.items(), strict=True):
        if stream == "rgb":
            _frame(ax, view.rgb[frame], values, map_of(frame, view, values), time, unit_of(maps))
        else:
            front = clip_config.front_end
            look = {"start": view.start, "unit": unit_of(maps)}
            attention_on_spectrogram(view.spec, values, front, ax, **look)
            _cursor(ax, time)
    figure.suptitle(reading(maps, layer, head, token), x=0.01, ha="left", color=INK, size=11)
    return figure


def film(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
) -> np.ndarray:
    """The images of `explorer` for every frame, uint8 [T, H, W, 3] with even H and W.

    For `media.write`, with the view's wave, or for `mediapy.show_video`.
    """
    shots = []
    for frame in range(len(view.rgb)):
        canvas = FigureCanvasAgg(explorer(view, maps, clip_config, layer, head, token, frame))
        canvas.draw()
        height, width, _ = canvas.buffer_rgba().shape
        shots.append(np.array(canvas.buffer_rgba())[: height // 2 * 2, : width // 2 * 2, :3])
    return np.stack(shots)


def _frame(ax: Axes, frame: np.ndarray, maps, index: int, time: float, unit: str) -> None:
    """The frame under one of the maps [t, y, x], on the scale of all."""
    scale = common_scale(maps)
    ax.imshow(grey(frame), interpolation="nearest")
    overlay(ax, upsample(maps[index], frame.shape[:2]), scale)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(f"{time:.2f} s", color=INK, size=9.5)
    hide_frame(ax)
    add_colorbar(ax, ScalarMappable(scale, ATTENTION_MAP), unit)


def _cursor(ax: Axes, time: float) -> None:
    """A line that is seen on dark and on light; none where the audio is over."""
    left, right = ax.get_xlim()
    if left <= time <= right:
        edge = withStroke(linewidth=3.2, foreground="black")
        ax.axvline(time, color="white", lw=1.6, path_effects=[edge])


def moments(view: View, clip_config: ClipConfig) -> np.ndarray:
    """When each frame is on show, [T] in seconds on the file's clock.

    Where a short file is looped, the clock goes on; where it has no video, it is the audio's.
    """
    step, count = clip_config.frame_step, len(view.times)
    without = count > 1 and np.ptp(view.times) == 0
    return (view.start + step / 2 if without else view.times[0]) + step * np.arange(count)


def map_of(frame: int, view: View, maps: np.ndarray) -> int:
    """Which map [t, y, x] lies over a frame."""
    return min(frame // (len(view.rgb) // len(maps)), len(maps) - 1)


def reads_most(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
) -> str:
    """A sentence such as "bottleneck token 2 in layer 1 reads most at 3.1\N{EN DASH}3.6 s of the audio, near
    800 Hz, and in the video at 3.20 s, at the top left"."""
    parts = []
    if maps.spec is not None:
        parts += [_heard(maps.mean("spec", layer, head, token), view, clip_config.front_end)]
    if maps.rgb is not None:
        parts += [_seen(maps.mean("rgb", layer, head, token), moments(view, clip_config))]
    return f"{_reader(maps, layer, head, token)} {', and '.join(parts)}"


def explorer_alt(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
    frame: int = 0,
) -> str:
    """The sentence of `reads_most`, and how much of the video's reading lies over the frame."""
    most = reads_most(view, maps, clip_config, layer, head, token)
    time = moments(view, clip_config)[frame]
    if maps.rgb is None:
        return f"{most}; the cursor is at {time:.2f} s"
    values = maps.mean("rgb", layer, head, token)
    here = values[map_of(frame, view, values)]
    share = round(100 * float(here.sum()) / (float(values.sum()) or 1.0))
    where = f", most {place(*peak(here), here.shape)}" if np.ptp(here) > 1e-9 else ""
    return f"{most}; {share} % of {part_of_video(maps)} lies around {time:.2f} s{where}"


def part_of_video(maps) -> str:
    """What the values over all frames are together, in words."""
    found = maps.query == IMPORTANCE
    return "what it finds in the video" if found else "what it reads in the video"


def _reader(maps, layer: int, head: int | None, token: int | None) -> str:
    """Who reads, such as "head 3 of bottleneck token 2 in layer 1 reads"."""
    if maps.query == IMPORTANCE:
        return f"by {maps.layers[layer]}, the answer rests"
    who = QUERIES.get(maps.query, maps.query) if token is None else f"bottleneck token {token}"
    who = who if head is None else f"head {head} of {who}"
    return f"{who} in layer {maps.layers[layer]} reads"


def _heard(values: np.ndarray, view: View, front: FrontEnd) -> str:
    if np.ptp(values) < 1e-9:
        return "all of the audio alike"
    row, mel = peak(values)
    span, near = spans(len(values), view, front)[row], pitches(values.shape[1], front)[mel]
    return f"most at {span} of the audio, near {near}"


def _seen(values: np.ndarray, times: np.ndarray) -> str:
    if np.ptp(values) < 1e-9:
        return "all of the video alike"
    index, y, x = peak(values)
    time = times[index * (len(times) // len(values))]
    return f"in the video most at {time:.2f} s, {place(y, x, values.shape[1:])}"


def spans(count: int, view: View, front: FrontEnd) -> list[str]:
    """The time of each of `count` columns of patches in words such as "3.1\N{EN DASH}3.6 s"."""
    edges = view.start + np.linspace(0, len(view.spec) * front.hop, count + 1)
    return [f"{a:.1f}\N{EN DASH}{b:.1f} s" for a, b in zip(edges[:-1], edges[1:], strict=True)]


def pitches(count: int, front: FrontEnd) -> list[str]:
    """The middle of each of `count` rows of patches, lowest first, in words such as "800 Hz"."""
    return [pitch(round((row + 0.5) / count * front.mels), front) for row in range(count)]


def places(rows: int, columns: int) -> list[str]:
    """The cells of a grid in words, row by row: "at the top left", ..."""
    return [place(y, x, (rows, columns)) for y in range(rows) for x in range(columns)]


def hertz_marks(front: FrontEnd) -> list[tuple[str, float]]:
    """The marks of the pitch axis, and how far up each stands, 0..1."""
    shown = [hz for hz in HERTZ if front.low <= hz <= front.high]
    return [(f"{hz:,}", (mel_bin(hz, front) + 0.5) / front.mels) for hz in shown]


def pale(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] with half of their colour taken out, as maps are laid over them."""
    return np.stack([grey(frame) for frame in frames])


def palette() -> np.ndarray:
    """The colours of attention, uint8 [256, 3], from none to the most there is."""
    return np.round(colormaps[ATTENTION_MAP](np.arange(256))[:, :3] * 255).astype(np.uint8)
