"""Small models that tests share."""

from dataclasses import replace

from mbt_lite.config import BASE

TINY = replace(  # 12 video patches, 8 audio patches
    BASE,
    classes=5,
    width=16,
    depth=3,
    heads=2,
    mlp_dim=24,
    fusion_layer=1,
    bottlenecks=3,
    rgb_shape=(4, 16, 24),
    rgb_patch=(2, 8, 8),
    spec_shape=(32, 16),
    spec_patch=(8, 8),
)

# The smallest model with every kind of array, for files of weights.
SMALLEST = replace(
    BASE,
    classes=3,
    width=8,
    depth=2,
    heads=2,
    mlp_dim=8,
    fusion_layer=1,
    rgb_shape=(2, 8, 8),
    rgb_patch=(2, 4, 4),
    spec_shape=(8, 8),
    spec_patch=(4, 4),
)
