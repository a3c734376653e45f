"""TFDS datasets without TensorFlow: `import mbt_lite.data.tfds`, then `tfds.builder(...)`."""

from mbt_lite.data.tfds.av_digits import AvDigits, AvDigitsConfig
from mbt_lite.data.tfds.table import TableConfig, TableDataset

__all__ = ["AvDigits", "AvDigitsConfig", "TableConfig", "TableDataset"]
