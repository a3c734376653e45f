"""Plot the cost of early fusion and of many bottleneck tokens."""

from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbt_lite.config import MBTConfig
from mbt_lite.model.flops import model_cost
from mbt_lite.plot.style import CYCLE, FAINT, INK, finish, new_figure

WAYS = {  # to fuse
    "bottleneck": {"fusion": "bottleneck"},
    "joint, one encoder": {"fusion": "joint", "shared_encoder": True},
    "joint, an encoder each": {"fusion": "joint", "shared_encoder": False},
}
BOTTLENECKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def cost(config: MBTConfig) -> Figure:
    """A figure of GFLOPs for one clip: over the fusion layer, and over the bottleneck tokens."""
    figure = new_figure(10.0, 3.4)
    layers, widths = figure.subplots(1, 2)
    for (name, values), colour in zip(_by_layer(config).items(), CYCLE, strict=False):
        _line(layers, range(config.depth + 1), values, name, colour)
    layers.set(xlabel=f"fusion layer (of {config.depth}; {config.depth}: none)", ylabel="GFLOPs")
    _line(widths, BOTTLENECKS, _by_width(config), "bottleneck", CYCLE[0])
    joint = model_cost(replace(config, fusion="joint", shared_encoder=True)).gflops
    widths.axhline(joint, color=CYCLE[1], lw=1.8, ls="--", label="joint, one encoder")
    widths.set(xlabel="bottleneck tokens", ylabel="GFLOPs", xscale="log")
    widths.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1,024"])
    widths.minorticks_off()
    for ax in (layers, widths):
        ax.legend(frameon=False, labelcolor=INK, fontsize=9)
        ax.grid(axis="y", color=FAINT, lw=0.7)
        ax.set_axisbelow(True)
    finish(layers, "fusing earlier")
    finish(widths, f"wider bottlenecks, from layer {config.fusion_layer} on")
    return figure


def cost_alt(config: MBTConfig) -> str:
    """A sentence that says what each way to fuse costs at layer 0 and at the model's own."""
    own = config.fusion_layer
    parts = [
        f"{name}: {values[0]:,.0f} GFLOPs at fusion layer 0, {values[own]:,.0f} at layer {own}"
        for name, values in _by_layer(config).items()
    ]
    widths = _by_width(config)
    wide = f"1 bottleneck token {widths[0]:,.0f}, {BOTTLENECKS[-1]:,} tokens {widths[-1]:,.0f}"
    return "; ".join([*parts, wide])


def _by_layer(config: MBTConfig) -> dict[str, list[float]]:
    """{way to fuse: GFLOPs at every fusion layer}."""
    tokens = f"{config.bottlenecks} token" + "s" * (config.bottlenecks > 1)
    layers = range(config.depth + 1)
    return {
        f"{name}, {tokens}" if name == "bottleneck" else name: [
            model_cost(replace(config, fusion_layer=layer, **way)).gflops for layer in layers
        ]
        for name, way in WAYS.items()
    }


def _by_width(config: MBTConfig) -> list[float]:
    bottled = replace(config, fusion="bottleneck")
    return [model_cost(replace(bottled, bottlenecks=count)).gflops for count in BOTTLENECKS]


def _line(ax: Axes, across, up, name: str, colour: str) -> None:
    ax.plot(across, up, "o-", color=colour, lw=1.8, ms=3.5, label=name)
