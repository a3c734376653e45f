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

_UNBROKEN = "\N{NON-BREAKING HYPHEN}"
_HARDEST = 12  # clips with a frame
_LONGEST = 200  # rows of a list of clips; scores.json has all
_COMPARED = 40  # classes in the figure that compares the modalities
_CONFUSED = 15  # pairs of labels


class Predictions(NamedTuple):
    """What a model answered, and what could not be scored."""

    labels: Sequence[str]
    heads: Sequence[Head]  # how probabilities are made of the logits
    clips: Source
    scored: list[int]  # numbers of the clips with logits
    logits: dict[str, np.ndarray]  # per condition float32 [scored clips, C], `comparable`
    failed: dict[int, str]  # {number of another clip: its error}
    notes: dict[int, tuple[str, ...]]  # {number of a clip: what was unusual}

    @property
    def truth(self) -> np.ndarray:
        return np.stack([self.clips.targets(index) for index in self.scored])

    @property
    def main(self) -> np.ndarray:
        """Logits [scored clips, C] with all modalities that the model has."""
        return next(iter(self.logits.values()))


def write(folder: Path, name: str, scores: dict, predictions: Predictions, command: str) -> None:
    """Write scores.json and report.html about the model of this name, each atomically."""
    write_text(folder / "scores.json", json.dumps(scores, indent=1, allow_nan=False))
    with replacing(folder / "report.html") as temporary:
        text = _page(name, scores, predictions, command)
        temporary.write_text(text, encoding="utf-8", errors="replace")


def _page(name: str, scores: dict, predictions: Predictions, command: str) -> str:
    """The report as one HTML document that holds its figures and loads nothing."""
    options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    loader = PackageLoader("mbt_lite.evaluation", "")
    template = Environment(loader=loader, autoescape=True, **options).get_template("report.html")
    per_class = _per_class(scores, predictions)
    confused, wrong = _confused(predictions)
    chances = scores.get("chance of matched", {}).items()
    return template.render(
        name=name,
        scores={"caution": None, "modality confusion": {}} | scores,
        command=command,
        longest=_LONGEST,
        headline=_headline(scores, list(predictions.logits)),
        chance=[f"{value:.3f} by the {name}" for name, value in chances if value],
        per_class=per_class,
        compared=_compared(scores["average precision"]) if per_class else None,
        confused=confused,
        wrong=wrong,
        hardest=_hardest(predictions),
        unusual=[{"clip": clip, "notes": "; ".join(n)} for clip, n in scores["unusual"].items()],
    )


def _headline(scores: dict, conditions: list[str]) -> list[dict]:
    """A row for each metric, a column for each condition."""
    return [
        {"": name.replace("-", _UNBROKEN)} | {c: _number(scores[c].get(name)) for c in conditions}
        for name in scores[conditions[0]]
    ]


def _per_class(scores: dict, predictions: Predictions) -> list[dict]:
    """A row for each class that a clip has, the one with the highest average precision first."""
    counts = dict(zip(predictions.labels, predictions.truth.sum(0).astype(int), strict=True))
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
    rows, half = _best_first(per_class), _COMPARED // 2
    words = f"All {len(rows)} classes that a clip has"
    if len(rows) > _COMPARED:
        words = f"The {half} best and the {half} worst of {len(rows)} classes"
        rows = rows[:half] + rows[-half:]
    labels = [label for label, _ in rows]
    values = {name: [scores[name] for _, scores in rows] for name in rows[0][1]}
    svg = io.BytesIO()
    render(plot.conditions(labels, values).figure, svg, "svg", metadata={"Date": None})
    source = data_uri(svg.getvalue(), "image/svg+xml")
    return {"src": source, "alt": plot.conditions_alt(labels, values), "words": words}


def _confused(predictions: Predictions) -> tuple[list[dict], int]:
    """Pairs of a true label and the first answer in its place, and how many clips have one."""
    logits, truth, labels = predictions.main, predictions.truth > 0, predictions.labels
    pairs, wrong = Counter(), set()
    for columns in metrics.questions(labels):
        best = columns[logits[:, columns].argmax(1)]
        for i in np.flatnonzero(~truth[np.arange(len(best)), best]):
            true = columns[truth[i, columns]]
            pairs.update((labels[t], labels[best[i]]) for t in true)
            wrong |= {int(i)} if len(true) else set()
    rows = [
        {"true": true, "first answer": answer, "clips": count}
        for (true, answer), count in pairs.most_common(_CONFUSED)
    ]
    return rows, len(wrong)


def _hardest(predictions: Predictions) -> list[dict]:
    """The clips with the highest cross entropy: a frame, the labels and the answers of each."""
    costs = metrics.cross_entropy(predictions.main, predictions.truth, predictions.heads)
    cards = []
    for row in np.argsort(-costs, kind="stable")[:_HARDEST]:
        number = predictions.scored[row]
        answers = {
            name: _top(logits[row], predictions) for name, logits in predictions.logits.items()
        }
        cards.append(
            {
                "name": predictions.clips.name(number),
                "image": _thumbnail(predictions.clips, number),
                "cost": float(costs[row]),
                "true": [predictions.labels[c] for c in np.flatnonzero(predictions.truth[row])],
                "answers": answers,
            }
        )
    return cards


def _top(logits: np.ndarray, predictions: Predictions, count: int = 3) -> str:
    chances = probabilities(logits, predictions.heads)
    best = ranked(chances, predictions.heads, count)
    return ", ".join(f"{predictions.labels[c]} {chances[c]:.0%}" for c in best)


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
