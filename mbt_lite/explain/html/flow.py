"""Show the flow between audio and video through the bottleneck tokens, layer by layer."""

from functools import partial

import numpy as np

from mbt_lite import explain, plot
from mbt_lite.explain.html.page import Choice, Panel, page
from mbt_lite.features import View
from mbt_lite.inference import Classifier

TITLE = "What passes between audio and video"
COLORS = ("attention", "cause")


def flow(classifier: Classifier, view: View, label: str | None = None) -> Panel:
    """The `Panel` of the flow between audio and video for a label, or for the most probable one."""
    flow = explain.flow(classifier, view, label)
    return Panel(
        title=TITLE,
        lead=_lead(flow),
        choices=_choices(flow),
        draw=lambda layer, color: plot.flow(flow, COLORS[color]),
        words=lambda **state: plot.flow_alt(flow),
        page=partial(flow_page, flow),
    )


def flow_page(flow) -> str:
    """The page of an `explain.Flow`: bands between audio, bottleneck tokens and video."""
    effect = None
    if flow.effect is not None:  # NaN marks an edge that was not cut
        effect = np.where(np.isnan(flow.effect), None, np.round(flow.effect, 4)).tolist()
    data = {
        "streams": list(flow.streams),
        "groups": list(flow.groups),
        "layers": list(flow.layers),
        "label": flow.label,
        "mass": np.round(np.asarray(flow.mass, float), 6).tolist(),
        "effect": effect,
    }
    return page(TITLE, _lead(flow), "flow.js", _choices(flow), data)


def _choices(flow) -> tuple[Choice, ...]:
    layers = ("all layers", *(f"layer {layer}" for layer in flow.layers))
    choices = (Choice("layer", "show", layers, slider=True),)
    if flow.effect is not None:
        choices += (Choice("color", "color", tuple(f"by {name}" for name in COLORS)),)
    return choices


def _lead(flow) -> str:
    return (
        "Audio and video meet only in the bottleneck tokens. The width of a band is its share of "
        f"what the answer “{flow.label}” was read from; its cause is how much the answer changes "
        "when it is cut. The two need not agree."
    )
