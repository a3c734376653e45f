"""The demo as a person and a program meet it: a real server, a real browser, no network."""

import re
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from demo_server import serving

from mbt_lite import explain, media
from mbt_lite.checkpoints import zoo
from mbt_lite.data import world
from mbt_lite.inference import load
from mbt_lite.model.label_heads import make_heads

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "data_samples"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", *(f"--use-fake-{x}-for-media-stream" for x in ("device", "ui"))]
MODEL = zoo.converted(zoo.entry("world-tiny"))
DEAD = "http://127.0.0.1:9"  # where nobody answers: what looks for the network finds none
OFFLINE = {"http_proxy": DEAD, "https_proxy": DEAD, "no_proxy": "127.0.0.1,localhost"}

pytestmark = pytest.mark.full
gradio_client = pytest.importorskip("gradio_client")
pytest.importorskip("gradio")

from mbt_lite.demo import markup, play, player, samples  # noqa: E402
from mbt_lite.demo.engine import Engine, Window  # noqa: E402


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    """A clip with sound, a long one, a silent one, and a text that pretends to be one."""
    folder = tmp_path_factory.mktemp("clips")
    world.render([world.scene(world.SPLITS["test"], 0)], folder)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (25, 64, 64, 3), np.uint8)
    media.write(folder / "silent.mp4", frames, 25)
    audio = (0.1 * rng.standard_normal(5 * media.RATE)).astype(np.float32)
    media.write(folder / "long.mp4", np.repeat(frames, 5, 0), 25, audio)
    (folder / "letter.mp4").write_text("this is a letter\n")
    names = {"clip": "world_0000.mp4", "long": "long.mp4", "silent": "silent.mp4"}
    return {name: folder / file for name, file in {**names, "letter": "letter.mp4"}.items()}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of the demo, started from another folder and without a network."""
    folder = tmp_path_factory.mktemp("server")
    cache = str(folder / "cache")
    with serving(folder, "--model", MODEL, MBT_LITE_CACHE=cache, **OFFLINE) as demo:
        yield demo.url
    assert "Traceback" not in demo.log.read_text()


# ---- a program ----


@pytest.fixture(scope="module")
def client(url):
    return gradio_client.Client(url, verbose=False, analytics_enabled=False)


def ask(client, path: Path, endpoint: str = "/predict"):
    return client.predict(gradio_client.handle_file(path), api_name=endpoint)


def test_a_program_gets_the_probabilities_that_the_classifier_gives(client, clips):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/predict", "/windows", "/attention"]
    answer = ask(client, clips["clip"])
    expected = load(MODEL).predict(clips["clip"])
    assert answer["notes"] == list(expected.notes)
    streams = {"both": expected, "audio only": expected.streams["spec"]}
    streams["video only"] = expected.streams["rgb"]
    assert list(answer) == [*streams, "notes", "unfamiliar", "probabilities", "caution"]
    assert answer["probabilities"] == "sigmoid: any of 31 labels"
    for name, prediction in streams.items():
        wanted = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        assert answer[name] == pytest.approx(wanted, abs=1e-5)


def test_a_long_clip_is_answered_window_by_window(client, clips):
    windows = ask(client, clips["long"], "/windows")
    starts = [window["start"] for window in windows]
    assert starts == pytest.approx([0, 0.75, 1.5, 2.25, 3.0], abs=0.05)
    assert windows[2]["both"] == pytest.approx(ask(client, clips["long"])["both"], abs=1e-5)


def test_a_program_gets_what_the_bottleneck_tokens_read(client, clips):
    answer, maps = ask(client, clips["clip"], "/attention"), load(MODEL).attention(clips["clip"])
    assert answer["layers"] == list(maps.layers)
    assert (answer["start"], answer["seconds"]) == (0.0, 2.0)
    np.testing.assert_allclose(answer["video"], maps.rgb.mean(1), atol=2e-6)
    np.testing.assert_allclose(answer["audio"], maps.spec.mean(1), atol=2e-6)


def test_a_file_without_sound_gets_no_answer_of_the_sound(client, clips):
    answer = ask(client, clips["silent"])
    about = ["notes", "unfamiliar", "probabilities", "caution"]
    assert list(answer) == ["both", "video only", *about]
    assert "no audio" in answer["notes"]
    assert answer["both"] == pytest.approx(answer["video only"], abs=1e-5)
    assert ask(client, clips["silent"], "/attention")["audio"] is None


def test_a_broken_file_gets_a_sentence_and_the_next_one_an_answer(client, clips):
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^letter\.mp4 is no video"):
        ask(client, clips["letter"])
    assert ask(client, clips["clip"])["both"]


@pytest.mark.parametrize("path", [ROOT / "app.py", Path("/etc/passwd"), SAMPLES / "../README.md"])
def test_no_file_but_the_samples_is_served(url, path):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{url}gradio_api/file={path}")


# ---- a person ----


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM} (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(url, browser):
    """A browser tab with the page; what it asks of other machines, and errors, fail the test."""
    requests, errors = [], []
    tab = browser.new_page()
    tab.on("request", lambda request: requests.append(urlparse(request.url)))
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto(url)
    tab.get_by_role("tab", name="About").wait_for()
    yield tab
    tab.close()
    hosts = {url.hostname for url in requests if url.scheme not in ("data", "blob")}
    assert hosts == {"127.0.0.1"}
    assert not errors


def upload(tab, path: Path) -> None:
    tab.locator("#clip input[type=file]").set_input_files(path)


def upload_and_wait(tab, path: Path) -> None:
    upload(tab, path)
    tab.get_by_role("heading", name=path.stem.replace("_", " ")).wait_for()


def open_tab(tab, name: str) -> None:
    shown = tab.get_by_role("tab", name=name, exact=True)
    if not shown.count():  # the last ones are in a menu where the page is narrow
        tab.locator(".overflow-menu > button").click()
        shown = tab.locator(".overflow-dropdown button", has_text=name)
    shown.click()


def clock(tab) -> str:
    return tab.locator("clip-player .now").inner_text()


def test_a_person_uploads_a_clip_and_sees_the_answers(tab, clips):
    upload_and_wait(tab, clips["clip"])
    panels = tab.locator(".panel")
    assert panels.locator("h3").all_inner_texts() == [
        "Sound and picture",
        "Sound only",
        "Picture only",
    ]
    labels = panels.first.locator("li > span:first-child").all_inner_texts()
    assert len(labels) == 5 and set(labels) <= set(world.LABELS)
    assert "loudest at" in tab.locator(".sound img").get_attribute("alt")
    assert tab.get_by_text("It can name 31 things").count() == 1


def test_subtitles_lanes_and_slider_follow_one_clock(tab, clips):
    upload_and_wait(tab, clips["clip"])
    tab.evaluate("document.querySelector('clip-player video').ofTheFirstClip = true")
    upload_and_wait(tab, clips["long"])
    tab.wait_for_function("document.querySelector('clip-player video').readyState > 0")
    assert tab.evaluate("document.querySelector('clip-player video').ofTheFirstClip") is None
    cues = "[...document.querySelector('clip-player video').textTracks[0].cues]"
    tab.wait_for_function(f"{cues}.length == 5")
    shown = cues.replace("].cues", "].activeCues")  # none is left of the clip before
    tab.wait_for_function(f"{shown}.length == 1 && {shown}[0] == {cues}[0]")
    assert tab.evaluate(f"{cues}.map(cue => cue.startTime)") == [0, 1.375, 2.125, 2.875, 3.625]
    lane = tab.locator(".lane", has_text="Sound and picture").locator(".segment")
    assert lane.count() == 5
    lane.nth(2).click()
    assert clock(tab) == "2.1 s"
    assert tab.evaluate("document.querySelector('clip-player video').currentTime") > 2.1
    assert lane.nth(2).get_attribute("data-now") is not None
    tab.locator(".sound img").click(position={"x": 2, "y": 40})
    assert clock(tab) == "0.0 s"
    tab.get_by_label("Position").press("ArrowRight")
    assert clock(tab) == "0.1 s"
    tab.evaluate("document.querySelector('clip-player video').play()")
    tab.wait_for_function("parseFloat(document.querySelector('clip-player .now').innerText) > 0.4")


def test_the_keyboard_alone_gets_an_answer_and_goes_through_the_clip(tab):
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('.sample')"):
            break
    tab.keyboard.press("Enter")
    tab.locator(".panel").first.wait_for()
    slider = tab.get_by_label("Position")
    slider.focus()
    tab.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "2.0 s of 2.0 s"


def test_a_person_records_a_clip_with_sound(tab):
    tab.context.grant_permissions(["camera", "microphone"])
    tab.get_by_role("button", name="Capture from camera").click()
    tab.get_by_text("Click to Access Webcam").click()
    tab.locator("#clip").get_by_text("Record", exact=True).click()
    tab.wait_for_timeout(2500)
    tab.locator("#clip").get_by_text("Stop", exact=True).click()
    tab.get_by_role("heading", name="Your recording").wait_for()
    assert "Sound only" in tab.locator(".panel h3").all_inner_texts()


def test_a_person_sees_what_is_wrong_and_can_go_on(tab, clips):
    upload(tab, clips["letter"])
    tab.get_by_text("letter.mp4 is no video").wait_for()
    assert tab.locator(".panel").count() == 0
    upload_and_wait(tab, clips["silent"])
    assert tab.locator(".panel h3").all_inner_texts() == ["Picture only"]
    assert tab.locator(".note li").first.inner_text()


def test_maps_change_in_the_browser_without_the_server(tab, clips):
    upload_and_wait(tab, clips["clip"])
    open_tab(tab, "Look")
    importance = tab.frame_locator("fitted-page.importance iframe")
    importance.get_by_text("How far to believe occlusion").wait_for(timeout=90_000)  # it compiles
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    importance.get_by_label("map").select_option("rollout")
    importance.get_by_text("the answer rests on, by rollout").wait_for()
    tab.get_by_role("radio", name="Attention").check()
    page = tab.frame_locator("fitted-page.attention iframe")
    words = page.locator("#words")
    words.get_by_text("what the bottleneck reads in layer 2").wait_for()
    page.get_by_label("layer").select_option("layer 1")
    page.get_by_label("token").select_option("token 2")
    page.get_by_label("head").select_option("head 3")
    words.get_by_text("reads in layer 1, head 3, bottleneck token 2").wait_for()
    page.get_by_role("slider", name="time").press("Home")
    assert page.get_by_text("the frame at 0.12 s").count() == 1
    tab.get_by_role("radio", name="Flow").check()
    flow = tab.frame_locator("fitted-page.flow iframe")
    flow.get_by_label("show").press("ArrowRight")
    flow.get_by_text("layer 1", exact=True).wait_for()
    assert all(url.startswith(("data:", "blob:")) for url in requests)
    open_tab(tab, "Ask")
    open_tab(tab, "Look")  # the maps are still there, as they were left
    tab.wait_for_timeout(500)
    assert page.get_by_label("token").input_value() == "3"
    label = tab.get_by_label("The label to explain")
    label.click()
    tab.get_by_role("option").last.click()
    flow.get_by_text(f"what the answer “{label.input_value()}” was read from").wait_for()
    tab.get_by_role("radio", name="Importance").check()
    importance.get_by_role("heading", name=f"rests on: {label.input_value()}").wait_for()


def test_each_change_of_a_clip_changes_the_answer(tab, clips):
    upload_and_wait(tab, clips["clip"])
    open_tab(tab, "Play")
    words = tab.locator(".changes p").first
    words.get_by_text("Nothing is changed yet").wait_for()
    tab.get_by_label("muted").check()
    words.get_by_text("the sound is muted").wait_for()
    tab.get_by_label("of another clip").check()
    tab.get_by_text("Choose the other clip first").wait_for()
    tab.locator("#changed").get_by_text("muted").wait_for()
    tab.get_by_label("The other clip: a sample").click()
    tab.get_by_role("option", name="bell", exact=True).click()
    words.get_by_text("the sound is that of bell").wait_for()
    tab.locator("input[type=file]").last.set_input_files(clips["long"])
    words.get_by_text("the sound is that of long").wait_for()
    tab.get_by_label("token 1", exact=True).check()
    tab.get_by_label("sound to picture").check()
    words.get_by_text(
        "bottleneck token 1 is kept empty; nothing goes from sound to the picture"
    ).wait_for()
    tab.get_by_label("black").check()
    words.get_by_text("the picture is black").wait_for()
    assert tab.locator("#changed .screen.black").count() == 1
    tab.get_by_role("slider").last.press("ArrowRight")
    words.get_by_text("the sound comes 0.1 s later").wait_for()


@pytest.mark.parametrize("size", [(1280, 800), (375, 800)], ids=["desktop", "phone"])
def test_the_answer_to_a_sample_is_in_view_at_once(tab, size):
    tab.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    groups = tab.locator("#samples h3").all_inner_texts()
    assert groups == ["The model knows these", "It was never taught these"]
    tab.locator(".sample").first.click()
    tab.locator(".panel").first.wait_for()
    assert "sound alone" in tab.locator(".lesson").inner_text()
    tab.wait_for_timeout(500)
    for part in (".lesson", ".panel >> nth=0 >> li >> nth=0"):
        box = tab.locator(part).bounding_box()
        assert 0 <= box["y"] and box["y"] + box["height"] <= size[1]


@pytest.mark.parametrize("theme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_a_telephone_shows_every_tab_without_scrolling_sideways(url, tab, clips, theme):
    tab.goto(f"{url}?__theme={theme}")
    tab.set_viewport_size({"width": 375, "height": 800})
    upload_and_wait(tab, clips["long"])
    for name, part in {
        "Ask": "clip-player",
        "Look": "iframe",
        "Play": "h2",
        "Sing": "iframe.playground",
        "About": "svg",
    }.items():
        open_tab(tab, name)
        tab.locator(f"{part}:visible").first.wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 375
        if name == "Look":  # the pages in it are as dark as this one
            body = tab.frame_locator("fitted-page.importance iframe").locator("body")
            color = body.evaluate("body => getComputedStyle(body).backgroundColor")
            assert (color == "rgb(25, 27, 31)") == (theme == "dark")
            tab.get_by_role("radio", name="Flow").check()
            flow = tab.frame_locator("fitted-page.flow iframe").locator(".scroll")
            assert flow.evaluate("element => element.scrollWidth <= element.clientWidth")
    assert tab.get_by_role("img", name="From layer L_f = 1 on, picture and sound").count() == 1
    card = tab.locator("#card").inner_text()
    assert "961,087 parameters" in card and "sigmoid: any of 31 labels" in card


# ---- what stands behind the page ----


@pytest.fixture(scope="module")
def engine():
    return Engine(MODEL)


@pytest.fixture(scope="module")
def answered(engine, clips):
    return engine.ask(clips["clip"])


def test_the_label_that_the_page_explains_is_the_likely_one_that_fusion_adds_most_to(answered):
    def about(both, audio, video):
        answers = {"both": both, "audio only": audio, "video only": video}
        return replace(answered, windows=(replace(answered.windows[0], answers=answers),))

    others = {"pitch dips": 0.99, "circle sings": 0.97}, {"pitch dips": 0.98, "circle sings": 0.33}
    clip = about(*others, {"pitch dips": 0.05, "circle sings": 0.35})
    assert clip.label == "circle sings"
    text = re.sub("<.*?>", "", markup.lesson(clip.answers, clip.label))
    assert text == "“circle sings”: sound alone 33 %, picture alone 35 %, together 97 %"
    unsure = {"pitch dips": 0.3, "circle sings": 0.2}
    assert about(unsure, *others).label == "pitch dips"


def test_without_a_checkout_the_samples_are_rendered_once(monkeypatch, tmp_path):
    monkeypatch.setenv("MBT_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(samples, "CHECKOUT", tmp_path)
    monkeypatch.setattr(world, "SAMPLES", {"circle_sings": world.SAMPLES["circle_sings"]})
    (clip,) = samples.samples()
    assert clip.path.parent == tmp_path / "cache" / "samples" == samples.folder()
    assert "circle sings" in clip.labels and clip.description.startswith("a circle dips")
    with monkeypatch.context() as patch:
        patch.setattr(world, "render", None)
        assert samples.samples() == [clip]
    (tmp_path / "file").touch()
    monkeypatch.setenv("MBT_LITE_CACHE", str(tmp_path / "file"))
    assert samples.samples() == []


def test_probabilities_of_a_softmax_model_sum_to_one_in_every_panel(engine, answered, monkeypatch):
    heads = make_heads("softmax", world.LABELS)
    monkeypatch.setattr(engine.classifier, "label_heads", heads)
    changed = play.ask_changed(engine, answered.view, play.Change(audio="muted"))
    for answer in (*engine.answers(answered.view)[0].values(), changed):
        assert sum(answer.values()) == pytest.approx(1, abs=1e-5)


def test_a_changed_clip_is_what_explain_says(engine, answered, clips):
    def logits(**change):
        answer = play.ask_changed(engine, answered.view, play.Change(**change))
        p = np.array([answer[label] for label in engine.classifier.labels], np.float64)
        return np.log(p / (1 - p))

    classifier, view = engine.classifier, answered.view
    unchanged = play.ask_changed(engine, view, play.Change())
    assert unchanged == pytest.approx(answered.answers["both"], abs=1e-5)
    other = engine.ask(clips["long"]).view
    close = {"rtol": 0.02, "atol": 0.02}
    blank = explain.perturb(classifier, view)
    muted, black = (blank.logits[blank.names.index(n)] for n in ("audio muted", "video black"))
    np.testing.assert_allclose(logits(audio="muted"), muted, **close)
    np.testing.assert_allclose(logits(video="black"), black, **close)
    swapped = explain.swap_audio(classifier, view, other).logits[0, 1]
    borrowed = logits(audio="of another clip", other=other, other_name="long")
    np.testing.assert_allclose(borrowed, swapped, **close)
    cut = explain.intervene(classifier, view, [explain.Intervention("knockout", reader="rgb")])
    np.testing.assert_allclose(logits(cut=("sound to picture",)), cut.operated[0], **close)
    empty = explain.intervene(classifier, view, [explain.Intervention("zero", token=2)])
    np.testing.assert_allclose(logits(emptied=(2,)), empty.operated[0], **close)


def test_a_later_sound_begins_with_silence():
    wave = np.arange(1, 32_001, dtype=np.float32)
    late, early = play.delayed(wave, 0.5), play.delayed(wave, -0.5)
    assert not late[:8000].any() and late[8000] == 1
    assert early[0] == 8001 and not early[-8000:].any()


def test_windows_that_overlap_share_the_time_between_them():
    says = {"both": {"rain & wind": 0.9, "bell": 0.6, "siren": 0.1}}
    near = [Window(0, 2, says), Window(1, 3, says)]
    apart = [Window(0, 2, says), Window(8, 10, says)]
    assert player.spans(near) == [(0, 1.5), (1.5, 3)]
    assert player.spans(apart) == [(0, 2), (8, 10)]
    lines = player.subtitles(apart, offset=1.0).splitlines()
    assert lines[:4] == ["WEBVTT", "", "00:00:00.000 --> 00:00:01.000", "rain &amp; wind, bell"]
    assert "00:00:07.000 --> 00:00:09.000" in lines


def test_the_sound_of_a_clip_is_put_together_from_its_windows(answered):
    view = answered.view
    later = replace(view, start=4.0)
    strip = player.joined_spectrogram([view, later], view.front_end, 6.0)
    assert strip.shape == (600, 128)
    np.testing.assert_array_equal(strip[:200], view.spec)
    np.testing.assert_array_equal(strip[400:], view.spec)
    assert (strip[200:400] == view.spec.min()).all()


def test_whoever_launches_the_page_gets_its_theme_and_limits(monkeypatch):
    import gradio as gr

    from mbt_lite.demo.theme import CSS, Page

    used = {}
    monkeypatch.setattr(gr.Blocks, "launch", lambda self, **options: used.update(options))
    with Page() as page:
        page.options = {"server_port": 7000}
    page.launch(quiet=True)
    assert used["css"] == CSS and used["allowed_paths"] == [str(SAMPLES)]
    assert "clip-player" in used["head"] and used["theme"] is not None
    assert (used["server_port"], used["quiet"], used["max_file_size"]) == (7000, True, "200mb")


def test_a_machine_too_busy_to_show_the_page_within_seconds_starts_it(monkeypatch):
    import gradio as gr

    from mbt_lite.demo.theme import Page

    monkeypatch.setattr(gr.networking, "url_ok", lambda url: False)  # as after 3 s of silence
    with Page() as page:
        gr.Markdown("slow")
    try:
        url = page.launch(prevent_thread_lock=True, quiet=True, inline=False)[1]
        assert urllib.request.urlopen(url).status == 200
    finally:
        page.close(verbose=False)


def test_a_password_lets_any_name_in():
    from mbt_lite.demo.page import password_check

    check = password_check("sesame é")
    assert check("class", "sesame é") and check("", "sesame é") and not check("class", "Sesame é")
