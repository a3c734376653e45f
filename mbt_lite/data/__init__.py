"""Labeled clips for training and evaluation: tables, folders, prepared records, the micro-world.

    from mbt_lite import data

    source = data.open_split(DataConfig(path="clips.csv"), "train")

The names below are imported when they are first used: loader processes do without JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbt_lite.data.datasets import ROLES, make_loader, open_split, sampled

__all__ = ["ROLES", "make_loader", "open_split", "sampled"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"mbt_lite.data has no {name!r}; it offers {', '.join(__all__)}.")
    return getattr(importlib.import_module("mbt_lite.data.datasets"), name)
