"""`mbt-lite build`: make TFDS datasets."""

import contextlib
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import Positional

from mbt_lite.cli.options import Debug


@dataclass(frozen=True)
class Build:
    """Build a dataset for TFDS without TensorFlow: av_digits, or one from a table of videos.

    A dataset that exists is not built again. For many thousands of videos use `mbt-lite prepare`,
    which works in parallel.
    """

    example: ClassVar[str] = "mbt-lite build av_digits --out tfds"

    dataset: Positional[str]
    """av_digits (written and spoken digits; 24 MB are downloaded, 330 MB written), or a table."""
    out: Path
    """The folder of datasets, which TFDS calls data_dir."""
    config: Literal["noisy", "clean"] = "noisy"
    """For av_digits. noisy: audio at -10 dB, pixels at deviation 1.5. clean: without noise."""
    manual: Path | None = None
    """For av_digits: a folder with the published files, to work without a network; images and
    labels may be unzipped, or in a tar archive."""
    videos: Path | None = None
    """For a table: the folder of its files; default: beside it."""
    labels: Path | None = None
    """For a table: a file with the class names in order, such as class_labels_indices.csv."""
    name: str | None = None
    """For a table: the name of its dataset; default: that of the table."""
    front_end: str = "linear-mel"
    """For a table: the preset that computes the spectrograms."""
    debug: Debug = False

    def run(self) -> int:
        import tensorflow_datasets as tfds

        from mbt_lite.data.tfds.av_digits import missing

        if self.manual and not self.manual.is_dir():
            raise ValueError(f"--manual {self.manual} is no folder.")
        if self.manual and (absent := missing(self.manual)):
            raise ValueError(f"--manual {self.manual} lacks {', '.join(absent)}.")
        logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns about configs not its own
        options = tfds.download.DownloadConfig(manual_dir=self.manual and str(self.manual))
        builder = self._digits() if self.dataset == "av_digits" else self._table()
        with contextlib.redirect_stdout(sys.stderr):  # TFDS reports progress there, too
            builder.download_and_prepare(download_config=options)
        print(builder.data_dir)
        for name, split in builder.info.splits.items():
            print(f"{name:10} {split.num_examples:6} examples")
        for clip, reason in builder.left_out.items():
            print(f"mbt-lite: {clip} is left out: {reason}", file=sys.stderr)
        return int(bool(builder.left_out))

    def _digits(self):
        from mbt_lite.data.tfds import AvDigits

        return AvDigits(data_dir=self.out, config=self.config)

    def _table(self):
        from mbt_lite import features
        from mbt_lite.data.tfds import TableConfig, TableDataset

        table = Path(self.dataset)
        config = TableConfig(
            name=re.sub(r"\W+", "_", self.name or table.resolve().stem),
            table=table,
            videos=self.videos,
            names=self.labels,
            front_end=features.front_end(self.front_end),
        )
        builder = TableDataset(data_dir=self.out, config=config)
        for note in builder.rows.notes:
            print(f"mbt-lite: {table}: {note}.", file=sys.stderr)
        return builder
