"""Interactive views of a clip: a figure, alt text and an HTML page for all states.

panel = html.attention(clf, features.read_views("clip.mp4", clf.clip_config)[0])
panel.png(), panel.alt(), panel.page()       # and widgets.explore(panel) in a notebook
"""

from mbt_lite.explain.html.attention import attention, importance, importance_maps, present, worth
from mbt_lite.explain.html.charts import counterfactual, interventions
from mbt_lite.explain.html.flow import flow, flow_page
from mbt_lite.explain.html.page import Bar, Chart, Choice, Panel, chart_panel, page

__all__ = [
    "Bar",
    "Chart",
    "Choice",
    "Panel",
    "attention",
    "chart_panel",
    "counterfactual",
    "flow",
    "flow_page",
    "importance",
    "importance_maps",
    "interventions",
    "page",
    "present",
    "worth",
]
