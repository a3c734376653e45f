"""Write an evaluation as a self-contained web page, with scores.json beside it."""

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from mbt_lite import plot
from mbt_lite.data.source import Source
from mbt_lite.evaluation import metrics
from mbt_lite.model.label_heads import Head, probabilities, ranked
from mbt_lite.paths import replacing, write_text
from mbt_lite.plot.style import data_uri, render

UNBROKEN = "\N{NON-BREAKING HYPHEN}"
HARDEST = 12  # clips with a frame
LONGEST = 200  # rows of a list of clips; scores.json has all
COMPARED = 40  # classes in the figure that compares the modalities
CURVES = 4  # classes in a figure of precision and recall
CONFUSED = 15  # pairs of labels


class Evidence(NamedTuple):
    """What the scores were computed from."""

    name: str  # of the model
    labels: Sequence[str]
    clips: Source
    scored: list[int]  # numbers of the clips that were answered
    logits: dict[str, np.ndarray]  # per condition float32 [scored clips, C], `comparable`
    heads: Sequence[Head] = ()  # how probabilities are made of them

    @property
    def truth(self) -> np.ndarray:
        return np.stack([self.clips.targets(index) for index in self.scored])

    @property
    def main(self) -> np.ndarray:
        """Logits [scored clips, C] with all modalities that the model has."""
        return next(iter(self.logits.values()))


def write(folder: Path, scores: dict, evidence: Evidence, command: str) -> Path:
    """Write scores.json and report.html to `folder`, each atomically; return the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "scores.json", json.dumps(scores, indent=1, allow_nan=False))
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page(scores, evidence, command), encoding="utf-8", errors="replace")
    return path


def page(scores: dict, evidence: Evidence, command: str) -> str:
    """The report as one HTML document that holds its figures and loads nothing."""
    options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    loader = PackageLoader("mbt_lite.evaluation", "")
    template = Environment(loader=loader, autoescape=True, **options).get_template("report.html")
    per_class = _per_class(scores, evidence)
    confused, wrong = _confused(evidence)
    chances = scores.get("chance of matched", {}).items()
    return template.render(
        name=evidence.name,
        scores={"caution": None} | scores,
        command=command,
        longest=LONGEST,
        headline=_headline(scores, list(evidence.logits)),
        chance=[f"{value:.3f} by the {name}" for name, value in chances if value],
        per_class=per_class,
        compared=_compared(scores["average precision"]) if per_class else None,
        curves=_curves([row["class"] for row in per_class], evidence),
        confused=confused,
        wrong=wrong,
        turned=_turned(scores.get("modality confusion")),
        hardest=_hardest(evidence),
        unusual=[{"clip": clip, "notes": "; ".join(n)} for clip, n in scores["unusual"].items()],
    )


def _headline(scores: dict, conditions: list[str]) -> list[dict]:
    """A row for each metric, a column for each condition."""
    return [
        {"": name.replace("-", UNBROKEN)} | {c: _number(scores[c].get(name)) for c in conditions}
        for name in scores[conditions[0]]
    ]


def _per_class(scores: dict, evidence: Evidence) -> list[dict]:
    """A row for each class that a clip has, the one with the highest average precision first."""
    counts = dict(zip(evidence.labels, evidence.truth.sum(0).astype(int), strict=True))
    return [
        {"class": label}
        | {condition: _number(value) for condition, value in values.items()}
        | {"clips": counts[label]}
        for label, values in _best_first(scores["average precision"])
    ]


def _best_first(per_class: dict[str, dict]) -> list[tuple[str, dict]]:
    """Classes by their average precision with all modalities that the model has."""
    return sorted(per_class.items(), key=lambda pair: -next(iter(pair[1].values())))


def _compared(per_class: dict[str, dict]) -> dict:
    """A figure of each class with both modalities and with each one alone."""
    rows, half = _best_first(per_class), COMPARED // 2
    words = f"All {len(rows)} classes that a clip has"
    if len(rows) > COMPARED:
        words = f"The {half} best and the {half} worst of {len(rows)} classes"
        rows = rows[:half] + rows[-half:]
    labels = [label for label, _ in rows]
    values = {name: [scores[name] for _, scores in rows] for name in rows[0][1]}
    alt = plot.conditions_alt(labels, values)
    return _figure(plot.conditions(labels, values).figure, alt) | {"words": words}


def _curves(labels: list[str], evidence: Evidence) -> list[dict]:
    """Figures of precision and recall: the best classes, and the worst."""
    count = min(CURVES, len(labels) // 2)
    if not count:
        return []
    figures = []
    for title, some in (("best classes", labels[:count]), ("worst classes", labels[-count:])):
        columns = {label: list(evidence.labels).index(label) for label in some}
        curves = {
            label: metrics.precision_recall(evidence.main[:, column], evidence.truth[:, column])
            for label, column in columns.items()
        }
        ax = plot.precision_recall(curves, title=title)
        figures.append(_figure(ax.figure, f"{title}: {plot.precision_recall_alt(curves)}"))
    return figures


def _confused(evidence: Evidence) -> tuple[list[dict], int]:
    """Pairs of a true label and the first answer in its place, and how many clips have one."""
    logits, truth, labels = evidence.main, evidence.truth > 0, evidence.labels
    pairs, wrong = Counter(), set()
    for columns in metrics.questions(labels):
        best = columns[logits[:, columns].argmax(1)]
        for i in np.flatnonzero(~truth[np.arange(len(best)), best]):
            true = columns[truth[i, columns]]
            pairs.update((labels[t], labels[best[i]]) for t in true)
            wrong |= {int(i)} if len(true) else set()
    rows = [
        {"true": true, "first answer": answer, "clips": count}
        for (true, answer), count in pairs.most_common(CONFUSED)
    ]
    return rows, len(wrong)


def _turned(confusion: dict | None) -> dict | None:
    """A figure of how many clips become wrong, or right, when a modality is added."""
    if not confusion:
        return None
    counts = {
        name: (len(changes["became wrong"]), len(changes["became right"]))
        for name, changes in confusion.items()
    }
    return _figure(plot.turned(counts).figure, plot.turned_alt(counts))


def _hardest(evidence: Evidence) -> list[dict]:
    """The clips with the highest cross entropy: a frame, the labels and the answers of each."""
    costs = metrics.cross_entropy(evidence.main, evidence.truth, evidence.heads)
    cards = []
    for row in np.argsort(-costs, kind="stable")[:HARDEST]:
        number = evidence.scored[row]
        answers = {name: _top(logits[row], evidence) for name, logits in evidence.logits.items()}
        cards.append(
            {
                "name": evidence.clips.name(number),
                "image": _thumbnail(evidence.clips, number),
                "cost": float(costs[row]),
                "true": [evidence.labels[c] for c in np.flatnonzero(evidence.truth[row])],
                "answers": answers,
            }
        )
    return cards


def _top(logits: np.ndarray, evidence: Evidence, count: int = 3) -> str:
    chances = probabilities(logits, evidence.heads)
    best = ranked(chances, evidence.heads, count)
    return ", ".join(f"{evidence.labels[c]} {chances[c]:.0%}" for c in best)


def _thumbnail(clips: Source, number: int) -> str | None:
    """A data URI of a frame from the middle of a clip; None where it has none."""
    try:
        frame = clips.thumbnail(number)
    except (ValueError, OSError):
        return None
    if frame is None:
        return None
    jpeg = io.BytesIO()
    Image.fromarray(frame).save(jpeg, "JPEG", quality=70)
    return data_uri(jpeg.getvalue(), "image/jpeg")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _figure(figure, alt: str) -> dict:
    svg = io.BytesIO()
    render(figure, svg, "svg", metadata={"Date": None})
    return {"src": data_uri(svg.getvalue(), "image/svg+xml"), "alt": alt}
