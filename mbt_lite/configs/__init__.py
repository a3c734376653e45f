"""One file per experiment, with a function `experiment()` and its cost and scores."""

from mbt_lite.configs import (
    audioset_500k,
    audioset_mini,
    av_digits,
    epic_kitchens,
    folder,
    fusion_grid,
    kinetics_sounds,
    vggsound,
    world,
)

__all__ = [
    "audioset_500k",
    "audioset_mini",
    "av_digits",
    "epic_kitchens",
    "folder",
    "fusion_grid",
    "kinetics_sounds",
    "vggsound",
    "world",
]
