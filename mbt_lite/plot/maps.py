"""Plot attention over frames and spectrogram.

T frames   t y x attention grid   N spectrogram frames   M mel bins
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Num, Real
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from mbt_lite.config import ClipConfig, FrontEnd
from mbt_lite.features import View
from mbt_lite.plot.audio import draw_spectrogram, one_channel, peak, pitch, spectrogram_extent
from mbt_lite.plot.style import INK, add_colorbar, finish, hide_frame, new_figure

ATTENTION_MAP = "inferno"
IMPORTANCE = "importance"  # the query of maps by several methods, which stand in place of layers
QUERIES = {"bottleneck": "the bottleneck", "cls": "the class token", "mean": "the mean patch"}
SIDE = 1.35  # inches, width of a frame in a strip
SHOWN = 4  # maps of the video in a figure, large
WIDTH = 8.0  # inches, of that figure


def attention(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    token: int | None = None,
    colorbar: bool = True,
) -> Figure:
    """A figure of what `maps`, an `inference.AttentionMaps`, read in one layer of `view`'s clip.

    One row of at most four frames, the one with the highest value among them, above the
    spectrogram, on the file's clock; small triangles mark on the spectrogram when these frames
    were on show. `head` and `token` (query token) as in `AttentionMaps.mean`.
    """
    shown = {s: maps.mean(s, layer, head, token) for s in streams(maps)}
    picked = spread(shown["rgb"], SHOWN) if "rgb" in shown else []
    side = (WIDTH - 1.0) / max(len(picked), 2)  # inches, of a frame
    heights = {"rgb": side * view.rgb.shape[1] / view.rgb.shape[2] + 0.35, "spec": 3.0}
    heights = [heights[stream] for stream in shown]
    figure = new_figure(WIDTH, sum(heights) + 0.35)
    parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    times, unit = None, unit_of(maps)
    for part, (stream, values) in zip(parts, shown.items(), strict=True):
        if stream == "rgb":
            times = _strip(part, view.rgb, values, view.times, SHOWN, colorbar, picked, unit)
            continue
        ax, look = part.subplots(), {"colorbar": colorbar, "start": view.start, "unit": unit}
        attention_on_spectrogram(view.spec, values, clip_config.front_end, ax, **look)
        if times is not None:
            _mark(ax, times)
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
    """A sentence that says what is read, and where in the frames and in the audio most."""
    parts = [reading(maps, layer, head, token)]
    if "rgb" in streams(maps):
        parts.append(attention_on_frames_alt(maps.mean("rgb", layer, head, token), view.times))
    if "spec" in streams(maps):
        front, values = clip_config.front_end, maps.mean("spec", layer, head, token)
        seconds = len(view.spec) * front.hop
        parts.append(attention_on_spectrogram_alt(values, seconds, front, view.start))
    return "; ".join(parts)


def streams(maps) -> list[str]:
    return [stream for stream in ("rgb", "spec") if getattr(maps, stream) is not None]


def unit_of(maps) -> str:
    """What the values of the maps are, as color bars name it."""
    return IMPORTANCE if maps.query == IMPORTANCE else "attention"


def reading(maps, layer: int, head: int | None, token: int | None) -> str:
    """Whose attention it is, such as "what the bottleneck reads in layer 4, bottleneck token 0"."""
    if maps.query == IMPORTANCE:
        return f"what the answer rests on, by {maps.layers[layer]}"
    who = QUERIES.get(maps.query, maps.query)
    parts = [f"what {who} reads in layer {maps.layers[layer]}"]
    parts += [f"head {head}"] if head is not None else []
    parts += [f"bottleneck token {token}"] if token is not None else []
    return ", ".join(parts)


def _mark(ax: Axes, times: Sequence[float]) -> None:
    """Small triangles along the top edge at these times; those beyond the audio are left out."""
    left, right = ax.get_xlim()
    inside = [time for time in times if left <= time <= right]
    top = ax.get_xaxis_transform()
    ax.plot(inside, [1.03] * len(inside), "v", transform=top, color=INK, ms=4, clip_on=False)
    ax.set_xlim(left, right)


def attention_on_frames(
    frames: Num[Any, "T H W 3"],
    maps: Real[Any, "t y x"],
    times: Sequence[float] | np.ndarray | None = None,
    title: str | None = None,
    columns: int = 8,
    colorbar: bool = True,
) -> Figure:
    """A figure with one frame per map, the map laid over it in colour on one common scale.

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
    """The height in inches of `_strip` at its natural width."""
    rows = -(-len(maps) // columns)
    return rows * (SIDE * frames.shape[1] / frames.shape[2] + 0.3)


def _strip(figure, frames, maps, times, columns=8, colorbar=True, picked=None, unit="attention"):
    """The times of the frames that are drawn into a figure or a part of one, or None.

    `picked` are the maps to draw; None: all of them.
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
        ax.imshow(grey(frames[group].mean(0)), interpolation="nearest")
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
    """Axes with a grey spectrogram under an attention map [time, mel], on the same seconds.

    The clock shows `start` (seconds) at the left edge; `unit` is what stands at the color bar.
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
    centre = round((mel + 0.5) / maps.shape[1] * front_end.mels)
    return f"{length}, highest near {when:.1f} s and {pitch(centre, front_end)}"


def upsample(attention: Real[Any, "y x"], size: tuple[int, int]) -> np.ndarray:
    """A map stretched bilinearly to `size` (rows, columns), as if it covered the whole video."""
    image = Image.fromarray(np.asarray(attention, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def overlay(ax: Axes, attention, scale: Normalize, **where):
    """An image whose opacity follows the attention: what is not attended to stays visible."""
    opacity = np.clip(scale(attention), 0, 1) ** 0.7 * 0.85
    return ax.imshow(attention, cmap=ATTENTION_MAP, norm=scale, alpha=opacity, **where)


def under_maps(frames: int, maps: int) -> list[slice]:
    """The frames that each map covers; those that fill no map at the end are left out."""
    if not 0 < maps <= frames:
        raise ValueError(f"{maps} maps do not fit {frames} frames: each map needs a frame or more.")
    length = frames // maps
    return [slice(first, first + length) for first in range(0, maps * length, length)]


def span(times: Sequence[float] | np.ndarray) -> str:
    """When frames are on show, such as "1.62\N{EN DASH}1.88 s", or "1.62 s" of one."""
    ends = dict.fromkeys(f"{time:.2f}" for time in (times[0], times[-1]))
    return "\N{EN DASH}".join(ends) + " s"


def _as_uint8(frames) -> np.ndarray:
    """Frames [T, H, W, 3] as bytes, from bytes or from floats in [-1, 1]."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return frames
    return np.clip((frames.astype(np.float32) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def grey(frame: np.ndarray) -> np.ndarray:
    """A frame with half of its colour taken out, so that colour means attention."""
    luma = frame @ np.array([0.299, 0.587, 0.114])
    return (0.5 * frame + 0.5 * luma[..., None]).astype(np.uint8)


def common_scale(maps: np.ndarray) -> Normalize:
    """One colour scale for all maps, from no attention to the most there is."""
    return Normalize(0, float(maps.max()) if maps.max() > 0 else 1.0)


def place(y: int, x: int, size: tuple[int, int]) -> str:
    """A cell of a grid in words: "top left", "centre", "bottom right"."""
    row = ("top", "middle", "bottom")[3 * y // size[0]]
    column = ("left", "centre", "right")[3 * x // size[1]]
    if row == "middle":
        return "in the centre" if column == "centre" else f"on the {column}"
    return f"at the {row} {column}"
