"""Commands that explain a clip: attention, flow and others, as a video, a page or a film."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from mbt_lite.cli.options import AudioTrack, Debug, FrontEndName, Model, load_model

Out = Annotated[Path, arg(help="Where it goes: a video (.png) or a page to turn (.html).")]
Label = Annotated[str | None, arg(help="The answer to explain; without it the likeliest.")]
Map = Literal["occlusion", "gradient", "attention", "rollout", "flow"]
Start = Annotated[float | None, arg(help="Take the window from this second on, not the middle.")]


@dataclass(frozen=True)
class Attention:
    """Show what a model attends to in a clip, or what its answer rests on, as video or page."""

    example: ClassVar[str] = (
        "mbt-lite attention data_samples/circle_sings.mp4 --map occlusion gradient --out map.html"
    )

    clip: Positional[Path]
    """A video file."""
    out: Path
    """Where it goes: a video (.png), a page to turn (.html) or a film with its audio (.mp4)."""
    map: tuple[Map, ...] = ("attention",)
    """Kinds of maps, the most believable first: occlusion hides patches (slow), gradient weighs
    attention, attention shows the layers' own, rollout and flow trace it through all layers."""
    label: Label = None
    model: Model = "world-tiny"
    query: str = "bottleneck"
    """Whose attention: bottleneck, cls or mean."""
    layer: int | None = None
    """Whose attention, in a video or film: the layer, counted from 0; without it the last one
    whose reading matters."""
    start: Start = None
    audio_track: AudioTrack = None
    front_end: FrontEndName = None
    debug: Debug = False

    def run(self) -> int:
        kind, own = _kind(self.out, (".png", ".html", ".mp4")), self.map == ("attention",)
        if not own and (self.layer is not None or self.query != "bottleneck"):
            raise ValueError("--layer and --query are for --map attention alone; leave them out.")
        if kind == ".mp4" and len(self.map) > 1:
            raise ValueError(f"--map {' '.join(self.map)}: a film has room for one map.")
        if self.label and not {"occlusion", "gradient"} & set(self.map):
            raise ValueError("--label needs --map occlusion or gradient; other maps know no label.")
        classifier = load_model(self.model, self.front_end, self.audio_track)
        view = _view(classifier, self.clip, self.start)
        return _finish(classifier, self.out, partial(self._drawn, kind, own, classifier, view))

    def _drawn(self, *given):
        """As `_made`, with a bar in a terminal."""
        from mbt_lite.progress import bar

        with bar(self.clip.name) as progress:
            progress(0, desc=f"maps of {', '.join(self.map)}")
            return self._made(*given, progress)

    def _made(self, kind: str, own: bool, classifier, view, progress):
        """The page or figure, or None where a film was written."""
        from mbt_lite import explain, plot
        from mbt_lite.explain import html

        for method in self.map:
            print(html.worth(classifier, method), file=sys.stderr)
        if own and kind == ".html":
            return html.attention(classifier, view, self.query).page()
        if own:
            layers = None if self.layer is None else (self.layer,)
            maps = classifier.attention(view.clip, self.query, layers)
        elif kind == ".html":
            return html.importance(classifier, view, self.map, self.label, progress).page()
        elif len(self.map) > 1:
            label = self.label or explain.best_label(classifier, view)
            found = [explain.saliency(classifier, view, m, label, progress) for m in self.map]
            return plot.saliencies(view, found, classifier.clip_config)
        else:
            maps = html.importance_maps(classifier, view, self.map, self.label, progress)
        maps = html.present(view, maps)
        if kind == ".mp4":
            return _film(self.out, classifier, view, maps)
        return plot.attention(view, maps, classifier.clip_config)


@dataclass(frozen=True)
class Flow:
    """Show the flow between audio and video through each bottleneck token, and its effect."""

    example: ClassVar[str] = "mbt-lite flow data_samples/ring_sings_with_bell.mp4 --out flow.png"

    clip: Positional[Path]
    """A video file with audio."""
    out: Out
    label: Label = None
    colour: str = "cause"
    """cause: what cutting a band changes, a forward pass each; attention: without them."""
    model: Model = "world-tiny"
    start: Start = None
    audio_track: AudioTrack = None
    front_end: FrontEndName = None
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import explain, plot
        from mbt_lite.explain import html
        from mbt_lite.progress import bar

        kind = _kind(self.out, (".png", ".html"))
        classifier = load_model(self.model, self.front_end, self.audio_track)
        if self.colour not in ("cause", "attention"):
            raise ValueError(f"--colour {self.colour}: choose cause or attention.")
        view, cut = _view(classifier, self.clip, self.start), self.colour == "cause"
        with bar(self.clip.name) as progress:
            found = explain.flow(classifier, view, self.label, cut, progress)
        page, figure = lambda: html.flow_page(found), lambda: plot.flow(found, self.colour)
        code = _finish(classifier, self.out, page if kind == ".html" else figure)
        print(plot.flow_alt(found))
        return code


@dataclass(frozen=True)
class Swap:
    """Exchange the audio of two clips, and measure how much of an answer the audio decides."""

    example: ClassVar[str] = (
        "mbt-lite swap data_samples/ring_sings_with_bell.mp4 data_samples/circle_sings.mp4 "
        "--out swap.png"
    )

    clip: Positional[Path]
    """A video file with audio."""
    other: Positional[Path]
    """Another one."""
    out: Out
    label: Label = None
    model: Model = "world-tiny"
    front_end: FrontEndName = None
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import explain, plot
        from mbt_lite.explain import html
        from mbt_lite.explain.maps import label_index
        from mbt_lite.progress import bar

        kind = _kind(self.out, (".png", ".html"))
        classifier = load_model(self.model, self.front_end)
        one, two = (_view(classifier, path, None) for path in (self.clip, self.other))
        names = self.clip.stem, self.other.stem
        with bar("swap") as progress:
            progress(0, desc="compiling, the first clip")
            label = self.label or explain.best_label(classifier, one)
            label_index(classifier, label)  # refuses one that is not known
            progress(0, desc="each video with each audio")
            found = explain.swap_audio(classifier, one, two, names)
        labels = None if self.label is None else [self.label]

        def page() -> str:
            return html.counterfactual(classifier, one, two, names, labels).page()

        def figure():
            return plot.swap(found, label).figure

        code = _finish(classifier, self.out, page if kind == ".html" else figure)
        print(plot.swap_alt(found, label))
        return code


@dataclass(frozen=True)
class Faithfulness:
    """Measure how far each kind of map can be believed, where the right answer is known."""

    example: ClassVar[str] = "mbt-lite faithfulness --clips 500 --out faithfulness.png"

    model: Model = "world-tiny"
    """A model that knows the micro-world."""
    clips: int = 500
    """Clips of the test split in which a shape sings."""
    methods: tuple[str, ...] = ("attention", "rollout", "gradient", "flow", "occlusion")
    """Which maps; occlusion takes most of the time."""
    out: Path | None = None
    """A video (.png) of the scores; the curves go beside it, as NAME_curves.png."""
    json: bool = False
    """One JSON object instead of a table."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import explain, plot

        if self.clips < 2:
            raise ValueError(f"--clips {self.clips}: an interval needs 2 clips or more.")
        if self.out:
            _kind(self.out, (".png",))
        found = explain.faithfulness(load_model(self.model), self.clips, self.methods)
        print(json.dumps(_plain(found)) if self.json else found.table())
        if self.out:
            plot.save(plot.faithfulness(found), self.out)
            curves = self.out.with_name(f"{self.out.stem}_curves.png")
            plot.save(plot.deletion(found.curves), curves)
            print(f"{self.out} and {curves}", file=sys.stderr)
        return 0


def _plain(found) -> dict:
    """Scores as JSON can hold them: lists, and null where there is no number."""
    import numpy as np

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, np.ndarray):
            return np.where(np.isfinite(value), value.astype(object), None).tolist()
        return value

    return plain(asdict(found))


def _kind(out: Path, endings: tuple[str, ...]) -> str:
    """How a path ends; refuses another ending, or a folder that is not there, before all work."""
    if out.suffix.lower() not in endings:
        raise ValueError(f"--out {out}: name a file that ends in {' or '.join(endings)}.")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first.")
    return out.suffix.lower()


def _view(classifier, path: Path, start: float | None):
    from mbt_lite.features import read_views

    view = read_views(path, classifier.clip_config, start=start)[0]
    for note in view.notes:
        print(f"note: {path}: {note}", file=sys.stderr)
    return view


def _film(out: Path, classifier, view, maps) -> None:
    """The explorer's frames as an mp4 file with the audio that goes with them."""
    from mbt_lite import media, plot
    from mbt_lite.explain.html.attention import during_frames

    clip_config = classifier.clip_config
    wave = during_frames(view, clip_config) if view.wave.any() else None
    shots = plot.film(view, maps, clip_config)
    media.write(out, shots, 1 / clip_config.frame_step, wave)


def _finish(classifier, out: Path, make: Callable) -> int:
    """Writes the page or figure that `make` gives, or lets it write; says where, and returns 0."""
    from mbt_lite import plot
    from mbt_lite.paths import write_text

    made = make()
    if isinstance(made, str):
        write_text(out, made)
    elif made is not None:
        plot.save(made, out)
    print(out)
    if classifier.caution:
        print(f"caution: {classifier.caution}", file=sys.stderr)
    return 0
