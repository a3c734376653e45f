"""`mbt-lite evaluate`: score a model on labeled data."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mbt_lite.cli.options import AudioTrack, Debug, FrontEndName, Model, load_model


@dataclass(frozen=True)
class Evaluate:
    """Score a model on labeled data as JSON, and write a report as a web page.

    With --report an interrupted evaluation goes on where it stopped.
    """

    example: ClassVar[str] = (
        "mbt-lite evaluate --model world-tiny --data data_samples --report report"
    )

    model: Model = "world-tiny"
    data: str = "world:test"
    """world:test (train, validation); a table; a folder of labelled clips, records or TFDS."""
    split: str | None = None
    """The split of the data, where it has some; its classes must be the model's."""
    views: int = 4
    """Windows per file, evenly spread, their logits averaged."""
    batch: int | None = None
    """Windows that go through the model at once; otherwise 8, of a large model on a CPU 1."""
    count: int | None = None
    """How many clips, the first ones; otherwise all, of the micro-world 2000."""
    report: Path | None = None
    """A folder for report.html, scores.json and the answers so far."""
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
                command=self._command(),
            )
        print(json.dumps(scores, indent=1, allow_nan=False))
        for failed in scores["failed"]:
            print(f"mbt-lite: {failed['error']}", file=sys.stderr)
        return int(bool(scores["failed"]))

    def _command(self) -> str:
        options = {"model": self.model, "data": self.data, "split": self.split}
        options |= {"views": self.views, "count": self.count, "front-end": self.front_end}
        options["audio-track"] = self.audio_track
        options["report"] = self.report
        given = [(f"--{name}", str(value)) for name, value in options.items() if value is not None]
        return shlex.join(["mbt-lite", "evaluate", *(word for pair in given for word in pair)])
