"""Train an MBT: `fit(experiment, folder)` runs on one CPU as on many hosts, and can be resumed."""

from mbt_lite.train.loop import fit

__all__ = ["fit"]
