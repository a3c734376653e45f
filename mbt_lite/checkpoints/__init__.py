"""Read, convert and write model weights: our files, Scenic's, ViTs, and the zoo of named models."""

from mbt_lite.checkpoints.formats import flatten
from mbt_lite.checkpoints.io import convert, from_scenic, load, save, to_scenic
from mbt_lite.checkpoints.vit import from_vit

__all__ = ["convert", "flatten", "from_scenic", "from_vit", "load", "save", "to_scenic"]
