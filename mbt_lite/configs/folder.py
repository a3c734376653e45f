"""Your own videos, in a folder per class or a table.

    mbt-lite train --config folder --workdir runs/mine --data.path videos

The run first looks at the clips and chooses by them: streams, window, front end, size of the
frames, augmentation, epochs. Every choice is printed with its reason, and what you set yourself
stays: --train.epochs 40 (see train/adapt.py). `experiment` also chooses between `scratch`, a small
model of its own, and `finetune`, every parameter of the embedded model: the latter if a linear
model finds the classes better by its frozen features than by simple ones (see train/probe.py).
`probe` trains the head of the embedded model alone. For real videos use finetune or probe with
--start.model as500k-rgb-spec, which has its own geometry, or --variant vit, an ImageNet ViT in the
geometry of the paper. One clip in five is held out, half of them to choose the best state, half to
score it. At the end simple models learn from the same clips, and the card says whether the run has
learned more than they have.

Hardware: two CPU cores, for `vit` and large models an accelerator.
Expected: see docs/training.md for what was measured.
"""

from dataclasses import replace

from mbt_lite.config import (
    WORLD,
    WORLD_CLIP,
    AugmentConfig,
    DataConfig,
    Experiment,
    FrontEnd,
    MBTConfig,
    StartConfig,
    TrainConfig,
)
from mbt_lite.configs import audioset_mini

GENTLE = AugmentConfig(color=0.5, hue=0.05, time_masks=1, time_mask=40, mel_masks=1, mel_mask=16)
MELS = 64


def experiment() -> Experiment:
    """Train from scratch, or from the embedded model where its features suit the clips."""
    return replace(scratch(), start=StartConfig(probe=True))


def scratch() -> Experiment:
    """Train a small model whose clip is that of the data."""
    front = FrontEnd("measured", fft=1024, mels=MELS)
    return Experiment(
        name="folder",
        model=MBTConfig(
            width=64,
            depth=4,
            heads=4,
            mlp_dim=128,
            fusion_layer=2,
            bottlenecks=4,
            rgb_shape=(8, 48, 48),
            rgb_patch=(2, 12, 12),
            spec_shape=(200, MELS),
            spec_patch=(10, MELS),
        ),
        clip=replace(WORLD_CLIP, front_end=front),
        data=DataConfig(
            path="videos",
            train=None,
            validation=None,
            test=None,
            holdout=0.2,
            views=1,
            adapt=True,
        ),
        train=TrainConfig(
            epochs=20,
            batch=64,
            loss="softmax",
            learning_rate=2e-3,
            warmup=0.1,
            label_smoothing=0.1,
            ema=0.99,
            log_every=10,
            save_every=100,
            evaluate_every=100,
            evaluate_clips=0,
            patience=5,
        ),
    )


def finetune() -> Experiment:
    """Train every parameter of the embedded model, the head with a hundred times the rate."""
    base = scratch()
    train = replace(base.train, epochs=20, batch=16, learning_rate=1e-2, backbone_rate=0.01)
    return replace(
        base,
        model=replace(WORLD, drop_path=0.1),
        clip=WORLD_CLIP,
        augment=GENTLE,
        start=StartConfig(model="world-tiny"),
        train=train,
    )


def probe() -> Experiment:
    """Train only the head of the embedded model, which takes less time and fewer clips."""
    base = finetune()
    return replace(base, train=replace(base.train, trained="head", backbone_rate=1.0))


def vit() -> Experiment:
    """Start from an ImageNet ViT-B/16, in the paper's geometry."""
    large, base = audioset_mini.paper(), finetune()
    train = replace(base.train, learning_rate=3e-3, remat=True)
    data = replace(base.data, adapt=False)
    return replace(large, name="folder", data=data, augment=base.augment, train=train)
