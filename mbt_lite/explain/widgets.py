"""Show an interactive view in a notebook: its HTML page, or ipywidgets that the kernel answers."""

import base64
from collections.abc import Mapping
from html import escape
from importlib import import_module

from mbt_lite.explain.html.page import Panel
from mbt_lite.plot.style import data_uri

HEIGHT = "50rem"  # of a page
FRAME = "grid-area:1/1;width:100%;height:100%;border:0"
FIGURE = "grid-area:1/1;display:block;max-width:100%;max-height:100%;background:white"


def explore(panel: "Panel | Mapping[str, Panel]") -> "Explorer":
    """An interactive view; the last line of a cell shows it.

    Several panels {name: panel} are shown one below the other, all but the first one closed.
    """
    return Explorer({"": panel} if isinstance(panel, Panel) else panel)


class Explorer:
    """Panels as a notebook shows them.

    The page of a panel stands in a frame, and needs no kernel. A panel without a page gets controls
    of ipywidgets, and the kernel draws each state. Viewers that show neither frames nor widgets
    have the figure of the first state, with its alt text.
    """

    def __init__(self, panels: Mapping[str, Panel]):
        if not panels:
            raise ValueError("there is no panel to explore; give one, or {name: panel}.")
        self.panels = dict(panels)
        self.panel = next(iter(panels.values()))
        self.pages = {name: panel.page() for name, panel in panels.items()}
        self.box = None
        if not self.pages[next(iter(panels))]:
            self._build_widgets()

    def _build_widgets(self) -> None:
        widgets = _ipywidgets()
        self.controls, self.output = {}, widgets.HTML()
        for choice in self.panel.choices:
            slides = choice.slider and len(choice.options) > 1
            options = {"options": choice.options, "index": choice.start}
            options |= {"description": choice.label, "style": {"description_width": "initial"}}
            if slides:
                control = widgets.SelectionSlider(**options, continuous_update=False)
            else:
                control = widgets.Dropdown(**options)
            control.observe(self._update, "index")
            self.controls[choice.name] = control
        self.box = widgets.VBox([*self.controls.values(), self.output])
        self._update()

    def _update(self, _=None) -> None:
        """Draw the state of the controls."""
        state = {name: control.index for name, control in self.controls.items()}
        try:
            figure, words = _figure(self.panel, **state), self.panel.alt(**state)
        except Exception as error:  # a notebook hides what a callback raises
            words = f"This figure could not be drawn. {type(error).__name__}: {error}"
            self.output.value = f'<p role="alert">{escape(words)}</p>'
        else:
            self.output.value = f'{figure}<p role="status" aria-live="polite">{escape(words)}</p>'

    def _html(self) -> str:
        """Pages in frames, each over its still figure, for viewers that remove frames."""
        parts = []
        for name, panel in self.panels.items():
            frame = (
                f'<iframe srcdoc="{escape(self.pages[name])}" title="{escape(panel.title)}" '
                f'sandbox="allow-scripts" style="{FRAME}"></iframe>'
            )
            style = f"display:grid;height:{HEIGHT}"
            part = f'<div style="{style}">{_figure(panel)}{frame}</div>'
            if name:
                state = "" if parts else " open"
                part = f"<details{state}><summary>{escape(name)}</summary>{part}</details>"
            parts.append(part)
        return "".join(parts)

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        """What a notebook shows or keeps: the view, the figure of the first state, its alt text."""
        words = self.panel.alt()
        png = base64.b64encode(self.panel.png()).decode("ascii")
        bundle = {"text/plain": words, "image/png": png}
        if self.box is None:
            bundle["text/html"] = self._html()
        else:
            model = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = model
        return bundle, {"image/png": {"alt": words}}


def _figure(panel: Panel, **state: int) -> str:
    """HTML of the figure of a state, with its alt text."""
    source = data_uri(panel.png(**state), "image/png")
    return f'<img src="{source}" alt="{escape(panel.alt(**state))}" style="{FIGURE}">'


def _ipywidgets():
    try:
        return import_module("ipywidgets")
    except ImportError:
        raise ImportError(
            "this view needs ipywidgets, which is not installed: pip install 'mbt-lite[notebooks]'"
        ) from None
