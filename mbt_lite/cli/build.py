"""Datasets for TFDS."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from mbt_lite.cli.options import Debug


@dataclass(frozen=True)
class Build:
    """Build a dataset that TFDS reads, without TensorFlow; what is built already is kept."""

    example: ClassVar[str] = "mbt-lite build av_digits --out tfds"

    dataset: Positional[Literal["av_digits"]]
    """av_digits: written and spoken digits in noise; 22 MB are downloaded, 350 MB written."""
    out: Path
    """The folder of datasets; also what tfds takes as data_dir."""
    config: Literal["noisy", "clean"] = "noisy"
    """noisy: neither sound nor picture suffices alone. clean: as published."""
    manual: Annotated[Path | None, arg(metavar="DIR")] = None
    """A folder with the published files, where there is no network."""
    debug: Debug = False

    def run(self) -> int:
        import tensorflow_datasets as tfds

        from mbt_lite.builders import AvDigits

        if self.manual and not self.manual.is_dir():
            raise ValueError(f"--manual {self.manual} is no folder.")
        options = tfds.download.DownloadConfig(manual_dir=self.manual and str(self.manual))
        builder = AvDigits(data_dir=self.out, config=self.config)
        with contextlib.redirect_stdout(sys.stderr):  # TFDS reports its progress there
            builder.download_and_prepare(download_config=options)
        print(builder.data_dir)
        for name, split in builder.info.splits.items():
            print(f"{name:10} {split.num_examples:6} examples")
        return 0
