"""The demo changes its model while it runs: download, stop, resume, failures, and the page."""

import gc
import os
import shutil
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import released
from faulty_server import good, serving, stall, status

from mbt_lite.checkpoints import zoo
from mbt_lite.data import world

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]
gradio = pytest.importorskip("gradio")

from mbt_lite.demo import model_bar, page, switch  # noqa: E402
from mbt_lite.demo.engine import Engine  # noqa: E402
from mbt_lite.demo.theme import Page  # noqa: E402

ROOT = Path(__file__).parents[1]
CHROMIUM = Path("/usr/bin/chromium")
TAG = {"ETag": '"one"'}


@pytest.fixture(scope="module")
def data() -> bytes:
    return released.published()


@pytest.fixture(scope="module")
def small() -> Engine:
    return Engine("world-tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    world.render([world.scene(world.SPLITS["test"], 0)], folder)
    return folder / "world_0000.mp4"


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def offer(server, tmp_path, monkeypatch):
    """A way to say what the network answers, here and in the process that downloads."""
    monkeypatch.setenv("MBT_LITE_CACHE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setitem(zoo.ENTRIES, released.NAME, zoo.ENTRIES[released.NAME])

    def answer_with(*answers):
        url = server.url("/model", *answers)
        released.offer(url)
        program = f"import sys, released; released.offer({url!r}); from mbt_lite import cli\n"
        program += "sys.exit(cli.main(sys.argv[1:]))"
        monkeypatch.setattr(switch, "FETCH", [sys.executable, "-c", program, *switch.FETCH[3:]])

    return answer_with


def wait_until(condition) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def change(models: switch.ModelSwitch) -> str:
    """Change the model, and return what is said at the end."""
    models.start()
    wait_until(lambda: not models.busy)
    return models.progress()[0]


@pytest.mark.slow
def test_a_download_is_stopped_and_resumed_and_its_model_answers(
    server, offer, data, small, clip, tmp_path
):
    offer(stall(data, 100_000, **TAG), good(data, **TAG))
    models = switch.ModelSwitch(small)
    assert models.offer.startswith("For real videos: the AudioSet model (4")
    old = models.engine.ask(clip)
    models.start()
    wait_until(lambda: models.progress()[1])
    assert models.progress()[0].startswith("Downloading: 100 kB of 4") and models.downloading
    models.stop()
    wait_until(lambda: not models.busy)
    assert "resumes after the 100 kB that came" in models.progress()[0]
    assert models.engine is models.engine_of(old) is small
    assert "Now as500k-rgb-spec answers" in change(models)
    assert server.ranges() == [None, "bytes=100000-"]
    assert len(models.engine.ask(clip).answers["both"]) == 527
    with pytest.raises(ValueError, match="not world-tiny: ask again"):
        models.engine_of(old)
    assert not (tmp_path / zoo.ENTRIES[released.NAME].file).exists()
    large = weakref.ref(models.engine.classifier)
    assert models.offer == "Back to world-tiny" and "Now world-tiny" in change(models)
    gc.collect()
    assert large() is None
    assert models.offer == "Use the AudioSet model"


def test_a_failed_download_says_where_to_put_the_file_and_the_small_model_still_answers(
    offer, small, tmp_path
):
    offer(status(404))
    models = switch.ModelSwitch(small)
    said = change(models)
    assert "the server answers 404" in said and "mbt-lite:" not in said
    assert f"put it at {tmp_path / zoo.ENTRIES[released.NAME].file}." in said
    assert models.engine is small


def test_without_room_nothing_is_requested(server, offer, data, small, monkeypatch):
    offer(good(data))
    models = switch.ModelSwitch(small)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=300_000))
        said = change(models)
        assert "too full: 700 kB" in said and "300 kB are free. Make room" in said
    monkeypatch.setattr(switch, "free_memory", lambda: 500_000)
    assert "memory is too small: about 933 kB" in change(models)
    assert server.requests == [] and models.engine is small


def test_where_the_free_memory_is_not_told_it_is_without_bound(monkeypatch):
    assert switch.free_memory() > 1e6
    monkeypatch.setattr(switch, "Path", lambda _: Path("/none"))
    assert switch.free_memory() == float("inf")


ALONE = {"share": False, "auth": None, "space_id": None, "server_name": "127.0.0.1"}


@pytest.mark.parametrize(
    "difference",
    [
        {"share": True},
        {"auth": print},
        {"space_id": "me/mbt"},
        {"server_name": "0.0.0.0"},
        {"headers": {"x-forwarded-for": "8.8.8.8"}},
    ],
)
def test_only_the_visitor_of_a_page_of_this_machine_alone_may_change_the_model(difference):
    def allowed(headers=None, **fields):
        visited = Page()
        for name, value in fields.items():
            setattr(visited, name, value)
        return model_bar.is_for_the_owner(visited, gradio.Request(headers=headers or {}))

    assert allowed(**ALONE)
    assert not allowed(**ALONE | difference)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting'")  # by Gradio's use of pandas
def test_a_person_changes_the_model_in_the_page_and_back(offer, data, small):
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM} (Debian: apt-get install chromium)")
    offer(stall(data, 100_000, **TAG), good(data, **TAG))
    demo, errors = page.build(small), []
    url = demo.launch(prevent_thread_lock=True, quiet=True, inline=False)[1]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.set_default_timeout(240_000)
        tab.on("pageerror", lambda error: errors.append(error))
        tab.goto(url)
        change_and_ask(tab)
        browser.close()
    gc.collect()
    engines = {each.name for each in gc.get_objects() if type(each) is Engine}
    demo.close(verbose=False)
    assert engines == {"world-tiny"}  # the memory of the large one is free again
    assert not errors


def change_and_ask(tab) -> None:
    """Ask the small model, then change, stop, resume, ask the large one, and go back."""
    line, offered = tab.locator("#model p"), tab.get_by_role("button", name="For real videos")
    assert line.inner_text() == "world-tiny answers: it knows generated clips of shapes that sing"
    tab.locator(".sample").first.click()
    tab.locator(".panel").first.wait_for()
    offered.click()
    tab.get_by_text("Downloading: 100 kB of 4").wait_for()
    assert tab.locator("#change .bar").count() == 1 and not offered.is_visible()
    tab.set_viewport_size({"width": 375, "height": 800})
    tab.reload()  # whoever comes again sees how far it is
    tab.get_by_text("Downloading: 100 kB of 4").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375
    assert line.bounding_box()["width"] > 250
    tab.get_by_role("button", name="Stop the download").click()
    tab.get_by_text("the next download resumes after the 100 kB").wait_for()
    offered.click()
    tab.get_by_text("Now as500k-rgb-spec answers").wait_for()
    assert line.inner_text().endswith("it knows real videos, by AudioSet's 527 names")
    assert tab.locator(".panel").count() == 0
    assert tab.locator("#samples h3").first.inner_text() == "More like life"
    tab.locator(".sample").first.click()
    tab.get_by_text("It can name 527 things").wait_for()
    tab.get_by_role("tab", name="Play", exact=True).click()
    tab.get_by_label("token 4", exact=True).check()
    tab.get_by_text("bottleneck token 4 is kept empty").wait_for()
    tab.get_by_role("tab", name="About").click()
    assert "as500k-rgb-spec" in tab.locator("#card").inner_text()
    tab.get_by_role("button", name="Back to world-tiny").click()
    tab.get_by_role("button", name="Use the AudioSet model").wait_for()
    assert tab.get_by_label("token 4", exact=True).count() == 0
    tab.get_by_role("tab", name="Look").click()
    tab.get_by_text("then you can look at what the model read").wait_for()
