"""What this is, which model answers, and how to cite it."""

from html import escape

from mbt_lite import card
from mbt_lite.demo.engine import Engine
from mbt_lite.demo.markup import bullets, note

BOTTLENECK = """<h2>What is a bottleneck?</h2>
<svg class="bottleneck" viewBox="0 0 520 200" role="img" aria-label="Picture and sound pass through
 layers side by side; later layers are joined by a few slots between them.">
<path d="M80 47H520M80 157H520M284 102L325 64M284 102L325 140M357 64L404 102L445 64M357 140L404
102L445 140"/><g fill="#0072b2"><rect x="95" y="30"/><rect x="205" y="30"/><rect x="315" y="30"/>
<rect x="425" y="30"/></g><g fill="#d55e00"><rect x="95" y="140"/><rect x="205" y="140"/>
<rect x="315" y="140"/><rect x="425" y="140"/></g><g fill="#7c89b8"><circle cx="284" cy="102"/>
<circle cx="404" cy="102"/></g><text y="54">picture</text><text y="164">sound</text>
<text x="165" y="109">bottleneck</text></svg>
<p>A <b>transformer</b> cuts its input into small patches and lets all of them look at each other,
layer after layer, until it knows what there is. The <b>Multimodal Bottleneck Transformer</b> (MBT)
has two of them side by side, one for the picture and one for the sound. In the first layers each
is by itself; later they may talk, but only through a few slots, the <b>bottleneck</b>: each side
writes there what it found, and reads what the other side wrote. Only little gets through, so both
have to say what matters.</p>"""
NUMBERS = """<p>This model has {depth} layers, numbered from 0, and {bottlenecks} slots from layer
{fusion_layer} on. What the slots read in the last layer nobody reads any more, so it is not
shown.</p>"""
KNOWN = "How sound was heard in its training is known, and it hears the same way here."
MORE = """The released models of one sense only have no bottleneck to show; <code>mbt-lite predict
--model NAME</code> asks them. A model that is not here yet is downloaded first, once."""
CITE = """@inproceedings{nagrani2021attention,
  title     = {Attention Bottlenecks for Multimodal Fusion},
  author    = {Nagrani, Arsha and Yang, Shan and Arnab, Anurag and Jansen, Aren and
               Schmid, Cordelia and Sun, Chen},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {34},
  year      = {2021}
}"""


def explanation(engine: Engine) -> str:
    """What a bottleneck is, with the figure."""
    return BOTTLENECK + NUMBERS.format_map(vars(engine.classifier.config))


def model(engine: Engine, name: str) -> str:
    """What is known of the loaded model, and what it can name."""
    classifier = engine.classifier
    about, front = classifier.card, classifier.clip_config.front_end
    facts = {
        "name": about.get("name") or name,
        "licence": about.get("licence") or "not stated",
        "size": f"{classifier.config.cost().parameters:,} parameters",
        "looks at": f"{classifier.clip_config.video_seconds:g} s, "
        f"{classifier.clip_config.frames} frames of {classifier.clip_config.size} x "
        f"{classifier.clip_config.size} pixels",
        "listens to": f"{classifier.clip_config.sound_seconds:g} s, through the front end "
        f"“{front.name}” (mean {front.mean:g}, deviation {front.std:g})",
    }
    rows = "".join(f"<dt>{k}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    labels = escape(", ".join(classifier.labels))
    return (
        f'<h2>The model that answers</h2><dl class="facts">{rows}</dl>'
        f"{note('Before you believe it', bullets([classifier.caution or KNOWN]))}"
        f"<details><summary>The {len(classifier.labels)} things it can name</summary><p>{labels}."
        "</p></details>"
    )


def whole_card(engine: Engine) -> str:
    """The model card in Markdown, without what only a hub reads."""
    classifier = engine.classifier
    given = classifier.config, classifier.clip_config, classifier.labels, classifier.card
    return card.model_card(*given, "float32").split("---\n", 2)[2]


def citation() -> str:
    """How to cite the paper, and where this software stands."""
    return (
        "<h2>How to cite</h2><p>The model is that of this paper (NeurIPS 2021, arXiv:2107.00135); "
        "the software is mbt_lite, under the Apache licence 2.0 (CITATION.cff in its folder)."
        f'</p><pre tabindex="0" aria-label="BibTeX">{escape(CITE)}</pre>'
    )
