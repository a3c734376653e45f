"""Plot attention over frames and spectrogram.

T frames   t y x attention grid   N spectrogram frames   M mel bins
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Num, Real
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from mbt_lite.config import ClipConfig, FrontEnd
from mbt_lite.features import View
from mbt_lite.plot.audio import (
    HERTZ,
    draw_spectrogram,
    mel_bin,
    one_channel,
    peak,
    pitch,
    spectrogram_extent,
)
from mbt_lite.plot.style import INK, add_colorbar, finish, hide_frame, new_figure

ATTENTION_MAP = "inferno"
IMPORTANCE = "importance"  # the query of maps by several methods, which stand in place of layers
QUERIES = {"bottleneck": "the bottleneck", "cls": "the class token", "mean": "the mean patch"}
SIDE = 1.35  # inches, width of a frame in a strip
SHOWN = 4  # maps of the video in a figure, large
WIDTH = 8.0  # inches, of that figure
FILM_WIDTHS = {"rgb": 3.4, "spec": 5.6}  # inches, of the parts of a film


def attention(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
    colorbar: bool = True,
    frame: int | None = None,
) -> Figure:
    """Plot what the query tokens attend to in one layer, over frames and spectrogram of a clip.

    `maps` is an `inference.AttentionMaps`; `layer`, `head` and `token` (query token) as in its
    `mean`. The figure has one row of at most four frames, the one with the highest value among
    them, above the spectrogram, on the file's clock; with `frame` it has that one beside the
    spectrogram. Small triangles mark on the spectrogram when these frames were on show.
    """
    shown = {s: maps.mean(s, layer, head, token) for s in streams(maps)}
    times, picked = view.times, []
    if frame is not None:
        times, picked = frame_times(view, clip_config), [frame]
        if "rgb" in shown:
            shown["rgb"] = _map_per_frame(shown["rgb"], len(view.rgb))
    elif "rgb" in shown:
        picked = spread(shown["rgb"], SHOWN)
    if frame is None:
        side = (WIDTH - 1.0) / max(len(picked), 2)  # inches, of a frame
        heights = {"rgb": side * view.rgb.shape[1] / view.rgb.shape[2] + 0.35, "spec": 3.0}
        heights = [heights[stream] for stream in shown]
        figure = new_figure(WIDTH, sum(heights) + 0.35)
        parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights)
    else:  # side by side
        widths = [FILM_WIDTHS[stream] for stream in shown]
        figure = new_figure(sum(widths), 3.4)
        parts = figure.subfigures(1, len(shown), squeeze=False, width_ratios=widths)
    marked, unit = [times[index] for index in picked], unit_of(maps)
    for part, (stream, values) in zip(parts.flat, shown.items(), strict=True):
        if stream == "rgb":
            marked = _strip(part, view.rgb, values, times, SHOWN, colorbar, picked, unit)
            continue
        ax, look = part.subplots(), {"colorbar": colorbar, "start": view.start, "unit": unit}
        attention_on_spectrogram(view.spec, values, clip_config.front_end, ax, **look)
        _mark(ax, marked)
    figure.suptitle(reading(maps, layer, head, token), x=0.01, ha="left", color=INK, size=11)
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
    parts = [reading(maps, layer, head, token)]
    if "rgb" in streams(maps):
        parts.append(attention_on_frames_alt(maps.mean("rgb", layer, head, token), view.times))
    if "spec" in streams(maps):
        front, values = clip_config.front_end, maps.mean("spec", layer, head, token)
        seconds = len(view.spec) * front.hop
        parts.append(attention_on_spectrogram_alt(values, seconds, front, view.start))
    return "; ".join(parts).replace("attention over", f"{unit_of(maps)} over")


def film(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
) -> np.ndarray:
    """Images of `attention` for every frame, uint8 [T, H, W, 3] with even H and W.

    For `media.write`, with the view's wave, or for `mediapy.show_video`.
    """
    images = []
    for frame in range(len(view.rgb)):
        figure = attention(view, maps, clip_config, layer, head, token, frame=frame)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        image = np.array(canvas.buffer_rgba())
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        images.append(image[:height, :width, :3])
    return np.stack(images)


def frame_times(view: View, clip_config: ClipConfig) -> np.ndarray:
    """The middle of the time that each frame is on show, [T] in seconds on the file's clock.

    The clock goes on where a short file is looped; without video it is the clock of the audio.
    """
    step, count = clip_config.frame_step, len(view.times)
    no_video = count > 1 and np.ptp(view.times) == 0
    return (view.start + step / 2 if no_video else view.times[0]) + step * np.arange(count)


def _map_per_frame(maps: np.ndarray, frames: int) -> np.ndarray:
    """The map [y, x] of each frame, from maps that cover several frames."""
    covered = frames // len(maps)
    return maps[np.minimum(np.arange(frames) // covered, len(maps) - 1)]


def streams(maps) -> list[str]:
    return [stream for stream in ("rgb", "spec") if getattr(maps, stream) is not None]


def unit_of(maps) -> str:
    """The label of color bars: "attention" or "importance"."""
    return IMPORTANCE if maps.query == IMPORTANCE else "attention"


def reading(maps, layer: int, head: int | None, token: int | None) -> str:
    """The title of maps, such as "what the bottleneck reads in layer 4, bottleneck token 0"."""
    if maps.query == IMPORTANCE:
        return f"what the answer rests on, by {maps.layers[layer]}"
    who = QUERIES.get(maps.query, maps.query)
    parts = [f"what {who} reads in layer {maps.layers[layer]}"]
    parts += [f"head {head}"] if head is not None else []
    parts += [f"bottleneck token {token}"] if token is not None else []
    return ", ".join(parts)


def _mark(ax: Axes, times: Sequence[float]) -> None:
    """Mark times within the audio by triangles along the top edge; a single one also by a line."""
    left, right = ax.get_xlim()
    inside = [time for time in times if left <= time <= right]
    top = ax.get_xaxis_transform()
    ax.plot(inside, [1.03] * len(inside), "v", transform=top, color=INK, ms=4, clip_on=False)
    if len(inside) == 1:
        ax.axvline(inside[0], color="white", lw=1.4)
    ax.set_xlim(left, right)


def attention_on_frames(
    frames: Num[Any, "T H W 3"],
    maps: Real[Any, "t y x"],
    times: Sequence[float] | np.ndarray | None = None,
    title: str | None = None,
    columns: int = 8,
    colorbar: bool = True,
) -> Figure:
    """Plot one frame per map, with the map laid over it in color on one common scale.

    `frames` are uint8 or floats in [-1, 1]. A map stands for T // t frames in a row, which are
    shown one over the other, with their time from `times` (seconds, one per frame) below.
    """
    columns = min(columns, len(maps))
    height = _strip_height(frames, maps, columns) + bool(title) * 0.3
    figure = new_figure(columns * SIDE + 0.9 * colorbar, height)
    _strip(figure, frames, maps, times, columns, colorbar)
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, size=11)
    return figure


def _strip_height(frames, maps, columns: int = 8) -> float:
    """The natural height of `_strip`, in inches."""
    rows = -(-len(maps) // columns)
    return rows * (SIDE * frames.shape[1] / frames.shape[2] + 0.3)


def _strip(figure, frames, maps, times, columns=8, colorbar=True, picked=None, unit="attention"):
    """Draw frames with the maps `picked` (None: all) into a figure or subfigure.

    Returns the times of these frames, or None without `times`.
    """
    frames, maps = _as_uint8(frames), np.asarray(maps, np.float32)
    groups = under_maps(len(frames), len(maps))
    picked = list(range(len(maps))) if picked is None else picked
    columns = min(columns, len(picked))
    axes = figure.subplots(-(-len(picked) // columns), columns, squeeze=False)
    scale = common_scale(maps)
    for ax in axes.flat[len(picked) :]:
        ax.remove()
    for ax, index in zip(axes.flat, picked, strict=False):
        group = groups[index]
        ax.imshow(gray(frames[group].mean(0)), interpolation="nearest")
        overlay(ax, upsample(maps[index], frames.shape[1:3]), scale)
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(f"frame {group.start}" if times is None else span(times[group]))
        ax.xaxis.label.set(color=INK, size=9)
        hide_frame(ax)
    if colorbar:
        add_colorbar(list(axes.flat[: len(picked)]), ScalarMappable(scale, ATTENTION_MAP), unit)
    return None if times is None else [time for i in picked for time in times[groups[i]]]


def spread(maps: Real[Any, "t y x"], count: int) -> list[int]:
    """At most `count` maps, spread evenly over all, with the one that has the highest value."""
    picked = np.unique(np.linspace(0, len(maps) - 1, min(count, len(maps))).round().astype(int))
    best = int(np.asarray(maps).max((1, 2)).argmax())
    picked[np.abs(picked - best).argmin()] = best
    return picked.tolist()


def attention_on_frames_alt(
    maps: Real[Any, "t y x"], times: Sequence[float] | np.ndarray | None = None
) -> str:
    """A sentence that says when and where on the video the attention is highest."""
    maps = np.asarray(maps, np.float32)
    start = f"attention over {len(maps)} frames"
    if np.ptp(maps) < 1e-9:
        return f"{start}, spread evenly"
    index, y, x = peak(maps)
    if times is None:
        when = f"in frame {index + 1} of {len(maps)}"
    else:
        when = f"at {span(times[under_maps(len(times), len(maps))[index]])}"
    return f"{start}, highest {when}, {place(y, x, maps.shape[1:])}"


def attention_on_spectrogram(
    spec: Num[Any, "N M *channels"],
    maps: Real[Any, "time mel"],
    front_end: FrontEnd | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    colorbar: bool = True,
    start: float = 0.0,
    unit: str = "attention",
) -> Axes:
    """Plot an attention map [time, mel] over a gray spectrogram.

    The time axis begins at `start` (seconds); `unit` labels the color bar.
    """
    ax = ax or new_figure(6.4, 2.8).subplots()
    draw_spectrogram(ax, spec, front_end, "gray", start)
    values, maps = one_channel(spec), np.asarray(maps, np.float32)
    image = overlay(
        ax,
        upsample(maps, values.shape).T,
        common_scale(maps),
        origin="lower",
        aspect="auto",
        extent=spectrogram_extent(values, front_end, start),
    )
    if colorbar:
        add_colorbar(ax, ScalarMappable(image.norm, ATTENTION_MAP), unit)
    return finish(ax, title)


def attention_on_spectrogram_alt(
    maps: Real[Any, "time mel"],
    seconds: float,
    front_end: FrontEnd | None = None,
    start: float = 0.0,
) -> str:
    """A sentence that says when, and near which pitch, the attention to the audio is highest."""
    maps = np.asarray(maps, np.float32)
    length = f"attention over {seconds:.1f} s of audio"
    if np.ptp(maps) < 1e-9:
        return f"{length}, spread evenly"
    row, mel = peak(maps)
    when = start + (row + 0.5) / maps.shape[0] * seconds
    part = ("low", "middle", "high")[3 * mel // maps.shape[1]]
    if front_end is None:
        return f"{length}, highest near {when:.1f} s in the {part} pitches"
    center = round((mel + 0.5) / maps.shape[1] * front_end.mels)
    return f"{length}, highest near {when:.1f} s and {pitch(center, front_end)}"


def upsample(attention: Real[Any, "y x"], size: tuple[int, int]) -> np.ndarray:
    """A map resized bilinearly to `size` (rows, columns)."""
    image = Image.fromarray(np.asarray(attention, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def overlay(ax: Axes, attention, scale: Normalize, **where):
    """Draw a map whose opacity follows the attention, so that the image below stays visible."""
    opacity = np.clip(scale(attention), 0, 1) ** 0.7 * 0.85
    return ax.imshow(attention, cmap=ATTENTION_MAP, norm=scale, alpha=opacity, **where)


def under_maps(frames: int, maps: int) -> list[slice]:
    """The frames that each map covers, without an incomplete group at the end."""
    if not 0 < maps <= frames:
        raise ValueError(f"{maps} maps do not fit {frames} frames: each map needs a frame or more.")
    length = frames // maps
    return [slice(first, first + length) for first in range(0, maps * length, length)]


def span(times: Sequence[float] | np.ndarray) -> str:
    """The time range of frames, such as "1.62\N{EN DASH}1.88 s", or "1.62 s" of one."""
    ends = dict.fromkeys(f"{time:.2f}" for time in (times[0], times[-1]))
    return "\N{EN DASH}".join(ends) + " s"


def _as_uint8(frames) -> np.ndarray:
    """Frames [T, H, W, 3] as bytes, from bytes or from floats in [-1, 1]."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return frames
    return np.clip((frames.astype(np.float32) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def gray(frame: np.ndarray) -> np.ndarray:
    """Frames [..., 3] with half of their color removed, so that color means attention."""
    luma = frame @ np.array([0.299, 0.587, 0.114])
    return (0.5 * frame + 0.5 * luma[..., None]).astype(np.uint8)


def palette() -> np.ndarray:
    """The colors of attention, uint8 [256, 3], from zero to the highest value."""
    return np.round(colormaps[ATTENTION_MAP](np.arange(256))[:, :3] * 255).astype(np.uint8)


def hertz_marks(front: FrontEnd) -> list[tuple[str, float]]:
    """The marks of the pitch axis, and how far up each stands, from 0 to 1."""
    shown = [hz for hz in HERTZ if front.low <= hz <= front.high]
    return [(f"{hz:,}", (mel_bin(hz, front) + 0.5) / front.mels) for hz in shown]


def common_scale(maps: np.ndarray) -> Normalize:
    """One color scale for all maps, from zero to their highest value."""
    return Normalize(0, float(maps.max()) if maps.max() > 0 else 1.0)


def place(y: int, x: int, size: tuple[int, int]) -> str:
    """The place of a grid cell in words, such as "at the top left"."""
    row = ("top", "middle", "bottom")[3 * y // size[0]]
    column = ("left", "center", "right")[3 * x // size[1]]
    if row == "middle":
        return "in the center" if column == "center" else f"on the {column}"
    return f"at the {row} {column}"
