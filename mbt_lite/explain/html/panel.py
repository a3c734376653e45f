"""The interface of a view: choices, a video and alt text per state, and a page."""

from collections.abc import Callable
from dataclasses import dataclass

from mbt_lite.plot.style import Figure, to_png


@dataclass(frozen=True)
class Choice:
    """A control; the state holds the index of one of its options."""

    name: str  # the state's key, such as "layer"
    label: str  # what stands beside the control
    options: tuple[str, ...]
    start: int = 0
    slider: bool = False  # the options have an order, as frames and seconds do


@dataclass(frozen=True)
class Panel:
    """A view of one clip or one table, of which a video, a page and a widget can be had.

    `draw(**state)` and `words(**state)` take the index of each choice by its name. `page()` is the
    same view as one HTML document that needs nothing from outside. `audio` is a WAV file of what
    the clip sounds like; then the choice "frame" runs with it, one option every `step` seconds.
    """

    title: str
    lead: str
    choices: tuple[Choice, ...]
    draw: Callable[..., Figure]
    words: Callable[..., str]
    page: Callable[[], str]
    audio: bytes | None = None
    step: float | None = None

    @property
    def start(self) -> dict[str, int]:
        """The state to begin with."""
        return {choice.name: choice.start for choice in self.choices}

    def png(self, **state) -> bytes:
        """The video of a state, PNG; choices that are not named are as at the start."""
        return to_png(self.draw(**{**self.start, **state}))

    def alt(self, **state) -> str:
        """The words for the same video."""
        return self.words(**{**self.start, **state})
