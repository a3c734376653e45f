"""`mbt-lite predict`: classify clips."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tyro.conf import Positional

from mbt_lite.cli.options import AudioTrack, Debug, FrontEndName, Model, load_model, media_files
from mbt_lite.model.label_heads import in_words
from mbt_lite.paths import address


@dataclass(frozen=True)
class Predict:
    """Classify clips: the most probable labels, and what each modality alone says."""

    example: ClassVar[str] = "mbt-lite predict data_samples/*.mp4 --top 3"

    clips: Positional[tuple[Path, ...]]
    """Video or audio files, or folders of them."""
    model: Model = "world-tiny"
    top: int = 5
    """How many labels to print."""
    views: int | None = None
    """Windows per file, evenly spread, their logits averaged; otherwise as many as cover it, up to
    4."""
    start: float | None = None
    """Take one window from this second on instead."""
    audio_track: AudioTrack = None
    front_end: FrontEndName = None
    json: bool = False
    """One JSON object a line instead of text."""
    debug: Debug = False

    def run(self) -> int:
        if not self.clips:
            raise ValueError("no clip given; try: " + self.example)
        for name, value in {"top": self.top, "views": self.views}.items():
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value}: it must be 1 or more.")
        from mbt_lite.progress import bar

        classifier, failed = load_model(self.model, self.front_end, self.audio_track), 0
        for path in media_files(self.clips):
            try:
                with bar(path.name) as progress:
                    answer = classifier.predict(path, self.views, self.start, progress=progress)
            except (ValueError, OSError) as error:
                failed += 1
                self._fail(path, error)
            else:
                self._show(path, answer)
        if not self.json:
            print(f"probabilities: {in_words(classifier.label_heads)}")
            print(f"caution: {classifier.caution}\n" * bool(classifier.caution), end="")
        return int(failed > 0)

    def _fail(self, path: Path, error: Exception) -> None:
        if self.debug:
            raise error
        if self.json:
            print(json.dumps({"file": address(path) or str(path), "error": str(error)}), flush=True)
        print(f"mbt-lite: {error}", file=sys.stderr, flush=True)

    def _show(self, path: Path, answer) -> None:
        if self.json:
            streams = {name: dict(one.top(self.top)) for name, one in answer.streams.items()}
            row = {"top": dict(answer.top(self.top)), "streams": streams, "notes": answer.notes}
            row |= {"caution": answer.caution, "probabilities": answer.kind}
            windows = [[round(start, 3), round(end, 3)] for start, end in answer.windows]
            row |= {"windows": windows, "seconds": answer.seconds}
            print(json.dumps({"file": str(path), **row}), flush=True)
            return
        print(path)
        print(f"  {answer.asked}")
        for label, probability in answer.top(self.top):
            print(f"  {probability:5.1%}  {label}")
        for name, one in answer.streams.items():
            best = ", ".join(f"{label} {p:.0%}" for label, p in one.top(3))
            print(f"  {'audio' if name == 'spec' else 'video'} only: {best}")
        for note in answer.notes:
            print(f"  note: {note}")
        sys.stdout.flush()
