"""Labeled clips for training and evaluation: tables, folders, prepared records, the micro-world.

    from mbt_lite import data

    source = data.open_source("clips.csv", "train")

The names below are imported when they are first used: worker processes import no JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbt_lite.data.datasets import make_loader as make_loader
    from mbt_lite.data.datasets import open_split as open_split
    from mbt_lite.data.loader import Loader as Loader
    from mbt_lite.data.sampling import Sampling as Sampling
    from mbt_lite.data.sources import open_source as open_source

_HOMES = {
    "make_loader": "datasets",
    "open_split": "datasets",
    "Loader": "loader",
    "Sampling": "sampling",
    "open_source": "sources",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"mbt_lite.data has no {name!r}; it offers {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"mbt_lite.data.{_HOMES[name]}"), name)
