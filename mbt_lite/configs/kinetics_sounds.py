"""Kinetics-Sounds: the 36 classes of Kinetics that are both visible and audible (appendix).

    mbt-lite prepare kinetics_sounds.csv --videos clips --out kinetics_sounds
    mbt-lite train --config kinetics_sounds --workdir runs/ks --start.vit ViT-B_16.npz

The table is your own (path, start, end, labels, split). Recipe as `vggsound`. Expected: top-1 85.0
and top-5 96.8 for both streams, 52.6 and 71.5 for audio, 80.7 and 94.9 for images (paper). Not
run by us.
"""

from dataclasses import replace

from mbt_lite.config import DataConfig, Experiment
from mbt_lite.configs import vggsound


def experiment() -> Experiment:
    base = vggsound.experiment()
    return replace(
        base,
        name="kinetics-sounds",
        model=replace(base.model, classes=36),
        data=DataConfig(path="kinetics_sounds", validation="test", test="test", workers=8),
    )
