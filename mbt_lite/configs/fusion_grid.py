"""Where should audio and video meet? A grid of small models on the micro-world.

    mbt-lite sweep --config fusion_grid --workdir runs/grid --jobs 2

Every model of the paper starts from one image ViT. Likewise every variant here starts from one
model without fusion: `late`, or for one encoder of both streams `late_shared`. All continue for the
same number of steps on the same clips, so that only the fusion differs. The micro-world's matched
classes need both modalities; docs/training.md has the results and compares them with the paper.
weights/grid/ holds the logs of all runs, and the models of seed 0 of the first three groups, made
smaller by `mbt-lite convert runs/grid/grid-late/seed_0 grid-late.safetensors --dtype bfloat16`.

Hardware: two CPU cores; a run takes about 2 minutes of one core, a start 6. Expected: measured, see
docs/training.md.
"""

from dataclasses import replace

from mbt_lite.config import (
    ClipConfig,
    DataConfig,
    Experiment,
    FrontEnd,
    MBTConfig,
    StartConfig,
    TrainConfig,
)
from mbt_lite.data import world

# Mean and deviation are measured over the first 2,000 training clips.
FRONT_END = FrontEnd("world-64", fft=1024, mels=64, mean=-1.05, std=2.33)
CLIP = ClipConfig(
    frames=8, fps=4.0, stride=1, size=36, resize=36, spec_frames=200, front_end=FRONT_END
)
MODEL = MBTConfig(
    classes=len(world.LABELS) + len(world.AUX_LABELS),
    width=48,
    depth=4,
    heads=4,
    mlp_dim=96,
    fusion_layer=1,
    bottlenecks=4,
    rgb_shape=(8, 36, 36),
    rgb_patch=(2, 12, 12),
    spec_shape=(200, 64),
    spec_patch=(25, 16),
)
DATA = DataConfig(clips=65_536, cache_dir="clips")
TRAIN = TrainConfig(
    steps=1200,
    learning_rate=4e-3,
    warmup=0.05,
    ema=0.99,
    save_every=400,
    evaluate_every=200,
    evaluate_clips=500,
    test_clips=1000,
    keep_checkpoints=1,
)


def _variant(name: str, start: str = "late", mixup: dict | None = None, **model) -> Experiment:
    base = Experiment(f"grid-{name}", replace(MODEL, **model), CLIP, DATA, train=TRAIN)
    base = replace(base, start=StartConfig(model=start, rewire=True))
    return replace(base, augment=replace(base.augment, **(mixup or {})))


def starts() -> dict[str, Experiment]:
    """The models that the variants start from: no fusion, with two encoders or one."""
    base = Experiment("grid-start", replace(MODEL, fusion="late"), CLIP, DATA)
    longer = replace(TRAIN, steps=4000, learning_rate=2e-3, warmup=0.1, evaluate_every=500)
    late = replace(base, train=longer)
    shared = replace(late.model, shared_encoder=True)
    return {"late": late, "late_shared": replace(late, name="grid-start-shared", model=shared)}


def grid() -> dict[str, dict[str, Experiment]]:
    """{group: {variant: experiment}}; the bottleneck from layer 1 on is in every group."""
    bottleneck = _variant("bottleneck")
    late = _variant("late", fusion="late")
    return {
        "fusion": {
            "audio": _variant("audio", streams=("spec",)),
            "video": _variant("video", streams=("rgb",)),
            "late": late,
            "joint": _variant("joint", "late_shared", fusion="joint", shared_encoder=True),
            "cross": _variant("cross", fusion="joint"),
            "bottleneck": bottleneck,
        },
        "fusion layer": {
            "0": _variant("layer-0", fusion_layer=0),
            "1": bottleneck,
            "2": _variant("layer-2", fusion_layer=2),
            "3": _variant("layer-3", fusion_layer=3),
            "4": late,
        },
        "bottlenecks": {
            "1": _variant("bottlenecks-1", bottlenecks=1),
            "4": bottleneck,
            "16": _variant("bottlenecks-16", bottlenecks=16),
            "64": _variant("bottlenecks-64", bottlenecks=64),
        },
        "regularisation": {
            "none": bottleneck,
            "mixup": _variant("mixup", mixup={"mixup": 0.3}),
            "modality mixup": _variant("mixmod", mixup={"mixup": 0.3, "mixmod": True}),
            "stochastic depth": _variant("drop-path", drop_path=0.3),
        },
    }
