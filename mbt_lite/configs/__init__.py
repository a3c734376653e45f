"""One small file per experiment; each has `experiment()` and says what it costs and reaches."""

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
