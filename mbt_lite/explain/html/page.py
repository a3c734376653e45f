"""Interactive views of a clip: a figure, alt text and an HTML page for all states.

A page holds its data, script and style. Nothing is fetched, and the page forbids itself to: it
works from a folder and without a network.
"""

import base64
import io
import itertools
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Real, UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from mbt_lite import plot
from mbt_lite.media import RATE
from mbt_lite.plot.style import Figure, data_uri, to_png

LARGEST = 3_000_000  # bytes of a page


@dataclass(frozen=True)
class Choice:
    """A control of a view; the state holds the index of one of its options."""

    name: str  # the state's key, such as "layer"
    label: str  # what stands beside the control
    options: tuple[str, ...]
    start: int = 0
    slider: bool = False  # the options have an order, as frames and seconds do


@dataclass(frozen=True)
class Panel:
    """A view of one clip or one table: choices, and a figure and alt text for each state.

    `draw(**state)` and `words(**state)` take the index of each choice by its name. `page()` is the
    same view as one HTML document, or "" where only the kernel can draw a state.
    """

    title: str
    lead: str
    choices: tuple[Choice, ...]
    draw: Callable[..., Figure]
    words: Callable[..., str]
    page: Callable[[], str] = str

    @property
    def start(self) -> dict[str, int]:
        """The first state."""
        return {choice.name: choice.start for choice in self.choices}

    def figure(self, **state) -> Figure:
        """The figure of a state; choices that are not named are as at the start."""
        return self.draw(**self.start | state)

    def png(self, **state) -> bytes:
        """The same as PNG."""
        return to_png(self.figure(**state))

    def alt(self, **state) -> str:
        """The alt text of the same figure."""
        return self.words(**self.start | state)


def page(
    title: str, lead: str, script: str, choices: Sequence[Choice], data: Mapping[str, Any]
) -> str:
    """The HTML document of a view: `script` names the file in this folder that draws `data`.

    Raises ValueError for a document above 3 MB, and for NaN in the data.
    """
    environment = Environment(
        loader=PackageLoader("mbt_lite.explain.html", ""),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    data = {"choices": [asdict(choice) for choice in choices]} | dict(data)
    template = environment.get_template("page.html")
    document = template.render(title=title, lead=lead, script=script, data=data)
    if (size := len(document.encode())) > LARGEST:
        raise ValueError(
            f"the page {title!r} would take {size / 1e6:.1f} MB, and {LARGEST / 1e6:.0f} MB are "
            "the most; leave out some layers, some frames or the audio."
        )
    return document


# Charts


@dataclass(frozen=True)
class Bar:
    """A bar, perhaps with its 95 % interval; `stream` "spec", "rgb" or "both" chooses its color."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    stream: str = "both"

    @property
    def number(self) -> str:
        """The value in words, such as "−2.15" or "1,024"."""
        digits = 2 if abs(self.value) < 100 else 0
        return f"{self.value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Chart:
    """One state of a chart page: bars, on an axis that names its unit."""

    title: str
    axis: str
    bars: Sequence[Bar]

    @property
    def words(self) -> str:
        """The alt text: title, axis, and the value of each bar."""
        values = (f"{bar.label} {bar.number}" for bar in self.bars)
        return f"{self.title} ({self.axis}): {', '.join(values)}"


def chart_panel(
    title: str, lead: str, choices: Sequence[Choice], chart: Callable[..., Chart]
) -> Panel:
    """The `Panel` of a view whose every state is a chart; `chart(**state)` as in `Panel`.

    States whose values have the same axis share one scale, so that they can be compared.
    """

    def document() -> str:
        names, counts = [c.name for c in choices], [range(len(c.options)) for c in choices]
        states = [dict(zip(names, state, strict=True)) for state in itertools.product(*counts)]
        charts = [chart(**state) for state in states]
        data = {"charts": [asdict(one) | {"words": one.words} for one in charts]}
        return page(title, lead, "bars.js", choices, data)

    def draw(**state):
        return plot.chart(chart(**state))

    return Panel(title, lead, tuple(choices), draw, lambda **s: chart(**s).words, document)


# Media in a page


def jpeg_uri(frames: UInt8[np.ndarray, "T H W 3"], quality: int = 80) -> str:
    """One JPEG of all frames, one below the other."""
    strip = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    return _image_uri(strip, "jpeg", quality=quality)


def png_uri(spec: Real[np.ndarray, "N M"]) -> str:
    """A gray PNG of a spectrogram: time across, pitch upwards, the loudest white."""
    low, high = float(spec.min()), float(spec.max())
    gray = (spec - low) / ((high - low) or 1.0) * 255
    image = Image.fromarray(np.round(gray.T[::-1]).astype(np.uint8))
    return _image_uri(image, "png", optimize=True)


def _image_uri(image: Image.Image, kind: str, **options) -> str:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return data_uri(content.getvalue(), f"image/{kind}")


def wav(audio: Float[np.ndarray, " S"], rate: int = RATE) -> bytes:
    """A WAV file, 16 bit mono, of a wave in [-1, 1]."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.round(np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return content.getvalue()


def quantized(maps: Real[np.ndarray, "L H Q *grid"]) -> dict:
    """Maps >= 0 as bytes in base64; byte 255 is the highest value of each of the L * H * Q maps.

    The error is at most 1/510 of a map's highest value.
    """
    flat = np.asarray(maps, np.float32).reshape(int(np.prod(maps.shape[:3])), -1)
    highest = flat.max(1)
    levels = np.round(flat / np.where(highest > 0, highest, 1)[:, None] * 255).astype(np.uint8)
    return {
        "shape": list(maps.shape),
        "highest": [float(f"{value:.5g}") for value in highest],
        "maps": base64.b64encode(levels.tobytes()).decode("ascii"),
    }
