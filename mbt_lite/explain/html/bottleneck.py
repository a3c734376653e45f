"""The flow explorer and the intervention panel of the bottleneck."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mbt_lite import explain, plot
from mbt_lite.explain.html.page import (
    Bar,
    Chart,
    bars_page,
    flow_page,
)
from mbt_lite.explain.html.panel import Choice, Panel
from mbt_lite.features import View
from mbt_lite.inference import Classifier

MOST = 6  # labels to choose from
COLOURS = ("attention", "cause")
KINDS = {
    "knockout": "cut one direction",
    "zero": "set a bottleneck token to zero",
    "freeze": "freeze a bottleneck token",
    "mean": "set a bottleneck token to its mean",
    "patch": "take a bottleneck token from the other clip",
}


def likeliest(classifier: Classifier, view: View, most: int = MOST) -> tuple[str, ...]:
    """The likeliest labels of a clip, best first."""
    return tuple(label for label, _ in classifier.predict(view.clip).top(most))


def flow(classifier: Classifier, view: View, label: str | None = None) -> Panel:
    """The `Panel` of the flow between audio and video for a label, or for the likeliest."""
    found = explain.flow(classifier, view, label)
    shown = ("all layers", *(f"layer {layer}" for layer in found.layers))
    choices = (
        Choice("colour", "colour", tuple(f"by {name}" for name in COLOURS)),
        Choice("layer", "show", shown, slider=True),
    )
    layers = (None, *found.layers)
    return Panel(
        title="What passes between audio and video",
        lead="A band is as wide as its share of what the answer was read from. By cause, its "
        "colour is what happens to the answer when the band is cut: the two need not agree.",
        choices=choices,
        draw=lambda colour, layer: plot.flow(found, COLOURS[colour], layers[layer]),
        words=lambda colour, layer: plot.flow_alt(found),
        page=partial(flow_page, found),
    )


def interventions(
    classifier: Classifier,
    view: View,
    other: View | None = None,
    means: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
) -> Panel:
    """Show how interventions on the bottleneck change the likeliest labels, or `labels`.

    Another clip allows patching; `means` of `explain.bottleneck_means` allow mean ablation.
    """
    effects = explain.intervene(classifier, view, other=other, means=means)
    labels = tuple(labels or likeliest(classifier, view))
    done = {one.kind for one in effects.operations}
    kinds = [kind for kind in KINDS if kind in done]
    choices = (
        Choice("label", "answer", labels),
        Choice("kind", "operation", tuple(KINDS[kind] for kind in kinds)),
    )
    parts = [only(effects, kind) for kind in kinds]
    title = "Interventions on the bottleneck"
    lead = "What happens to an answer when something is done to what the bottleneck tokens hold after a layer."

    def chart(label, kind):
        part = parts[kind]
        column = part.change[:, part.labels.index(labels[label])]
        pairs = zip(part.operations, column, strict=True)
        return Chart(
            title=f"{labels[label]}: {KINDS[kinds[kind]]}",
            axis="change of the logit",
            words=words(label, kind),
            bars=[Bar(one.words, float(x), stream=one.reader or "both") for one, x in pairs],
        )

    def words(label, kind):
        part, name = parts[kind], labels[label]
        most = part.strongest(name)
        return f"{plot.effects_alt(part, name)}. Most depends on this: {most.words}"

    return Panel(
        title=title,
        lead=lead,
        choices=choices,
        draw=lambda label, kind: plot.effects(parts[kind], labels[label]).figure,
        words=words,
        page=partial(bars_page, title, lead, choices, chart),
    )


def only(effects: explain.Effects, kind: str) -> explain.Effects:
    """The effects of one kind of operation."""
    chosen = [k for k, one in enumerate(effects.operations) if one.kind == kind]
    operations = tuple(effects.operations[k] for k in chosen)
    return replace(effects, operations=operations, operated=effects.operated[chosen])
