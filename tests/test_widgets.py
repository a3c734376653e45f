"""Interactive views in a notebook: pages in frames, and widgets that the kernel answers."""

import base64
import html
import io
import re
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image

from mbt_lite.explain.html.page import Choice, Panel
from mbt_lite.explain.widgets import explore
from mbt_lite.plot.style import finish, new_figure

CHOICES = (
    Choice("frame", "time", tuple(f"{i / 4:.2f} s" for i in range(8)), slider=True),
    Choice("height", "height of the dot", ("low", "middle", "high"), start=1),
)
START = "A dot & its audio at 0.00 s, middle."


def draw(frame: int, height: int):
    ax = new_figure(4, 2).subplots()
    ax.plot(frame / 4, height, "o", ms=12)
    ax.set(xlim=(-0.1, 2), ylim=(-1, 3))
    return finish(ax, None).figure


def words(frame: int, height: int) -> str:
    return f"A dot & its audio at {frame / 4:.2f} s, {CHOICES[1].options[height]}."


def panel(document: str = "", **changes) -> Panel:
    """A panel of a dot that moves over eight frames; without a document it needs the kernel."""
    return Panel(
        **dict(
            title="A dot",
            lead="It moves.",
            choices=CHOICES,
            draw=draw,
            words=words,
            page=lambda: document,
        )
        | changes
    )


def output_of(explorer):
    """What a notebook keeps of an explorer on the last line of a cell."""
    formatters = pytest.importorskip("IPython.core.formatters")
    data, metadata = formatters.DisplayFormatter().format(explorer)
    return nbformat.v4.new_output("display_data", data, metadata=metadata)


def exported(output) -> str:
    """The body of a notebook with this output, as HTML."""
    nbconvert = pytest.importorskip("nbconvert")
    cell = nbformat.v4.new_code_cell("explore(panel)", outputs=[output])
    exporter = nbconvert.HTMLExporter(template_name="lab")
    page, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    return page[page.index("<body") :]


def test_a_page_stands_in_a_frame_over_its_figure_without_ipywidgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    document = '<!doctype html><p title="a">It & moves</p>'
    output = output_of(explore(panel(document)))
    frame = re.search(
        r'<iframe srcdoc="([^"]*)" title="A dot" sandbox="allow-scripts"', output.data["text/html"]
    )
    assert html.unescape(frame[1]) == document
    assert f'alt="{html.escape(START)}"' in output.data["text/html"]
    assert output.data["text/plain"] == START == output.metadata["image/png"]["alt"]


def test_several_panels_stand_below_each_other_and_the_first_one_is_open():
    explorer = explore({"a dot": panel("<p>one"), "a <b>": panel("<p>two")})
    content = output_of(explorer).data["text/html"]
    assert re.findall("<details.*?</summary>", content) == [
        "<details open><summary>a dot</summary>",
        "<details><summary>a &lt;b&gt;</summary>",
    ]
    assert content.count("<iframe ") == 2 and explorer.panel.alt() == START
    with pytest.raises(ValueError, match="no panel to explore"):
        explore({})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("document", ["<p>a page", ""])
def test_a_reader_without_a_kernel_sees_the_figure_of_the_start(document):
    if not document:
        pytest.importorskip("ipywidgets")
    output = output_of(explore(panel(document)))
    images = re.findall("<img[^>]*>", exported(output))
    assert len(images) == 1 and output.data["image/png"] in images[0]


def shown(explorer) -> tuple[np.ndarray, str]:
    """The pixels on show, and the words."""
    content = explorer.output.value
    source, alt = re.search(r'src="data:image/png;base64,([^"]+)" alt="([^"]*)"', content).groups()
    text = re.search(">([^<]*)</p>", content)[1]
    assert text == alt and 'role="status"' in content
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))), html.unescape(text)


def test_a_control_changes_the_figure_and_the_words_and_the_notebook_keeps_the_start():
    pytest.importorskip("ipywidgets")
    explorer = explore(panel())
    kinds = [type(control).__name__ for control in explorer.controls.values()]
    assert kinds == ["SelectionSlider", "Dropdown"]
    for choice, control in zip(CHOICES, explorer.controls.values(), strict=True):
        assert (control.description, control.index) == (choice.label, choice.start)
        assert tuple(control.options) == choice.options
    start, text = shown(explorer)
    assert text == START
    explorer.controls["frame"].index = 4
    explorer.controls["height"].label = "high"
    later, text = shown(explorer)
    assert text == "A dot & its audio at 1.00 s, high." and (later != start).any()
    output = output_of(explorer)
    view = output.data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.box.model_id and "text/html" not in output.data
    assert output.data["text/plain"] == START


def test_an_error_is_shown_in_place_of_the_figure_until_the_next_state():
    pytest.importorskip("ipywidgets")

    def broken(frame: int, height: int):
        if frame == 2:
            raise ValueError("no <frame> at 0.50 s")
        return draw(frame, height)

    explorer = explore(panel(draw=broken))
    explorer.controls["frame"].index = 2
    assert explorer.output.value == (
        '<p role="alert">This figure could not be drawn. ValueError: no &lt;frame&gt; at 0.50 s</p>'
    )
    explorer.controls["frame"].index = 3
    assert shown(explorer)[1].endswith("at 0.75 s, middle.")


def test_a_view_that_needs_ipywidgets_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"pip install 'mbt-lite\[notebooks\]'"):
        explore(panel())
