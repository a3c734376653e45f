"""Write an evaluation as a self-contained web page, with scores.json beside it."""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mbt_lite import plot
from mbt_lite.data.source import Source
from mbt_lite.evaluation import metrics
from mbt_lite.model.label_heads import Head, probabilities, ranked
from mbt_lite.paths import replacing, write_text
from mbt_lite.plot.style import render

UNBROKEN = "\N{NON-BREAKING HYPHEN}"
WORST = 12  # clips with a video
LISTED = 200  # rows of a list of clips; scores.json has all
DRAWN = 40  # classes in the comparison of the streams
CURVES = 4  # classes in one video of precision and recall


class Evidence(NamedTuple):
    """What the scores were counted from."""

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
        """Logits [scored clips, C] with all that the model has."""
        return next(iter(self.logits.values()))


def write(folder: Path, scores: dict, evidence: Evidence, command: str) -> Path:
    """The path of report.html, beside scores.json in `folder`; each whole or as it was before."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "scores.json", json.dumps(scores, indent=1, allow_nan=False))
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page(scores, evidence, command), encoding="utf-8", errors="replace")
    return path


def page(scores: dict, evidence: Evidence, command: str) -> str:
    """The HTML of the report; images lie in it, and it asks for nothing from elsewhere."""
    sections = [
        _headline(scores, evidence),
        _streams(scores),
        _curves(scores, evidence),
        _classes(scores, evidence),
        _mistakes(evidence),
        _confusion(scores),
        _worst(evidence),
        _skipped(scores),
        f"<h2>Once more</h2><pre><code>{escape(command)}</code></pre>",
    ]
    title = f"{evidence.name} on {scores['data']}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _headline(scores: dict, evidence: Evidence) -> str:
    """Which model, which clips, and the scores under each condition."""
    windows = "one window" if scores["views"] == 1 else f"up to {scores['views']} windows"
    how = f"{scores['clips']:,} clips, each seen in {windows}"
    conditions = list(evidence.logits)
    rows = [
        [name.replace("-", UNBROKEN), *(_number(scores[c].get(name)) for c in conditions)]
        for name in scores[conditions[0]]
    ]
    warning = f'<p class="caution">{escape(scores["caution"])}</p>' if "caution" in scores else ""
    chances = scores.get("chance of matched", {}).items()
    chance = " and ".join(f"{value:.3f} by the {name}" for name, value in chances if value)
    note = f"<p>Who sings can be guessed at best with {chance}.</p>" if chance else ""
    return (
        f"<header><h1>{escape(evidence.name)}</h1><p>on <b>{escape(scores['data'])}</b>, {how}</p>"
        f"</header>{warning}{_table(['', *conditions], rows, 'big')}{note}"
        "<p>A stream is missing when it is blanked: black frames, or digital silence. mAP is the "
        "mean of the average precisions of the classes below; top-k counts a clip as right when "
        "any true class is among its k highest. Logits of a clip's windows are averaged, then "
        f"turned into probabilities ({escape(scores['probabilities'])}).</p>"
    )


def _streams(scores: dict) -> str:
    """Each class with both streams and with one alone."""
    each = scores["average precision"]
    if not each:
        return ""
    labels = sorted(each, key=lambda label: -_main(each[label]))
    if len(labels) > DRAWN:
        half = DRAWN // 2
        labels = labels[:half] + labels[-half:]
        told = f"The {half} best and the {half} worst of {len(each)} classes"
    else:
        told = f"All {len(labels)} classes that a clip has"
    values = {name: [each[label][name] for label in labels] for name in each[labels[0]]}
    figure = plot.conditions(labels, values).figure
    return f"<h2>What each modality knows</h2><p>{told}, best first.</p>" + _figure(
        figure, plot.conditions_alt(labels, values)
    )


def _curves(scores: dict, evidence: Evidence) -> str:
    """Precision and recall of the best and of the worst classes."""
    each = scores["average precision"]
    order = sorted(each, key=lambda label: -_main(each[label]))
    count = min(CURVES, len(order) // 2)
    if not count:
        return ""
    drawn = []
    for title, labels in (("best classes", order[:count]), ("worst classes", order[-count:])):
        curves = {label: _curve(evidence, label) for label in labels}
        ax = plot.precision_recall(curves, title=title)
        drawn.append(_figure(ax.figure, f"{title}: {plot.precision_recall_alt(curves)}"))
    return f'<h2>Precision and recall</h2><div class="pair">{"".join(drawn)}</div>'


def _curve(evidence: Evidence, label: str) -> tuple[np.ndarray, np.ndarray]:
    column = list(evidence.labels).index(label)
    return metrics.precision_recall(evidence.main[:, column], evidence.truth[:, column])


def _classes(scores: dict, evidence: Evidence) -> str:
    """A table of all classes, to be sorted by any column."""
    each = scores["average precision"]
    if not each:
        return ""
    counts = dict(zip(evidence.labels, evidence.truth.sum(0).astype(int), strict=True))
    ranked = sorted(each.items(), key=lambda pair: -_main(pair[1]))
    rows = [[k, *(_number(v) for v in found.values()), str(counts[k])] for k, found in ranked]
    table = _table(["class", *evidence.logits, "clips"], rows, "sortable")
    absent = _absent(scores["classes without a clip"])
    return f"<h2>Every class</h2><div class=scroll>{table}</div>{absent}"


def _absent(absent: dict) -> str:
    """Which classes no clip has, and what that means for the mAP."""
    if not absent["count"]:
        return ""
    zero = ", ".join(f"{k} {v:.3f}" for k, v in absent["mAP if they counted as 0"].items())
    return _details(
        f"{absent['count']} classes have no clip here and so no average precision",
        f"<p>They are left out of the mAP. If they counted as 0, it would be: {escape(zero)}.</p>"
        f"<p>{escape(', '.join(absent['labels']))}</p>",
    )


def _mistakes(evidence: Evidence) -> str:
    """Which label stands first in place of which true ones, the most frequent pairs."""
    logits, truth, labels = evidence.main, evidence.truth > 0, evidence.labels
    pairs, wrong = Counter(), set()
    for columns in metrics.questions(labels):
        best = columns[logits[:, columns].argmax(1)]
        for i in np.flatnonzero(~truth[np.arange(len(best)), best]):
            true = columns[truth[i, columns]]
            pairs.update((int(t), int(best[i])) for t in true)
            wrong |= {int(i)} if len(true) else set()
    if not pairs:
        return "<h2>What is taken for what</h2><p>The first answer is true for every clip.</p>"
    rows = [[labels[t], labels[b], str(n)] for (t, b), n in pairs.most_common(15)]
    return (
        f"<h2>What is taken for what</h2><p>{len(wrong):,} clips have a first answer that is not "
        "true of them.</p>" + _table(["true", "first answer", "clips"], rows)
    )


def _confusion(scores: dict) -> str:
    """The clips that become wrong, or right, when a stream is added."""
    found = scores.get("modality confusion")
    if not found:
        return ""
    counts = {n: (len(c["became wrong"]), len(c["became right"])) for n, c in found.items()}
    figure = _figure(plot.turned(counts).figure, plot.turned_alt(counts))
    lists = [
        _details(f"{name}: {len(clips)} {what}", _listed(clips))
        for name, changes in found.items()
        for what, clips in changes.items()
        if clips
    ]
    return (
        "<h2>When the other modality joins</h2><p>A clip is right when its first answer is true. "
        "These change when a stream is added to the one that was alone.</p>"
        f"{figure}{''.join(lists)}"
    )


def _listed(clips: list[dict]) -> str:
    rows = [list(clip.values()) for clip in clips[:LISTED]]
    more = f"<p>{len(clips) - LISTED} more are in scores.json.</p>" if len(clips) > LISTED else ""
    return f"<div class=scroll>{_table(list(clips[0]), rows)}</div>{more}"


def _worst(evidence: Evidence) -> str:
    """The clips with the highest cross entropy, with a frame of each."""
    cost = metrics.cross_entropy(evidence.main, evidence.truth, evidence.heads)
    order = np.argsort(-cost, kind="stable")[:WORST]
    cards = [_card(evidence, int(row), float(cost[row])) for row in order]
    return (
        "<h2>The hardest clips</h2><p>Highest cross entropy, that of the loss, first.</p>"
        f'<div class="cards">{"".join(cards)}</div>'
    )


def _card(evidence: Evidence, row: int, cost: float) -> str:
    number, labels = evidence.scored[row], evidence.labels
    true = ", ".join(labels[c] for c in np.flatnonzero(evidence.truth[row]))
    name = evidence.clips.name(number)
    said = [
        f"<dt>{escape(condition)}</dt><dd>{escape(_top(logits[row], evidence))}</dd>"
        for condition, logits in evidence.logits.items()
    ]
    return (
        f"<article>{_thumbnail(evidence.clips, number)}<h3>{escape(name)}</h3><p>{cost:.2f} nats"
        f"</p><dl><dt>true</dt><dd>{escape(true) or 'nothing'}</dd>{''.join(said)}</dl></article>"
    )


def _top(logits: np.ndarray, evidence: Evidence, count: int = 3) -> str:
    chances = probabilities(logits, evidence.heads)
    best = ranked(chances, evidence.heads, count)
    return ", ".join(f"{evidence.labels[c]} {chances[c]:.0%}" for c in best)


def _thumbnail(clips: Source, number: int) -> str:
    """A frame from the middle of a clip; words where there is none."""
    try:
        frame = clips.thumbnail(number)
    except (ValueError, OSError):
        frame = None
    if frame is None:
        return '<div class="none">no video</div>'
    jpeg = io.BytesIO()
    Image.fromarray(frame).save(jpeg, "JPEG", quality=70)
    alt = f"a frame from the middle of {clips.name(number)}"
    return f'<img alt="{escape(alt)}" src="{_uri("image/jpeg", jpeg.getvalue())}">'


def _skipped(scores: dict) -> str:
    """What was left out, what failed, and what was unusual about files."""
    parts = [f"<p>{escape(note[:1].upper() + note[1:])}.</p>" for note in scores["left out"]]
    if scores["failed"]:
        rows = [[row["clip"], row["error"]] for row in scores["failed"]]
        parts.append(f"<p>{len(rows)} clips could not be used:</p>")
        parts.append(f"<div class=scroll>{_table(['clip', 'why'], rows[:LISTED])}</div>")
    if scores["unusual"]:
        rows = [[name, "; ".join(notes)] for name, notes in scores["unusual"].items()]
        inside = f"<div class=scroll>{_table(['clip', 'note'], rows[:LISTED])}</div>"
        parts.append(_details(f"{len(rows)} clips were unusual and used all the same", inside))
    return f"<h2>What was left out</h2>{''.join(parts) or '<p>Nothing.</p>'}"


def _main(found: dict) -> float:
    """The average precision with all that the model has."""
    return next(iter(found.values()))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _details(summary: str, inside: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def _figure(figure, alt: str) -> str:
    svg = io.BytesIO()
    render(figure, svg, "svg", metadata={"Date": None})
    uri = _uri("image/svg+xml", svg.getvalue())
    return f'<figure><img alt="{escape(alt)}" src="{uri}"></figure>'


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


STYLE = """
:root{color-scheme:light dark;--ink:#24262b;--soft:#5d6169;--line:#d9dbe0;--paper:#fbfbfa;
--card:#fff;--mark:#0072b2;--warn:#fff4d6}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e6;--soft:#a9adb5;--line:#3c4048;--paper:#191b1f;
--card:#22252b;--mark:#56b4e9;--warn:#4a3c12}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:58rem;margin:0 auto;padding:1.5rem 1.1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:.5rem 0 .2rem;overflow-wrap:anywhere}
header p{margin:0 0 1.2rem;color:var(--soft);overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.6rem 0 .5rem;padding-top:.9rem;border-top:1px solid var(--line)}
h3{font-size:.9rem;margin:.6rem 0 .1rem;overflow-wrap:anywhere}
p{max-width:44rem}
.caution{background:var(--warn);padding:.7rem 1rem;border-left:4px solid #e69f00}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}
tbody th{font-weight:400}
th:first-child,table:not(.big):not(.sortable) :is(th,td){text-align:left;overflow-wrap:break-word}
.big td{font-size:1.1rem;font-weight:600}
.scroll{max-height:28rem;overflow:auto}
.scroll thead th{position:sticky;top:0;background:var(--paper)}
th button{all:unset;cursor:pointer;border-bottom:1px dotted}
th button:focus-visible,summary:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
figure{margin:1rem 0}
figure img{display:block;max-width:100%;height:auto;border-radius:6px;background:#fff}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem}
.pair figure{margin:0}.pair img{width:100%}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr));gap:1rem}
article{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem}
article img,.none{width:100%;aspect-ratio:4/3;object-fit:cover;border-radius:5px;background:#0003}
.none{display:grid;place-items:center;color:var(--soft)}
article p{margin:0;color:var(--soft);font-size:.85rem}
dl{margin:.5rem 0 0;font-size:.86rem}
dt{color:var(--soft);font-size:.78rem;margin-top:.3rem}
dd{margin:0}
details{margin:.6rem 0}
summary{cursor:pointer}
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.8rem;
white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:30rem){th,td{padding:.3rem .25rem}}
@media print{.scroll{max-height:none}}
"""

SCRIPT = """
document.querySelectorAll('table.sortable').forEach(table => {
  table.querySelectorAll('thead th').forEach((head, column) => {
    const button = document.createElement('button');
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const up = head.getAttribute('aria-sort') === 'descending';
      table.querySelectorAll('thead th').forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const text = row => row.children[column].textContent;
      const order = (a, b) => column ? text(b) - text(a) : text(b).localeCompare(text(a));
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => up ? order(b, a) : order(a, b)));
    };
  });
});
"""
