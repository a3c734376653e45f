"""EPIC-KITCHENS-100: actions in kitchens, each a verb (of 97) and a noun (of 300) (section 4).

    mbt-lite prepare EPIC_100_train.csv --videos videos --labels DIR --split train --out epic
    mbt-lite train --config epic_kitchens --workdir runs/epic --start.vit ViT-B_16.npz

Two heads with a softmax each, whose losses are averaged; the action is right if verb and noun are.
32 consecutive frames as in the paper, which does not state the length of the audio; we take 8 s as
for AudioSet. Expected: action top-1 43.4, verb 64.8, noun 58.0 (paper).
Not run by us.
"""

from dataclasses import replace

from mbt_lite.config import BASE, DataConfig, Experiment
from mbt_lite.configs import audioset_mini


def experiment() -> Experiment:
    base = audioset_mini.paper()
    return replace(
        base,
        name="epic-kitchens-100",
        model=replace(
            base.model, classes=97 + 300, rgb_shape=(32, 224, 224), rgb_patch=BASE.rgb_patch
        ),
        clip=replace(base.clip, frames=32, stride=1),
        data=DataConfig(
            path="epic", train="train", validation="validation", test="validation", workers=8
        ),
        train=replace(base.train, loss="softmax", epochs=50, warmup=0.05, save_every=1000),
    )
