"""A page and a lesson in JupyterLab and a browser, used by keyboard, without a network."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest

from mbt_lite.checkpoints import zoo
from mbt_lite.data import world

CHROMIUM = Path("/usr/bin/chromium")
EMBEDDED = zoo.converted(zoo.entry("world-tiny"))
CELL = """
import mbt_lite as mbt
from mbt_lite.explain import html
from mbt_lite.explain.widgets import explore
from mbt_lite.features import read_views

model = mbt.load("world-tiny")
view = read_views("world_0000.mp4", model.clip_config)[0]
explore(html.attention(model, view))
"""
LESSON = Path(__file__).parents[1] / "notebooks/01_from_video_to_tensors.ipynb"
SETTINGS = {  # no news; cells that are out of sight are drawn, too
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
IMAGE = ".jp-OutputArea-output .widget-html img"

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")
pytest.importorskip("ipywidgets")
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"needs {CHROMIUM}"),
    pytest.mark.skipif(not EMBEDDED.is_file(), reason="needs the embedded weights"),
]


def write_notebooks(folder: Path) -> None:
    """A notebook of one cell, its clip, and a lesson of the course."""
    folder.mkdir()
    world.render([world.scene(world.SPLITS["test"], 0)], folder)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "attention.ipynb")
    lesson = nbformat.read(LESSON, as_version=4)
    for cell in lesson.cells:
        cell.update({"outputs": []} if cell.cell_type == "code" else {})
    nbformat.write(lesson, folder / "lesson.ipynb")
    (folder / "course").symlink_to(LESSON.parent / "course")


def environment(home: Path) -> dict[str, str]:
    """A Jupyter that has nothing of the person who runs the tests, and asks for no news."""
    kinds = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
    own = {kind: str(home / kind.lower()) for kind in kinds}
    settings = Path(own["JUPYTER_CONFIG_DIR"]) / "lab/user-settings/@jupyterlab"
    for name, values in SETTINGS.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    return os.environ | own | {"MBT_LITE_SMOKE": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(server: subprocess.Popen, url: str, log: Path, seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab over a folder with notebooks; its kernels end with it."""
    home, port = tmp_path_factory.mktemp("lab"), free_port()
    notebooks, log = home / "notebooks", home / "log.txt"
    write_notebooks(notebooks)
    options = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "root_dir": notebooks}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.{name}={value}" for name, value in options.items()]
    command += ["--IdentityProvider.token="]
    with open(log, "w") as out:
        server = subprocess.Popen(command, cwd=home, env=environment(home), stdout=out, stderr=out)
    try:
        wait_for(server, f"http://127.0.0.1:{port}/api/status", log)
        yield f"http://127.0.0.1:{port}/lab"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture
def tab(lab, request):
    """A browser tab with the test's notebook; what it asks of other machines fails the test."""
    requests = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1100, "height": 1100})
        tab.route("https://colab.research.google.com/**", lambda route: route.abort())  # the badge
        tab.on("request", lambda request: requests.append(urlparse(request.url)))
        name = request.node.get_closest_marker("notebook").args[0]
        tab.goto(f"{lab}/workspaces/{name}/tree/{name}.ipynb")
        yield tab
        browser.close()
    hosts = {one.hostname for one in requests if one.scheme not in ("data", "blob", "about")}
    assert hosts - {"colab.research.google.com"} == {"127.0.0.1"}


def run_all(tab, output: str = IMAGE) -> None:
    tab.locator(".jp-StatusBar-Widget").get_by_text("| Idle").wait_for()  # the kernel is there
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_text("Run All Cells", exact=True).click()
    tab.locator(output).wait_for(timeout=60_000)


def shown(tab) -> tuple[str, str, str]:
    """The video's source and description, and the words below it."""
    image = tab.locator(IMAGE)
    words = tab.locator(".jp-OutputArea-output [role=status]")
    return image.get_attribute("src"), image.get_attribute("alt"), words.inner_text()


def shown_with(tab, words: str) -> tuple[str, str, str]:
    """What is shown once these words are among the words."""
    script = "words => document.querySelector('%s')?.innerText.includes(words)"
    tab.wait_for_function(script % ".jp-OutputArea-output [role=status]", arg=words)
    return shown(tab)


@pytest.mark.slow
@pytest.mark.notebook("attention")
def test_arrow_keys_move_through_a_clip_and_its_layers_and_the_audio_can_be_played(tab, tmp_path):
    run_all(tab, ".jp-OutputArea-output iframe")
    assert tab.locator(".jp-OutputArea-output .jp-RenderedImage").count() == 0  # no second figure
    page = tab.frame_locator(".jp-OutputArea-output iframe")
    words = page.locator("#words")
    words.filter(has_text="in layer 2").wait_for()
    tab.screenshot(path=tmp_path / "before.png")
    before = words.inner_text()
    for _ in range(3):
        page.get_by_role("slider").press("ArrowRight")
    moved = words.inner_text()
    assert moved != before
    page.get_by_label("layer").select_option("layer 1")
    words.filter(has_text="in layer 1").wait_for()
    page.get_by_role("button", name="Play").press("Enter")
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("button", name="Play").wait_for()  # the audio is over
    tab.screenshot(path=tmp_path / "after.png")


@pytest.mark.slow
@pytest.mark.notebook("lesson")
def test_a_lesson_runs_from_top_to_bottom_and_its_laboratory_is_turned_by_keyboard(tab, tmp_path):
    run_all(tab)
    tab.screenshot(path=tmp_path / "before.png")
    source, _, words = shown(tab)
    assert ", 0 empty mel filters; the model can be asked" in words
    sliders = tab.get_by_role("slider")
    for _ in range(2):
        sliders.nth(2).press("ArrowLeft")  # fft, from 1024 to 400
    shown_with(tab, ", 2 empty mel filters")
    tab.wait_for_function(f"old => document.querySelector('{IMAGE}').src !== old", arg=source)
    tab.screenshot(path=tmp_path / "after.png")
    tab.locator(".jp-StatusBar-Widget").get_by_text("| Idle").wait_for(timeout=60_000)
    assert tab.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert tab.get_by_text("Not yet: nothing").count() == 3  # exercises, not begun
