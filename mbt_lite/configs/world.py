"""The embedded model: a small MBT that learns the micro-world from scratch."""

from mbt_lite.config import WORLD, WORLD_CLIP, Experiment, TrainConfig


def experiment() -> Experiment:
    return Experiment(name="world-tiny", model=WORLD, clip=WORLD_CLIP, train=TrainConfig())
