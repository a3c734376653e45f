"""Show interventions and counterfactuals as charts of a clip's answers."""

from collections.abc import Sequence

import numpy as np

from mbt_lite import explain
from mbt_lite.explain.html.page import Bar, Chart, Choice, Panel, chart_panel
from mbt_lite.features import View
from mbt_lite.inference import Classifier

PROBABILITY = "probability (0-1)"


def interventions(
    classifier: Classifier,
    view: View,
    other: View | None = None,
    labels: Sequence[str] | None = None,
) -> Panel:
    """The `Panel` of how interventions on the bottleneck change the likeliest labels, or `labels`.

    Another clip allows patching.
    """
    effects = explain.intervene(classifier, view, other=other)
    labels = tuple(labels or _likeliest(classifier, view, 6))
    kinds = tuple(dict.fromkeys(operation.kind for operation in effects.operations))

    def chart(label, kind):
        bars = [
            Bar(operation.words, float(change), stream=operation.reader or "both")
            for operation, change in zip(
                effects.operations, effects.changes(labels[label]), strict=True
            )
            if operation.kind == kinds[kind]
        ]
        return Chart(f"{labels[label]}: {kinds[kind]}", "change of the logit", bars)

    return chart_panel(
        "Interventions on the bottleneck",
        "How an answer changes when the bottleneck tokens are changed after a layer.",
        (Choice("label", "answer", labels), Choice("kind", "operation", kinds)),
        chart,
    )


def _likeliest(classifier: Classifier, view: View, count: int) -> list[str]:
    return [label for label, _ in classifier.predict(view.clip).top(count)]


def counterfactual(
    classifier: Classifier,
    view: View,
    other: View,
    names: tuple[str, str] = ("the first", "the second"),
    labels: Sequence[str] | None = None,
) -> Panel:
    """The `Panel` of answers after two clips exchange audio, and after the first one is perturbed.

    The answers to choose from are the likeliest of both clips, or `labels`.
    """
    likeliest = (label for each in (view, other) for label in _likeliest(classifier, each, 4))
    labels = tuple(labels or dict.fromkeys(likeliest))
    swap = explain.swap_audio(classifier, view, other, names)
    questions = {
        "exchange the audio": None,
        "perturb one modality": explain.perturb(classifier, view),
        "shift the audio": explain.shift_audio(classifier, view),
    }

    def chart(label, question):
        title, perturbed = list(questions.items())[question]
        name = labels[label]
        bars = _swap_bars(swap, name) if perturbed is None else _perturbation_bars(perturbed, name)
        return Chart(f"{name}: {title}", PROBABILITY, bars)

    return chart_panel(
        "What if?",
        "Answers of the model after the clip was changed: which modality does it believe?",
        (Choice("label", "answer", labels), Choice("question", "what if", tuple(questions))),
        chart,
    )


def _swap_bars(swap: explain.Swap, label: str) -> list[Bar]:
    return [
        Bar(
            f"video of {swap.names[i]}, audio of {swap.names[j]}",
            float(value),
            stream="both" if i == j else "spec",
        )
        for (i, j), value in np.ndenumerate(swap.probabilities(label))
    ]


def _perturbation_bars(perturbed: explain.Perturbations, label: str) -> list[Bar]:
    streams = ["both", *("spec" if "audio" in name else "rgb" for name in perturbed.names[1:])]
    rows = zip(perturbed.names, perturbed.probabilities(label), streams, strict=True)
    return [Bar(name, float(value), stream=stream) for name, value, stream in rows]
