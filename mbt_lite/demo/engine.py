"""The engine of the demo: one model, a sandboxed reader, and the answers for the page.

Nothing in here knows of pages. Every file, a sample too, is read in the sandbox's process.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mbt_lite import explain
from mbt_lite.demo.sandbox import Limits, Reading, SandboxedReader
from mbt_lite.explain import html, interventions
from mbt_lite.features import View
from mbt_lite.inference import Prediction, load
from mbt_lite.media import MediaError
from mbt_lite.model.mbt import Clip
from mbt_lite.progress import Progress, part, silent

NAMES = {"both": "Sound and picture", "audio only": "Sound only", "video only": "Picture only"}
LIKELY = 0.5  # probability from which on the page counts a label as an answer


@dataclass(frozen=True)
class Window:
    """The answers for one window of a clip."""

    start: float  # s on the file's clock
    end: float
    answers: dict[str, dict[str, float]]  # {a key of NAMES: {label: probability}, best first}
    unfamiliar: bool = False  # unlike what the model was trained on


@dataclass(frozen=True)
class AnsweredClip:
    """A clip that was read, and the model's answers for each of its windows."""

    path: Path
    title: str
    reading: Reading
    windows: tuple[Window, ...]
    model: str  # its name
    chosen_label: str = ""  # by a person, to explain

    @property
    def view(self) -> View:
        """The middle window, which the answers are about."""
        return self.reading.views[len(self.reading.views) // 2]

    @property
    def length(self) -> float:
        """Seconds of the clip; a single image gets some, too."""
        return max(self.reading.duration, 0.1)

    @property
    def answers(self) -> dict[str, dict[str, float]]:
        """The answers for the middle window."""
        return self.windows[len(self.windows) // 2].answers

    @property
    def unfamiliar(self) -> bool:
        """Whether most windows are unlike what the model was trained on."""
        return 2 * sum(window.unfamiliar for window in self.windows) > len(self.windows)

    @property
    def label(self) -> str:
        """The label that the page explains: the chosen one, or the likely one fusion adds most to.

        The likeliest one where none is likely, or the clip has only audio or only video.
        """
        if self.chosen_label:
            return self.chosen_label
        both, *single = (self.answers[name] for name in NAMES if name in self.answers)
        likely = [label for label, p in both.items() if p >= LIKELY]
        if len(single) < 2 or not likely:
            return next(iter(both))
        return max(likely, key=lambda label: both[label] - max(p[label] for p in single))

    def with_middle_view_only(self) -> "AnsweredClip":
        """A copy without the data of the other windows, which nothing needs after the answer."""
        return replace(self, reading=replace(self.reading, views=(self.view,)))


class Engine:
    """A compiled model of video and audio with a bottleneck, and the reader of its files."""

    def __init__(self, source: str | Path = "world-tiny"):
        self.source, self.classifier = str(source), load(source)
        config = self.classifier.config
        if len(config.streams) < 2 or config.fusion != "bottleneck":
            raise ValueError("that model has no bottleneck between sound and picture to show.")
        self.name = self.classifier.card.get("name") or Path(source).name
        self.reader = SandboxedReader(Limits(self.classifier.clip_config))
        self.is_small = not self.classifier.is_large

    def compile(self, progress: Progress = silent) -> None:
        """Compile what the page will run, so that nobody waits for it later."""
        config = self.classifier.config
        shapes = (*config.rgb_shape, 3), (*config.spec_shape, 3)
        empty = Clip(*(np.zeros(shape, np.float32) for shape in shapes))
        self.classifier.predict(empty, progress=progress)
        if self.is_small:
            self.classifier.attention(empty)
            explain.saliency(self.classifier, empty, "rollout")
            explain.flow(self.classifier, empty)
            batch = explain.maps.batched(self.classifier, empty)
            interventions.operated(self.classifier, batch, [interventions.untouched(config)])

    def read(self, path: str | Path | None, windows: int = 1) -> Reading:
        """Read so many windows of a file; `MediaError` where it cannot be used."""
        if not path:
            raise MediaError("Choose a sample or a video first.")
        return self.reader.read(path, windows)

    def ask(self, path, title: str = "", progress: Progress = silent) -> AnsweredClip:
        """Read a clip and answer it window by window: 5 windows, 3 where the model is large.

        Without a title the clip gets that of its file.
        """
        progress(0, desc="Reading the clip")
        reading = self.read(path, 5 if self.is_small else 3)
        views = list({round(view.start, 2): view for view in reading.views}.values())
        windows = []
        for i, view in enumerate(views):
            share = part(progress, i / len(views), (i + 1) / len(views))
            end = min(view.start + self.classifier.clip_config.audio_seconds, reading.duration)
            end = max(end, view.start + 0.1)
            windows.append(Window(view.start, end, *self.answers(view, share)))
        title = title or title_of(path)
        return AnsweredClip(Path(path), title, reading, tuple(windows), self.name)

    def answers(
        self, view: View, progress: Progress = silent
    ) -> tuple[dict[str, dict[str, float]], bool]:
        """Probabilities by label, of both modalities and each one that is not empty; unfamiliar?"""
        prediction = self.classifier.predict(view.clip, progress=progress)
        predictions = {"both": prediction}
        if view.wave.any():
            predictions["audio only"] = prediction.streams["spec"]
        if view.rgb.any():
            predictions["video only"] = prediction.streams["rgb"]
        answers = {name: self.by_label(p.probabilities) for name, p in predictions.items()}
        return answers, bool(prediction.unfamiliar)

    def attention(self, view: View) -> dict:
        """Attention maps of the bottleneck tokens, mean over heads; None for an empty modality."""
        maps = html.present(view, self.classifier.attention(view.clip))
        return {
            "layers": list(maps.layers),
            "video": None if maps.rgb is None else maps.rgb.mean(1).round(6).tolist(),
            "audio": None if maps.spec is None else maps.spec.mean(1).round(6).tolist(),
            "start": view.start,
            "seconds": len(view.spec) * view.front_end.hop,
        }

    def by_label(self, probabilities: np.ndarray) -> dict[str, float]:
        """Probabilities [C] by label, best first."""
        heads = self.classifier.label_heads
        prediction = Prediction(self.classifier.labels, probabilities, label_heads=heads)
        return dict(prediction.top(len(prediction.labels)))


def title_of(path: str | Path) -> str:
    """A file's name as a title."""
    return Path(path).stem.replace("_", " ")
