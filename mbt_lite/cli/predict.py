"""Commands that run a model on clips: predict, evaluate, match-front-end."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tyro.conf import Positional

from mbt_lite.cli.options import (
    AudioTrack,
    Debug,
    FrontEndName,
    Model,
    benchmark,
    load_model,
    media_files,
)
from mbt_lite.config import MODALITIES, UNFAMILIAR
from mbt_lite.paths import address


@dataclass(frozen=True)
class Predict:
    """Classify clips: the most probable labels, from both modalities and from each alone."""

    example: ClassVar[str] = "mbt-lite predict data_samples/*.mp4 --top 3"

    clips: Positional[tuple[Path, ...]]
    """Video or audio files, or folders of them."""
    model: Model = "world-tiny"
    top: int = 5
    """How many labels to print."""
    views: int | None = None
    """Number of evenly spread windows per file, whose logits are averaged. Default: as many as
    cover the file, up to 4."""
    start: float | None = None
    """Read one window from this second on instead."""
    audio_track: AudioTrack = None
    front_end: FrontEndName = None
    json: bool = False
    """One JSON object per line instead of text."""
    debug: Debug = False

    def run(self) -> int:
        if not self.clips:
            raise ValueError("no clip given; try: " + self.example)
        for name, value in {"top": self.top, "views": self.views}.items():
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value}: it must be 1 or more.")
        from mbt_lite.model.label_heads import in_words
        from mbt_lite.progress import bar

        classifier, failed = load_model(self.model, self.front_end, self.audio_track), 0
        paths = media_files(self.clips)
        for path in paths:
            try:
                with bar(path.name) as progress:
                    answer = classifier.predict(path, self.views, self.start, progress=progress)
            except (ValueError, OSError) as error:
                failed += 1
                self._print_error(path, error)
            else:
                self._print(path, answer)
        if not self.json and failed < len(paths):
            print(f"probabilities: {in_words(classifier.label_heads)}")
            if classifier.caution:
                print(f"caution: {classifier.caution}")
        return int(failed > 0)

    def _print_error(self, path: Path, error: Exception) -> None:
        if self.debug:
            raise error
        if self.json:
            print(json.dumps({"file": address(path) or str(path), "error": str(error)}), flush=True)
        print(f"mbt-lite: {error}", file=sys.stderr, flush=True)

    def _print(self, path: Path, answer) -> None:
        if self.json:
            row = {
                "file": str(path),
                "top": dict(answer.top(self.top)),
                "streams": {s: dict(alone.top(self.top)) for s, alone in answer.streams.items()},
                "notes": answer.notes,
                "unfamiliar": answer.unfamiliar,
                "caution": answer.caution,
                "probabilities": answer.kind,
                "windows": [[round(start, 3), round(end, 3)] for start, end in answer.windows],
                "seconds": answer.seconds,
            }
            print(json.dumps(row), flush=True)
            return
        print(path)
        print(f"  {answer.asked}")
        if answer.unfamiliar:
            print(f"  {UNFAMILIAR}")
        for label, probability in answer.top(self.top):
            print(f"  {probability:5.1%}  {label}")
        for stream, alone in answer.streams.items():
            best = ", ".join(f"{label} {p:.0%}" for label, p in alone.top(3))
            print(f"  {MODALITIES[stream]} only: {best}")
        for note in answer.notes[bool(answer.unfamiliar) :]:
            print(f"  note: {note}")
        sys.stdout.flush()


@dataclass(frozen=True)
class Evaluate:
    """Score a model on labeled data as JSON, and write a report as a web page.

    With --report an interrupted evaluation can be resumed by the same command.
    """

    example: ClassVar[str] = (
        "mbt-lite evaluate --model world-tiny --data data_samples --report report"
    )

    model: Model = "world-tiny"
    data: str = "world:test"
    """world:test (train, validation); a table; a folder of labeled clips, records or TFDS."""
    split: str | None = None
    """The split of the data, if it has splits; its classes must be the model's."""
    views: int = 4
    """Number of evenly spread windows per file, whose logits are averaged."""
    batch: int | None = None
    """Windows per forward pass. Default: 8, or 1 for a large model on a CPU."""
    count: int | None = None
    """Score only the first clips. Default: all, or 2000 of the micro-world."""
    report: Path | None = None
    """A folder for report.html, scores.json and the predictions so far."""
    audio_track: AudioTrack = None
    front_end: FrontEndName = None
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.evaluation.loop import evaluate
        from mbt_lite.paths import room

        model = load_model(self.model, self.front_end, self.audio_track)
        with room(self.report):
            scores = evaluate(
                model,
                self.data,
                views=self.views,
                batch=self.batch,
                count=self.count,
                split=self.split,
                folder=self.report,
                command=shlex.join(["mbt-lite", *sys.argv[1:]]),
            )
        print(json.dumps(scores, indent=1, allow_nan=False))
        for failed in scores["failed"]:
            print(f"mbt-lite: {failed['error']}", file=sys.stderr)
        return int(bool(scores["failed"]))


@dataclass(frozen=True)
class MatchFrontEnd:
    """Rank front ends by how well a model classifies labeled clips through each.

    The released weights came without the recipe of their spectrograms: try yours. --prove trains
    small models with hidden front ends instead and shows which are recovered (20 minutes).
    """

    example: ClassVar[str] = "mbt-lite match-front-end --model as500k-rgb-spec --data my_clips"

    model: Model = "as500k-rgb-spec"
    data: Path | None = None
    """A table (CSV) of labeled clips, a folder with labels.csv, or a folder of class folders."""
    views: int = 1
    """Number of evenly spread windows per file, whose logits are averaged."""
    presets: tuple[str, ...] = ()
    """Only these presets. Default: all. With --prove: which to hide."""
    out: Path | None = None
    """Save a figure here (PNG)."""
    prove: bool = False
    """Hide each preset in a small model and try to recover it; needs no --model and no --data."""
    json: bool = False
    """JSON instead of a table."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.features import front_end

        for name in self.presets:
            front_end(name)
        if self.out is not None and self.out.suffix.lower() != ".png":
            raise ValueError(f"--out {self.out}: only .png images can be written.")
        return self._prove() if self.prove else self._match()

    def _match(self) -> int:
        from mbt_lite import plot
        from mbt_lite.evaluation.front_end_match import match_front_end

        if self.data is None or self.views < 1:
            raise ValueError(f"labeled clips are needed, and 1 view or more; try: {self.example}")
        model, presets = load_model(self.model), self.presets or None
        match = match_front_end(model, self.data, presets, views=self.views)
        if self.json:
            print(json.dumps(match.to_dict(), indent=1))
        else:
            print(match.table())
            print(_advice(self.model, match))
        if self.out is not None:
            plot.save(plot.front_end_match(match), self.out)
        return 0

    def _prove(self) -> int:
        from mbt_lite import plot

        front_end_recovery = benchmark("front_end_recovery")
        trials = front_end_recovery.prove(self.presets or None)
        print(front_end_recovery.to_json(trials) if self.json else front_end_recovery.table(trials))
        if self.out is not None:
            plot.save(front_end_recovery.figure(trials), self.out)
        return 0


def _advice(model: str, match) -> str:
    """How to load the model with the best front end."""
    if match.settled:
        return "Nothing speaks against the front end that the model was loaded with: keep it."
    name = match.best.argument
    return (
        f"Use it: mbt-lite predict CLIP --model {model} --front-end {name}\n"
        f'    or: mbt.load("{model}", front_end="{name}")'
    )
