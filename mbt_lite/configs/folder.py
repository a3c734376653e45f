"""Your own videos: a folder per class, or a table, from weights that know something already.

    mbt-lite train --config folder --workdir runs/mine --data.path videos

`experiment` trains every parameter, `frozen` (--variant frozen) the head alone. Both start from
the embedded model; for videos of the real world say --start.model as500k-rgb-spec, which brings
its own geometry, or take --variant vit, an ImageNet ViT in the geometry of the paper. Files with
audio only are learned from with --model.streams spec, with video only by rgb. One clip in
five is kept for scoring, at least one of each class that has two.

Hardware: two CPU cores for world-tiny; an accelerator for the others. Expected: measured on 160
clips of four matched classes from `mbt-lite world --classes`, all 32 held-out clips right after
3 minutes on two busy cores; no score is claimed for other videos.
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

GENTLE = AugmentConfig(colour=0.5, hue=0.05, time_masks=1, time_mask=40, mel_masks=1, mel_mask=16)


def experiment() -> Experiment:
    """Every parameter is trained, the head a hundred times as fast as what knows something."""
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
            best="top-1",
        ),
    )


def frozen() -> Experiment:
    """Only the head is trained, which takes less time and fewer clips."""
    made = experiment()
    return replace(made, train=replace(made.train, trained="head", backbone_rate=1.0))


def vit() -> Experiment:
    """From an ImageNet ViT-B/16, in the paper's geometry."""
    large, made = audioset_mini.paper(), experiment()
    train = replace(made.train, learning_rate=3e-3, remat=True)
    return replace(large, name="folder", data=made.data, augment=made.augment, train=train)
