"""HTML pages of the views: their content, and their behavior in a browser without a network."""

import base64
import io
import json
import re
import time
import wave
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mbt_lite import explain, features
from mbt_lite.config import BASE, WORLD, WORLD_CLIP, ClipConfig
from mbt_lite.explain import html
from mbt_lite.explain.html.page import LARGEST, jpeg_uri, png_uri, quantized, wav
from mbt_lite.features import View
from mbt_lite.inference import AttentionMaps, Classifier
from mbt_lite.plot.maps import frame_times

CHROMIUM = Path("/usr/bin/chromium")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class Reader(Classifier):
    """A classifier with random attention; with `only`, to one stream."""

    def __init__(self, config=WORLD, clip_config=WORLD_CLIP, only: str | None = None):
        labels = [f"label {i}" for i in range(config.classes)]
        super().__init__(config, {}, clip_config, labels)
        self.only = only

    def attention(self, clip, query="bottleneck", layers=None) -> AttentionMaps:
        bottlenecks = self.config.bottlenecks if query == "bottleneck" else 1
        shape, random = (self.config.heads, bottlenecks), rng()
        fused = tuple(range(self.config.fusion_layer, self.config.depth - 1))

        def maps(stream):
            if self.only not in (None, stream):
                return None
            size = (len(fused), *shape, *self.config.grid(stream))
            return (random.random(size, np.float32) ** 4).astype(np.float32)

        return AttentionMaps(fused, query, maps("rgb"), maps("spec"))


def view_of(clip_config: ClipConfig = WORLD_CLIP, start: float = 0.0, silent=False) -> View:
    """A view of random video and audio from `start` seconds of a file on."""
    random, config = rng(), clip_config
    rgb = random.integers(0, 256, (config.frames, config.size, config.size, 3), np.uint8)
    samples = round(config.audio_seconds * 16_000)
    audio = np.zeros(samples) if silent else random.uniform(-0.5, 0.5, samples)
    audio = audio.astype(np.float32)
    spec = features.log_mel(audio, config.front_end)
    times = start + (np.arange(config.frames) + 0.5) * config.frame_step
    return View(rgb, times, spec, audio, start, (), config.front_end)


def flow_of(effects: bool = True) -> explain.Flow:
    """A flow of three layers and four bottleneck tokens."""
    random, groups, layers = rng(), 6, 3
    mass, held = np.zeros((layers, groups, groups)), np.full(groups, 1 / groups)
    for layer in range(layers):
        ways = random.random((groups, groups))
        ways[0, 1] = ways[1, 0] = 0
        mass[layer] = held[:, None] * ways / ways.sum(1, keepdims=True)
        held = mass[layer].sum(0)
    effect = np.full(mass.shape, np.nan)
    effect[:, :2, 2:] = random.normal(size=(layers, 2, 4))
    effect[:, 2:, :2] = random.normal(size=(layers, 4, 2))
    return explain.Flow(
        ("spec", "rgb"), (1, 2, 3), "circle sings", mass, effect if effects else None
    )


LABELS = html.Choice("label", "answer", ("bell", "rain", "siren"), slider=True)
KINDS = html.Choice("kind", "show", ("changes", "probabilities"))


def chart(label: int, kind: int) -> html.Chart:
    bars = [html.Bar("token 0", label - 1.5, label - 2, label - 1), html.Bar("token 1", 0.5)]
    return html.Chart(LABELS.options[label], ("logit", "probability")[kind], bars)


def bars_page() -> str:
    panel = html.chart_panel("Interventions", "What tokens do.", (LABELS, KINDS), chart)
    assert panel.png(label=1) != panel.png()
    return panel.page()


PAGES = {
    "attention": lambda: html.attention(Reader(), view_of()).page(),
    "bars": bars_page,
    "flow": lambda: html.flow_page(flow_of()),
}


def data_of(document: str) -> dict:
    return json.loads(re.search('<script type="application/json" id="data">(.*?)</', document)[1])


def content(uri: str) -> bytes:
    return base64.b64decode(uri.split(",")[1])


# ---- documents ----


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete_and_names_nothing_outside_itself(name):
    document = PAGES[name]()
    assert document.rstrip().endswith("</html>") and document.count("<script") == 2
    assert len(document.encode()) < LARGEST
    assert not re.search(r"https?://|<[^>]* (src|href|srcset)=", document)
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', document)
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"(connect|font|frame|object|worker)-src|https?:|\*", policy)


def test_a_label_that_looks_like_html_neither_ends_the_script_nor_becomes_an_element():
    label = "</script><script>alert(1)</script><!--<b>"
    document = html.page(label, label, "bars.js", (), {"words": label})
    assert document.count("<script") == 2 and "<b>" not in document
    assert data_of(document) == {"choices": [], "words": label}


def test_a_page_refuses_nan_and_more_than_3_mb():
    with pytest.raises(ValueError, match="JSON compliant"):
        html.page("interventions", "", "bars.js", (), {"value": float("nan")})
    with pytest.raises(ValueError, match="would take 3.* leave out some layers, some frames or"):
        html.page("long", "", "bars.js", (), {"words": "x" * LARGEST})


def test_the_attention_of_a_full_size_model_to_noise_fits_into_a_page():
    config, clip_config = replace(BASE, fusion_layer=8), ClipConfig()
    document = html.attention(Reader(config, clip_config), view_of(clip_config)).page()
    data = data_of(document)
    assert data["rgb"]["shape"] == [3, 12, 5, 16, 14, 14]
    assert data["spec"]["shape"] == [3, 12, 5, 50, 8]
    assert 1e6 < len(document.encode()) < LARGEST


# ---- what lies in them ----


def test_a_wav_file_holds_the_samples():
    audio = rng().uniform(-1, 1, 800).astype(np.float32)
    with wave.open(io.BytesIO(wav(audio))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        heard = np.frombuffer(file.readframes(800), "<i2") / 32767
    np.testing.assert_allclose(heard, audio, atol=2e-5)


def test_frames_lie_one_below_the_other_and_a_spectrogram_has_high_pitches_above():
    frames = np.repeat(np.uint8([[[[40, 90, 200]]], [[[200, 90, 40]]]]), 32, 1).repeat(16, 2)
    strip = np.asarray(Image.open(io.BytesIO(content(jpeg_uri(frames))))).reshape(2, 32, 16, 3)
    inside = np.s_[:, 1:-1]  # color is stored at half the resolution, so edges mix
    np.testing.assert_allclose(strip[inside].astype(int), frames[inside], atol=6)
    spec = np.zeros((20, 8), np.float32)
    spec[15, 6] = 1
    image = np.asarray(Image.open(io.BytesIO(content(png_uri(spec)))))
    assert image.shape == (8, 20) and np.argwhere(image == 255).tolist() == [[1, 15]]


def test_a_map_keeps_its_values_to_a_part_of_its_own_highest():
    maps = (rng().random((2, 3, 4, 5, 6)) ** 6 * [[[[[1e-4]]]], [[[[1]]]]]).astype(np.float32)
    stored = quantized(maps)
    levels = np.frombuffer(base64.b64decode(stored["maps"]), np.uint8).reshape(24, -1)
    highest = np.array(stored["highest"])[:, None]
    error = abs(levels / 255 * highest - maps.reshape(24, -1)) / highest
    assert 0 < error.max() < 1 / 500


# ---- attention ----


def test_the_clock_goes_on_where_a_short_file_is_looped_and_where_there_is_no_picture():
    view = view_of(start=3.0)
    looped = replace(view, times=3.0 + (view.times - 3.0) % 0.9)
    nothing = replace(view, rgb=np.zeros_like(view.rgb), times=np.full(8, 3.0))
    for other in (view, looped, nothing):
        np.testing.assert_allclose(frame_times(other, WORLD_CLIP), view.times)


def test_the_attention_panel_has_a_choice_of_layer_head_and_token():
    panel = html.attention(Reader(), view_of())
    assert [choice.name for choice in panel.choices] == ["layer", "head", "token"]
    assert "reads in layer 1, bottleneck token 2; attention over" in panel.alt(token=3, layer=0)
    assert panel.png(layer=0) != panel.png(layer=1)
    panel = html.attention(Reader(), view_of(), query="cls")
    assert [choice.name for choice in panel.choices] == ["layer", "head"]
    assert "what the class token reads in layer 2" in panel.alt()


@pytest.mark.parametrize("only", ["rgb", "spec"])
def test_a_model_of_one_stream_has_the_panel_of_that_stream(only):
    panel = html.attention(Reader(only=only), view_of(), query="cls")
    data, other = data_of(panel.page()), "spec" if only == "rgb" else "rgb"
    assert data[only] and data[other] is None
    assert ("frames" in panel.alt()) == (only == "rgb")


# ---- charts and flows ----


def test_charts_lie_in_the_order_of_the_choices():
    data = data_of(bars_page())
    states = list(product(LABELS.options, KINDS.options))
    names = {"logit": "changes", "probability": "probabilities"}
    assert [(c["title"], names[c["axis"]]) for c in data["charts"]] == states
    assert data["charts"][0]["words"] == "bell (logit): token 0 −1.50, token 1 0.50"


def test_a_flow_page_holds_the_numbers_of_the_flow_and_null_where_nothing_was_cut():
    flow = flow_of()
    data = data_of(html.flow_page(flow))
    np.testing.assert_allclose(data["mass"], flow.mass, atol=1e-6)
    np.testing.assert_allclose(np.array(data["effect"], float), flow.effect, atol=1e-4)
    assert data["effect"][0][0][0] is None
    plain = data_of(html.flow_page(flow_of(effects=False)))
    assert plain["effect"] is None
    assert [choice["name"] for choice in plain["choices"]] == ["layer"]


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM} (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a page from a folder; errors and requests of the page fail the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_offline(True)
    tab, errors, requests = context.new_page(), [], []
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))

    def open_page(document: str):
        path = tmp_path / "page.html"
        path.write_text(document, encoding="utf-8")
        tab.goto(path.as_uri())
        tab.locator("#words:not(:empty)").wait_for()
        return tab

    yield open_page
    context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [
        (tmp_path / "page.html").as_uri()
    ]


def figure(tab) -> str:
    """The figure: the pixels of the frame or of the audio, or the parts of the chart."""
    return tab.evaluate(
        "[...document.querySelectorAll('.over canvas')].map(c => c.toDataURL()).join()"
        " + [...document.querySelectorAll('svg')].map(s => s.innerHTML).join()"
    )


def words(tab) -> str:
    return tab.locator("#words").inner_text()


def runs_past(tab, frame: int) -> None:
    """Waits until a later frame is on show (its policy forbids wait_for_function)."""
    deadline = time.monotonic() + 10
    while int(tab.locator("input[type=range]").input_value()) <= frame:
        assert time.monotonic() < deadline
        tab.wait_for_timeout(50)


def turn(tab, key: str = "ArrowRight") -> None:
    tab.locator("input[type=range]").first.focus()
    tab.keyboard.press(key)


@pytest.mark.full
@pytest.mark.parametrize("name", PAGES)
def test_a_slider_moved_by_keyboard_changes_the_figure_and_the_words_without_a_network(name, show):
    tab = show(PAGES[name]())
    before = figure(tab), words(tab)
    turn(tab, "Home" if name == "attention" else "ArrowRight")
    assert figure(tab) != before[0] and words(tab) != before[1]
    if name == "bars":  # charts of one axis share a scale
        assert tab.locator("svg text", has_text=re.compile("^−2$")).count() == 1
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.full
def test_the_frame_slider_and_the_audio_have_one_clock(show):
    panel = html.attention(Reader(), view_of(start=3.0))
    tab = show(panel.page())
    tab.get_by_label("head").select_option("head 3")
    assert words(tab).startswith("W" + panel.alt(head=4)[1:] + "; ")
    tab.get_by_label("head").select_option("all heads")
    line, frame = tab.locator(".cursor"), tab.locator("input[type=range]")
    turn(tab, "Home")
    assert line.evaluate("e => e.style.left") == "6.25%"
    audio = tab.locator(".spec .over canvas")
    audio.click(position={"x": audio.bounding_box()["width"] * 0.7, "y": 20})
    assert (frame.input_value(), line.evaluate("e => e.style.left")) == ("5", "68.75%")
    assert tab.locator("#pointed").inner_text().startswith("audio at 4.2–4.5 s, near ")
    assert "lies around 4.38 s" in words(tab)
    turn(tab, "Home")
    tab.get_by_role("button", name="Play").click()
    runs_past(tab, 1)
    tab.get_by_role("button", name="Pause").click()
    shown = float(line.evaluate("e => e.style.left").removesuffix("%")) / 100 * 8 - 0.5
    assert shown == pytest.approx(int(frame.input_value()), abs=0.51)


@pytest.mark.full
def test_arrow_keys_read_the_attention_cell_by_cell(show):
    tab = show(html.attention(Reader(), view_of()).page())
    tab.locator(".rgb .over canvas").focus()
    sentences = []
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "ArrowLeft"):
        tab.keyboard.press(key)
        sentences.append(tab.locator("#pointed").inner_text())
    assert len(set(sentences)) == 4
    assert re.fullmatch(r"video at [\d.]+ s, at the top left: attention [\d.e−]+", sentences[-1])


@pytest.mark.full
@pytest.mark.parametrize("only", ["rgb", "spec"])
def test_a_page_of_one_stream_shows_that_stream_and_its_time_runs(only, show):
    view = view_of(silent=only == "rgb")
    if only == "spec":
        view = replace(view, rgb=np.zeros_like(view.rgb), times=np.zeros(8))
    tab = show(html.attention(Reader(only=only), view, query="cls").page())
    assert tab.locator(".over canvas").count() == 1
    turn(tab, "End")
    last = words(tab)
    turn(tab, "Home")
    assert words(tab) != last
    tab.get_by_role("button", name="Play").click()
    runs_past(tab, 1)


@pytest.mark.full
def test_a_band_says_its_share_and_the_effect_of_cutting_it(show):
    flow = flow_of()
    tab = show(html.flow_page(flow))
    tab.get_by_label("color").select_option("by cause")
    cut = np.unravel_index(np.nanargmax(abs(flow.effect)), flow.effect.shape)
    first = tab.get_by_role("listitem").nth(5)
    first.get_by_role("button").focus()
    sentence, (layer, source, target) = tab.locator("#pointed").inner_text(), cut
    assert sentence.startswith(
        f"layer {layer + 1}, {flow.groups[source]} → {flow.groups[target]}: "
    )
    assert f"{100 * flow.mass[cut]:.1f} % of the attention" in sentence
    assert f"logit of “circle sings” by {abs(flow.effect[cut]):.3g}" in sentence
    assert ("lowers" in sentence) == (flow.effect[cut] > 0)
    assert tab.locator("path.lit").get_attribute("aria-label") == sentence
