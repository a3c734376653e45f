"""The model of tests that need none in particular."""

from dataclasses import replace

from mbt_lite.config import BASE

TINY = replace(  # 12 picture patches, 8 sound patches
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
