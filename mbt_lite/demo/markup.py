"""HTML pieces of the page: probability bars, the figure of the model, notes, and About's texts."""

from collections.abc import Iterable, Mapping
from html import escape

from mbt_lite.checkpoints import model_card as cards
from mbt_lite.config import MBTConfig
from mbt_lite.demo.engine import LIKELY, NAMES
from mbt_lite.inference import Classifier
from mbt_lite.model.label_heads import in_words
from mbt_lite.plot.style import percent

HUES = {"both": "var(--both)", "audio only": "var(--spec)", "video only": "var(--rgb)"}
BLOCK = 24  # px, of a layer in the figure of the model

EXPLANATION = """<p>A <b>transformer</b> cuts its input into small patches and lets all of them look
at each other, layer after layer, until it knows what there is. The <b>Multimodal Bottleneck
Transformer</b> (MBT) has two of them side by side, one for the picture and one for the sound. In
the first layers each is by itself; later they may talk, but only through a few bottleneck tokens,
the <b>bottleneck</b>: each side writes there what it found, and reads what the other side wrote.
Only little gets through, so both have to say what matters.</p><p>Layers are numbered from 0.
Nothing reads the bottleneck tokens after the last layer, so what they read there is not
shown.</p>"""
OTHER_MODELS = """<p class="small">To ask another one, start the demo with it:
<code>mbt-lite demo --model NAME</code>; <code>mbt-lite zoo list</code> has the names.</p>"""


# ---- answers ----


def says(probabilities: Mapping[str, float]) -> str:
    """An answer in a few words: up to five likely labels, or else the likeliest one."""
    likely = [label for label, p in probabilities.items() if p >= LIKELY][:5]
    if likely:
        return ", ".join(likely)
    label, p = next(iter(probabilities.items()))
    return f"perhaps {label} ({percent(p)})"


def bar(probability: float) -> str:
    """A horizontal bar."""
    return f'<span class="bar"><i style="width:{probability:.1%}"></i></span>'


def _panel(name: str, probabilities: Mapping[str, float]) -> str:
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
    """The panels of all answers; where one modality is empty, "both" would repeat the other."""
    shown = dict(answers)
    if len(shown) == 2:
        del shown["both"]
    return grid((_panel(*answer) for answer in shown.items()), 140)


def lesson(answers: Mapping[str, Mapping[str, float]], label: str) -> str:
    """One line: the probability of a label by each modality alone, and by both together."""
    if len(answers) < 3:
        return ""
    audio, video, both = (
        f'<b style="color:{HUES[name]}">{percent(answers[name][label])}</b>'
        for name in ("audio only", "video only", "both")
    )
    return (
        f'<p class="lesson">“{escape(label)}”: sound alone {audio}, picture alone {video}, '
        f"together {both}</p>"
    )


def warning(sentence: str) -> str:
    """A sentence to read before the answers."""
    return f'<p class="warning">{escape(sentence[:1].upper() + sentence[1:])}</p>'


# ---- the figure of the model ----


def bottleneck(config: MBTConfig) -> str:
    """The model as a figure: two streams of layers, joined by B bottleneck tokens from L_f on."""
    depth, first, tokens = config.depth, config.fusion_layer, config.bottlenecks
    step = 56 if depth < 8 else 42  # from layer to layer
    lefts = [66 + step * i for i in range(depth)]
    end = lefts[-1] + step
    joints = "".join(_joint(x, step, i > first) for i, x in enumerate(lefts) if i >= first)
    dots = "".join(_dots(x - (step - BLOCK) / 2, tokens) for x in lefts[first:])
    blocks = "".join(_blocks(i, x) for i, x in enumerate(lefts))
    words = (
        f"{depth} layers in each stream. From layer L_f = {first} on, picture and sound "
        f"exchange information only through B = {tokens} bottleneck tokens."
    )
    return (
        f'<figure class="bottleneck"><svg viewBox="0 0 {end} 112" style="max-width:{1.4 * end}px"'
        f' role="img" aria-label="{words}"><path d="M54 19H{end}M54 93H{end}{joints}"/>'
        f'{blocks}<g class="tokens">{dots}</g><text x="0" y="24">picture</text>'
        f'<text x="0" y="98">sound</text></svg><figcaption>{words}</figcaption></figure>'
    )


def _blocks(layer: int, left: float) -> str:
    """A layer of both streams, with its number."""
    return "".join(
        f'<g class="{stream}"><rect x="{left}" y="{top}" width="{BLOCK}" height="22" rx="5"/>'
        f'<text x="{left + BLOCK / 2}" y="{top + 15}">{layer}</text></g>'
        for stream, top in (("rgb", 8), ("spec", 82))
    )


def _joint(left: float, step: float, written: bool) -> str:
    """Lines from the bottleneck tokens to a layer, and from the layer before to them."""
    at, before = left - (step - BLOCK) / 2, left - step + BLOCK
    writes = f"M{before} 26L{at} 56M{before} 86L{at} 56" if written else ""
    return f"M{at} 56L{left} 26M{at} 56L{left} 86{writes}"


def _dots(x: float, tokens: int) -> str:
    """Bottleneck tokens, four at most, one below the other."""
    shown = min(tokens, 4)
    heights = (56 + 7 * (k - (shown - 1) / 2) for k in range(shown))
    return "".join(f'<circle cx="{x}" cy="{y}" r="3"/>' for y in heights)


# ---- layout and notes ----


def grid(parts: Iterable[str], narrowest: int) -> str:
    """Parts side by side where there is room, else one below the other."""
    return f'<div class="grid" style="--narrowest:{narrowest}px">{"".join(parts)}</div>'


def bullets(sentences: Iterable[str]) -> str:
    """A list of sentences, each with a capital letter and a full stop."""
    ended = (s if s.endswith((".", "!", "?")) else f"{s}." for s in sentences)
    return f"<ul>{''.join(f'<li>{escape(s[:1].upper() + s[1:])}</li>' for s in ended)}</ul>"


def note(title: str, content: str) -> str:
    """A note with a title."""
    return f'<div class="note"><h3>{escape(title)}</h3>{content}</div>'


def hint(sentence: str) -> str:
    """A sentence in place of content that does not exist yet."""
    return f'<p class="hint">{escape(sentence)}</p>'


# ---- About ----


def model_card(classifier: Classifier) -> str:
    """The model card in Markdown, without what only a hub, or who has the weights, reads."""
    card = classifier.card | {"probabilities": in_words(classifier.label_heads)}
    card = cards.model_card(
        classifier.config, classifier.clip_config, classifier.labels, card, "float32"
    )
    lead, _, rest = card.split("---\n", 2)[2].partition("## Use")
    return lead + rest[rest.index("## Geometry") :]
