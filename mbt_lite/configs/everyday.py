"""A model of real sounds and pictures: what is heard, what is seen, or neither.

    python training/everyday_material.py REAL everyday
    mbt-lite train --config everyday --workdir runs/everyday --data.path everyday

The first command gathers and renders the sounds and pictures; every training clip is put together
anew from them, see data/collage.py. Soft labels of two other models are predicted in training, too;
these outputs are removed afterwards.

Hardware: two CPU cores, hours. The recipe is being tried: we claim no score yet.
"""

from dataclasses import replace

from mbt_lite.config import (
    EVERYDAY,
    EVERYDAY_CLIP,
    AugmentConfig,
    DataConfig,
    Experiment,
    StartConfig,
    TrainConfig,
)


def experiment() -> Experiment:
    """Train from scratch."""
    return Experiment(
        name="everyday",
        model=replace(EVERYDAY, drop_path=0.1),
        clip=EVERYDAY_CLIP,
        data=DataConfig(path="everyday", views=1),
        augment=AugmentConfig(
            color=0.8,
            gray=0.1,
            time_masks=1,
            time_mask=50,
            mel_masks=1,
            mel_mask=10,
            speed=0.1,
            pitch=2.0,
            mixup=0.2,
        ),
        start=StartConfig(prior=True),
        train=TrainConfig(
            steps=8000,
            batch=24,
            learning_rate=1e-3,
            warmup=0.05,
            ema=0.999,
            evaluate_clips=512,
        ),
    )
