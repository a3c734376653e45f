"""Show interventions, counterfactuals and the models of the grid as charts of a clip's answers."""

import csv
from collections.abc import Sequence
from importlib import resources

import numpy as np

from mbt_lite import explain
from mbt_lite.data import world
from mbt_lite.explain.html.page import Bar, Chart, Choice, Panel, chart_panel
from mbt_lite.features import View
from mbt_lite.inference import Classifier, load

GRID = resources.files("mbt_lite") / "weights" / "grid"
SETTINGS = {  # group of sweep.csv: {its variant: the model that is shipped}
    "fusion layer": {
        "0": "grid-layer-0",
        "1": "grid-bottleneck",
        "2": "grid-layer-2",
        "3": "grid-layer-3",
        "4": "grid-late",
    },
    "bottlenecks": {
        "1": "grid-bottlenecks-1",
        "4": "grid-bottleneck",
        "16": "grid-bottlenecks-16",
        "64": "grid-bottlenecks-64",
    },
}
LEADS = {
    "fusion layer": "In which layer should the streams meet? The models share bottleneck tokens "
    "from this layer on; of four layers, 4 means never.",
    "bottlenecks": "How many bottleneck tokens are needed? The models share this many from layer 1 "
    "on.",
}
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


def scrubber(path, group: str = "fusion layer") -> Panel:
    """The `Panel` of which shape sings in a clip, according to the grid's models of a group.

    `group` is "fusion layer" or "bottlenecks"; the clip is of the micro-world. Beside the answers
    stands the accuracy of each model on the test clips, the mean over its seeds.
    """
    if group not in SETTINGS:
        raise ValueError(f"there is no group {group!r}; the scrubbers are {', '.join(SETTINGS)}.")
    names = tuple(SETTINGS[group])
    answers = [_answers(model, path) for model in SETTINGS[group].values()]
    accuracy = _accuracy(group)

    def chart(setting):
        mean, half = accuracy[names[setting]]
        interval = max(0.0, mean - half), min(1.0, mean + half)
        bars = [Bar(label, p) for label, p in answers[setting]]
        bars.append(Bar("singer named on test clips", mean, *interval, stream="rgb"))
        return Chart(f"{group} {names[setting]}", "probability; last: share of clips", bars)

    choice = Choice("setting", group, names, start=1, slider=True)
    return chart_panel(f"The same clip, another {group}", LEADS[group], (choice,), chart)


def _answers(model: str, path) -> list[tuple[str, float]]:
    """The probability that each shape sings, by one of the grid's models with its own front end."""
    prediction = load(GRID / f"{model}.safetensors").predict(path)
    probabilities = dict(prediction.top(len(prediction.labels)))
    return [(label, probabilities[label]) for label in world.LABELS[world.KINDS["matched"]]]


def _accuracy(group: str) -> dict[str, tuple[float, float]]:
    """{variant: (mean, half of the 95 % interval) of its matched accuracy} of a group."""
    rows = csv.DictReader((GRID / "sweep.csv").read_text("utf-8").splitlines())
    return {
        row["variant"]: (float(row["mean"]), float(row["half"]))
        for row in rows
        if row["group"] == group
    }
