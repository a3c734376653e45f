"""Plot the flow between modalities, layer by layer, as bands whose width is their share.

L fused layers   G groups: the streams, then the bottleneck tokens
"""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from mbt_lite.plot.style import (
    COLORS,
    FAINT,
    INK,
    add_colorbar,
    finish,
    hide_frame,
    new_figure,
    signed,
)

CHANGE_MAP = "PRGn"  # purple falls, green rises; neither is the color of a stream
ANCHORS = {"spec": 0.0, "rgb": 1.0}  # audio is aligned at the bottom, video at the top
BOTTLENECK = 0.9  # height for all bottleneck tokens together; the streams have 1
NODE, HAIRLINE = 0.015, 0.003  # least height of a node and of a band
GAP = 0.09  # between nodes
WIDTH = 0.045  # of a node; columns are 1 apart
HALO = [withStroke(linewidth=2.5, foreground="white")]
TITLES = {
    "attention": "What the answer reads, and through which bottleneck tokens",
    "cause": "What the answer reads, and what cutting a band changes",
}


def flow(flow, color_by: str = "attention") -> Figure:
    """A figure of an `explain.Flow`: columns before and after each fused layer, in each a node per
    stream and per bottleneck token, and between them bands as wide as their share of the answer's
    reading.

    Bands to and from bottleneck tokens are widened by a factor that the figure names. `color_by`
    "attention" gives a band the color of its source; "cause" colors it by the change of the
    label's logit when it is cut.
    """
    if color_by not in ("attention", "cause"):
        raise ValueError(f"color_by={color_by!r} must be 'attention' or 'cause'.")
    if color_by == "cause" and flow.effect is None:
        raise ValueError("this flow has no effects to color by; ask for them, or for 'attention'.")
    layout = _lay_out(flow)
    ax = new_figure(max(2.1 * len(flow.layers) + 2.6, 6.4), 5.6).subplots()
    (_attention if color_by == "attention" else _cause)(ax, flow, layout)
    _nodes(ax, flow, layout)
    _axes(ax, flow, layout)
    finish(ax, TITLES[color_by]).tick_params(length=0)
    return ax.figure


@dataclass(frozen=True)
class _Layout:
    """Places of nodes and bands; all streams together have height 1."""

    factor: int  # by which bands to and from bottleneck tokens are widened
    widths: np.ndarray  # [L, G, G] of bands
    lows: np.ndarray  # [L + 1, G] lower edge of nodes
    heights: np.ndarray  # [L + 1, G]
    starts: np.ndarray  # [L, G, G] lower edge of bands at their left end
    ends: np.ndarray  # [L, G, G] and at their right end


def _lay_out(flow) -> _Layout:
    order, anchors, factor = _order(flow), _anchors(flow), _factor(flow)
    widths = flow.mass * np.where(_stays(flow), 1, factor)
    widths = np.where(flow.mass > 0, np.maximum(widths, HAIRLINE), 0)
    nothing = np.zeros_like(widths[:1, 0])
    leaving = np.concatenate([widths.sum(2), nothing])
    coming = np.concatenate([nothing, widths.sum(1)])
    heights = np.maximum(np.maximum(leaving, coming), NODE)
    lanes = heights.max(0)
    floors = np.empty_like(lanes)
    floors[order] = np.cumsum(lanes[order] + GAP) - lanes[order]
    lows = floors + (lanes - heights) * anchors
    starts = _stacked(widths, lows[:-1] + (heights - leaving)[:-1] * anchors, order)
    ends = _stacked(widths.swapaxes(1, 2), lows[1:] + (heights - coming)[1:] * anchors, order)
    return _Layout(factor, widths, lows, heights, starts, ends.swapaxes(1, 2))


def _stacked(bands: np.ndarray, floors: np.ndarray, order: list[int]) -> np.ndarray:
    """Lower edges [L, G, G] of the bands at nodes with these floors, stacked in this order."""
    edges = np.empty_like(bands)
    edges[..., order] = np.cumsum(bands[..., order], -1) - bands[..., order]
    return edges + floors[..., None]


def _order(flow) -> list[int]:
    """Groups from bottom to top: the audio, the bottleneck tokens, the video."""
    tokens = range(len(flow.groups) - 1, len(flow.streams) - 1, -1)
    return [flow.streams.index("spec"), *tokens, flow.streams.index("rgb")]


def _anchors(flow) -> np.ndarray:
    """The place of each group within its lane, from 0, the bottom, to 1, the top."""
    tokens = len(flow.groups) - len(flow.streams)
    return np.array([*(ANCHORS[stream] for stream in flow.streams), *[0.5] * tokens])


def _bottlenecks(flow) -> np.ndarray:
    """Which groups are bottleneck tokens, [G] of bool."""
    return np.arange(len(flow.groups)) >= len(flow.streams)


def _stays(flow) -> np.ndarray:
    """Which edges stay in the streams, [G, G] of bool."""
    return ~_bottlenecks(flow)[:, None] & ~_bottlenecks(flow)


def _factor(flow) -> int:
    """A round factor for bands to and from bottleneck tokens, so that their fullest column fits."""
    fullest = (flow.mass * ~_stays(flow)).sum((1, 2)).max()
    factor = BOTTLENECK / max(fullest, 1e-3)
    return max(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if step <= max(factor, 1))


# Bands


def _attention(ax: Axes, flow, layout: _Layout) -> None:
    """Bands in the color of their source; those that stay in a stream are pale."""
    colors = _colors(flow)
    for layer, i, j in _edges(flow):
        alpha = 0.22 if _stays(flow)[i, j] else 0.6
        _band(ax, flow, layout, (layer, i, j), color=colors[i], alpha=alpha, lw=0.5)
    edge = _largest(flow, flow.mass)
    _label_band(ax, layout, edge, _share(flow.mass[edge]))


def _cause(ax: Axes, flow, layout: _Layout) -> None:
    """Bands in the color of the change when they are cut, large changes on top."""
    sizes = np.nan_to_num(np.abs(flow.effect), nan=-1)
    reach = max(sizes.max(), 0.01)  # rounding errors are no effects
    scale = Normalize(-reach, reach)
    for edge in sorted(_edges(flow), key=lambda edge: sizes[edge]):
        _band(ax, flow, layout, edge, **_band_style(-flow.effect[edge], scale))
    edge = _largest(flow, flow.effect)
    _label_band(ax, layout, edge, signed(-flow.effect[edge]))
    image = ScalarMappable(scale, CHANGE_MAP)
    add_colorbar(ax, image, f"change of the logit of “{flow.label}” when cut")


def _band_style(change: float, scale: Normalize) -> dict:
    """Colors of a band by its change; the outline shows large changes of thin bands."""
    if np.isnan(change):
        return {"color": FAINT, "alpha": 0.6, "lw": 0.5}
    face, strength = colormaps[CHANGE_MAP](scale(change)), abs(change) / scale.vmax
    line = [(0.65 + 0.35 * strength) * part for part in face[:3]]
    return {"facecolor": face, "edgecolor": line, "lw": 0.5 + 1.5 * strength}


def _edges(flow) -> list[tuple[int, int, int]]:
    """Edges (layer's index, source, target) with mass, those within a stream first."""
    edges = [tuple(int(n) for n in edge) for edge in np.argwhere(flow.mass > 0)]
    return sorted(edges, key=lambda edge: not _stays(flow)[edge[1:]])


def _band(ax: Axes, flow, layout: _Layout, edge: tuple[int, int, int], **look) -> None:
    """A band from a node's right side to the left side of one in the next column."""
    left, right = edge[0] + WIDTH / 2, edge[0] + 1 - WIDTH / 2
    (low, to), width = (layout.starts[edge], layout.ends[edge]), layout.widths[edge]
    middle = (left + right) / 2
    below = [(left, low), (middle, low), (middle, to), (right, to)]
    above = [(x, y + width) for x, y in reversed(below)]
    curve = [Path.CURVE4] * 3
    codes = [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY]
    path = Path([*below, *above, below[0]], codes)
    ax.add_patch(PathPatch(path, gid=_named(flow, edge), **look))


def _label_band(ax: Axes, layout: _Layout, edge: tuple[int, int, int], number: str) -> None:
    """Write a number in the middle of a band."""
    y = (layout.starts[edge] + layout.ends[edge] + layout.widths[edge]) / 2
    look = {"color": INK, "size": 9, "weight": "bold", "ha": "center", "va": "center"}
    ax.text(edge[0] + 0.5, y, number, path_effects=HALO, zorder=4, **look)


# Nodes and axes


def _nodes(ax: Axes, flow, layout: _Layout) -> None:
    """Nodes with their shares, and the share of each band that stays in a stream."""
    colors, shares = _colors(flow), _shares(flow)
    for (column, group), share in np.ndenumerate(shares):
        low, height = layout.lows[column, group], layout.heights[column, group]
        place = (column - WIDTH / 2, low)
        name = f"{flow.groups[group]}, column {column}"
        color = colors[group] if share > 0 else FAINT
        ax.add_patch(Rectangle(place, WIDTH, height, color=color, lw=0, zorder=3, gid=name))
        if share > 0:
            _label_node(ax, flow, (column, low, height), group, share)
    for layer, stream in np.ndindex(len(flow.layers), len(flow.streams)):
        edge = (layer, stream, stream)
        y = layout.starts[edge] + layout.widths[edge] / 2
        look = {"color": INK, "size": 8.5, "ha": "center", "va": "center"}
        ax.text(layer + 0.5, y, f"{_share(flow.mass[edge])} stays", **look)


def _label_node(ax, flow, place: tuple[float, float, float], group: int, share: float) -> None:
    """Write a node's share: below the audio, above all others."""
    column, low, height = place
    down = group == flow.streams.index("spec")
    y, side = (low - 0.012, "top") if down else (low + height + 0.008, "bottom")
    size = 7.5 if _bottlenecks(flow)[group] else 9.5
    look = {"color": INK, "size": size, "ha": "center", "va": side, "path_effects": HALO}
    ax.text(column, y, _share(share), zorder=4, **look)


def _axes(ax: Axes, flow, layout: _Layout) -> None:
    """Names of columns below and of groups at the left, and what the widths mean."""
    columns = len(flow.layers) + 1
    names = [f"before\nlayer {flow.layers[0]}", *(f"after\nlayer {n}" for n in flow.layers)]
    groups = [group.removeprefix("bottleneck ") for group in flow.groups]
    ax.set_xticks(range(columns), names)
    ax.set_yticks(layout.lows[0] + layout.heights[0] / 2, groups)
    ax.set(xlim=(-0.12, columns - 1 + 0.14))
    ax.set_ylim(GAP - 0.08, (layout.lows + layout.heights).max() + 0.08)
    widths = "width of a band: its share of the answer's reading"
    if layout.factor > 1:
        widths += f";\nbands to and from bottleneck tokens are drawn {layout.factor} times as wide"
    ax.set_xlabel(f"{widths};\nhairlines: less than {100 * HAIRLINE / layout.factor:.1g} %")
    hide_frame(ax)


# Sentences


def flow_alt(flow) -> str:
    """Sentences that name the edge with most attention, the edge that changes the label most, and
    whether these are the same.
    """
    pairs = zip(flow.groups, _shares(flow)[0, : len(flow.streams)], strict=False)
    streams = " and ".join(f"{_share(share)} in the {name}" for name, share in pairs)
    count = len(flow.layers)
    layers = f"{count} fused layer{'s' * (count > 1)}"
    return "; ".join([f"what the answer reads through {layers}: {streams} before", *_verdict(flow)])


def _verdict(flow) -> list[str]:
    """The edge with most attention, the edge that matters most, and whether they agree."""
    widest = _largest(flow, flow.mass)
    parts = [f"largest attention edge: {_named(flow, widest)} ({_share(flow.mass[widest])})"]
    if flow.effect is None:
        return parts
    change = f"changes the logit of {flow.label} by"
    strongest = _largest(flow, flow.effect)
    cut = f"cutting it {change} {signed(-flow.effect[strongest])}"
    parts.append(f"largest causal edge: {_named(flow, strongest)} ({cut})")
    if strongest == widest:
        return [*parts, "attention and cause agree: these are the same edge"]
    other = f"cutting the largest attention edge {change} {signed(-flow.effect[widest])}"
    return [*parts, f"attention and cause disagree: {other}"]


def _largest(flow, values: np.ndarray) -> tuple[int, int, int]:
    """The edge between stream and bottleneck token with the value of the largest size."""
    crosses = _bottlenecks(flow)[:, None] != _bottlenecks(flow)
    sizes = np.where(crosses, np.nan_to_num(np.abs(values)), -1)
    return tuple(int(n) for n in np.unravel_index(sizes.argmax(), sizes.shape))


def _named(flow, edge: tuple[int, int, int]) -> str:
    layer, source, target = edge
    return f"{flow.groups[source]} to {flow.groups[target]} in layer {flow.layers[layer]}"


def _shares(flow) -> np.ndarray:
    """The share of each group in each column, [L + 1, G]."""
    return np.concatenate([flow.mass.sum(2), flow.mass[-1:].sum(1)])


def _colors(flow) -> list[str]:
    streams = [COLORS[stream] for stream in flow.streams]
    return streams + [COLORS["both"]] * (len(flow.groups) - len(streams))


def _share(share: float) -> str:
    """A share in words, such as "62 %", "1.4 %" or "< 0.1 %"."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.{0 if share == 0 or share >= 0.0995 else 1}f} %"
