"""VGGSound: about 172,000 clips of 10 s for training, one of 309 classes each (section 4).

    mbt-lite prepare vggsound.csv --videos clips --split train --out vggsound
    mbt-lite prepare vggsound.csv --videos clips --split test --out vggsound
    mbt-lite train --config vggsound --workdir runs/vggsound --start.vit ViT-B_16.npz

One softmax over the classes instead of a sigmoid for each; otherwise as `audioset_mini.paper`.
Expected: top-1 64.1 and top-5 85.6 for both streams, 52.3 and 78.1 for audio, 51.2 and 72.6 for
images (paper). Not run by us.
"""

from dataclasses import replace

from mbt_lite.config import DataConfig, Experiment
from mbt_lite.configs import audioset_mini


def experiment() -> Experiment:
    base = audioset_mini.paper()
    return replace(
        base,
        name="vggsound",
        model=replace(base.model, classes=309),
        data=DataConfig(path="vggsound", train="train", validation="test", test="test", workers=8),
        train=replace(base.train, loss="softmax", epochs=50, warmup=0.05, save_every=1000),
    )
