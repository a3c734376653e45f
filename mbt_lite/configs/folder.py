"""Your own videos, in a folder per class or a table, from pretrained weights.

    mbt-lite train --config folder --workdir runs/mine --data.path videos

`experiment` trains every parameter, `frozen` (--variant frozen) the head alone. Both start from
the embedded model; for real videos use --start.model as500k-rgb-spec, which has its own geometry,
or --variant vit, an ImageNet ViT in the geometry of the paper. For files with audio only use
--model.streams spec, with video only rgb. One clip in five is held out for scoring, at least one of
each class that has two.

Hardware: two CPU cores for world-tiny; an accelerator for the others. Expected: measured on 160
clips of four matched classes from `mbt-lite world --classes`, all 32 held-out clips right after
3 minutes on two busy cores. We claim no score for other videos.
"""

from dataclasses import replace

from mbt_lite.config import (
    WORLD,
    WORLD_CLIP,
    AugmentConfig,
    DataConfig,
    Experiment,
    StartConfig,
    TrainConfig,
)
from mbt_lite.configs import audioset_mini

GENTLE = AugmentConfig(color=0.5, hue=0.05, time_masks=1, time_mask=40, mel_masks=1, mel_mask=16)


def experiment() -> Experiment:
    """Train every parameter, the head with a hundred times the learning rate of the backbone."""
    return Experiment(
        name="folder",
        model=replace(WORLD, drop_path=0.1),
        clip=WORLD_CLIP,
        data=DataConfig(
            path="videos", train=None, validation=None, test=None, holdout=0.2, views=1
        ),
        augment=GENTLE,
        start=StartConfig(model="world-tiny"),
        train=TrainConfig(
            epochs=20,
            batch=16,
            loss="softmax",
            learning_rate=1e-2,
            backbone_rate=0.01,
            warmup=0.1,
            label_smoothing=0.1,
            ema=0.99,
            log_every=10,
            save_every=100,
            evaluate_every=100,
        ),
    )


def frozen() -> Experiment:
    """Train only the head, which takes less time and fewer clips."""
    base = experiment()
    return replace(base, train=replace(base.train, trained="head", backbone_rate=1.0))


def vit() -> Experiment:
    """Start from an ImageNet ViT-B/16, in the paper's geometry."""
    large, base = audioset_mini.paper(), experiment()
    train = replace(base.train, learning_rate=3e-3, remat=True)
    return replace(large, name="folder", data=base.data, augment=base.augment, train=train)
