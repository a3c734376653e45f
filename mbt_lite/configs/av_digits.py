"""Handwritten and spoken digits in noise: both together are easier than either alone.

    mbt-lite build av_digits --out tfds
    mbt-lite train --config av_digits --workdir runs/digits --data.path tfds/av_digits/noisy/1.0.0

Hardware: two CPU cores. The video is a still image, so two frames suffice. We could not download
the published files and claim no score for them.
"""

from mbt_lite.config import (
    WORLD_FRONT_END,
    ClipConfig,
    DataConfig,
    Experiment,
    MBTConfig,
    TrainConfig,
)


def experiment() -> Experiment:
    return Experiment(
        name="av-digits",
        model=MBTConfig(
            classes=10,
            width=64,
            depth=4,
            heads=4,
            mlp_dim=128,
            fusion_layer=2,
            bottlenecks=4,
            rgb_shape=(2, 28, 28),
            rgb_patch=(2, 7, 7),
            spec_shape=(100, 128),
            spec_patch=(20, 16),
            drop_path=0.1,
        ),
        clip=ClipConfig(
            frames=2, stride=1, size=28, resize=28, spec_frames=100, front_end=WORLD_FRONT_END
        ),
        data=DataConfig(path="tfds/av_digits/noisy/1.0.0", cache_dir="tfds/clips", views=1),
        train=TrainConfig(
            steps=3000,
            batch=64,
            loss="softmax",
            learning_rate=1e-3,
            warmup=0.05,
            label_smoothing=0.1,
        ),
    )
