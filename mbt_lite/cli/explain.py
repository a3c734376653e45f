"""Commands that explain a clip: attention, flow and others, as a figure, a page or a film."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from mbt_lite.cli.options import AudioTrack, Debug, FrontEndName, Model, load_model
from mbt_lite.config import UNFAMILIAR

Out = Annotated[Path, arg(help="Output: a figure (.png) or an interactive page (.html).")]
Label = Annotated[str | None, arg(help="The label to explain; default: the most probable one.")]
Map = Literal["occlusion", "gradient", "attention", "rollout", "flow"]
Start = Annotated[float | None, arg(help="Start of the window in seconds; default: the middle.")]


@dataclass(frozen=True, kw_only=True)
class _Explanation:
    """Options of the commands that explain a clip."""

    label: Label = None
    model: Model = "world-tiny"
    front_end: FrontEndName = None
    debug: Debug = False


@dataclass(frozen=True, kw_only=True)
class Attention(_Explanation):
    """Show what a model attends to in a clip, or which patches its answer rests on."""

    example: ClassVar[str] = (
        "mbt-lite attention data_samples/circle_sings.mp4 --map occlusion gradient --out map.html"
    )

    clip: Positional[Path]
    """A video file."""
    out: Path
    """Output: a figure (.png), an interactive page (.html) or a film with its audio (.mp4)."""
    map: tuple[Map, ...] = ("attention",)
    """Kinds of maps, the most faithful first: occlusion hides patches (slow), gradient weights the
    attention by its gradient, attention is that of each layer, rollout and flow trace it through
    all layers."""
    start: Start = None
    audio_track: AudioTrack = None

    def run(self) -> int:
        kind = _kind(self.out, (".png", ".html", ".mp4"))
        if kind != ".html" and len(self.map) > 1:
            raise ValueError(f"--map {' '.join(self.map)}: only a page (.html) shows several.")
        if self.label and not {"occlusion", "gradient"} & set(self.map):
            raise ValueError(
                "--label needs --map occlusion or gradient; other maps do not depend on a label."
            )
        from mbt_lite.progress import bar

        classifier = load_model(self.model, self.front_end, self.audio_track)
        view = _view(classifier, self.clip, self.start)
        with bar(self.clip.name) as progress:
            progress(0, desc=f"maps of {', '.join(self.map)}")
            output = self._output(kind, classifier, view, progress)
        return _write(classifier, self.out, output)

    def _output(self, kind: str, classifier, view, progress):
        """The page or figure, or None where a film was written."""
        from mbt_lite import plot
        from mbt_lite.explain import html

        for method in self.map:
            print(html.worth(classifier, method), file=sys.stderr)
        attention = self.map == ("attention",)
        if kind == ".html" and attention:
            return html.attention(classifier, view).page()
        if kind == ".html":
            return html.importance(classifier, view, self.map, self.label, progress).page()
        if attention:
            maps = classifier.attention(view.clip)
        else:
            maps = html.importance_maps(classifier, view, self.map, self.label, progress)
        maps = html.present(view, maps)
        if kind == ".mp4":
            return _film(self.out, classifier, view, maps)
        return plot.attention(view, maps, classifier.clip_config)


@dataclass(frozen=True, kw_only=True)
class Flow(_Explanation):
    """Show the flow between audio and video through each bottleneck token, and its effect."""

    example: ClassVar[str] = "mbt-lite flow data_samples/ring_sings_with_bell.mp4 --out flow.png"

    clip: Positional[Path]
    """A video file with audio."""
    out: Out
    start: Start = None
    audio_track: AudioTrack = None

    def run(self) -> int:
        from mbt_lite import explain, plot
        from mbt_lite.explain import html
        from mbt_lite.progress import bar

        kind = _kind(self.out, (".png", ".html"))
        classifier = load_model(self.model, self.front_end, self.audio_track)
        view = _view(classifier, self.clip, self.start)
        with bar(self.clip.name) as progress:
            flow = explain.flow(classifier, view, self.label, progress=progress)
        output = html.flow_page(flow) if kind == ".html" else plot.flow(flow, "cause")
        code = _write(classifier, self.out, output)
        print(plot.flow_alt(flow))
        return code


@dataclass(frozen=True, kw_only=True)
class Swap(_Explanation):
    """Exchange the audio of two clips, and measure how much of an answer the audio decides."""

    example: ClassVar[str] = (
        "mbt-lite swap data_samples/ring_sings_with_bell.mp4 data_samples/circle_sings.mp4 "
        "--out swap.png"
    )

    clip: Positional[Path]
    """A video file with audio."""
    other: Positional[Path]
    """Another video file with audio."""
    out: Out

    def run(self) -> int:
        from mbt_lite import explain
        from mbt_lite.explain import html
        from mbt_lite.explain.maps import label_index
        from mbt_lite.progress import bar

        kind = _kind(self.out, (".png", ".html"))
        classifier = load_model(self.model, self.front_end)
        view, other = (_view(classifier, path, None) for path in (self.clip, self.other))
        names = self.clip.stem, self.other.stem
        with bar("swap") as progress:
            progress(0, desc="compiling, the first clip")
            label = self.label or explain.best_label(classifier, view)
            label_index(classifier.labels, label)  # refuses an unknown one
            progress(0, desc="each video with each audio")
            swap = explain.swap_audio(classifier, view, other, names)
            labels = [label] if self.label or kind == ".png" else None
            panel = html.counterfactual(classifier, view, other, names, labels)
        code = _write(classifier, self.out, panel.page() if kind == ".html" else panel.figure())
        print(swap.summary(label))
        return code


@dataclass(frozen=True)
class Faithfulness:
    """Measure how faithful each kind of map is, on clips whose cause is known."""

    example: ClassVar[str] = "mbt-lite faithfulness --clips 500 --out faithfulness.png"

    model: Model = "world-tiny"
    """A model trained on the micro-world."""
    clips: int = 500
    """Number of clips of the test split in which a shape sings."""
    methods: tuple[str, ...] = ("attention", "rollout", "gradient", "flow", "occlusion")
    """Kinds of maps; occlusion takes most of the time."""
    out: Path | None = None
    """A figure (.png) of the scores; the curves are written beside it, as NAME_curves.png."""
    json: bool = False
    """Print one JSON object instead of a table."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import explain, plot

        if self.clips < 2:
            raise ValueError(f"--clips {self.clips}: an interval needs 2 clips or more.")
        if self.out:
            _kind(self.out, (".png",))
        scores = explain.faithfulness(load_model(self.model), self.clips, self.methods)
        print(_as_json(scores) if self.json else scores.table())
        if self.out:
            plot.save(plot.faithfulness(scores), self.out)
            curves = self.out.with_name(f"{self.out.stem}_curves.png")
            plot.save(plot.deletion(scores.curves), curves)
            print(f"{self.out} and {curves}", file=sys.stderr)
        return 0


def _as_json(scores) -> str:
    """Scores as JSON, with null in place of NaN."""
    import numpy as np

    text = json.dumps(asdict(scores), default=np.ndarray.tolist)
    return json.dumps(json.loads(text, parse_constant=lambda _: None))


def _kind(out: Path, endings: tuple[str, ...]) -> str:
    """The suffix of a path; refuses other suffixes and missing folders before any work."""
    if out.suffix.lower() not in endings:
        raise ValueError(f"--out {out}: name a file that ends in {' or '.join(endings)}.")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first.")
    return out.suffix.lower()


def _view(classifier, path: Path, start: float | None):
    from mbt_lite.features import read_views

    view = read_views(path, classifier.clip_config, start=start)[0]
    unfamiliar = [UNFAMILIAR] * bool(classifier.is_unfamiliar(view.clip))
    for note in (*unfamiliar, *view.notes):
        print(f"note: {path}: {note}", file=sys.stderr)
    return view


def _film(out: Path, classifier, view, maps) -> None:
    """Write the frames with their maps as an mp4 file with audio."""
    from mbt_lite import media, plot

    clip_config = classifier.clip_config
    wave = _wave_during_frames(view, clip_config) if view.wave.any() else None
    media.write(out, plot.film(view, maps, clip_config), 1 / clip_config.frame_step, wave)


def _wave_during_frames(view, clip_config):
    """The wave while the frames are on show; silence before it begins and after it ends."""
    import numpy as np

    from mbt_lite.plot.maps import frame_times

    rate, step = clip_config.front_end.rate, clip_config.frame_step
    times = frame_times(view, clip_config)
    first = round((times[0] - step / 2 - view.start) * rate)
    samples = first + np.arange(round(len(times) * step * rate))
    inside = (samples >= 0) & (samples < len(view.wave))
    return np.where(inside, view.wave[np.clip(samples, 0, len(view.wave) - 1)], np.float32(0))


def _write(classifier, out: Path, output) -> int:
    """Write a page or a figure, if there is one; print the path and the model's caution."""
    from mbt_lite import plot
    from mbt_lite.paths import write_text

    if isinstance(output, str):
        write_text(out, output)
    elif output is not None:
        plot.save(output, out)
    print(out)
    if classifier.caution:
        print(f"caution: {classifier.caution}", file=sys.stderr)
    return 0
