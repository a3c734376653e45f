"""Labeled clips for training and evaluation: tables, folders, prepared records, the micro-world.

    from mbt_lite import data

    source = data.open_source("clips.csv", "train")

The names below are imported when they are first used: worker processes import no JAX.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from mbt_lite.data.datasets import make_loader as make_loader
    from mbt_lite.data.datasets import open_split as open_split
    from mbt_lite.data.loader import Loader as Loader
    from mbt_lite.data.sampling import Sampling as Sampling
    from mbt_lite.data.sources import open_source as open_source
