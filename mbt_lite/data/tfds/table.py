"""A TFDS dataset of any table of labeled videos; it stores the same clips as records do."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from mbt_lite.config import FrontEnd
from mbt_lite.data import extract, tables
from mbt_lite.data.records import MELS, ROWS, Example
from mbt_lite.data.tfds.base import Builder
from mbt_lite.features import FRONT_ENDS

UNSPLIT = "train"  # the split of rows that name none
MISSING = "there is no such file"
STORED = ("id", "jpegs", "melspec", "wave", "start", "end")  # as in `records.Example`


@dataclass(eq=False)
class TableConfig(tfds.core.BuilderConfig):
    """The table, and a name; another table or front end needs another name."""

    table: Path = Path("labels.csv")  # or a folder: whatever `tables.read` takes
    videos: Path | None = None  # folder of the files; None: beside the table
    names: Path | None = None  # class names in order; None: beside the table, or the labels sorted
    front_end: FrontEnd = FRONT_ENDS["linear-mel"]


class TableDataset(Builder, skip_registration=True):  # by name TFDS finds what is built
    """Clips of labeled videos: 25 JPEGs, 16,000 samples and 100 rows of log-mels a second.

    Files that cannot be used are left out; `left_out` says which and why. Clips are prepared one
    after the other; for many thousands use `mbt-lite prepare`, which works in parallel and
    continues after an interruption.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    @cached_property
    def rows(self) -> tables.AnnotationTable:
        """The annotations of the table."""
        config = self.builder_config
        return tables.read(config.table, config.videos, config.names)

    @property
    def fingerprint(self) -> dict:
        """What determines the examples, besides the files: front end, classes, and the rows."""
        rows = [
            [row.id, row.path is not None, row.start, row.end, row.labels, row.split]
            for row in self.rows.rows
        ]
        digest = hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()
        return {**self._settings.described(), "table": digest}

    @property
    def _settings(self) -> extract.Settings:
        return extract.Settings(self.builder_config.front_end, tuple(self.rows.labels))

    def _info(self) -> tfds.core.DatasetInfo:
        labels = tfds.features.ClassLabel(names=self.rows.labels)
        return self._described(
            {
                "id": tfds.features.Text(),
                "jpegs": tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.object_)),
                "melspec": tfds.features.Tensor(shape=(None, ROWS, MELS), dtype=np.float32),
                "wave": tfds.features.Tensor(shape=(None,), dtype=np.float32),
                "labels": tfds.features.Sequence(labels),
                "start": np.float64,  # s on the file's clock
                "end": np.float64,
            }
        )

    def _split_generators(self, dl_manager):
        splits: dict[str, list[tables.Annotation]] = {}
        for row in self.rows.rows:
            splits.setdefault(row.split or UNSPLIT, []).append(row)
        return {name: self._generate_examples(splits[name]) for name in sorted(splits)}

    def _generate_examples(self, rows: Sequence[tables.Annotation]) -> Iterator[tuple]:
        for row in rows:
            try:
                if row.path is None:
                    raise ValueError(MISSING)
                clip = extract.example(row, self._settings)
            except (ValueError, OSError) as error:
                self.left_out[row.id] = str(error)
            else:
                stored = {name: getattr(clip, name) for name in STORED}
                yield row.id, stored | {"labels": list(clip.labels)}
        if all(row.id in self.left_out for row in rows):
            raise ValueError(
                f"none of the {len(rows)} clips of split {rows[0].split or UNSPLIT} can be used, "
                f"the first because: {self.left_out[rows[0].id]}"
            )


class Clips:
    """The clips of one split in a dataset's folder, by number, as in `records.Shards`.

    The folder is that of the version, such as tfds/table_dataset/kitchen/1.0.0.
    """

    def __init__(self, folder: str | Path, split: str):
        builder = tfds.builder_from_directory(str(folder))
        info = builder.info
        self.front_end = dict(info.metadata)["front_end"]  # without mean and deviation
        self.labels = tuple(info.features["labels"].feature.names)
        self.stored = builder.as_data_source(split)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        stored = self.stored[index % len(self)]
        labels = tuple(int(number) for number in stored["labels"])
        values = {name: stored[name] for name in STORED} | {"id": stored["id"].decode()}
        return Example(**values, labels=labels, names=tuple(self.labels[n] for n in labels))
