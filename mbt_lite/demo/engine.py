"""The engine of the demo: one model, a sandboxed reader, and the answers for the page.

Nothing in here knows of pages. Every file, a sample too, goes through the guard's own process.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from mbt_lite import explain, inference, paths
from mbt_lite.checkpoints import zoo
from mbt_lite.checkpoints.download import amount
from mbt_lite.config import ClipConfig
from mbt_lite.demo.sandbox import Reading, SandboxedReader
from mbt_lite.explain import html, interventions
from mbt_lite.features import View
from mbt_lite.inference import Classifier, Prediction
from mbt_lite.media import MediaError
from mbt_lite.model.flops import model_cost
from mbt_lite.model.mbt import Clip
from mbt_lite.progress import Progress, estimated, part, silent

NAMES = {
    "both": "Sound and picture",
    "audio only": "Audio only",
    "video only": "Video only",
}
LIKELY = 0.5  # from which probability on a label counts as said
SMALL = 10_000_000  # parameters, up to which many forward passes are no matter
LOADED = 3  # models that stay in memory together


@dataclass(frozen=True)
class Window:
    """What the model says of a part of a clip."""

    start: float  # s on the file's clock
    end: float
    answers: dict[str, dict[str, float]]  # {a name of NAMES: {label: probability}, best first}


@dataclass(frozen=True)
class Asked:
    """A clip that was read and answered."""

    path: Path
    title: str
    model: str
    reading: Reading
    windows: tuple[Window, ...]
    chosen: str = ""  # by a person, the label to explain

    @property
    def view(self) -> View:
        """The middle, which the answers are about."""
        return self.reading.views[len(self.reading.views) // 2]

    @property
    def length(self) -> float:
        """Seconds; a single picture has some, too."""
        return max(self.reading.duration, 0.1)

    @property
    def answers(self) -> dict[str, dict[str, float]]:
        return self.windows[len(self.windows) // 2].answers

    @property
    def label(self) -> str:
        """The label that the page explains: the chosen one, or the likely one fusion adds most to.

        The likeliest one where none is likely, or the clip has only audio or only video.
        """
        if self.chosen:
            return self.chosen
        both, *alone = (self.answers[name] for name in NAMES if name in self.answers)
        likely = [label for label, p in both.items() if p >= LIKELY]
        if len(alone) < 2 or not likely:
            return next(iter(both))
        return max(likely, key=lambda label: both[label] - max(one[label] for one in alone))

    def kept(self) -> "Asked":
        """The same with the middle window's data only, which is all that is needed later."""
        return replace(self, reading=replace(self.reading, views=(self.view,)))


class Engine:
    """A compiled model with sound, picture and a bottleneck between them, and its guard."""

    def __init__(self, classifier: Classifier):
        config = classifier.config
        if len(config.streams) < 2 or config.fusion != "bottleneck":
            raise ValueError("that model has no bottleneck between sound and picture to show.")
        self.classifier = classifier
        self.guard = _guard(classifier.clip_config)
        self.is_small = model_cost(config).parameters <= SMALL
        self.is_compiled = False

    @classmethod
    def of(cls, name: str, progress: Progress = silent) -> "Engine":
        """The engine of a name of the zoo, or of a path; made once, downloaded where need be."""
        _fetch(name, progress)
        progress(0, desc=f"Loading {name}")
        engine = _made(name)
        if not engine.is_compiled:
            engine.compile(estimated(progress))
        return engine

    def compile(self, progress: Progress = silent) -> None:
        """Run everything once, so that nobody waits for it later."""
        config = self.classifier.config
        shapes = (*config.rgb_shape, 3), (*config.spec_shape, 3)
        empty = Clip(*(np.zeros(shape, np.float32) for shape in shapes))
        self.classifier.predict(empty, progress=progress)
        if self.is_small:
            self.classifier.attention(empty)
            explain.rollout(self.classifier, empty)
            explain.flow(self.classifier, empty)
            one = explain.maps.batched(self.classifier, empty)
            interventions.operated(self.classifier, one, [interventions.untouched(config)])
        self.is_compiled = True

    def read(self, path: str | Path | None, windows: int = 1) -> Reading:
        """What the guard finds in a file, each window once; `MediaError` where there is no use."""
        if not path:
            raise MediaError("Choose a sample or a video first.")
        return self.guard.read(path, windows)

    def ask(self, path, model: str = "", title: str = "", progress: Progress = silent) -> Asked:
        """A clip with its answers, window by window: 5 of them, 3 where the model is large.

        `model` is what this engine is called; without a title the clip has that of its file.
        """
        progress = estimated(progress)
        progress(0, desc="Reading the clip")
        reading = self.read(path, 5 if self.is_small else 3)
        views = list({round(view.start, 2): view for view in reading.views}.values())
        windows = []
        for i, view in enumerate(views):
            told = part(progress, i / len(views), (i + 1) / len(views))
            end = min(view.start + self.classifier.clip_config.audio_seconds, reading.duration)
            windows.append(Window(view.start, max(end, view.start + 0.1), self.answers(view, told)))
        return Asked(Path(path), title or titled(path), model, reading, tuple(windows))

    def answers(self, view: View, progress: Progress = silent) -> dict[str, dict[str, float]]:
        """Probabilities by label: of both streams, and of each in which there is anything."""
        prediction = self.classifier.predict(view.clip, progress=progress)
        found = {"both": prediction}
        if view.wave.any():
            found["audio only"] = prediction.streams["spec"]
        if view.rgb.any():
            found["video only"] = prediction.streams["rgb"]
        return {name: dict(one.top(len(one.labels))) for name, one in found.items()}

    def attention(self, view: View) -> dict:
        """What the bottleneck tokens read, the mean over heads, as lists; a sense without anything is None."""
        maps = html.present(view, self.classifier.attention(view.clip))
        length = len(view.spec) * view.front_end.hop
        return {
            "layers": list(maps.layers),
            "picture": None if maps.rgb is None else maps.rgb.mean(1).round(6).tolist(),
            "sound": None if maps.spec is None else maps.spec.mean(1).round(6).tolist(),
            "start": view.start,
            "seconds": length,
        }

    def by_label(self, probabilities: np.ndarray) -> dict[str, float]:
        """Probabilities [C] by label, best first."""
        heads = self.classifier.label_heads
        found = Prediction(self.classifier.labels, probabilities, label_heads=heads)
        return dict(found.top(len(found.labels)))


def titled(path: str | Path) -> str:
    """A file's name as a title."""
    return Path(path).stem.replace("_", " ")


@lru_cache(maxsize=LOADED)
def _made(name: str) -> Engine:
    paths.keep_compilations(paths.cache_folder() / "compiled")
    return Engine(inference.load(name))


@lru_cache(maxsize=LOADED)
def _guard(clip_config: ClipConfig) -> SandboxedReader:
    return SandboxedReader(clip_config)


def shown(found: zoo.Entry) -> bool:
    """Whether a model of the zoo has what this page is about: two senses, and what joins them."""
    return len(found.config.streams) == 2 and found.config.fusion == "bottleneck"


def choices(own: str) -> Iterator[tuple[str, str]]:
    """(what a person reads, name) of every model that the page offers; `own` is from the start."""
    for found in filter(shown, zoo.ENTRIES.values()):
        size = model_cost(found.config).parameters
        words = f"{found.name}: {size / 1e6:.3g} million parameters, trained on {found.trained_on}"
        more = "" if is_here(found) else f", a download of {amount(zoo.download_size(found))} first"
        yield words + more, found.name
    if not in_zoo(own):
        yield f"{Path(own).name}: given at the start", own


def in_zoo(name: str) -> zoo.Entry | None:
    """The model of the zoo that is meant, unless there is a file or folder of that name."""
    return None if Path(name).exists() else zoo.find(name)


def called(name: str) -> str:
    """A model's plain name, which the page knows it by."""
    found = in_zoo(name)
    return found.name if found else name


def is_here(found: zoo.Entry) -> bool:
    """Whether a model is on this machine already."""
    kept = any(path.exists() for path in zoo.places(found).values())
    return kept or zoo.original(found) is not None


def _fetch(name: str, progress: Progress) -> None:
    """Download a model of the zoo that is not here yet, and tell how far it is."""
    found = in_zoo(name)
    if found is None or is_here(found):
        return
    whole, part = zoo.download_size(found), paths.cache_folder() / f"{found.file}.partial"
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(zoo.fetch, name)
        while wait([fetching], timeout=0.5).not_done:
            have = min(_size(part), whole)
            progress(have / whole, desc=f"Downloading: {amount(have)} of {amount(whole)}")
        fetching.result()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
