"""The tab About: what MBT is, which model answers, how to cite it."""

from html import escape

from mbt_lite.checkpoints import model_card
from mbt_lite.demo.engine import Engine
from mbt_lite.demo.markup import bottleneck, bullets, note
from mbt_lite.model.flops import model_cost
from mbt_lite.model.label_heads import in_words

BOTTLENECK = """<p>A <b>transformer</b> cuts its input into small patches and lets all of them look
at each other, layer after layer, until it knows what there is. The <b>Multimodal Bottleneck
Transformer</b> (MBT) has two of them side by side, one for the video and one for the audio. In the
first layers each is by itself; later they may talk, but only through a few bottleneck tokens, the
<b>bottleneck</b>: each side writes there what it found, and reads what the other side wrote. Only
little gets through, so both have to say what matters.</p><p>Layers are numbered from 0. What the
bottleneck tokens read in the last layer nobody reads any more, so it is not shown.</p>"""
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
    return f"<h2>What is a bottleneck?</h2>{bottleneck(engine.classifier.config)}{BOTTLENECK}"


def model(engine: Engine, name: str) -> str:
    """What is known of the loaded model, and what it can name."""
    classifier = engine.classifier
    about, front = classifier.card, classifier.clip_config.front_end
    facts = {
        "name": about.get("name") or name,
        "probabilities": in_words(classifier.label_heads),
        "licence": about.get("licence") or "not stated",
        "size": f"{model_cost(classifier.config).parameters:,} parameters",
        "looks at": f"{classifier.clip_config.video_seconds:g} s, "
        f"{classifier.clip_config.frames} frames of {classifier.clip_config.size} x "
        f"{classifier.clip_config.size} pixels",
        "listens to": f"{classifier.clip_config.audio_seconds:g} s, through the front end "
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
    about = classifier.card | {"probabilities": in_words(classifier.label_heads)}
    given = classifier.config, classifier.clip_config, classifier.labels, about
    return model_card.model_card(*given, "float32").split("---\n", 2)[2]


def citation() -> str:
    """How to cite the paper, and where this software stands."""
    return (
        "<h2>How to cite</h2><p>The model is that of this paper (NeurIPS 2021, arXiv:2107.00135); "
        "the software is mbt_lite, under the Apache licence 2.0 (CITATION.cff in its folder)."
        f'</p><pre tabindex="0" aria-label="BibTeX">{escape(CITE)}</pre>'
    )
