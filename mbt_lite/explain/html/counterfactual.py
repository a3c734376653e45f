"""The counterfactual panel: other audio, none, noise, reversed, shifted."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from mbt_lite import explain, plot
from mbt_lite.explain.html.bottleneck import likeliest
from mbt_lite.explain.html.page import Bar, Chart, bars_page
from mbt_lite.explain.html.panel import Choice, Panel
from mbt_lite.features import View
from mbt_lite.inference import Classifier

QUESTIONS = ("exchange the sounds", "spoil one stream", "shift the audio")
TITLE = "What if?"
LEAD = "The same question put to the model after the clip was changed: who is it that it believes?"


def counterfactual(
    classifier: Classifier,
    view: View,
    other: View,
    names: tuple[str, str] = ("the first", "the second"),
    labels: Sequence[str] | None = None,
) -> Panel:
    """The `Panel` of two clips' images and sounds exchanged, and of the first one spoilt.

    The answers to choose from are the likeliest of both clips, or `labels`.
    """
    swap = explain.swap_audio(classifier, view, other, names)
    spoilt, shifted = explain.perturb(classifier, view), explain.shift_audio(classifier, view)
    both = (*likeliest(classifier, view, 4), *likeliest(classifier, other, 4))
    labels = tuple(labels or dict.fromkeys(both))
    choices = (Choice("label", "answer", labels), Choice("question", "what if", QUESTIONS))
    asked = (swap, plot.swap, plot.swap_alt), (spoilt, plot.perturbations, plot.perturbations_alt)
    asked = (*asked, (shifted, plot.shift, plot.shift_alt))

    def draw(label, question):
        found, drawn, _ = asked[question]
        return drawn(found, labels[label]).figure

    def words(label, question):
        found, _, said = asked[question]
        return said(found, labels[label])

    def chart(label, question):
        made = (_exchanged, _spoilt, _shifted)[question](asked[question][0], labels[label])
        look = {"title": f"{labels[label]}: {QUESTIONS[question]}", "axis": "probability (0-1)"}
        return Chart(words=words(label, question), **look, **made)

    page = partial(bars_page, TITLE, LEAD, choices, chart)
    return Panel(TITLE, LEAD, choices, draw, words, page)


def _exchanged(swap: explain.Swap, label: str) -> dict:
    bars = []
    for (i, j), value in np.ndenumerate(swap.probabilities[..., swap.labels.index(label)]):
        who = f"video of {swap.names[i]}, audio of {swap.names[j]}"
        bars.append(Bar(who, float(value), stream="both" if i == j else "spec"))
    return {"bars": bars}


def _spoilt(found: explain.Perturbations, label: str) -> dict:
    values = found.probabilities[:, found.labels.index(label)]
    streams = ["both", *("spec" if "audio" in name else "rgb" for name in found.names)]
    pairs = zip(["as it is", *found.names], values, streams, strict=True)
    return {"bars": [Bar(name, float(value), stream=stream) for name, value, stream in pairs]}


def _shifted(found: explain.Shift, label: str) -> dict:
    values = found.probabilities[:, found.labels.index(label)]
    points = [(float(x), float(y)) for x, y in zip(found.seconds, values, strict=True)]
    return {"lines": {label: points}, "across": "audio later than the video by (s)"}
