"""Small pieces of HTML: probabilities as bars, pieces side by side, pictures."""

import io
from collections.abc import Iterable, Mapping
from html import escape

from mbt_lite.demo.engine import NAMES
from mbt_lite.panels.page import data_uri

HUES = {"both": "var(--both)", "sound alone": "var(--spec)", "picture alone": "var(--rgb)"}
LIKELY = 0.5  # from which probability on a label counts as said


def percent(probability: float) -> str:
    """A probability as a person reads it."""
    return f"{'< 1' if probability < 0.005 else round(100 * probability)} %"


def says(probabilities: Mapping[str, float]) -> str:
    """What a model says, in a few words: up to five likely labels, or what comes closest."""
    likely = [label for label, p in probabilities.items() if p >= LIKELY][:5]
    if likely:
        return ", ".join(likely)
    label, p = next(iter(probabilities.items()))
    return f"perhaps {label} ({percent(p)})"


def bar(share: float) -> str:
    """A bar on its track."""
    return f'<span class="bar"><i style="width:{share:.1%}"></i></span>'


def panel(name: str, probabilities: Mapping[str, float]) -> str:
    """The five most probable labels of one of NAMES as bars."""
    rows = "".join(
        f'<li class="{"likely" * (p >= LIKELY)}"><span>{escape(label)}</span>'
        f"<span>{percent(p)}</span>{bar(p)}</li>"
        for label, p in list(probabilities.items())[:5]
    )
    return (
        f'<section class="panel" style="--hue:{HUES[name]}"><h3>{NAMES[name]}</h3>'
        f"<ol>{rows}</ol></section>"
    )


def panels(answers: Mapping[str, Mapping[str, float]]) -> str:
    """The panels of all answers; where one sense has nothing, both together are the other one."""
    shown = dict(answers)
    if len(shown) == 2:
        del shown["both"]
    return grid((panel(*one) for one in shown.items()), 165)


def grid(parts: Iterable[str], narrowest: int) -> str:
    """Parts side by side where there is room, else below each other."""
    return f'<div class="grid" style="--narrowest:{narrowest}px">{"".join(parts)}</div>'


def bullets(sentences: Iterable[str]) -> str:
    """A list of sentences, each with a capital and a stop."""
    ended = (s if s.endswith((".", "!", "?")) else f"{s}." for s in sentences)
    return f"<ul>{''.join(f'<li>{escape(s[:1].upper() + s[1:])}</li>' for s in ended)}</ul>"


def note(title: str, content: str) -> str:
    """Something to know, set apart."""
    return f'<div class="note"><h3>{escape(title)}</h3>{content}</div>'


def hint(sentence: str) -> str:
    """A quiet sentence in place of what is not there yet."""
    return f'<p class="hint">{escape(sentence)}</p>'


def figure_uri(figure) -> str:
    """The address of a matplotlib figure that holds it."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return data_uri(png.getvalue(), "image/png")
