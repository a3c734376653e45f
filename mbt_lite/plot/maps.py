"""Plot attention and importance over frames and spectrogram.

T frames   t y x grid of a map over the video   N spectrogram frames   M mel bins
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from mbt_lite.config import ClipConfig, FrontEnd
from mbt_lite.features import View
from mbt_lite.plot.audio import draw_spectrogram, peak, pitch, spectrogram_extent
from mbt_lite.plot.style import INK, add_colorbar, finish, hide_frame, new_figure

ATTENTION_MAP = "inferno"
IMPORTANCE = "importance"  # the query of maps by several methods, which stand in place of layers
QUERIES = {"bottleneck": "the bottleneck", "cls": "the class token", "mean": "the mean patch"}
BOX = "#56d4ff"  # light blue: in no color map, and visible on dark and on light


def attention(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
    frame: int | None = None,
) -> Figure:
    """Plot what the query tokens attend to in one layer, over frames and spectrogram of a clip.

    `maps` is an `inference.AttentionMaps`; `layer`, `head` and `token` (query token) as in its
    `mean`. The figure has one row of at most four frames, the one with the highest value among
    them, above the spectrogram, on the file's clock; with `frame` it has that one beside the
    spectrogram. Small triangles mark on the spectrogram when these frames were on show.
    """
    grids = {s: maps.mean(s, layer, head, token) for s in _streams(maps)}
    times = view.times if frame is None else frame_times(view, clip_config)
    marked, unit = [] if frame is None else [times[frame]], unit_of(maps)
    shown = _shown(view, grids.get("rgb"), frame, 4)
    figure, parts = _film_parts(grids) if frame is not None else _parts(view, grids, len(shown))
    for part, (stream, values) in zip(parts.flat, grids.items(), strict=True):
        if stream == "rgb":
            axes, scale = part.subplots(1, len(shown), squeeze=False)[0], _scale(values)
            for ax, (group, over) in zip(axes, shown, strict=True):
                _frame(ax, view.rgb[group], over, scale, times[group])
            add_colorbar(list(axes), ScalarMappable(scale, ATTENTION_MAP), unit)
            marked = [time for group, _ in shown for time in times[group]]
        else:
            ax = part.subplots()
            scale = _spectrogram(ax, view, values, clip_config.front_end)
            add_colorbar(ax, ScalarMappable(scale, ATTENTION_MAP), unit)
            _mark(ax, marked)
    figure.suptitle(_reading(maps, layer, head, token), x=0.01, ha="left", color=INK, size=11)
    return figure


def attention_alt(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
) -> str:
    """A sentence that says whose attention it is, and where in frames and audio it is highest."""
    grids = {s: maps.mean(s, layer, head, token) for s in _streams(maps)}
    words = _highest(view, grids, clip_config.front_end, unit_of(maps))
    return "; ".join([_reading(maps, layer, head, token), *words])


def film(view: View, maps, clip_config: ClipConfig) -> np.ndarray:
    """Images of `attention` for every frame, uint8 [T, H, W, 3] with even H and W.

    For `media.write`, with the view's wave, or for `mediapy.show_video`.
    """
    images = []
    for frame in range(len(view.rgb)):
        canvas = FigureCanvasAgg(attention(view, maps, clip_config, frame=frame))
        canvas.draw()
        image = np.array(canvas.buffer_rgba())
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        images.append(image[:height, :width, :3])
    return np.stack(images)


def saliencies(
    view: View, rows: Sequence, clip_config: ClipConfig, box: Real[Any, "T 4"] | None = None
) -> Figure:
    """A figure with a row for each `explain.Saliency` of one clip: frames, then the audio.

    Every map has its own scale, from zero to its highest value; negative values, which speak
    against the label, are not drawn. `box` (left, top, right, bottom in parts of the side, per
    frame) is the true place of the answer. Frames that share a map are shown as their mean.
    """
    picked = [] if rows[0].rgb is None else _spread(np.abs(rows[0].rgb), 5)
    widths = [1.25] * len(picked) + [3.0] * (rows[0].spec is not None)  # inches
    figure = new_figure(sum(widths) + 0.6, 2.0 * len(rows) + 0.1)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        axes = part.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
        for ax, index in zip(axes, picked, strict=False):
            maps = np.maximum(row.rgb, 0)
            group = _groups(len(view.rgb), len(maps))[index]
            _frame(ax, view.rgb[group], maps[index], _scale(maps), view.times[group])
            if box is not None:
                _box(ax, np.asarray(box[group]) * view.rgb.shape[1] - 0.5)
        if row.spec is not None:
            _spectrogram(axes[-1], view, np.maximum(row.spec, 0), clip_config.front_end)
        part.suptitle(row.title, x=0.01, ha="left", color=INK, size=9.5)
    return figure


def saliencies_alt(view: View, rows: Sequence, clip_config: ClipConfig) -> str:
    """A sentence for each map: when and where it is highest."""
    parts = []
    for row in rows:
        grids = {s: getattr(row, s) for s in _streams(row)}
        words = _highest(view, grids, clip_config.front_end, IMPORTANCE)
        parts.append(f"{row.method}: {'; '.join(words)}")
    return ". ".join(parts)


def frame_times(view: View, clip_config: ClipConfig) -> np.ndarray:
    """The middle of the time that each frame is on show, [T] in seconds on the file's clock.

    The clock goes on where a short file is looped; without video it is the clock of the audio.
    """
    step, count = clip_config.frame_step, len(view.times)
    no_video = count > 1 and np.ptp(view.times) == 0
    return (view.start + step / 2 if no_video else view.times[0]) + step * np.arange(count)


def _streams(maps) -> list[str]:
    """The streams of which there are maps."""
    return [stream for stream in ("rgb", "spec") if getattr(maps, stream) is not None]


def unit_of(maps) -> str:
    """The label of color bars: "attention" or "importance"."""
    return IMPORTANCE if maps.query == IMPORTANCE else "attention"


def _reading(maps, layer: int, head: int | None, token: int | None) -> str:
    """The title of maps, such as "what the bottleneck reads in layer 4, bottleneck token 0"."""
    if maps.query == IMPORTANCE:
        return f"what the answer rests on, by {maps.layers[layer]}"
    who = QUERIES.get(maps.query, maps.query)
    parts = [f"what {who} reads in layer {maps.layers[layer]}"]
    parts += [f"head {head}"] if head is not None else []
    parts += [f"bottleneck token {token}"] if token is not None else []
    return ", ".join(parts)


def gray(frame: np.ndarray) -> np.ndarray:
    """Frames [..., 3] with half of their color removed, so that color means attention."""
    luma = frame @ np.array([0.299, 0.587, 0.114])
    return (0.5 * frame + 0.5 * luma[..., None]).astype(np.uint8)


def palette() -> np.ndarray:
    """The colors of attention, uint8 [256, 3], from zero to the highest value."""
    return np.round(colormaps[ATTENTION_MAP](np.arange(256))[:, :3] * 255).astype(np.uint8)


def place(y: int, x: int, size: tuple[int, int]) -> str:
    """The place of a grid cell in words, such as "at the top left"."""
    row = ("top", "middle", "bottom")[3 * y // size[0]]
    column = ("left", "center", "right")[3 * x // size[1]]
    if row == "middle":
        return "in the center" if column == "center" else f"on the {column}"
    return f"at the {row} {column}"


def _parts(view: View, grids, count: int) -> tuple[Figure, np.ndarray]:
    """A figure with a part for a row of `count` frames, and one for the spectrogram below."""
    side = 7.0 / max(count, 2)  # inches
    heights = {"rgb": side * view.rgb.shape[1] / view.rgb.shape[2] + 0.35, "spec": 3.0}
    heights = [heights[stream] for stream in grids]
    figure = new_figure(8.0, sum(heights) + 0.35)
    return figure, figure.subfigures(len(grids), 1, squeeze=False, height_ratios=heights)


def _film_parts(grids) -> tuple[Figure, np.ndarray]:
    """A figure with a part for one frame, and one for the spectrogram beside it."""
    widths = [{"rgb": 3.4, "spec": 5.6}[stream] for stream in grids]  # inches
    figure = new_figure(sum(widths), 3.4)
    return figure, figure.subfigures(1, len(grids), squeeze=False, width_ratios=widths)


def _shown(view: View, maps, frame: int | None, count: int) -> list[tuple[slice, np.ndarray]]:
    """(frames, map over them): of one `frame`, or of at most `count` maps."""
    if maps is None:
        return []
    groups = _groups(len(view.rgb), len(maps))
    if frame is None:
        return [(groups[i], maps[i]) for i in _spread(maps, count)]
    index = min(frame // groups[0].stop, len(maps) - 1)
    return [(slice(frame, frame + 1), maps[index])]


def _groups(frames: int, maps: int) -> list[slice]:
    """The frames that each map covers, without an incomplete group at the end."""
    length = frames // maps
    return [slice(first, first + length) for first in range(0, maps * length, length)]


def _spread(maps: Real[Any, "t y x"], count: int) -> list[int]:
    """At most `count` maps, spread evenly over all, with the one that has the highest value."""
    picked = np.unique(np.linspace(0, len(maps) - 1, min(count, len(maps))).round().astype(int))
    best = int(np.asarray(maps).max((1, 2)).argmax())
    picked[np.abs(picked - best).argmin()] = best
    return picked.tolist()


def _frame(ax: Axes, frames: np.ndarray, values, scale: Normalize, times) -> None:
    """Draw the mean of frames [t, H, W, 3] under their map [y, x], and their time range."""
    image = frames.mean(0)
    ax.imshow(gray(image), interpolation="nearest")
    _overlay(ax, _resize(values, image.shape[:2]), scale)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(_span(times), color=INK, size=9)
    hide_frame(ax)


def _box(ax: Axes, sides: np.ndarray) -> None:
    """Draw the box around boxes [T, 4] in pixels."""
    (left, top), (right, bottom) = sides[:, :2].min(0), sides[:, 2:].max(0)
    edge = {"fill": False, "edgecolor": BOX, "lw": 1.6}
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, **edge))


def _spectrogram(ax: Axes, view: View, values, front: FrontEnd) -> Normalize:
    """Draw a map [time, mel] over the gray spectrogram of a view, and return its color scale."""
    draw_spectrogram(ax, view.spec, front, "gray", view.start)
    scale, extent = _scale(values), spectrogram_extent(view.spec, front, view.start)
    where = {"origin": "lower", "aspect": "auto", "extent": extent}
    _overlay(ax, _resize(values, view.spec.shape[:2]).T, scale, **where)
    finish(ax, None)
    return scale


def _mark(ax: Axes, times: Sequence[float]) -> None:
    """Mark times within the audio by triangles along the top edge; a single one also by a line."""
    left, right = ax.get_xlim()
    inside = [time for time in times if left <= time <= right]
    top = ax.get_xaxis_transform()
    ax.plot(inside, [1.03] * len(inside), "v", transform=top, color=INK, ms=4, clip_on=False)
    if len(inside) == 1:
        ax.axvline(inside[0], color="white", lw=1.4)
    ax.set_xlim(left, right)


def _overlay(ax: Axes, attention, scale: Normalize, **where) -> None:
    """Draw a map whose opacity follows the attention, so that the image below stays visible."""
    opacity = np.clip(scale(attention), 0, 1) ** 0.7 * 0.85
    ax.imshow(attention, cmap=ATTENTION_MAP, norm=scale, alpha=opacity, **where)


def _resize(attention: Real[Any, "y x"], size: tuple[int, int]) -> np.ndarray:
    """A map resized bilinearly to `size` (rows, columns)."""
    image = Image.fromarray(np.asarray(attention, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def _scale(maps: np.ndarray) -> Normalize:
    """One color scale for all maps, from zero to their highest value."""
    return Normalize(0, float(maps.max()) if maps.max() > 0 else 1.0)


def _span(times: Sequence[float] | np.ndarray) -> str:
    """The time range of frames, such as "1.62\N{EN DASH}1.88 s", or "1.62 s" of one."""
    ends = dict.fromkeys(f"{time:.2f}" for time in (times[0], times[-1]))
    return "\N{EN DASH}".join(ends) + " s"


def _highest(view: View, grids: dict[str, np.ndarray], front: FrontEnd, unit: str) -> list[str]:
    """When and where on the video, and when and near which pitch of the audio, maps are highest."""
    words = []
    for stream, maps in grids.items():
        seconds = len(view.spec) * front.hop
        over = f"{len(maps)} frames" if stream == "rgb" else f"{seconds:.1f} s of audio"
        where = "spread evenly"
        if np.ptp(maps) >= 1e-9 and stream == "rgb":
            index, y, x = peak(maps)
            times = view.times[_groups(len(view.times), len(maps))[index]]
            where = f"highest at {_span(times)}, {place(y, x, maps.shape[1:])}"
        elif np.ptp(maps) >= 1e-9:
            (row, mel), (rows, mels) = peak(maps), maps.shape
            time = view.start + (row + 0.5) / rows * seconds
            center = round((mel + 0.5) / mels * front.mels)
            where = f"highest near {time:.1f} s and {pitch(center, front)}"
        words.append(f"{unit} over {over}, {where}")
    return words
