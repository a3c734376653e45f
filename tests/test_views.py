"""Views that run the model: flow, interventions, counterfactuals, scrubbers, maps."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from course.scrubber import scrubber

from mbt_lite import explain, features, plot
from mbt_lite.explain import html
from mbt_lite.inference import load

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]

SAMPLES = Path(__file__).parent.parent / "data_samples"
RING, CIRCLE = SAMPLES / "ring_sings_with_bell.mp4", SAMPLES / "circle_sings.mp4"


@pytest.fixture(scope="module")
def classifier():
    return load("world-tiny")


@pytest.fixture(scope="module")
def views(classifier):
    return [features.read_views(path, classifier.clip_config)[0] for path in (RING, CIRCLE)]


@pytest.fixture(scope="module")
def interventions(classifier, views):
    return html.interventions(classifier, *views, labels=("ring sings", "bell heard"))


@pytest.fixture(scope="module")
def counterfactual(classifier, views):
    return html.counterfactual(classifier, *views, ("ring", "circle"), ("ring sings", "bell heard"))


def is_self_contained(document: str) -> bool:
    """Whether a page parses, is small, and asks nothing of a network."""
    HTMLParser().feed(document)
    return len(document) < 3e6 and "src=http" not in document and "@import" not in document


def test_the_flow_of_a_clip_is_a_panel_whose_colors_are_attention_or_cause(classifier, views):
    panel = html.flow(classifier, views[0], "ring sings")
    shown, colors = (choice.options for choice in panel.choices)
    assert colors == ("by attention", "by cause")
    assert shown[1:] == ("layer 1", "layer 2", "layer 3")
    assert panel.png() != panel.png(color=1)
    assert "changes the logit of ring sings" in panel.alt()
    page = panel.page()
    assert is_self_contained(page) and "ring sings" in page


def test_without_a_label_the_likeliest_is_explained(classifier, views):
    likeliest = classifier.predict(views[0].clip).top(1)[0][0]
    assert f"the logit of {likeliest}" in html.flow(classifier, views[0]).alt()


def test_interventions_of_a_kind_are_shown_for_the_chosen_label(interventions):
    names = {choice.name: choice.options for choice in interventions.choices}
    assert names["label"] == ("ring sings", "bell heard")
    assert names["kind"] == ("knockout", "zero", "freeze", "patch")
    cut, patched = interventions.alt(kind=0), interventions.alt(kind=3)
    assert "audio→video cut after every layer" in cut and "from the other clip" in patched
    assert interventions.alt(label=1, kind=0) != cut
    page = interventions.page()
    assert is_self_contained(page)
    for operation in ("video cut after layer 1", "bottleneck token 3 set to zero after layer 2"):
        assert operation in page


def test_counterfactuals_are_three_questions_about_two_clips(counterfactual):
    words = [counterfactual.alt(question=i) for i in range(3)]
    assert "video of ring, audio of circle" in words[0]
    assert "audio muted" in words[1] and "audio 0.50 s late" in words[2]
    assert is_self_contained(counterfactual.page())


def test_the_audio_decides_the_bell_and_both_modalities_decide_the_singer(
    counterfactual, classifier, views
):
    swap = explain.swap_audio(classifier, *views)
    assert swap.audio("bell heard") > 10 * abs(swap.video("bell heard"))
    assert abs(swap.interaction("ring sings")) > abs(swap.audio("ring sings"))


@pytest.mark.slow
def test_a_scrubber_asks_the_models_of_the_grid_one_by_one():
    panel = scrubber(RING, "bottlenecks")
    (choice,) = panel.choices
    assert choice.options == ("1", "4", "16", "64") and choice.slider
    words = [panel.alt(setting=i) for i in range(4)]
    assert len(set(words)) == 4 and all("ring sings" in text for text in words)
    assert is_self_contained(panel.page())


def test_each_method_has_a_row_of_maps(classifier, views):
    rng = np.random.default_rng(0)
    maps = [
        explain.Saliency(name, label, rng.normal(size=(4, 4, 4)), rng.normal(size=(8, 8)))
        for name, label in (("attention", None), ("occlusion", "ring sings"))
    ]
    box = np.tile([0.25, 0.5, 0.5, 0.75], (8, 1))
    figure = plot.saliencies(views[0], maps, classifier.clip_config, box)
    first, second = figure.subfigs
    assert first.get_suptitle() == "attention"
    assert second.get_suptitle() == "occlusion for “ring sings”"
    frames, audio = first.axes[:4], first.axes[4]
    first, second = views[0].times[::2], views[0].times[1::2]
    spans = [f"{a:.2f}\N{EN DASH}{b:.2f} s" for a, b in zip(first, second, strict=True)]
    assert [ax.get_xlabel() for ax in frames] == spans
    drawn = frames[0].images[-1].get_array()
    assert drawn.min() >= 0 and audio.images[-1].get_array().min() >= 0
    (patch,) = frames[0].patches
    assert patch.get_bbox().bounds == (11.5, 23.5, 12, 12)  # of 48 pixels
    words = plot.saliencies_alt(views[0], maps, classifier.clip_config)
    assert words.count("importance over") == 4


def test_the_measured_scores_of_a_method_stand_beside_its_maps(classifier, views):
    scores = explain.measured()
    assert scores.clips == 500 and scores.methods == tuple(explain.METHODS)
    attention, gradient = (explain.caption(classifier, m) for m in ("attention", "gradient"))
    assert "no better" in attention and "no better" not in gradient
    assert f"{scores.mean[0, 1]:.0%}" in attention
    panel = html.attention(classifier, views[0])
    assert attention in panel.lead and attention in panel.page()


def test_the_table_of_docs_explaining_is_the_one_that_was_measured():
    page = (SAMPLES.parent / "docs" / "explaining.md").read_text("utf-8")
    for line in explain.measured().table().splitlines()[1:]:
        assert line.rstrip("| ") in page


def test_the_caption_for_another_model_says_that_nothing_was_measured():
    other = load(
        Path(plot.__file__).parents[1] / "weights" / "grid" / "grid-bottleneck.safetensors"
    )
    assert explain.caption(other, "flow").startswith("not measured for this model")
