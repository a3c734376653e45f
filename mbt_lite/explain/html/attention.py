"""Show what a model attends to in a clip, with audio and video on one clock."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mbt_lite import explain, plot
from mbt_lite.config import ClipConfig, FrontEnd
from mbt_lite.explain.html.page import (
    Choice,
    Panel,
    jpeg_uri,
    page,
    png_uri,
    quantized,
    wav,
)
from mbt_lite.features import View
from mbt_lite.inference import AttentionMaps, Classifier
from mbt_lite.plot.audio import hertz_marks, pitch
from mbt_lite.plot.maps import (
    IMPORTANCE,
    frame_times,
    gray,
    palette,
    place,
    unit_of,
)
from mbt_lite.plot.style import data_uri
from mbt_lite.progress import Progress, silent

LEAD = (
    "Bright is what counts most. The frame and the line on the audio are the same moment: move the "
    "slider, or play."
)


def attention(classifier: Classifier, view: View, query: str = "bottleneck") -> Panel:
    """The `Panel` of what `query` ("bottleneck", "cls" or "mean") attends to in a clip.

    The view is one of `features.read_views(path, classifier.clip_config)`.
    """
    maps = present(view, classifier.attention(view.clip, query))
    return _panel(classifier, view, maps, "What the model reads", worth(classifier))


def importance(
    classifier: Classifier,
    view: View,
    methods: Sequence[str],
    label: str | None = None,
    progress: Progress = silent,
) -> Panel:
    """The `Panel` of the importance maps of an answer, one for each of these methods of `explain`.

    Without `label` the most probable one is explained. Negative importance is not drawn.
    """
    label = label or explain.best_label(classifier, view)
    maps = present(view, importance_maps(classifier, view, methods, label, progress))
    notes = " ".join(worth(classifier, method) for method in methods)
    return _panel(classifier, view, maps, f"What the answer rests on: {label}", notes)


def importance_maps(
    classifier: Classifier,
    view: View,
    methods: Sequence[str],
    label: str | None = None,
    progress: Progress = silent,
) -> AttentionMaps:
    """Importance maps with methods in place of layers; values below zero become zero."""
    saliencies = [explain.saliency(classifier, view, one, label, progress) for one in methods]
    grids = {}
    for stream in ("rgb", "spec"):
        maps = [getattr(saliency, stream) for saliency in saliencies]
        grids[stream] = None if maps[0] is None else np.maximum(maps, 0)[:, None, None]
    return AttentionMaps(tuple(saliency.title for saliency in saliencies), IMPORTANCE, **grids)


def present(view: View, maps: AttentionMaps) -> AttentionMaps:
    """Drop the maps of a stream that is silent or black; keep all where both are."""
    has = {"rgb": view.rgb.any(), "spec": view.wave.any()}
    return replace(maps, **{s: None for s in has if not has[s]}) if any(has.values()) else maps


def worth(classifier: Classifier, method: str = "attention") -> str:
    """A sentence that says how far maps of a method can be believed."""
    return f"How far to believe {method}: {explain.caption(classifier, method)}."


def _panel(classifier: Classifier, view: View, maps: AttentionMaps, title: str, note: str) -> Panel:
    """The `Panel` of maps over a view; `note` says how far to believe them."""
    clip_config, lead = classifier.clip_config, f"{_lead(view, maps)} {note}"
    choices = _choices(maps)
    return Panel(
        title=title,
        lead=lead,
        choices=choices,
        draw=lambda **state: plot.attention(view, maps, clip_config, **_selection(state)),
        words=lambda **state: plot.attention_alt(view, maps, clip_config, **_selection(state)),
        page=partial(_page, view, maps, clip_config, choices, title, lead),
    )


def _lead(view: View, maps: AttentionMaps) -> str:
    covered = 1 if maps.rgb is None else len(view.rgb) // maps.rgb.shape[3]
    more = f" A map is for {covered} frames: where it shines at nothing, look at the next one."
    return LEAD + more * (covered > 1)


def _choices(maps: AttentionMaps) -> tuple[Choice, ...]:
    """Controls of layer, head and bottleneck token, without those that have one option."""
    _, heads, tokens = (maps.spec if maps.rgb is None else maps.rgb).shape[:3]
    if maps.query == IMPORTANCE:  # methods in place of layers, the most believable first
        layer = Choice("layer", "map", tuple(maps.layers))
    else:
        names = tuple(f"layer {layer}" for layer in maps.layers)
        layer = Choice("layer", "layer", names, start=len(names) - 1)
    choices = [layer]
    for name, count in (("head", heads), ("token", tokens)):
        each = (f"{name} {index}" for index in range(count))
        choices.append(Choice(name, name, (f"all {name}s", *each)))
    return tuple(
        choice for choice in choices if len(choice.options) > (1 if choice is layer else 2)
    )


def _selection(state: dict) -> dict:
    """A state as arguments of `plot.attention`: option 0 of heads and tokens means all of them."""
    return {"layer": state.get("layer", -1)} | {
        name: state[name] - 1 for name in ("head", "token") if state.get(name)
    }


def _page(view: View, maps: AttentionMaps, clip_config: ClipConfig, choices, title, lead) -> str:
    times, front = frame_times(view, clip_config), clip_config.front_end
    labels = tuple(f"{time:.2f} s" for time in times)
    frame = Choice("frame", "time", labels, start=_best_frame(view, maps), slider=True)
    reads = "finds" if maps.query == IMPORTANCE else "reads"
    data = {
        "times": times.round(4).tolist(),
        "step": clip_config.frame_step,
        "start": view.start,
        "seconds": len(view.spec) * front.hop,
        "duration": len(view.wave) / front.rate,
        "audio": data_uri(wav(view.wave), "audio/wav"),
        "unit": unit_of(maps),
        "part": f"what it {reads} in the video",
        "palette": base64.b64encode(palette().tobytes()).decode("ascii"),
        "words": _words(view, maps, clip_config),
        "rgb": None if maps.rgb is None else quantized(maps.rgb),
        "spec": None if maps.spec is None else quantized(maps.spec),
    }
    if maps.rgb is not None:
        rows, columns = maps.rgb.shape[4:]
        places = [place(y, x, (rows, columns)) for y in range(rows) for x in range(columns)]
        data |= {"frames": jpeg_uri(gray(view.rgb)), "size": view.rgb.shape[1:3], "places": places}
    if maps.spec is not None:
        steps, mels = maps.spec.shape[3:]
        data |= {"spectrogram": png_uri(view.spec), "hertz": hertz_marks(front)}
        data |= {"spans": _spans(steps, view, front), "pitches": _pitches(mels, front)}
    return page(title, lead, "attention.js", [*choices, frame], data)


def _best_frame(view: View, maps: AttentionMaps) -> int:
    """The first frame of the map with the highest sum, in the last layer."""
    if maps.rgb is None:
        return 0
    values = maps.mean("rgb")
    return int(values.sum((1, 2)).argmax()) * (len(view.rgb) // len(values))


def _words(view: View, maps: AttentionMaps, clip_config: ClipConfig) -> list:
    """Alt texts [layer][head][token], where the first head and the first token are all of them."""
    layers, heads, tokens = (maps.spec if maps.rgb is None else maps.rgb).shape[:3]
    words = partial(plot.attention_alt, view, maps, clip_config)
    each_head, each_token = [None, *range(heads)], [None, *range(tokens)]
    return [
        [[words(layer, head, token) for token in each_token] for head in each_head]
        for layer in range(layers)
    ]


def _spans(count: int, view: View, front: FrontEnd) -> list[str]:
    """The times that each of `count` columns of patches covers, such as "3.1–3.6 s"."""
    edges = view.start + np.linspace(0, len(view.spec) * front.hop, count + 1)
    return [f"{a:.1f}–{b:.1f} s" for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _pitches(count: int, front: FrontEnd) -> list[str]:
    """The middle of each of `count` rows of patches, lowest first, such as "800 Hz"."""
    return [pitch(round((row + 0.5) / count * front.mels), front) for row in range(count)]
