"""Handwritten and spoken digits, in noise or clean: in noise, both together beat either alone.

    mbt-lite build av_digits --out tfds --config noisy
    mbt-lite train --config av_digits --workdir runs/digits
    mbt-lite build av_digits --out tfds --config clean
    mbt-lite train --config av_digits --variant clean --workdir runs/digits_clean
    mbt-lite sweep --config av_digits --workdir runs/digits_grid --score top-1 --seeds 5 --jobs 2

The last command trains with each stream alone and with both, in noise and without it.
Hardware: two CPU cores. The video is a still image, so two frames suffice. An audio patch holds all
mel bins of 100 ms. Expected: measured, see docs/training.md.
"""

from dataclasses import replace

from mbt_lite.config import (
    AugmentConfig,
    ClipConfig,
    DataConfig,
    Experiment,
    FrontEnd,
    MBTConfig,
    TrainConfig,
)

# Mean and deviation are those of every fortieth training clip; nothing is stored above 4 kHz.
NOISY = FrontEnd("digits", fft=1024, mels=64, high=3900.0, mean=2.465, std=0.706)
CLEAN = replace(NOISY, mean=-3.735, std=3.731)


def experiment() -> Experiment:
    """Train on digits in noise."""
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
            spec_shape=(100, 64),
            spec_patch=(10, 64),
        ),
        clip=ClipConfig(frames=2, stride=1, size=28, resize=28, spec_frames=100, front_end=NOISY),
        data=DataConfig(path="tfds/av_digits/noisy/1.0.0", cache_dir="tfds/clips", views=1),
        augment=AugmentConfig(
            random_crop=True, scale=(1.0, 1.15), time_shift=4.0, speed=0.05, pitch=1.0
        ),
        train=TrainConfig(
            steps=4000,
            batch=64,
            loss="softmax",
            learning_rate=2e-3,
            warmup=0.1,
            label_smoothing=0.1,
            ema=0.99,
            evaluate_clips=0,
        ),
    )


def clean() -> Experiment:
    """Train on digits without noise."""
    noisy = experiment()
    return replace(
        noisy,
        name="av-digits-clean",
        clip=replace(noisy.clip, front_end=CLEAN),
        data=replace(noisy.data, path="tfds/av_digits/clean/1.0.0"),
        train=replace(noisy.train, steps=1500),
    )


def grid() -> dict[str, dict[str, Experiment]]:
    """{noise: {streams: experiment}} for a sweep."""
    streams = {"audio": ("spec",), "video": ("rgb",), "both": ("rgb", "spec")}
    return {
        noise: {
            name: replace(
                base, name=f"{base.name}-{name}", model=replace(base.model, streams=chosen)
            )
            for name, chosen in streams.items()
        }
        for noise, base in {"noisy": experiment(), "clean": clean()}.items()
    }


def starts() -> dict[str, Experiment]:
    """The models that the variants of the grid start from: none, all train from scratch."""
    return {}
