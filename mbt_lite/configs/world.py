"""The embedded model: a small MBT that learns the micro-world from scratch.

    mbt-lite train --config world --workdir runs/world

Hardware: two CPU cores, 17 minutes by the log of the run whose weights are embedded. Expected:
mAP 0.999 or more of every kind of class, matched accuracy 0.999 (measured, see its card).

In training it also predicts shapes and motions separately (`world.AUX_LABELS`), so that it learns
the pairs that the audio must be matched with much sooner. These outputs are removed afterwards.
"""

from dataclasses import replace

from mbt_lite.config import WORLD, WORLD_CLIP, Experiment
from mbt_lite.data import world

CLASSES = len(world.LABELS) + len(world.AUX_LABELS)


def experiment() -> Experiment:
    return Experiment(name="world-tiny", model=replace(WORLD, classes=CLASSES), clip=WORLD_CLIP)
