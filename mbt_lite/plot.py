"""Arrays → Axes: spectrograms, attention over frames and sound, probabilities, training curves.

    T frames   t y x attention grid   N spectrogram frames   M mel bins

A function here draws: it does not decode, predict or show. One panel comes back as `Axes`, a strip
of panels as `Figure`. Without `ax` the figure is made outside pyplot, so that threads of a server
do not meet; in a notebook, end a cell with `plot.spectrogram(spec).figure`. Every picture has a
function `..._alt` beside it that says in words what the data shows.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Num, Real
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from mbt_lite.config import ClipConfig, FrontEnd
from mbt_lite.features import View, hz_to_mel, mel_to_hz

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
SOUND_MAP = "magma"
ATTENTION_MAP = "inferno"
HERTZ = (250, 500, 1000, 2000, 4000)
SIDE = 1.35  # inches, width of a frame in a strip


# Spectrograms


def spectrogram(
    spec: Num[Any, "N M *channels"],
    front_end: FrontEnd | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    colorbar: bool = True,
    start: float = 0.0,
) -> Axes:
    """Axes with a log-mel spectrogram [N, M] or [N, M, 3]: seconds across, pitch upwards.

    With `front_end` the vertical axis is marked in hertz; without, in mel bins, one every 10 ms.
    The clock shows `start` (seconds) at the left edge.
    """
    ax = ax or _figure(6.4, 2.8).subplots()
    image = _draw_sound(ax, spec, front_end, SOUND_MAP, start)
    if colorbar:
        _colorbar(ax, image, "log-mel")
    return _finish(ax, title)


def spectrogram_alt(
    spec: Num[Any, "N M *channels"], front_end: FrontEnd | None = None, start: float = 0.0
) -> str:
    """A sentence such as "spectrogram, 2.0 s, loudest at 0.6 s near 880 Hz"."""
    values, front = _one_channel(spec), front_end or FrontEnd()
    length = f"spectrogram, {len(values) * front.hop:.1f} s"
    if np.ptp(values) < 1e-6:
        return f"{length}, the same level throughout"
    row, mel = _peak(values)
    return f"{length}, loudest at {start + row * front.hop:.1f} s near {_pitch(mel, front_end)}"


def _draw_sound(ax: Axes, spec, front_end: FrontEnd | None, cmap: str, start: float):
    """The image of a spectrogram; its pixel (row, column) is (mel bin, spectrogram frame)."""
    values = _one_channel(spec)
    image = ax.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=cmap,
        extent=_sound_extent(values, front_end, start),
    )
    ax.set(xlabel="time (s)", ylabel="mel bin" if front_end is None else "frequency (Hz)")
    if front_end is not None:
        shown = [hz for hz in HERTZ if front_end.low <= hz <= front_end.high]
        ax.yaxis.set_major_locator(FixedLocator([_mel_bin(hz, front_end) for hz in shown]))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_yticklabels([f"{hz:,}" for hz in shown])
    return image


def _sound_extent(values, front_end: FrontEnd | None, start: float):
    """Edges in seconds and mel bins, so that tick k stands at the middle of bin k."""
    frames, mels = values.shape
    return start, start + frames * (front_end or FrontEnd()).hop, -0.5, mels - 0.5


def _mel_bin(hz: float, front: FrontEnd) -> float:
    """Where a frequency lies on the axis of mel bins; bin k has its peak at k."""
    low, high = hz_to_mel(front.low), hz_to_mel(front.high)
    return float((hz_to_mel(hz) - low) / (high - low) * (front.mels + 1) - 1)


def _pitch(mel: int, front: FrontEnd | None) -> str:
    """A mel bin in words: hertz where the front end is known."""
    if front is None:
        return f"mel bin {mel}"
    low, high = hz_to_mel(front.low), hz_to_mel(front.high)
    return f"{float(mel_to_hz(low + (high - low) * (mel + 1) / (front.mels + 1))):.0f} Hz"


def _one_channel(spec) -> np.ndarray:
    """A spectrogram [N, M]; the model's three channels are copies, so the first one says it all."""
    values = np.asarray(spec, np.float32)
    if values.ndim != 2 and values.shape[2:] not in ((1,), (3,)):
        raise ValueError(
            f"a spectrogram is [time, mel] or [time, mel, 3], not {list(values.shape)}; take one "
            "clip out of a batch first."
        )
    return values if values.ndim == 2 else values[..., 0]


# Attention


def attention(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    slot: int | None = None,
    colorbar: bool = True,
) -> Figure:
    """A figure of what `maps`, an `inference.AttentionMaps`, read in one layer of `view`'s clip.

    Frames above, spectrogram below, on the file's clock; small triangles mark on the sound when
    the frames were on show. `head` and `slot` (query token) as in `AttentionMaps.mean`.
    """
    shown = {s: maps.mean(s, layer, head, slot) for s in _streams(maps)}
    heights = {"rgb": _strip_height(view.rgb, shown["rgb"]) if "rgb" in shown else 0, "spec": 2.8}
    heights = [heights[stream] for stream in shown]
    figure = _figure(6.4, sum(heights) + 0.35)
    parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    times = None
    for part, (stream, values) in zip(parts, shown.items(), strict=True):
        if stream == "rgb":
            times = _strip(part, view.rgb, values, view.times, colorbar=colorbar)
            continue
        ax, look = part.subplots(), {"colorbar": colorbar, "start": view.start}
        attention_on_spectrogram(view.spec, values, clip_config.front_end, ax, **look)
        if times is not None:
            _mark(ax, times)
    figure.suptitle(_reading(maps, layer, head, slot), x=0.01, ha="left", color=INK, size=11)
    return figure


def attention_alt(
    view: View,
    maps,
    clip_config: ClipConfig,
    layer: int = -1,
    head: int | None = None,
    slot: int | None = None,
) -> str:
    """A sentence that says what is read, and where in the frames and in the sound most."""
    parts = [_reading(maps, layer, head, slot)]
    if "rgb" in _streams(maps):
        parts.append(attention_on_frames_alt(maps.mean("rgb", layer, head, slot), view.times))
    if "spec" in _streams(maps):
        front, values = clip_config.front_end, maps.mean("spec", layer, head, slot)
        seconds = len(view.spec) * front.hop
        parts.append(attention_on_spectrogram_alt(values, seconds, front, view.start))
    return "; ".join(parts)


def _streams(maps) -> list[str]:
    return [stream for stream in ("rgb", "spec") if getattr(maps, stream) is not None]


def _reading(maps, layer: int, head: int | None, slot: int | None) -> str:
    """Whose attention it is, such as "what the bottleneck reads in layer 4, slot 0"."""
    who = "the bottleneck" if maps.query == "bottleneck" else "the class token"
    parts = [f"what {who} reads in layer {maps.layers[layer]}"]
    parts += [f"head {head}"] if head is not None else []
    parts += [f"slot {slot}"] if slot is not None else []
    return ", ".join(parts)


def _mark(ax: Axes, times: Sequence[float]) -> None:
    """Small triangles along the top edge at these times; those beyond the sound are left out."""
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

    `frames` are uint8 or floats in [-1, 1]. A map stands for T // t frames in a row, of which the
    first is shown, with its time from `times` (seconds, one per frame) below.
    """
    columns = min(columns, len(maps))
    height = _strip_height(frames, maps, columns) + bool(title) * 0.3
    figure = _figure(columns * SIDE + 0.9 * colorbar, height)
    _strip(figure, frames, maps, times, columns, colorbar)
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, size=11)
    return figure


def _strip_height(frames, maps, columns: int = 8) -> float:
    """The height in inches of `_strip` at its natural width."""
    rows = -(-len(maps) // columns)
    return rows * (SIDE * frames.shape[1] / frames.shape[2] + 0.3)


def _strip(figure, frames, maps, times, columns: int = 8, colorbar: bool = True):
    """The times of the frames that are drawn into a figure or a part of one, or None."""
    frames, maps = _as_uint8(frames), np.asarray(maps, np.float32)
    shown = _first_frames(len(frames), len(maps))
    columns = min(columns, len(maps))
    axes = figure.subplots(-(-len(maps) // columns), columns, squeeze=False)
    scale = _scale(maps)
    for ax in axes.flat[len(maps) :]:
        ax.remove()
    for ax, index, attention in zip(axes.flat, shown, maps, strict=False):
        ax.imshow(_grey(frames[index]), interpolation="nearest")
        _overlay(ax, upsample(attention, frames.shape[1:3]), scale)
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(
            f"frame {index}" if times is None else f"{times[index]:.2f} s", color=INK, size=9
        )
        _quiet(ax)
    if colorbar:
        _colorbar(list(axes.flat[: len(maps)]), ScalarMappable(scale, ATTENTION_MAP), "attention")
    return None if times is None else [times[index] for index in shown]


def attention_on_frames_alt(
    maps: Real[Any, "t y x"], times: Sequence[float] | np.ndarray | None = None
) -> str:
    """A sentence that says when and where on the picture the attention is highest."""
    maps = np.asarray(maps, np.float32)
    start = f"attention over {len(maps)} frames"
    if np.ptp(maps) < 1e-9:
        return f"{start}, spread evenly"
    index, y, x = _peak(maps)
    if times is None:
        when = f"in frame {index + 1} of {len(maps)}"
    else:
        when = f"at {times[_first_frames(len(times), len(maps))[index]]:.2f} s"
    return f"{start}, highest {when}, {_place(y, x, maps.shape[1:])}"


def attention_on_spectrogram(
    spec: Num[Any, "N M *channels"],
    maps: Real[Any, "time mel"],
    front_end: FrontEnd | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    colorbar: bool = True,
    start: float = 0.0,
) -> Axes:
    """Axes with a grey spectrogram under an attention map [time, mel], on the same seconds.

    The clock shows `start` (seconds) at the left edge.
    """
    ax = ax or _figure(6.4, 2.8).subplots()
    _draw_sound(ax, spec, front_end, "gray", start)
    values, maps = _one_channel(spec), np.asarray(maps, np.float32)
    image = _overlay(
        ax,
        upsample(maps, values.shape).T,
        _scale(maps),
        origin="lower",
        aspect="auto",
        extent=_sound_extent(values, front_end, start),
    )
    if colorbar:
        _colorbar(ax, ScalarMappable(image.norm, ATTENTION_MAP), "attention")
    return _finish(ax, title)


def attention_on_spectrogram_alt(
    maps: Real[Any, "time mel"],
    seconds: float,
    front_end: FrontEnd | None = None,
    start: float = 0.0,
) -> str:
    """A sentence that says when, and near which pitch, the attention to the sound is highest."""
    maps = np.asarray(maps, np.float32)
    length = f"attention over {seconds:.1f} s of sound"
    if np.ptp(maps) < 1e-9:
        return f"{length}, spread evenly"
    row, mel = _peak(maps)
    when = start + (row + 0.5) / maps.shape[0] * seconds
    part = ("low", "middle", "high")[3 * mel // maps.shape[1]]
    if front_end is None:
        return f"{length}, highest near {when:.1f} s in the {part} pitches"
    centre = round((mel + 0.5) / maps.shape[1] * front_end.mels)
    return f"{length}, highest near {when:.1f} s and {_pitch(centre, front_end)}"


def upsample(attention: Real[Any, "y x"], size: tuple[int, int]) -> np.ndarray:
    """A map stretched bilinearly to `size` (rows, columns), as if it covered the whole picture."""
    image = Image.fromarray(np.asarray(attention, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def _overlay(ax: Axes, attention, scale: Normalize, **where):
    """An image whose opacity follows the attention: what is not attended to stays visible."""
    opacity = np.clip(scale(attention), 0, 1) ** 0.7 * 0.85
    return ax.imshow(attention, cmap=ATTENTION_MAP, norm=scale, alpha=opacity, **where)


def _first_frames(frames: int, maps: int) -> range:
    """The index of the first frame of each map; frames that fill no map at the end are left out."""
    if not 0 < maps <= frames:
        raise ValueError(f"{maps} maps do not fit {frames} frames: each map needs a frame or more.")
    return range(0, frames // maps * maps, frames // maps)


def _as_uint8(frames) -> np.ndarray:
    """Frames [T, H, W, 3] as bytes, from bytes or from floats in [-1, 1]."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return frames
    return np.clip((frames.astype(np.float32) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def _grey(frame: np.ndarray) -> np.ndarray:
    """A frame with half of its colour taken out, so that colour means attention."""
    luma = frame @ np.array([0.299, 0.587, 0.114])
    return (0.5 * frame + 0.5 * luma[..., None]).astype(np.uint8)


def _scale(maps: np.ndarray) -> Normalize:
    """One colour scale for all maps, from no attention to the most there is."""
    return Normalize(0, float(maps.max()) if maps.max() > 0 else 1.0)


def _peak(array: np.ndarray) -> tuple[int, ...]:
    """The indices of the highest value."""
    return tuple(int(i) for i in np.unravel_index(array.argmax(), array.shape))


def _place(y: int, x: int, size: tuple[int, int]) -> str:
    """A cell of a grid in words: "top left", "centre", "bottom right"."""
    row = ("top", "middle", "bottom")[3 * y // size[0]]
    column = ("left", "centre", "right")[3 * x // size[1]]
    if row == "middle":
        return "in the centre" if column == "centre" else f"on the {column}"
    return f"at the {row} {column}"


# Probabilities


def bars(
    labels: Sequence[str],
    probabilities: Real[Any, " C"] | Sequence[float],
    ax: Axes | None = None,
    title: str | None = None,
    top: int = 5,
    colour: str = COLOURS["both"],
) -> Axes:
    """Axes with the `top` most probable labels as horizontal bars, the most probable on top."""
    pairs = _ranked(labels, probabilities, top)
    ax = ax or _figure(4.2, 0.5 * len(pairs) + 0.6).subplots()
    heights = np.arange(len(pairs))
    ax.barh(heights, [1.0] * len(pairs), height=0.3, color=FAINT, alpha=0.55)
    ax.barh(heights, [p for _, p in pairs], height=0.3, color=colour, label="probability")
    for height, (label, probability) in zip(heights, pairs, strict=True):
        ax.text(0, height - 0.24, label, color=INK, size=9.5, va="bottom")
        ax.text(
            1, height - 0.24, _percent(probability), color=INK, size=9.5, va="bottom", ha="right"
        )
    ax.set(xlim=(0, 1), ylim=(len(pairs) - 0.6, -0.75), xticks=[], yticks=[])
    _quiet(ax)
    return _finish(ax, title)


def compare_bars(predictions: Mapping[str, Iterable[tuple[str, float]]], top: int = 5) -> Figure:
    """A figure with the bars of several predictions side by side, such as
    {"both": [("bell heard", 0.97), ...], "sound alone": [...], "picture alone": [...]}."""
    panels = {name: list(pairs) for name, pairs in predictions.items()}
    rows = max(min(top, len(pairs)) for pairs in panels.values())
    figure = _figure(3.1 * len(panels), 0.5 * rows + 0.6)
    figure.get_layout_engine().set(wspace=0.08)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (name, pairs) in zip(axes, panels.items(), strict=True):
        labels, values = zip(*pairs, strict=True)
        bars(labels, values, ax, name, top, COLOURS.get(name, COLOURS["both"]))
        ax.set_ylim(rows - 0.6, -0.75)
    return figure


def bars_alt(
    labels: Sequence[str], probabilities: Real[Any, " C"] | Sequence[float], top: int = 5
) -> str:
    """A sentence that lists the most probable labels with their probabilities."""
    pairs = _ranked(labels, probabilities, top)
    return "most probable: " + ", ".join(f"{label} {_percent(p)}" for label, p in pairs)


def _ranked(labels, probabilities, top: int) -> list[tuple[str, float]]:
    values = np.asarray(probabilities, np.float32)
    if len(labels) != len(values):
        raise ValueError(f"{len(labels)} labels do not name {len(values)} probabilities.")
    order = np.argsort(-values, kind="stable")[:top]
    return [(labels[i], float(values[i])) for i in order]


def _percent(probability: float) -> str:
    return "< 1 %" if 0 < probability < 0.005 else f"{probability:.0%}".replace("%", " %")


# Training


def curves(
    records: Iterable[Mapping[str, Any]],
    keys: Sequence[str] = ("loss",),
    ax: Axes | None = None,
    title: str | None = None,
    x: str = "step",
) -> Axes:
    """Axes with one line per key over `x`, from rows such as {"step": 50, "loss": 3.1}.

    A row that lacks a key is left out of that key's line.
    """
    records = list(records)
    ax = ax or _figure(6.4, 3.2).subplots()
    for key, colour in zip(keys, CYCLE, strict=False):
        across, up = _series(records, x, key)
        ax.plot(across, up, color=colour, lw=1.8, label=f"{key} (last {up[-1]:.3g})")
        ax.plot(across[-1], up[-1], "o", color=colour, ms=4)
    ax.legend(frameon=False, labelcolor=INK, fontsize=9.5)
    ax.set(xlabel=x)
    ax.grid(axis="y", color=FAINT, lw=0.7)
    ax.set_axisbelow(True)
    return _finish(ax, title)


KINDS = ("mAP seen", "mAP heard", "mAP both", "matched accuracy")


def training(records: Iterable[Mapping[str, Any]]) -> Figure:
    """Figure of a run on the micro-world: the loss, and the validation scores by kind of class."""
    records = list(records)
    figure = _figure(10.0, 3.4)
    loss, scores = figure.subplots(1, 2)
    curves(records, ("loss",), loss, "training loss, summed over classes")
    curves(records, KINDS, scores, "200 validation clips")
    scores.set(ylim=(0, 1.02))
    return figure


def training_alt(records: Iterable[Mapping[str, Any]]) -> str:
    """A sentence that says where the loss and each score of a run start and end."""
    return curves_alt(records, ("loss", *KINDS))


def curves_alt(
    records: Iterable[Mapping[str, Any]], keys: Sequence[str] = ("loss",), x: str = "step"
) -> str:
    """A sentence that says where each line starts and ends."""
    records = list(records)
    lines = []
    for key in keys:
        across, up = _series(records, x, key)
        lines.append(
            f"{key} from {up[0]:.3g} at {x} {across[0]:g} to {up[-1]:.3g} at {x} {across[-1]:g}"
        )
    return "; ".join(lines)


def _series(records: list, x: str, key: str) -> tuple[list, list]:
    rows = [(row[x], row[key]) for row in records if x in row and key in row]
    if not rows:
        known = sorted({name for row in records for name in row})
        raise ValueError(f"no row has both {x!r} and {key!r}; the rows have {known}.")
    across, up = zip(*rows, strict=True)
    return list(across), list(up)


# What all pictures share


def _figure(width: float, height: float) -> Figure:
    """A figure in inches outside pyplot, on white paper, so that a dark page frames it."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white", layout=layout)
    # A notebook asks for this method; Gradio knows the class by its name, so it stays plain.
    figure._repr_png_ = partial(_png, figure)
    return figure


def _png(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _finish(ax: Axes, title: str | None) -> Axes:
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


def _quiet(ax: Axes) -> None:
    for spine in ax.spines.values():
        spine.set_visible(False)


def _colorbar(axes, image, label: str) -> None:
    first = axes[0] if isinstance(axes, list) else axes
    bar = first.figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05, aspect=18)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=8.5, length=2, width=0.7)
    bar.set_label(label, color=INK, size=9.5)
