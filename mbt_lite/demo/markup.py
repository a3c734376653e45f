"""Small HTML pieces of the page: probability bars, grids, notes."""

from collections.abc import Iterable, Mapping
from html import escape

from mbt_lite.config import MBTConfig
from mbt_lite.demo.engine import LIKELY, NAMES
from mbt_lite.explain.html.page import data_uri
from mbt_lite.plot.style import to_png

HUES = {"both": "var(--both)", "audio only": "var(--spec)", "video only": "var(--rgb)"}
BLOCK = 24  # px, of a layer in the figure of the model


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
    return grid((panel(*one) for one in shown.items()), 140)


def lesson(answers: Mapping[str, Mapping[str, float]], label: str) -> str:
    """One line: the probability of a label by audio alone, by video alone, and by both together."""
    if len(answers) < 3:
        return ""
    audio, video, both = (
        f'<b style="color:{HUES[name]}">{percent(answers[name][label])}</b>'
        for name in ("audio only", "video only", "both")
    )
    return (
        f'<p class="lesson">“{escape(label)}”: audio alone {audio}, video alone {video}, '
        f"together {both}</p>"
    )


def bottleneck(config: MBTConfig) -> str:
    """The model as a figure: two streams of layers, joined by B bottleneck tokens from L_f on."""
    depth, first, tokens = config.depth, config.fusion_layer, config.bottlenecks
    step = 56 if depth < 8 else 42  # from layer to layer
    lefts = [58 + step * i for i in range(depth)]
    end = lefts[-1] + step
    joints = "".join(_joint(x, step, i > first) for i, x in enumerate(lefts) if i >= first)
    dots = "".join(_dots(x - (step - BLOCK) / 2, tokens) for x in lefts[first:])
    blocks = "".join(_blocks(i, x) for i, x in enumerate(lefts))
    words = (
        f"{depth} layers in each stream. From layer L_f = {first} on, audio and video exchange "
        f"information only through B = {tokens} bottleneck tokens."
    )
    return (
        f'<figure class="bottleneck"><svg viewBox="0 0 {end} 112" style="max-width:{1.4 * end}px"'
        f' role="img" aria-label="{words}"><path d="M46 19H{end}M46 93H{end}{joints}"/>'
        f'{blocks}<g class="tokens">{dots}</g><text x="0" y="24">video</text>'
        f'<text x="0" y="98">audio</text></svg><figcaption>{words}</figcaption></figure>'
    )


def _blocks(layer: int, left: float) -> str:
    """A layer of both streams, with its number."""
    return "".join(
        f'<g class="{stream}"><rect x="{left}" y="{top}" width="{BLOCK}" height="22" rx="5"/>'
        f'<text x="{left + BLOCK / 2}" y="{top + 15}">{layer}</text></g>'
        for stream, top in (("rgb", 8), ("spec", 82))
    )


def _joint(left: float, step: float, written: bool) -> str:
    """Lines from the bottleneck tokens to a layer, and to them from the layer before."""
    at, before = left - (step - BLOCK) / 2, left - step + BLOCK
    writes = f"M{before} 26L{at} 56M{before} 86L{at} 56" if written else ""
    return f"M{at} 56L{left} 26M{at} 56L{left} 86{writes}"


def _dots(across: float, tokens: int) -> str:
    """Bottleneck tokens, up to four of them, one below the other."""
    shown = min(tokens, 4)
    heights = (56 + 7 * (k - (shown - 1) / 2) for k in range(shown))
    return "".join(f'<circle cx="{across}" cy="{y}" r="3"/>' for y in heights)


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
    return data_uri(to_png(figure), "image/png")
