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

    The table: segments of AudioSet, VGGSound or EPIC-KITCHENS-100 as they come, a folder per class,
    or a CSV of one's own with path, labels and perhaps start, end, split. The same command again
    goes on where an interrupted run stopped. Clips that cannot be used are in OUT/failures.csv.
    """

    example: ClassVar[str] = (
        "mbt-lite prepare balanced_train_segments.csv --videos clips --split train --out audioset"
    )

    table: Positional[Path]
    """A CSV, or a folder of folders that are named like classes."""
    out: Path
    """The folder for the shards."""
    videos: Path | None = None
    """Where the files are; otherwise beside the table."""
    labels: Path | None = None
    """A file with the class names in order, such as class_labels_indices.csv."""
    split: str | None = None
    """Only this split of the table; of a table without splits, the split that it is."""
    name: str | None = None
    """How the shards are called; otherwise like the table."""
    shards: int | None = None
    """How many a split; otherwise one for 64 clips."""
    workers: int | None = None
    """How many processes; otherwise one per core."""
    patience: float = 600.0
    """Seconds after which a clip is given up."""
    streams: tuple[str, ...] = ("spec", "rgb")
    """What each clip must have and is kept of it: audio (spec), video (rgb) or both."""
    front_end: str = "linear-mel"
    """The preset that makes the spectrograms; the audio itself is kept too."""
    audio_track: AudioTrack = None
    runner: str | None = None
    """Run as an Apache Beam pipeline: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner."""
    beam_options: tuple[str, ...] = ()
    """What the runner needs, without dashes: direct_num_workers=4 direct_running_mode=..."""
    debug: Debug = False

    def _check(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers {self.workers}: at least one process is needed.")
        if self.patience <= 0:
            raise ValueError(f"--patience {self.patience:g}: give a clip some seconds.")
        if self.videos is not None and not self.videos.is_dir():
            raise ValueError(f"--videos {self.videos} is no folder.")

    def run(self) -> int:
        from mbt_lite import features
        from mbt_lite.data import prepare, tables
        from mbt_lite.data.extract import Settings

        self._check()
        found = tables.read(self.table, self.videos, self.labels)
        for note in found.notes:
            print(f"mbt-lite: {self.table}: {note}.", file=sys.stderr)
        if not any(row.path for row in found.rows):
            raise ValueError(
                f"none of the files of {self.table} is in {self.videos or 'its folder'}; name the "
                "folder of the videos with --videos."
            )
        front, labels = features.front_end(self.front_end), tuple(found.labels)
        settings = Settings(front, labels, audio_track=self.audio_track, streams=self.streams)
        shards = prepare.plan(found.rows, self._name(), self.shards, self.split)
        if self.runner:
            from mbt_lite.data import beam

            options = [f"--{option}" for option in self.beam_options]
            dataset = beam.prepare(shards, settings, self.out, self.runner, options, self.patience)
        else:
            dataset = prepare.prepare(shards, settings, self.out, self.workers, self.patience)
        return self._report(dataset)

    def _name(self) -> str:
        """Fit for a file name: as given, or of the table."""
        written = self.name or self.table.resolve().stem
        return re.sub(r"[^\w.-]+", "_", written)

    def _report(self, dataset: dict) -> int:
        """Tell what is in the folder; 1 where clips failed."""
        for split, part in dataset["splits"].items():
            shards, clips, hours = len(part["shards"]), part["examples"], part["seconds"] / 3600
            print(f"{split}: {clips} clips, {hours:.2f} h, {shards} shards")
            for words, count in part["unusual"].items():
                print(f"mbt-lite: {split}: {words} ({count} clips).", file=sys.stderr)
        front = dataset["front_end"]
        print(f"{front['name']}: mean {front['mean']:.3f}, deviation {front['std']:.3f}")
        print(self.out / "dataset.json")
        if dataset["failures"]:
            count, where = dataset["failures"], self.out / "failures.csv"
            print(f"mbt-lite: {count} clips could not be prepared, see {where}.", file=sys.stderr)
        return int(dataset["failures"] > 0)
