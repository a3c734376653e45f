"""Show an interactive view in a notebook with ipywidgets: controls, video, alt text, audio.

Plain ipywidgets, so that JupyterLab, VS Code and Colab show them.
"""

import asyncio
import base64
import html
import io
import struct
import wave
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from threading import RLock

from mbt_lite.explain.html.panel import Choice, Panel

PAUSE = 0.02  # seconds for further changes to arrive before a video is drawn
KEPT = 128  # images that need not be drawn again
WIDTH = {"width": "32em", "max_width": "calc(100% - 4px)"}  # but for the margins


def explore(panel: "Panel | Mapping[str, Panel]") -> "Explorer | Shelf":
    """A panel to look into with sliders and menus; the last line of a cell shows it.

    Of several, {name of a clip: its panel}, a menu takes one. The output also holds the video of
    the start, for readers who run nothing.
    """
    return Explorer(panel) if isinstance(panel, Panel) else Shelf(panel)


class Explorer:
    """The widgets of a panel: `controls` by the names of its choices, `image`, `words`, `box`.

    `player` starts the audio and lets the frames follow; it is None where there is none to hear.
    """

    def __init__(self, panel: Panel):
        widgets = _ipywidgets()
        self.panel = panel
        self.controls = {choice.name: _control(choice, panel) for choice in panel.choices}
        self.player = Player(panel, self.controls["frame"]) if panel.audio else None
        self.image, self.words = widgets.HTML(), widgets.HTML()
        rows = self.controls | ({"frame": self.player.box} if self.player else {})
        self.box = widgets.VBox([*rows.values(), self.image, self.words])
        self._drawn = lru_cache(KEPT)(self._draw)
        self._waiting, self._turn = False, RLock()
        self._show()
        for control in self.controls.values():
            control.observe(self._changed, "index")

    @property
    def state(self) -> dict[str, int]:
        """The index that each control stands at."""
        return {name: control.index for name, control in self.controls.items()}

    def _changed(self, _) -> None:
        """Draw after a pause, once, however many changes arrive until then."""
        if self._waiting:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no notebook, so nothing else will arrive
            return self._show()
        self._waiting = True
        loop.call_later(PAUSE, self._show)

    def _show(self) -> None:
        """The last to draw draws what the controls say then, whichever threads they spoke in."""
        with self._turn:
            self._waiting = False
            try:
                png, words = self._drawn(*self.state.values())
            except Exception as error:  # whatever it is, it would be lost behind the widget
                self.image.value, self.words.value = "", _spoken(_sentence(error), "alert")
            else:
                self.image.value = _image(png, words)
                self.words.value = _spoken(words, "status")

    def _draw(self, *state: int) -> tuple[bytes, str]:
        named = dict(zip(self.controls, state, strict=True))
        return self.panel.png(**named), self.panel.alt(**named)

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        """The widgets, and for viewers without them the video of the start and its words."""
        bundle = _live(self.box)
        try:
            png, words = self._drawn(*self.panel.start.values())
        except Exception as error:
            return bundle | {"text/plain": _sentence(error)}, {}
        bundle |= {"image/png": _base64(png), "text/plain": words}
        return bundle, {"image/png": {"alt": words}}


class Shelf:
    """Several panels and a menu of their names; `explorer` is the one that is open."""

    def __init__(self, panels: Mapping[str, Panel]):
        widgets = _ipywidgets()
        if not panels:
            raise ValueError("there is no panel to explore; give one, or {name: panel}.")
        self._open = lru_cache(None)(lambda name: Explorer(panels[name]))
        self.menu = widgets.Dropdown(options=list(panels), description="clip")
        _explain(self.menu, "clip: which one to look into; Space opens it, the arrow keys choose")
        self.menu.layout = WIDTH
        self.box = widgets.VBox([self.menu, self.explorer.box])
        self.menu.observe(self._chosen, "value")

    @property
    def explorer(self) -> Explorer:
        return self._open(self.menu.value)

    def _chosen(self, _) -> None:
        self.box.children = (self.menu, self.explorer.box)

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        bundle, about = self.explorer._repr_mimebundle_()
        return bundle | _live(self.box), about


class Player:
    """Beside `frames`, the control of the frames, a button that plays the audio from there on.

    `clock` ticks in the browser, as the audio does; a frame that is chosen by hand stops both. The
    clock of ipywidgets 7 starts by its own buttons only: there it is shown, and `button` is None.
    """

    def __init__(self, panel: Panel, frames):
        widgets = _ipywidgets()
        self.panel, self.frames = panel, frames
        self.clock = widgets.Play(min=-1, max=len(frames.options) - 1, show_repeat=False)
        self.clock.interval = round(1000 * panel.step)
        self.audio, self.button = widgets.HTML(), None
        self._running = "playing" if self.clock.has_trait("playing") else "_playing"
        if self._running == "playing":
            self.button = widgets.Button(tooltip="Play the audio; the frames follow")
            self.button.layout.width, self.clock.layout.display = "7em", "none"
            self.button.on_click(self._pressed)
            self._say()
        else:
            self._rewind()
        row = [frames, *filter(None, [self.button]), self.clock, self.audio]
        self.box = widgets.HBox(row, layout={"flex_flow": "row wrap"})
        self.clock.observe(self._ran, self._running)
        self.clock.observe(self._ticked, "value")
        frames.observe(self._moved, "index")

    @property
    def playing(self) -> bool:
        return getattr(self.clock, self._running)

    @playing.setter
    def playing(self, value: bool) -> None:
        self.clock.set_trait(self._running, value)

    def _pressed(self, _) -> None:
        """Start or stop; the first tick comes at once, and is the frame to begin with."""
        if self.playing:
            self.playing = False
            return
        with self.clock.hold_sync():
            self._rewind()
            self.playing = True

    def _rewind(self) -> None:
        """Let the next tick be the frame on show, or at the end the first one."""
        at_end = self.frames.index == self.clock.max
        self.clock.value = -1 if at_end else self.frames.index - 1

    def _ran(self, change) -> None:
        first = max(0, self.clock.value + bool(self.button))  # our button starts before the tick
        start = first * self.panel.step
        self.audio.value = _audio(_later(self.panel.audio, start)) if change.new else ""
        if self.button:
            self._say()

    def _say(self) -> None:
        words = ("Stop", "stop") if self.playing else ("Play", "play")
        self.button.description, self.button.icon = words

    def _ticked(self, change) -> None:
        if self.playing or change.new == self.clock.max:  # the last comes with the stop
            self.frames.index = max(0, change.new)

    def _moved(self, change) -> None:
        if self.playing and change.new != max(0, self.clock.value):
            self.playing = False
        if not self.playing and not self.button and change.new != self.clock.value:
            self._rewind()


def _ipywidgets():
    try:
        return import_module("ipywidgets")
    except ImportError:
        raise ImportError(
            "explore needs ipywidgets, which is not installed: pip install 'mbt-lite[notebooks]'"
        ) from None


def _control(choice: Choice, panel: Panel):
    """A slider or a menu, its label as wide as the longest of the panel."""
    widgets = _ipywidgets()
    slides = choice.slider and len(choice.options) > 1
    # JupyterLab keeps the arrow keys from a menu that is closed.
    keys = "the arrow keys move it" if slides else "Space opens it, the arrow keys choose"
    control = (widgets.SelectionSlider if slides else widgets.Dropdown)(
        options=choice.options,
        index=choice.start,
        description=choice.label,
        style={"description_width": f"{max(len(c.label) for c in panel.choices) + 1}ch"},
        layout=WIDTH,
    )
    _explain(control, f"{choice.label}: {choice.options[0]} to {choice.options[-1]}; {keys}")
    return control


def _explain(control, words: str) -> None:
    """What a control shows while the mouse rests on it; ipywidgets 7 had another name for it."""
    control.set_trait("tooltip" if control.has_trait("tooltip") else "description_tooltip", words)


def _live(box) -> dict:
    """What a notebook needs to show the widgets of a box; only ipywidgets 8 has a method for it."""
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    return {"application/vnd.jupyter.widget-view+json": view}


def _image(png: bytes, alt: str) -> str:
    """HTML of a video; its size is said beforehand, so that nothing jumps when it changes."""
    width, height = struct.unpack(">2I", png[16:24])
    style = "display:block;max-width:100%;height:auto;background:white"
    return (
        f'<img src="data:image/png;base64,{_base64(png)}" alt="{html.escape(alt)}" '
        f'width="{width}" height="{height}" decoding="sync" style="{style}">'
    )


def _audio(wav: bytes) -> str:
    return f'<audio autoplay src="data:audio/wav;base64,{_base64(wav)}"></audio>'


def _spoken(words: str, role: str) -> str:
    """HTML of words that a screen reader says when they change."""
    live = "assertive" if role == "alert" else "polite"
    style = "max-width:48em;line-height:1.45;white-space:normal"
    return f'<div role="{role}" aria-live="{live}" style="{style}">{html.escape(words)}</div>'


def _sentence(error: Exception) -> str:
    return f"This video could not be drawn. {type(error).__name__}: {error}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _later(wav: bytes, seconds: float) -> bytes:
    """A WAV file without its first seconds."""
    rest = io.BytesIO()
    with wave.open(io.BytesIO(wav)) as whole, wave.open(rest, "wb") as part:
        part.setparams(whole.getparams())
        whole.setpos(min(round(seconds * whole.getframerate()), whole.getnframes()))
        part.writeframes(whole.readframes(whole.getnframes()))
    return rest.getvalue()
