"""Plot the flow between modalities, layer by layer, as bands whose width is their share.

L fused layers   G groups: the streams, then the bottleneck tokens
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
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
WIDTH, HAIRLINE = 80, 0.5  # points: of a band with a share of 1, and of the thinnest band
HALO = [withStroke(linewidth=2.5, foreground="white")]
LOOK = {"color": INK, "ha": "center", "va": "center", "path_effects": HALO, "zorder": 4}
TITLES = {
    "attention": "What the answer reads, and through which bottleneck tokens",
    "cause": "What the answer reads, and what cutting a band changes",
}


def flow(flow, color_by: str = "attention") -> Figure:
    """A figure of an `explain.Flow`: columns before and after each fused layer, in each a node per
    stream and per bottleneck token, and between them bands as wide as their share of the answer's
    reading.

    `color_by` "attention" gives a band the color of its source; "cause" colors it by the change of
    the label's logit when it is cut. A thin band with a large change is drawn up to 3 points wide.
    """
    if color_by not in TITLES:
        raise ValueError(f"color_by={color_by!r} must be 'attention' or 'cause'.")
    if color_by == "cause" and flow.effect is None:
        raise ValueError("this flow has no effects to color by; ask for them, or for 'attention'.")
    ax = new_figure(max(2.1 * len(flow.layers) + 2.6, 6.4), 5.6).subplots()
    (_attention if color_by == "attention" else _cause)(ax, flow)
    _nodes(ax, flow)
    columns = len(flow.layers) + 1
    names = [f"before\nlayer {flow.layers[0]}", *(f"after\nlayer {n}" for n in flow.layers)]
    ax.set_xticks(range(columns), names)
    ax.set_yticks(_heights(flow), [group.removeprefix("bottleneck ") for group in flow.groups])
    ax.set(xlim=(-0.15, columns - 0.85), ylim=(-1, _heights(flow).max() + 1))
    ax.set_xlabel("width of a band: its share of the answer's reading")
    hide_frame(ax)
    finish(ax, TITLES[color_by]).tick_params(length=0)
    return ax.figure


def _heights(flow) -> np.ndarray:
    """The height of each group [G]: the audio below, the video above, the tokens between them."""
    count = len(flow.groups) - len(flow.streams)
    places = {"spec": 0, "rgb": count + 2}
    tokens = range(count, 0, -1)
    return np.array([*(places[stream] for stream in flow.streams), *(k + 0.5 for k in tokens)])


def _is_stream(flow) -> np.ndarray:
    """Which groups are streams, [G] of bool."""
    return np.arange(len(flow.groups)) < len(flow.streams)


# Bands


def _attention(ax: Axes, flow) -> None:
    """Bands in the color of their source; those that stay in a stream are pale."""
    for edge in _edges(flow):
        alpha = 0.22 if _is_stream(flow)[list(edge[1:])].all() else 0.6
        width = max(WIDTH * flow.mass[edge], HAIRLINE)
        _band(ax, flow, edge, width, _color(flow, edge[1]), alpha=alpha)
    edge = _largest(flow, flow.mass)
    _label(ax, flow, edge, _share(flow.mass[edge]))


def _cause(ax: Axes, flow) -> None:
    """Bands in the color of the change when they are cut, large changes on top."""
    sizes = np.nan_to_num(np.abs(flow.effect), nan=-1)
    reach = max(sizes.max(), 0.01)  # rounding errors are no effects
    scale = Normalize(-reach, reach)
    for edge in sorted(_edges(flow), key=lambda edge: sizes[edge]):
        width = max(WIDTH * flow.mass[edge], HAIRLINE + 2.5 * max(sizes[edge], 0) / reach)
        cut = sizes[edge] >= 0
        color = colormaps[CHANGE_MAP](scale(-flow.effect[edge])) if cut else FAINT
        _band(ax, flow, edge, width, color)
    edge = _largest(flow, flow.effect)
    _label(ax, flow, edge, signed(-flow.effect[edge]))
    image = ScalarMappable(scale, CHANGE_MAP)
    add_colorbar(ax, image, f"change of the logit of “{flow.label}” when cut")


def _edges(flow) -> list[tuple[int, int, int]]:
    """Edges (layer's index, source, target) with mass, the widest first."""
    edges = [tuple(int(n) for n in edge) for edge in np.argwhere(flow.mass > 0)]
    return sorted(edges, key=lambda edge: -flow.mass[edge])


def _band(ax: Axes, flow, edge: tuple[int, int, int], width: float, color, **look) -> None:
    """A band of this width in points from a node to one in the next column."""
    layer, low, high = edge[0], *_heights(flow)[list(edge[1:])]
    points = [(layer, low), (layer + 0.5, low), (layer + 0.5, high), (layer + 1, high)]
    path = Path(points, [Path.MOVETO, *[Path.CURVE4] * 3])
    look |= {"fill": False, "capstyle": "butt", "gid": _named(flow, edge)}
    look |= {"path_effects": [withStroke(linewidth=width + 1, foreground="#c9ccd4")]}
    ax.add_patch(PathPatch(path, lw=width, edgecolor=color, **look))


def _label(ax: Axes, flow, edge: tuple[int, int, int], number: str) -> None:
    """Write a number in the middle of a band."""
    height = _heights(flow)[list(edge[1:])].mean()
    ax.text(edge[0] + 0.5, height, number, size=9, weight="bold", **LOOK)


def _nodes(ax: Axes, flow) -> None:
    """Nodes with their shares, and the share of each band that stays in a stream."""
    heights, shares = _heights(flow), _shares(flow)
    for (column, group), share in np.ndenumerate(shares):
        color = _color(flow, group) if share > 0 else FAINT
        ax.plot(column, heights[group], "s", color=color, ms=6, zorder=3)
        if share > 0:
            down = flow.groups[group] == "audio"
            size, offset = (9.5, 0.7) if _is_stream(flow)[group] else (7.5, 0.3)
            ax.text(
                column, heights[group] + offset * (1 - 2 * down), _share(share), size=size, **LOOK
            )
    for layer, stream in np.ndindex(len(flow.layers), len(flow.streams)):
        stays = _share(flow.mass[layer, stream, stream])
        ax.text(layer + 0.5, heights[stream], f"{stays} stays", size=8.5, **LOOK)


def _color(flow, group: int) -> str:
    return COLORS[flow.streams[group]] if group < len(flow.streams) else COLORS["both"]


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
    crosses = _is_stream(flow)[:, None] != _is_stream(flow)
    sizes = np.where(crosses, np.nan_to_num(np.abs(values)), -1)
    return tuple(int(n) for n in np.unravel_index(sizes.argmax(), sizes.shape))


def _named(flow, edge: tuple[int, int, int]) -> str:
    layer, source, target = edge
    return f"{flow.groups[source]} to {flow.groups[target]} in layer {flow.layers[layer]}"


def _shares(flow) -> np.ndarray:
    """The share of each group in each column, [L + 1, G]."""
    return np.concatenate([flow.mass.sum(2), flow.mass[-1:].sum(1)])


def _share(share: float) -> str:
    """A share in words, such as "62 %", "1.4 %" or "< 0.1 %"."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.{0 if share == 0 or share >= 0.0995 else 1}f} %"
