"""A panel in a notebook: what its controls do to the video, the words and the audio."""

import asyncio
import base64
import html
import io
import re
import subprocess
import sys
import threading
import wave

import nbformat
import numpy as np
import pytest
from PIL import Image

from mbt_lite.explain.html.panel import Choice, Panel
from mbt_lite.explain.widgets import PAUSE, explore
from mbt_lite.plot.style import COLOURS, finish, new_figure

pytest.importorskip("ipywidgets")

RATE = 8_000  # Hz
STEP = 0.25  # seconds of a frame
FRAMES = 8


def toy(**changes) -> Panel:
    """A panel of a dot that moves over eight frames, high or low, with a rising tone."""
    choices = (
        Choice("frame", "time", tuple(f"{i * STEP:.2f} s" for i in range(FRAMES)), slider=True),
        Choice("stream", "stream", ("audio", "video")),
        Choice("height", "height of the dot", ("low", "middle", "high"), start=1),
    )
    about = dict(title="A dot", lead="It moves.", choices=choices, draw=draw, words=words)
    about |= dict(page=lambda: "", audio=tone(), step=STEP)
    return Panel(**about | changes)


def draw(frame: int, stream: int, height: int):
    ax = new_figure(6.4, 2.8).subplots()
    ax.plot(frame * STEP, height, "o", ms=12, color=COLOURS[("spec", "rgb")[stream]])
    ax.set(xlim=(-0.1, 2), ylim=(-1, 3), xlabel="time (s)", ylabel="height")
    return finish(ax, ("audio", "video")[stream]).figure


def words(frame: int, stream: int, height: int) -> str:
    where = ("low", "middle", "high")[height]
    return f"A dot & its {('audio', 'video')[stream]} at {frame * STEP:.2f} s, {where}."


def tone() -> bytes:
    time = np.arange(round(FRAMES * STEP * RATE)) / RATE
    samples = (8000 * np.sin(2 * np.pi * (200 + 100 * time) * time)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setparams((1, 2, RATE, 0, "NONE", ""))
        audio.writeframes(samples.tobytes())
    return file.getvalue()


def image(explorer) -> np.ndarray:
    """The pixels on show."""
    found = re.search(r'src="data:image/png;base64,([^"]+)"', explorer.image.value)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found))))


def said(explorer) -> str:
    return html.unescape(re.search(">([^<]*)<", explorer.words.value)[1])


def test_turning_a_control_turns_the_picture_its_description_and_the_words():
    explorer = explore(toy())
    before = image(explorer)
    assert said(explorer) == "A dot & its audio at 0.00 s, middle."
    explorer.controls["frame"].index = 4
    explorer.controls["height"].label = "high"
    assert explorer.state == {"frame": 4, "stream": 0, "height": 2}
    assert said(explorer) == "A dot & its audio at 1.00 s, high."
    assert f'alt="{html.escape(said(explorer))}"' in explorer.image.value
    assert image(explorer).shape == before.shape and (image(explorer) != before).any()


def test_the_size_of_the_picture_is_known_before_it_is_there():
    explorer = explore(toy())
    height, width = image(explorer).shape[:2]
    assert f'width="{width}" height="{height}"' in explorer.image.value


def test_every_control_has_a_label_an_explanation_and_the_options_of_its_choice():
    explorer = explore(toy())
    for choice in toy().choices:
        control = explorer.controls[choice.name]
        assert (control.description, control.index) == (choice.label, choice.start)
        assert tuple(control.options) == choice.options
        names = control.keys  # of the traits that a browser is told
        told = getattr(control, "tooltip" if "tooltip" in names else "description_tooltip")
        assert choice.label in told and "arrow keys" in told
        assert ("Space" in told) == (not choice.slider)
    kinds = [type(control).__name__ for control in explorer.controls.values()]
    assert kinds == ["SelectionSlider", "Dropdown", "Dropdown"]
    widths = {control.style.description_width for control in explorer.controls.values()}
    assert widths == {"18ch"}  # "height of the dot" and a space


def test_a_clip_of_one_frame_has_a_menu_since_nothing_can_slide():
    only = Choice("frame", "time", ("0.00 s",), slider=True)
    explorer = explore(toy(choices=(only, *toy().choices[1:])))
    assert type(explorer.controls["frame"]).__name__ == "Dropdown"


def test_a_screen_reader_is_told_of_changes_without_being_interrupted():
    assert 'role="status" aria-live="polite"' in explore(toy()).words.value


def noting(drawn: list[int], **changes) -> Panel:
    """A toy that keeps which frames are drawn."""
    return toy(draw=lambda **state: drawn.append(state["frame"]) or draw(**state), **changes)


def test_of_the_frames_that_a_slider_is_dragged_over_only_the_last_is_drawn():
    drawn = []
    explorer = explore(noting(drawn))

    async def drag() -> None:
        for frame in range(1, FRAMES):
            explorer.controls["frame"].index = frame
        await asyncio.sleep(10 * PAUSE)

    asyncio.run(drag())
    assert drawn == [0, FRAMES - 1]
    assert said(explorer).endswith("at 1.75 s, middle.")


def test_a_picture_that_was_slow_does_not_cover_the_one_that_was_asked_for_later():
    begun, go_on = threading.Event(), threading.Event()

    def slow(frame: int, **rest):
        if frame == 1:
            begun.set()
            go_on.wait(20)
        return draw(frame, **rest)

    explorer = explore(toy(draw=slow))
    threads = [
        threading.Thread(target=setattr, args=(explorer.controls["frame"], "index", frame))
        for frame in (1, 3)
    ]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    threads[1].join(0.2)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert said(explorer).endswith("at 0.75 s, middle.")


def test_a_picture_that_was_on_show_before_is_not_drawn_again():
    drawn = []
    explorer = explore(noting(drawn))
    for frame in (1, 0, 1):
        explorer.controls["frame"].index = frame
    assert drawn == [0, 1] and said(explorer).endswith("at 0.25 s, middle.")


def test_what_goes_wrong_with_a_picture_is_said_in_its_place():
    def broken(frame: int, **rest):
        if frame == 2:
            raise ValueError("no <frame> at 0.50 s")
        return draw(frame, **rest)

    explorer = explore(toy(draw=broken))
    explorer.controls["frame"].index = 2
    assert said(explorer) == "This video could not be drawn. ValueError: no <frame> at 0.50 s"
    assert 'role="alert"' in explorer.words.value and explorer.image.value == ""
    explorer.controls["frame"].index = 3
    assert said(explorer).endswith("at 0.75 s, middle.") and image(explorer).std() > 0


def output_of(explorer):
    """What a notebook keeps of an explorer on the last line of a cell."""
    formatters = pytest.importorskip("IPython.core.formatters")
    data, metadata = formatters.DisplayFormatter().format(explorer)
    return nbformat.v4.new_output("display_data", data, metadata=metadata)


def test_a_notebook_keeps_the_widgets_the_picture_of_the_start_and_its_words():
    explorer = explore(toy())
    start = image(explorer)
    explorer.controls["frame"].index = 5
    output = output_of(explorer)
    view = output.data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.box.model_id
    assert output.data["text/plain"] == "A dot & its audio at 0.00 s, middle."
    assert output.metadata["image/png"]["alt"] == output.data["text/plain"]
    kept = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    np.testing.assert_array_equal(np.asarray(kept), start)


def test_a_notebook_keeps_the_sentence_where_there_is_no_picture_to_keep():
    output = output_of(explore(toy(draw=lambda **state: 1 / 0)))
    assert output.data["text/plain"].startswith("This video could not be drawn. ZeroDivision")
    assert "image/png" not in output.data


def test_a_menu_takes_one_of_several_clips_which_keep_their_state():
    shelf = explore({"a dot": toy(), "a silent dot": toy(audio=None)})
    first = shelf.explorer
    first.controls["frame"].index = 4
    shelf.menu.value = "a silent dot"
    assert shelf.explorer is not first and shelf.explorer.player is None
    assert shelf.box.children[1] is shelf.explorer.box and shelf.explorer.state["frame"] == 0
    shelf.menu.value = "a dot"
    assert shelf.explorer is first and shelf.box.children[1] is first.box
    output = output_of(shelf)
    view = output.data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == shelf.box.model_id and "image/png" in output.data
    assert output.data["text/plain"] == "A dot & its audio at 0.00 s, middle."
    with pytest.raises(ValueError, match="no panel to explore"):
        explore({})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("template", ["lab", "classic"])
def test_a_reader_without_widgets_sees_the_picture_of_the_start(template):
    nbconvert = pytest.importorskip("nbconvert")
    output = output_of(explore(toy()))
    cell = nbformat.v4.new_code_cell("explore(panel)", outputs=[output])
    exporter = nbconvert.HTMLExporter(template_name=template)
    page, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    images = re.findall("<img[^>]*>", page[page.index("<body") :])
    assert len(images) == 1 and output.data["image/png"] in images[0]
    if template == "classic":  # the other one knows no descriptions
        assert 'alt="A dot &amp; its audio at 0.00 s, middle."' in images[0]


def seconds_heard(explorer) -> float:
    """How long the audio is that the browser was given to play."""
    found = re.fullmatch(
        r'<audio autoplay src="data:audio/wav;base64,([^"]+)"></audio>', explorer.player.audio.value
    )
    with wave.open(io.BytesIO(base64.b64decode(found[1]))) as audio:
        return audio.getnframes() / audio.getframerate()


def press(player) -> None:
    """What a person and the browser do: start, which ticks at once, or stop.

    The clock of ipywidgets 7 has buttons of its own, and begins anew at its end.
    """
    value = player.clock.value
    if player.button:
        player.button.click()
        player.clock.value += player.playing
    elif player.playing:
        player.clock.set_state({"_playing": False})
    else:
        value = -1 if value == player.clock.max else value + 1
        player.clock.set_state({"value": value, "_playing": True})


def test_play_sounds_from_the_frame_on_show_and_the_frames_follow_the_clock():
    explorer = explore(toy())
    player, frames = explorer.player, explorer.controls["frame"]
    frames.index = 3
    press(player)
    assert player.playing and player.clock.interval == 1000 * STEP
    assert frames.index == 3 and seconds_heard(explorer) == (FRAMES - 3) * STEP
    for tick in range(4, FRAMES):  # as the browser counts
        player.clock.value += 1
        assert frames.index == tick and said(explorer).endswith(f"at {tick * STEP:.2f} s, middle.")
    player.playing = False
    assert player.audio.value == ""


def test_the_button_says_what_it_will_do():
    player = explore(toy()).player
    if not player.button:
        pytest.skip("the clock of ipywidgets 7 has buttons of its own")
    assert (player.button.description, player.clock.layout.display) == ("Play", "none")
    press(player)
    assert player.button.description == "Stop"
    press(player)
    assert player.button.description == "Play" and not player.playing


def test_play_begins_anew_at_the_end():
    explorer = explore(toy())
    explorer.controls["frame"].index = FRAMES - 1
    press(explorer.player)
    assert seconds_heard(explorer) == FRAMES * STEP
    assert explorer.controls["frame"].index == 0


def test_the_last_frame_is_shown_even_where_it_comes_together_with_the_end():
    explorer = explore(toy())
    press(explorer.player)
    running = "playing" if explorer.player.button else "_playing"
    explorer.player.clock.set_state({"value": FRAMES - 1, running: False})
    assert explorer.controls["frame"].index == FRAMES - 1


def test_a_frame_that_is_chosen_by_hand_stops_the_sound():
    explorer = explore(toy())
    press(explorer.player)
    explorer.controls["frame"].index = 5
    assert not explorer.player.playing and explorer.player.audio.value == ""
    explorer.player.clock.value += 1  # was on its way
    assert explorer.controls["frame"].index == 5


def test_a_panel_without_sound_has_no_play_button():
    explorer = explore(toy(audio=None, step=None))
    assert explorer.player is None
    assert explorer.box.children[0] is explorer.controls["frame"]


def test_without_ipywidgets_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"pip install 'mbt-lite\[notebooks\]'"):
        explore(toy())


@pytest.mark.full
def test_the_package_needs_no_ipywidgets_until_something_is_explored():
    program = (
        "import sys; sys.modules['ipywidgets'] = None; import mbt_lite, mbt_lite.explain.widgets"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
