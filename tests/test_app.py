"""The demo as a person and a program meet it: a real server, a real browser, no network."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import jax
import numpy as np
import pytest

from mbt_lite import checkpoint, media, world, zoo
from mbt_lite.config import WORLD, WORLD_CLIP
from mbt_lite.inference import load
from mbt_lite.model import init_params

ROOT = Path(__file__).parents[1]
CHROMIUM = Path("/usr/bin/chromium")
EMBEDDED = zoo.converted(zoo.entry("world-tiny"))

gradio_client = pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The embedded weights, or random ones of the same shapes."""
    if EMBEDDED.is_file():
        return EMBEDDED
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + 0.05 * rng.standard_normal(x.shape).astype(np.float32),
        init_params(WORLD, jax.random.key(0)),
    )
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    return checkpoint.save(path, params, WORLD, clip=WORLD_CLIP, labels=world.LABELS)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    """A clip with sound, a silent one, and a text that pretends to be one."""
    folder = tmp_path_factory.mktemp("clips")
    world.render([world.scene(world.SPLITS["test"], 0)], folder)
    frames = np.random.default_rng(0).integers(0, 256, (25, 64, 64, 3), np.uint8)
    media.write(folder / "silent.mp4", frames, 25)
    (folder / "letter.mp4").write_text("this is a letter\n")
    names = {"clip": "world_0000.mp4", "silent": "silent.mp4", "letter": "letter.mp4"}
    return {name: folder / file for name, file in names.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(server: subprocess.Popen, url: str, log: Path, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    pytest.fail(f"the demo did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    """The address of the demo, started as a person starts it, from another folder."""
    folder = tmp_path_factory.mktemp("server")
    log, port = folder / "log.txt", free_port()
    env = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "files")}
    command = [sys.executable, ROOT / "app.py", "--model", model]
    with open(log, "w") as output:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output)
    try:
        wait_for(server, f"http://127.0.0.1:{port}/", log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(20)
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def client(url):
    return gradio_client.Client(url, verbose=False, analytics_enabled=False)


def ask(client, path: Path):
    return client.predict(gradio_client.handle_file(path), api_name="/predict")


def test_a_program_gets_the_probabilities_that_the_classifier_gives(client, clips, model):
    answer = ask(client, clips["clip"])
    expected = load(model).predict(clips["clip"])
    assert list(answer) == ["both", "sound alone", "picture alone", "notes", "caution"]
    assert answer["notes"] == list(expected.notes)
    streams = {"both": expected, "sound alone": expected.streams["spec"]}
    streams["picture alone"] = expected.streams["rgb"]
    for name, prediction in streams.items():
        wanted = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        assert answer[name] == pytest.approx(wanted, abs=1e-5)


def test_a_program_sees_one_endpoint(client):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/predict"]


def test_a_file_without_sound_gets_no_answer_of_the_sound(client, clips):
    answer = ask(client, clips["silent"])
    assert list(answer) == ["both", "picture alone", "notes", "caution"]
    assert "no sound" in answer["notes"]
    assert answer["both"] == pytest.approx(answer["picture alone"], abs=1e-5)


def test_a_broken_file_gets_a_sentence_and_the_next_one_an_answer(client, clips):
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^letter\.mp4 is no video"):
        ask(client, clips["letter"])
    assert ask(client, clips["clip"])["both"]


@pytest.fixture
def tab(url):
    """A browser tab with the page; whatever it asked of other machines fails the test."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM} (Debian: apt-get install chromium)")
    asked = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("request", lambda request: asked.append(urlparse(request.url)))
        tab.goto(url)
        tab.get_by_role("button", name="Ask").wait_for()
        yield tab
        browser.close()
    assert {one.hostname for one in asked if one.scheme not in ("data", "blob")} == {"127.0.0.1"}


def upload(tab, path: Path) -> None:
    tab.locator("input[type=file]").first.set_input_files(path)
    tab.locator("video[src*='/file=']").wait_for(state="attached")


def picture_of_attention(tab) -> tuple[str, str]:
    image = tab.locator("#maps img")
    return image.get_attribute("src"), image.get_attribute("alt")


def test_a_person_uploads_asks_and_looks_into_another_layer(tab, clips):
    upload(tab, clips["clip"])
    tab.get_by_role("button", name="Ask").click()
    tab.locator("#maps img").wait_for()
    panels = tab.locator(".panel")
    assert panels.locator("h3").all_inner_texts() == [
        "Sound and picture",
        "Sound alone",
        "Picture alone",
    ]
    labels = panels.first.locator("li span:first-child").all_inner_texts()
    assert len(labels) == 5 and set(labels) <= set(world.LABELS)
    picture, words = picture_of_attention(tab)
    assert "highest" in words or "spread evenly" in words
    tab.get_by_label("layer 1").check()
    tab.wait_for_function("words => document.querySelector('#maps img').alt != words", arg=words)
    assert picture_of_attention(tab)[0] != picture
    assert "reads in layer 1" in picture_of_attention(tab)[1]


def test_a_person_is_told_what_is_wrong_and_can_go_on_with_a_sample(tab, clips):
    if not any((ROOT / "data_samples").glob("*.mp4")):
        pytest.skip("data_samples holds no clip")
    upload(tab, clips["letter"])
    tab.get_by_role("button", name="Ask").click()
    tab.get_by_text("letter.mp4 is no video").wait_for()
    assert tab.locator(".panel").count() == 0
    tab.locator("#samples .thumbnail-item, #samples .thumbnail-lg").first.click()
    tab.get_by_text("In this sample:").wait_for()
    tab.get_by_role("button", name="Ask").click()
    tab.locator("#maps img").wait_for()


def test_a_telephone_shows_the_page_without_scrolling_sideways(tab, clips):
    tab.set_viewport_size({"width": 375, "height": 800})
    upload(tab, clips["silent"])
    tab.get_by_role("button", name="Ask").click()
    tab.locator("#maps img").wait_for()
    assert tab.locator(".panel h3").all_inner_texts() == ["Picture alone"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375
