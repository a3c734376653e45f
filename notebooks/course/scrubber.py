"""The scrubber of notebook 03: one clip, asked of the models of the grid."""

import csv
from importlib import resources

from mbt_lite.data import world
from mbt_lite.explain import html
from mbt_lite.inference import load

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


def scrubber(path, group: str = "fusion layer") -> html.Panel:
    """The `Panel` of which shape sings in a clip, according to the grid's models of a group.

    `group` is "fusion layer" or "bottlenecks"; the clip is of the micro-world. Beside the answers
    stands the accuracy of each model on the test clips, the mean over its seeds.
    """
    names = tuple(SETTINGS[group])
    answers = [_answers(model, path) for model in SETTINGS[group].values()]
    accuracy = _accuracy(group)

    def chart(setting):
        mean, half = accuracy[names[setting]]
        interval = max(0.0, mean - half), min(1.0, mean + half)
        bars = [html.Bar(label, p) for label, p in answers[setting]]
        bars.append(html.Bar("singer named on test clips", mean, *interval, stream="rgb"))
        return html.Chart(f"{group} {names[setting]}", "probability; last: share of clips", bars)

    choice = html.Choice("setting", group, names, start=1, slider=True)
    return html.chart_panel(f"The same clip, another {group}", LEADS[group], (choice,), chart)


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
