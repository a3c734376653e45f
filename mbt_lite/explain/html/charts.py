"""Show interventions, counterfactuals and the models of the grid as charts of a clip's answers."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources

import numpy as np

from mbt_lite import explain, plot
from mbt_lite.data import world
from mbt_lite.explain.html.page import Bar, Chart, Choice, Panel, chart_panel
from mbt_lite.features import View
from mbt_lite.inference import Classifier, load

KINDS = {  # kind of an intervention: what it does
    "knockout": "cut one direction",
    "zero": "set a bottleneck token to zero",
    "freeze": "freeze a bottleneck token",
    "mean": "set a bottleneck token to its mean",
    "patch": "take a bottleneck token from the other clip",
}
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
SINGERS = world.LABELS[world.KINDS["matched"]]


def interventions(
    classifier: Classifier,
    view: View,
    other: View | None = None,
    means: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
) -> Panel:
    """The `Panel` of how interventions on the bottleneck change the likeliest labels, or `labels`.

    Another clip allows patching; `means` of `explain.bottleneck_means` allow mean ablation.
    """
    effects = explain.intervene(classifier, view, other=other, means=means)
    labels = tuple(labels or _likeliest(classifier, view, 6))
    tried = {operation.kind for operation in effects.operations}
    kinds = [kind for kind in KINDS if kind in tried]
    parts = [_of_kind(effects, kind) for kind in kinds]
    choices = (
        Choice("label", "answer", labels),
        Choice("kind", "operation", tuple(KINDS[kind] for kind in kinds)),
    )

    def chart(label, kind):
        part, name = parts[kind], labels[label]
        changes = part.change[:, part.labels.index(name)]
        bars = [
            Bar(operation.words, float(change), stream=operation.reader or "both")
            for operation, change in zip(part.operations, changes, strict=True)
        ]
        strongest = part.strongest(name).words
        words = f"{plot.effects_alt(part, name)}. Most depends on this: {strongest}"
        return Chart(f"{name}: {KINDS[kinds[kind]]}", "change of the logit", words, bars)

    return chart_panel(
        "Interventions on the bottleneck",
        "How an answer changes when the bottleneck tokens are changed after a layer.",
        choices,
        chart,
        draw=lambda label, kind: plot.effects(parts[kind], labels[label]).figure,
    )


def _likeliest(classifier: Classifier, view: View, count: int) -> list[str]:
    return [label for label, _ in classifier.predict(view.clip).top(count)]


def _of_kind(effects: explain.Effects, kind: str) -> explain.Effects:
    """The effects of one kind of intervention."""
    chosen = [k for k, operation in enumerate(effects.operations) if operation.kind == kind]
    operations = tuple(effects.operations[k] for k in chosen)
    return replace(effects, operations=operations, operated=effects.operated[chosen])


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
    if not labels:
        both = (*_likeliest(classifier, view, 4), *_likeliest(classifier, other, 4))
        labels = dict.fromkeys(both)
    labels = tuple(labels)
    swap = explain.swap_audio(classifier, view, other, names)
    perturbed, shifted = explain.perturb(classifier, view), explain.shift_audio(classifier, view)
    questions = {
        "exchange the audio": (swap, plot.swap, plot.swap_alt, _swap_bars),
        "perturb one modality": (
            perturbed,
            plot.perturbations,
            plot.perturbations_alt,
            _perturbation_bars,
        ),
        "shift the audio": (shifted, plot.shift, plot.shift_alt, _shift_lines),
    }
    rows = list(questions.items())

    def chart(label, question):
        title, (answers, _, alt, parts) = rows[question]
        name = labels[label]
        return Chart(
            f"{name}: {title}", "probability (0-1)", alt(answers, name), **parts(answers, name)
        )

    def draw(label, question):
        answers, plotted, *_ = rows[question][1]
        return plotted(answers, labels[label]).figure

    return chart_panel(
        "What if?",
        "Answers of the model after the clip was changed: which modality does it believe?",
        (Choice("label", "answer", labels), Choice("question", "what if", tuple(questions))),
        chart,
        draw,
    )


def _swap_bars(swap: explain.Swap, label: str) -> dict:
    bars = []
    for (i, j), value in np.ndenumerate(swap.probabilities[..., swap.labels.index(label)]):
        pair = f"video of {swap.names[i]}, audio of {swap.names[j]}"
        bars.append(Bar(pair, float(value), stream="both" if i == j else "spec"))
    return {"bars": bars}


def _perturbation_bars(perturbed: explain.Perturbations, label: str) -> dict:
    values = perturbed.probabilities[:, perturbed.labels.index(label)]
    streams = ["both", *("spec" if "audio" in name else "rgb" for name in perturbed.names)]
    rows = zip(["unchanged", *perturbed.names], values, streams, strict=True)
    return {"bars": [Bar(name, float(value), stream=stream) for name, value, stream in rows]}


def _shift_lines(shifted: explain.Shift, label: str) -> dict:
    values = shifted.probabilities[:, shifted.labels.index(label)]
    points = [(float(x), float(y)) for x, y in zip(shifted.seconds, values, strict=True)]
    return {"lines": {label: points}, "across": "audio later than the video by (s)"}


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
        name = names[setting]
        mean, half = accuracy[name]
        interval = max(0.0, mean - half), min(1.0, mean + half)
        bars = [Bar(label, p) for label, p in answers[setting]]
        bars.append(Bar("singer named on test clips", mean, *interval, stream="rgb"))
        words = plot.scrubber_alt(group, names, accuracy, setting, answers[setting])
        return Chart(f"{group} {name}", "probability; last: share of clips", words, bars)

    return chart_panel(
        f"The same clip, another {group}",
        LEADS[group],
        (Choice("setting", group, names, start=1, slider=True),),
        chart,
        draw=lambda setting: plot.scrubber(group, names, accuracy, setting, answers[setting]),
    )


def _answers(model: str, path) -> list[tuple[str, float]]:
    """The probability that each shape sings, by one of the grid's models with its own front end."""
    prediction = load(GRID / f"{model}.safetensors").predict(path)
    probabilities = dict(prediction.top(len(prediction.labels)))
    return [(label, probabilities[label]) for label in SINGERS]


def _accuracy(group: str) -> dict[str, tuple[float, float]]:
    """{variant: (mean, half of the 95 % interval) of its matched accuracy} of a group."""
    rows = csv.DictReader((GRID / "sweep.csv").read_text("utf-8").splitlines())
    return {
        row["variant"]: (float(row["mean"]), float(row["half"]))
        for row in rows
        if row["group"] == group
    }
