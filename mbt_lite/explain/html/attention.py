"""The attention explorer: what a model attends to in a clip, with audio and video on one clock."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mbt_lite import explain
from mbt_lite.config import ClipConfig
from mbt_lite.explain.html.page import (
    RATE,
    choices_of,
    data_uri,
    jpeg_uri,
    page,
    png_uri,
    quantised,
    wav,
)
from mbt_lite.explain.html.panel import Choice, Panel
from mbt_lite.features import View
from mbt_lite.inference import AttentionMaps, Classifier
from mbt_lite.plot.explorer import (
    explorer,
    explorer_alt,
    hertz_marks,
    moments,
    pale,
    palette,
    part_of_video,
    pitches,
    places,
    reads_most,
    spans,
)
from mbt_lite.plot.maps import IMPORTANCE, unit_of
from mbt_lite.progress import Progress, silent

TITLE = "What the model reads"
BASIS = "What the answer rests on"
LEADS = {
    "both": "Bright is what counts most. The frame and the line on the audio are the same moment: "
    "move the slider, click on the audio, or play it.",
    "spec": "Bright is what counts most. Move the line with the slider, or click on the audio.",
    "rgb": "Bright is what counts most. Move the slider from frame to frame, or play them.",
}


def attention(classifier: Classifier, view: View, query: str = "bottleneck") -> Panel:
    """The `Panel` of what `query` reads of the clip of a view, such as
    `features.read_views(path, classifier.clip_config)[0]`."""
    maps = present(view, classifier.attention(view.clip, query))
    return _panel(classifier, view, maps, TITLE, worth(classifier))


def importance(
    classifier: Classifier,
    view: View,
    methods: Sequence[str],
    label: str | None = None,
    progress: Progress = silent,
) -> Panel:
    """The `Panel` of what an answer rests on in a view, by each of these methods of `explain`.

    Without `label` the most probable one is explained. What speaks against it is not drawn.
    """
    label = label or explain.best_label(classifier, view)
    maps = present(view, importance_maps(classifier, view, methods, label, progress))
    known = " ".join(worth(classifier, method) for method in methods)
    return _panel(classifier, view, maps, f"{BASIS}: {label}", known)


def importance_maps(
    classifier: Classifier,
    view: View,
    methods: Sequence[str],
    label: str | None = None,
    progress: Progress = silent,
) -> AttentionMaps:
    """Maps of a view by methods of `explain`, in place of layers; values below zero become zero."""
    found = [explain.saliency(classifier, view, one, label, progress) for one in methods]
    grids = {}
    for stream in ("rgb", "spec"):
        maps = [getattr(one, stream) for one in found]
        grids[stream] = None if maps[0] is None else np.maximum(maps, 0)[:, None, None]
    return AttentionMaps(tuple(one.title for one in found), IMPORTANCE, **grids)


def _panel(classifier: Classifier, view: View, maps: AttentionMaps, title: str, known: str):
    """The `Panel` of maps over a view; `known` says how far to believe them."""
    clip_config = classifier.clip_config
    choices = _choices(view, maps, clip_config)
    given, lead = (view, maps, clip_config), f"{_lead(view, maps)} {known}"
    return Panel(
        title=title,
        lead=lead,
        choices=choices,
        draw=lambda **state: explorer(*given, **_arguments(state)),
        words=lambda **state: explorer_alt(*given, **_arguments(state)),
        page=partial(_page, *given, choices, title, lead),
        audio=wav(during_frames(view, clip_config)) if view.wave.any() else None,
        step=clip_config.frame_step,
    )


def present(view: View, maps: AttentionMaps) -> AttentionMaps:
    """The maps without those of a stream that is silent or black; all where both are."""
    has = {"rgb": view.rgb.any(), "spec": view.wave.any()}
    return replace(maps, **{s: None for s in has if not has[s]}) if any(has.values()) else maps


def worth(classifier: Classifier, method: str = "attention") -> str:
    """What is known of maps made by a method, as a sentence of its own."""
    return f"How far to believe {method}: {explain.caption(classifier, method)}."


def _lead(view: View, maps: AttentionMaps) -> str:
    has = [stream for stream in ("spec", "rgb") if getattr(maps, stream) is not None]
    lead = LEADS["both" if len(has) == 2 else has[0]]
    covered = 1 if maps.rgb is None else len(view.rgb) // maps.rgb.shape[3]
    more = f" A map is for {covered} frames: where it shines at nothing, look at the next one."
    return lead + more * (covered > 1)


def _choices(view: View, maps: AttentionMaps, clip_config: ClipConfig) -> tuple[Choice, ...]:
    """The controls; what there is but one of needs none."""
    _, heads, bottlenecks = (maps.spec if maps.rgb is None else maps.rgb).shape[:3]
    found = maps.query == IMPORTANCE  # layers are methods, the most believable first
    layers = tuple(maps.layers if found else (f"layer {layer}" for layer in maps.layers))
    times = tuple(f"{time:.2f} s" for time in moments(view, clip_config))
    choices = [
        Choice("layer", "map" if found else "layer", layers, start=0 if found else len(layers) - 1),
        Choice("head", "head", _all_and_each("head", heads)),
        Choice("token", "token", _all_and_each("token", bottlenecks)),
    ]
    frame = Choice("frame", "time", times, start=_start(view, maps), slider=True)
    return (*(choice for choice in choices if len(choice.options) > 1), frame)


def _all_and_each(name: str, count: int) -> tuple[str, ...]:
    each = tuple(f"{name} {index}" for index in range(count))
    return (f"all {name}s", *each) if count > 1 else each


def _start(view: View, maps: AttentionMaps) -> int:
    """The first frame of the map in which most is read, in the last layer."""
    if maps.rgb is None:
        return 0
    values = maps.mean("rgb")
    return int(values.sum((1, 2)).argmax()) * (len(view.rgb) // len(values))


def _arguments(state: dict) -> dict:
    """A state as `plot.explorer` takes it: option 0 of heads and bottleneck tokens is all of them."""
    named = {name: state[name] - 1 for name in ("head", "token") if state.get(name)}
    return {"layer": state.get("layer", -1), "frame": state.get("frame", 0)} | named


def during_frames(view: View, clip_config: ClipConfig) -> np.ndarray:
    """The wave while the frames are on show, silence where it has not begun or is over."""
    step, times = clip_config.frame_step, moments(view, clip_config)
    first = round((times[0] - step / 2 - view.start) * RATE)
    samples = first + np.arange(round(len(times) * step * RATE))
    inside = (samples >= 0) & (samples < len(view.wave))
    return np.where(inside, view.wave[np.clip(samples, 0, len(view.wave) - 1)], np.float32(0))


def _page(view: View, maps: AttentionMaps, clip_config: ClipConfig, choices, title, lead) -> str:
    data = {
        "choices": choices_of(choices),
        "moments": moments(view, clip_config).round(4).tolist(),
        "step": clip_config.frame_step,
        "start": view.start,
        "seconds": len(view.spec) * clip_config.front_end.hop,
        "duration": len(view.wave) / RATE,
        "audio": data_uri(wav(view.wave), "audio/wav") if view.wave.any() else None,
        "unit": unit_of(maps),
        "part": part_of_video(maps),
        "palette": base64.b64encode(palette().tobytes()).decode("ascii"),
        "words": _words(view, maps, clip_config),
        "rgb": None if maps.rgb is None else quantised(maps.rgb),
        "spec": None if maps.spec is None else quantised(maps.spec),
    }
    if maps.rgb is not None:
        data |= {"frames": jpeg_uri(pale(view.rgb)), "size": view.rgb.shape[1:3]}
        data |= {"places": places(*maps.rgb.shape[4:])}
    if maps.spec is not None:
        front = clip_config.front_end
        data |= {"spectrogram": png_uri(view.spec), "hertz": hertz_marks(front)}
        times, mels = maps.spec.shape[3:]
        data |= {"spans": spans(times, view, front), "pitches": pitches(mels, front)}
    return page(title, lead, "attention.js", data)


def _words(view: View, maps: AttentionMaps, clip_config: ClipConfig) -> list:
    """Sentences [layer][head][bottleneck token]; the first head and bottleneck token are all of them."""
    layers, heads, bottlenecks = (maps.spec if maps.rgb is None else maps.rgb).shape[:3]
    say = partial(reads_most, view, maps, clip_config)
    every_head, every_token = [None, *range(heads)], [None, *range(bottlenecks)]
    return [
        [[say(layer, head, token) for token in every_token] for head in every_head]
        for layer in range(layers)
    ]
