"""Datasets for TFDS, without TensorFlow: `import mbt_lite.builders`, then `tfds.builder(...)`."""

from mbt_lite.builders.av_digits import AvDigits, AvDigitsConfig
from mbt_lite.builders.table import TableConfig, TableDataset

__all__ = ["AvDigits", "AvDigitsConfig", "TableConfig", "TableDataset"]
