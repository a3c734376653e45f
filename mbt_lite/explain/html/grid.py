"""Scrubbers over the shipped grid: one clip answered by models that fuse at different layers."""

import csv
from functools import partial
from importlib import resources

from mbt_lite import plot
from mbt_lite.data import world
from mbt_lite.explain.html.page import Bar, Chart, bars_page
from mbt_lite.explain.html.panel import Choice, Panel
from mbt_lite.inference import load

GRID = resources.files("mbt_lite") / "weights" / "grid"
SETTINGS = {  # group of sweep.csv: {its variant: the model that was kept}
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
    "fusion layer": "Where should the streams meet? The layer from which they share a bottleneck, "
    "of four layers; 4 means never.",
    "bottlenecks": "How many bottleneck tokens does it take? The streams share so many, from layer 1 on.",
}
SINGERS = world.LABELS[world.KINDS["matched"]]


def scrubber(path, group: str = "fusion layer") -> Panel:
    """The `Panel` of who sings in a file of the micro-world, by the grid's models of a group.

    `group` is "fusion layer" or "bottlenecks". Beside the answers stands what each model reached
    on the test clips, the mean over its seeds.
    """
    if group not in SETTINGS:
        raise ValueError(f"there is no group {group!r}; the scrubbers are {', '.join(SETTINGS)}.")
    settings = SETTINGS[group]
    answers = [_answer(name, path) for name in settings.values()]
    reached = _reached(group)
    title, names = f"The same clip, another {group}", tuple(settings)
    choices = (Choice("setting", group, names, start=1, slider=True),)

    def drawn(setting):
        return group, names, reached, setting, answers[setting]

    def words(setting):
        return plot.scrubber_alt(*drawn(setting))

    def chart(setting):
        mean, half = reached[names[setting]]
        ends = max(0.0, mean - half), min(1.0, mean + half)
        bars = [Bar(label, p) for label, p in answers[setting]]
        bars.append(Bar("singer named on test clips", mean, *ends, stream="rgb"))
        axis = "probability; last: share of clips"
        return Chart(f"{group} {names[setting]}", axis, words(setting), bars)

    def draw(setting):
        return plot.scrubber(*drawn(setting))

    lead = LEADS[group]
    return Panel(title, lead, choices, draw, words, partial(bars_page, title, lead, choices, chart))


def _answer(name: str, path) -> list[tuple[str, float]]:
    """What one of the grid's models says of who sings; each sees and hears in its own way."""
    said = load(GRID / f"{name}.safetensors").predict(path)
    chances = dict(said.top(len(said.labels)))
    return [(label, chances[label]) for label in SINGERS]


def _reached(group: str) -> dict[str, tuple[float, float]]:
    """{variant: mean and half of the 95 % interval of its matched accuracy} of a group."""
    rows = csv.DictReader((GRID / "sweep.csv").read_text("utf-8").splitlines())
    mine = [row for row in rows if row["group"] == group]
    return {row["variant"]: (float(row["mean"]), float(row["half"])) for row in mine}
