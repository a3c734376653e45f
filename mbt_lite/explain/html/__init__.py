"""Interactive views of a clip: a video, alt text and an HTML page for each state.

panel = html.attention(clf, features.read_views("clip.mp4", clf.clip_config)[0])
panel.png(), panel.alt(), panel.page()       # and widgets.explore(panel) in a notebook
"""

from mbt_lite.explain.html.attention import (
    attention,
    importance,
    importance_maps,
    present,
    worth,
)
from mbt_lite.explain.html.bottleneck import flow, interventions
from mbt_lite.explain.html.counterfactual import counterfactual
from mbt_lite.explain.html.grid import scrubber
from mbt_lite.explain.html.page import (
    Bar,
    Chart,
    bars_page,
    flow_page,
    page,
)
from mbt_lite.explain.html.panel import Choice, Panel

__all__ = [
    "Bar",
    "Chart",
    "Choice",
    "Panel",
    "attention",
    "bars_page",
    "counterfactual",
    "flow",
    "flow_page",
    "importance",
    "importance_maps",
    "page",
    "present",
    "scrubber",
    "interventions",
    "worth",
]
