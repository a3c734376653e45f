"""Explorers and a lesson in a real JupyterLab and browser, used by keyboard, without a network."""

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

model = mbt.load()
view = read_views("world_0000.mp4", model.clip_config)[0]
explore(html.{name}(model, view))
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
    """Notebooks of one cell each, the clip that they look into, and a lesson of the course."""
    folder.mkdir()
    world.render([world.scene(world.SPLITS["test"], 0)], folder)
    for name in ("attention", "flow"):
        cell = nbformat.v4.new_code_cell(CELL.format(name=name).strip())
        notebook = nbformat.v4.new_notebook(cells=[cell])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
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
    urls = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1100, "height": 1100})
        tab.route("https://colab.research.google.com/**", lambda route: route.abort())  # the badge
        tab.on("request", lambda request: urls.append(urlparse(request.url)))
        name = request.node.get_closest_marker("notebook").args[0]
        tab.goto(f"{lab}/workspaces/{name}/tree/{name}.ipynb")
        yield tab
        browser.close()
    hosts = {one.hostname for one in urls if one.scheme not in ("data", "blob")}
    assert hosts - {"colab.research.google.com"} == {"127.0.0.1"}


def run_all(tab) -> None:
    tab.locator(".jp-StatusBar-Widget").get_by_text("| Idle").wait_for()  # the kernel is there
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_text("Run All Cells", exact=True).click()
    tab.locator(IMAGE).wait_for(timeout=60_000)


def shown(tab) -> tuple[str, str, str]:
    """The video's source and description, and the words below it."""
    image = tab.locator(IMAGE)
    words = tab.locator(".jp-OutputArea-output [role=status]")
    return image.get_attribute("src"), image.get_attribute("alt"), words.inner_text()


def changed(tab, words: str) -> tuple[str, str, str]:
    """What is shown once the words are others."""
    script = "words => ![words, undefined].includes(document.querySelector('%s')?.innerText)"
    tab.wait_for_function(script % ".jp-OutputArea-output [role=status]", arg=words)
    return shown(tab)


def shown_with(tab, words: str) -> tuple[str, str, str]:
    """What is shown once these words are among the words."""
    script = "words => document.querySelector('%s')?.innerText.includes(words)"
    tab.wait_for_function(script % ".jp-OutputArea-output [role=status]", arg=words)
    return shown(tab)


@pytest.mark.slow
@pytest.mark.notebook("attention")
def test_arrow_keys_move_through_a_clip_and_its_layers_and_the_sound_can_be_played(tab, tmp_path):
    run_all(tab)
    tab.screenshot(path=tmp_path / "before.png")
    before = shown(tab)
    assert before[0].startswith("data:image/png;base64,") and before[1] == before[2]
    assert tab.locator(".jp-OutputArea-output .jp-RenderedImage").count() == 0  # no second video
    for _ in range(3):
        tab.get_by_role("slider").press("ArrowRight")
    moved = shown_with(tab, f"around {tab.locator('.widget-readout').inner_text()}")
    assert moved[0] != before[0] and moved[1] == moved[2] != before[2]
    for key in ("Space", "ArrowUp", "Enter"):
        tab.get_by_label("layer").press(key)
    other = shown_with(tab, "in layer 1 ")
    assert other[0] != moved[0]
    tab.get_by_role("button", name="Play").press("Enter")
    tab.wait_for_function("document.querySelector('audio')?.currentTime > 0")
    assert changed(tab, other[2])[0] != other[0]
    tab.screenshot(path=tmp_path / "after.png")


@pytest.mark.slow
@pytest.mark.notebook("flow")
def test_the_flow_is_coloured_by_cause_and_shown_layer_by_layer(tab, tmp_path):
    run_all(tab)
    tab.screenshot(path=tmp_path / "before.png")
    source, alt, words = shown(tab)
    assert alt == words and "changes the logit of" in words
    tab.get_by_label("colour").select_option("by cause")
    tab.wait_for_function(f"old => document.querySelector('{IMAGE}').src !== old", arg=source)
    by_cause = shown(tab)[0]
    tab.get_by_role("slider").press("ArrowRight")  # only the first layer
    tab.wait_for_function(f"old => document.querySelector('{IMAGE}').src !== old", arg=by_cause)
    tab.screenshot(path=tmp_path / "after.png")


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
