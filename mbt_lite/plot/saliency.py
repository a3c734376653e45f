"""Plot importance maps of several methods over the same frames and audio."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mbt_lite.config import ClipConfig
from mbt_lite.features import View
from mbt_lite.plot.audio import draw_spectrogram, one_channel, spectrogram_extent
from mbt_lite.plot.maps import (
    attention_on_frames_alt,
    attention_on_spectrogram_alt,
    common_scale,
    grey,
    overlay,
    span,
    spread,
    under_maps,
    upsample,
)
from mbt_lite.plot.style import INK, finish, hide_frame, new_figure

MOST = 5  # frames in a row
SIDE = 1.25  # inches, of a frame
BOX = "#56d4ff"  # light blue: on no map, and seen on dark and on light


def saliencies(
    view: View,
    found: Sequence,
    clip_config: ClipConfig,
    captions: Mapping[str, str] | None = None,
    box: Real[Any, "T 4"] | None = None,
) -> Figure:
    """A figure with a row for each `explain.Saliency` of one clip: frames, then the audio.

    Every map has a scale of its own, from zero to its highest value; what speaks against the label
    is not drawn. `captions` {method: what is known of it} stand above the rows; `box` (left, top,
    right, bottom in parts of the side, for each frame) is where the answer is known to be. Frames
    that share a map are shown one over the other.
    """
    streams = [s for s in ("rgb", "spec") if getattr(found[0], s) is not None]
    shown = spread(np.abs(found[0].rgb), MOST) if "rgb" in streams else []
    widths = [SIDE] * len(shown) + [3.0] * ("spec" in streams)
    figure = new_figure(sum(widths) + 0.6, (SIDE + 0.75) * len(found) + 0.1)
    parts = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    for part, one in zip(parts, found, strict=True):
        axes = part.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
        for ax, index in zip(axes, shown, strict=False):
            _frame(ax, view, one.rgb, index, box)
        if "spec" in streams:
            _audio(axes[-1], view, one.spec, clip_config)
        note = (captions or {}).get(one.method)
        title = f"{one.title}: {note}" if note else one.title
        part.suptitle(title, x=0.01, ha="left", color=INK, size=9.5)
    return figure


def saliencies_alt(view: View, found: Sequence, clip_config: ClipConfig) -> str:
    """A sentence for each map: when and where it is highest."""
    front, seconds = clip_config.front_end, len(view.spec) * clip_config.front_end.hop
    parts = []
    for one in found:
        words = []
        if one.rgb is not None:
            words.append(attention_on_frames_alt(one.rgb, view.times))
        if one.spec is not None:
            words.append(attention_on_spectrogram_alt(one.spec, seconds, front, view.start))
        parts.append(f"{one.method}: {'; '.join(words).replace('attention', 'importance')}")
    return ". ".join(parts)


def _frame(ax: Axes, view: View, maps: np.ndarray, index: int, box) -> None:
    group, maps = under_maps(len(view.rgb), len(maps))[index], np.maximum(maps, 0)
    image = view.rgb[group].mean(0)
    ax.imshow(grey(image), interpolation="nearest")
    overlay(ax, upsample(maps[index], image.shape[:2]), common_scale(maps))
    if box is not None:
        sides = np.asarray(box[group]) * len(image) - 0.5
        (left, top), (right, bottom) = sides[:, :2].min(0), sides[:, 2:].max(0)
        edge = {"fill": False, "edgecolor": BOX, "lw": 1.6}
        ax.add_patch(Rectangle((left, top), right - left, bottom - top, **edge))
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(span(view.times[group]), color=INK, size=8.5)
    hide_frame(ax)


def _audio(ax: Axes, view: View, maps: np.ndarray, clip_config: ClipConfig) -> None:
    front, maps = clip_config.front_end, np.maximum(maps, 0)
    draw_spectrogram(ax, view.spec, front, "gray", view.start)
    values = one_channel(view.spec)
    where = {"origin": "lower", "aspect": "auto"}
    extent = spectrogram_extent(values, front, view.start)
    overlay(ax, upsample(maps, values.shape).T, common_scale(maps), extent=extent, **where)
    finish(ax, None)
