"""Write a view as one HTML document that holds its data, script and style.

Nothing is fetched, and the page forbids itself to: it works from a folder and without a network.
"""

import base64
import io
import itertools
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Real, UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from mbt_lite.explain.html.panel import Choice
from mbt_lite.plot.style import data_uri

LARGEST = 3_000_000  # bytes of a page
RATE = 16_000  # Hz, of every wave in this package


def page(title: str, lead: str, script: str, data: Mapping[str, Any]) -> str:
    """The HTML document of a view: `script` names the file in this folder that draws `data`.

    Raises ValueError for a document above 3 MB, and for NaN in the data.
    """
    environment = Environment(
        loader=PackageLoader("mbt_lite.explain.html", ""),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    template = environment.get_template("page.html")
    document = template.render(title=title, lead=lead, script=script, data=data)
    if (size := len(document.encode())) > LARGEST:
        raise ValueError(
            f"the page {title!r} would take {size / 1e6:.1f} MB, and {LARGEST / 1e6:.0f} MB are "
            "the most; leave out some layers, some frames or the audio."
        )
    return document


def choices_of(choices: Sequence[Choice]) -> list[dict]:
    """Choices as page.js makes controls of them."""
    return [asdict(choice) for choice in choices]


def jpeg_uri(frames: UInt8[np.ndarray, "T H W 3"], quality: int = 80) -> str:
    """One JPEG of all frames, one below the other."""
    strip = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    return _image_uri(strip, "jpeg", quality=quality)


def png_uri(spec: Real[np.ndarray, "N M"]) -> str:
    """A grey PNG of a spectrogram: time across, pitch upwards, the loudest white."""
    low, high = float(spec.min()), float(spec.max())
    grey = (spec - low) / ((high - low) or 1.0) * 255
    image = Image.fromarray(np.round(grey.T[::-1]).astype(np.uint8))
    return _image_uri(image, "png", optimize=True)


def _image_uri(image: Image.Image, kind: str, **options) -> str:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return data_uri(content.getvalue(), f"image/{kind}")


def wav(audio: Float[np.ndarray, " S"], rate: int = RATE) -> bytes:
    """A WAV file, 16 bit mono, of a wave in [-1, 1]."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return content.getvalue()


def quantised(maps: Real[np.ndarray, "L H Q *grid"]) -> dict:
    """Maps >= 0 as bytes in base64, with the highest value of each [L * H * Q], which byte 255 is.

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


@dataclass(frozen=True)
class Bar:
    """A bar with, if known, its 95 % interval; `stream` "spec", "rgb" or "both" colours it."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    stream: str = "both"


@dataclass(frozen=True)
class Chart:
    """What a page of bars shows in one state: bars, or lines of points (x, y) by their names."""

    title: str
    axis: str  # of the values, with its unit
    words: str  # what the chart says
    bars: Sequence[Bar] = ()
    lines: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    across: str = ""  # the axis of x, with its unit

    @property
    def values(self) -> list[float]:
        """All that its axis must hold."""
        ends = [value for bar in self.bars for value in (bar.value, bar.low, bar.high)]
        ends += [y for points in self.lines.values() for _, y in points]
        return [0.0, *(float(value) for value in ends if value is not None)]


def bars_page(
    title: str,
    lead: str,
    choices: Sequence[Choice],
    chart: Callable[..., Chart],
    interval: str = "Whiskers are 95 % intervals.",
) -> str:
    """The page of a view whose every state is a chart; `chart(**state)` as in `Panel`.

    States whose values have the same axis share one scale, so that they can be compared.
    """
    names, counts = [c.name for c in choices], [range(len(c.options)) for c in choices]
    charts = [chart(**dict(zip(names, state, strict=True))) for state in itertools.product(*counts)]
    data = {"choices": choices_of(choices), "interval": interval}
    return page(title, lead, "bars.js", data | {"charts": [_drawable(c, charts) for c in charts]})


def _drawable(chart: Chart, charts: Sequence[Chart]) -> dict:
    """A chart as bars.js draws it."""
    alike = [value for one in charts if one.axis == chart.axis for value in one.values]
    xs = [float(x) for points in chart.lines.values() for x, _ in points]
    return {
        "title": chart.title,
        "axis": chart.axis,
        "words": chart.words,
        "bars": [asdict(bar) for bar in chart.bars],
        "lines": {
            name: [[float(x), float(y)] for x, y in points] for name, points in chart.lines.items()
        },
        "range": _range(alike),
        "across": {"axis": chart.across, "range": _range(xs)},
    }


def _range(values: Sequence[float]) -> list[float]:
    """The ends of an axis, which are never the same."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return [low, high if high > low else low + 1.0]


def flow_page(flow) -> str:
    """The page of an `explain.Flow`: bands between audio, bottleneck tokens and video, layer by layer."""
    layers = ("all layers", *(f"layer {layer}" for layer in flow.layers))
    choices = [Choice("layer", "show", layers, slider=True)]
    if flow.effect is not None:
        choices += [Choice("colour", "colour", ("by attention", "by cause"))]
    data = {
        "choices": choices_of(choices),
        "streams": list(flow.streams),
        "groups": list(flow.groups),
        "layers": list(flow.layers),
        "label": flow.label,
        "mass": np.round(np.asarray(flow.mass, float), 6).tolist(),
        "effect": None if flow.effect is None else _known(flow.effect),
    }
    lead = (
        f"Audio and video meet only in the bottleneck tokens. A band's width is its share of what the answer "
        f"“{flow.label}” was read from; its cause is how much the answer changes when it is cut."
    )
    return page("What passes between audio and video", lead, "flow.js", data)


def _known(effects) -> list:
    """Numbers [L, G, G] with None where an edge was not cut."""
    effects = np.asarray(effects, float)
    return np.where(np.isnan(effects), None, np.round(effects, 4)).tolist()
