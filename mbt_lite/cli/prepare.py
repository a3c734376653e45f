"""`mbt-lite prepare`: turn videos and a label table into records."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tyro.conf import Positional

from mbt_lite.cli.options import AudioTrack, Debug


@dataclass(frozen=True)
class Prepare:
    """Turn videos and a label table into shards of records, for training here and in Scenic.

    The table: segments of AudioSet, VGGSound or EPIC-KITCHENS-100 as published, a folder per class,
    or your own CSV with path, labels and perhaps start, end, split. The same command again
    continues an interrupted run. Clips that cannot be used are listed in OUT/failures.csv.
    """

    example: ClassVar[str] = (
        "mbt-lite prepare balanced_train_segments.csv --videos clips --split train --out audioset"
    )

    table: Positional[Path]
    """A CSV, or a folder of folders that are named like classes."""
    out: Path
    """The folder for the shards."""
    videos: Path | None = None
    """The folder of the video files; default: beside the table."""
    labels: Path | None = None
    """A file with the class names in order, such as class_labels_indices.csv."""
    split: str | None = None
    """Only this split of the table; for a table without splits, the split that it is."""
    name: str | None = None
    """The name of the shards; default: that of the table."""
    shards: int | None = None
    """The number of shards per split; default: one for 64 clips."""
    workers: int | None = None
    """The number of processes; default: one per core."""
    timeout: float = 600.0
    """Seconds after which a clip is given up."""
    streams: tuple[str, ...] = ("spec", "rgb")
    """The streams that a clip must have and that are stored: audio (spec), video (rgb) or both."""
    front_end: str = "linear-mel"
    """The preset that computes the spectrograms; the audio itself is stored too."""
    audio_track: AudioTrack = None
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import features
        from mbt_lite.data import prepare, tables
        from mbt_lite.data.extract import Settings

        self._check()
        table = tables.read(self.table, self.videos, self.labels)
        for note in table.notes:
            print(f"mbt-lite: {self.table}: {note}.", file=sys.stderr)
        if not any(row.path for row in table.rows):
            raise ValueError(
                f"none of the files of {self.table} is in {self.videos or 'its folder'}; name the "
                "folder of the videos with --videos."
            )
        front_end, labels = features.front_end(self.front_end), tuple(table.labels)
        settings = Settings(front_end, labels, audio_track=self.audio_track, streams=self.streams)
        name = re.sub(r"[^\w.-]+", "_", self.name or self.table.resolve().stem)
        shards = prepare.plan(table.rows, name, self.shards, self.split)
        dataset = prepare.prepare(shards, settings, self.out, self.workers, self.timeout)
        return self._report(dataset)

    def _check(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers {self.workers}: at least one process is needed.")
        if self.timeout <= 0:
            raise ValueError(f"--timeout {self.timeout:g}: give a clip some seconds.")
        if self.videos is not None and not self.videos.is_dir():
            raise ValueError(f"--videos {self.videos} is no folder.")

    def _report(self, dataset: dict) -> int:
        """Print what is in the folder; 1 if clips failed."""
        for split, part in dataset["splits"].items():
            hours = part["seconds"] / 3600
            print(f"{split}: {part['examples']} clips, {hours:.2f} h, {len(part['shards'])} shards")
        front_end = dataset["front_end"]
        print(
            f"{front_end['name']}: mean {front_end['mean']:.3f}, deviation {front_end['std']:.3f}"
        )
        print(self.out / "dataset.json")
        if failures := dataset["failures"]:
            path = self.out / "failures.csv"
            clips = "1 clip" if failures == 1 else f"{failures} clips"
            print(f"mbt-lite: {clips} could not be prepared, see {path}.", file=sys.stderr)
        return int(failures > 0)
