"""Frozen dataclasses that say what is trained, from what, on what and how: one tree per run.

`dataclasses.replace` changes a branch in Python, `--train.steps 100` on the command line.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from mbt_lite.config import (
    NONE,
    PAIRINGS,
    AugmentConfig,
    ClipConfig,
    MBTConfig,
    from_dict,
    require,
    within,
)

LOSSES = ("sigmoid", "softmax")
OPTIMIZERS = ("adamw", "momentum")
SCHEDULES = ("cosine", "constant")
TRAINED = ("all", "head")
# Where a run starts from a model, these are the recipe's, and with `start.rewire` those, too.
KEPT = ("dropout", "attention_dropout", "drop_path", "dtype")
WIRING = ("streams", "fusion", "fusion_layer", "bottlenecks", "bottlenecks_at_test")


@dataclass(frozen=True)
class DataConfig:
    """Where clips come from: the micro-world, or whatever `sources.open_source` takes."""

    path: str = "world"  # world; a folder of records, a TFDS dataset, a table, a folder of videos
    train: str | None = "train"  # the split to learn from, where there are some; None: all there is
    validation: str | None = "validation"  # the split that is scored during training; None: nothing
    test: str | None = "test"  # the split that is scored at the end; None: nothing is
    holdout: float = 0.0  # share of the files to learn from that is scored where splits are missing
    videos: str | None = None  # where the files of a table are; None: beside it
    labels: str | None = None  # file with the class names in order; None: the source's own
    clips: int = 0  # of the micro-world: so many, again and again; 0: each clip is new
    keep: str = ""  # a folder: clips that are always the same are made once and kept there
    pairing: str = PAIRINGS[0]  # of sound and picture: synchronised, or ratio as the original
    views: int = 4  # windows of a clip that is scored, their logits averaged
    audio_track: int | None = None  # of labelled files, from 1 on; None: as players choose
    workers: int = 1  # processes that read ahead; 0: none
    skip_errors: bool = True  # leave out clips that cannot be read, and say so

    def __post_init__(self):
        require(bool(self.path), "data.path must name something to learn from.")
        require(0 <= self.holdout < 1, f"data.holdout={self.holdout} must lie in 0..1, 1 left out.")
        require(self.pairing in PAIRINGS, f"data.pairing={self.pairing!r} is none of {PAIRINGS}.")
        require(self.clips >= 0, f"data.clips={self.clips} must be 0 or more.")
        require(
            not self.keep or self.path != "world" or self.clips > 0,
            f"data.keep={self.keep}: say with data.clips how many of the micro-world to keep.",
        )
        within(self, {"views": (1, 1000), "workers": (0, 1024)}, "data.")
        require(
            self.audio_track is None or (self.audio_track > 0 and self.path != "world"),
            f"data.audio_track={self.audio_track}: it counts from 1, in files with several tracks.",
        )


@dataclass(frozen=True)
class StartConfig:
    """What the parameters start from; as it stands, from scratch."""

    model: str | None = None  # a trained MBT: a name of the zoo, a file, a folder, hf://user/repo
    rewire: bool = False  # with the recipe's streams and fusion instead of that model's
    vit: str | None = None  # an image ViT, see `vit.from_vit` for this and what follows
    inflate: str = "central"
    bottleneck: str = "positions"
    audio_cls: str = "copy"

    def __post_init__(self):
        require(
            not (self.model and self.vit),
            f"start.model={self.model} and start.vit={self.vit}: a model starts from one of them.",
        )


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; as it stands, with AdamW and averaged weights."""

    steps: int = 4_000
    epochs: float = 0.0  # above 0: instead of steps, passes over the data
    batch: int = 32  # clips of a step, over all devices
    accumulate: int = 1  # equal parts of a batch that go through the model one after the other
    loss: str = "sigmoid"  # of classes that go together; softmax: one is true, or one per head
    label_smoothing: float = 0.0
    optimizer: str = "adamw"  # or momentum: SGD with momentum, the paper's
    learning_rate: float = 1.5e-3
    backbone_rate: float = 1.0  # share of the learning rate for all but the head
    schedule: str = "cosine"  # to zero at the last step; constant
    warmup: float = 500  # steps, or below 1 the share of all steps
    momentum: float = 0.9
    nesterov: bool = False
    beta2: float = 0.98  # of AdamW
    weight_decay: float = 0.05  # AdamW: taken off matrices; momentum: added to every gradient
    kernel_decay: float = 0.0  # momentum: share of the learning rate taken off kernels
    l2: float = 0.0  # of half the sum of squares of all matrices, added to the loss
    clip_norm: float = 1.0  # of the whole gradient; 0: not clipped
    ema: float = 0.999  # decay of the averaged weights that evaluation uses; 0: none
    trained: str = "all"  # or head: the backbone is frozen
    remat: bool = False  # compute blocks again in the backward pass: less memory, a third more work
    shards: int = 1  # devices that share one copy of the parameters (FSDP); divides their number
    mixup_groups: int = 1  # equal parts of a batch that mix within themselves, see `augment.mixup`
    seed: int = 0
    log_every: int = 50  # steps
    save_every: int = 500  # steps
    evaluate_every: int = 500  # steps; 0: at the end only
    evaluate_clips: int = 200  # of the validation split, the first ones; 0: all
    test_clips: int = 0  # of the test split, the first ones, at the end; 0: all
    keep: int = 2  # newest saved states that stay; besides them the best one
    best: str = ""  # score that decides which is best; "": the data's first one
    skip_nonfinite: int = 0  # so many steps with a loss that is no number are left out
    samples: int = 8  # validation clips that are drawn with the model's answers; 0: none

    def __post_init__(self):
        counts = ("steps", "batch", "accumulate", "shards", "mixup_groups", "log_every")
        for name in (*counts, "save_every", "keep"):
            value = getattr(self, name)
            require(value >= 1, f"train.{name}={value} must be 1 or more.")
        for name in (
            "epochs",
            "warmup",
            "evaluate_every",
            "evaluate_clips",
            "test_clips",
            "skip_nonfinite",
        ):
            value = getattr(self, name)
            require(value >= 0, f"train.{name}={value} must not be below 0.")
        for name in ("weight_decay", "kernel_decay", "l2", "clip_norm", "samples"):
            value = getattr(self, name)
            require(value >= 0, f"train.{name}={value} must not be below 0.")
        require(
            0 < self.backbone_rate <= 1,
            f"train.backbone_rate={self.backbone_rate} must lie above 0 and up to 1; to freeze the "
            "backbone say train.trained='head'.",
        )
        for name in ("label_smoothing", "momentum", "beta2", "ema"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name}={value} must lie in 0..1, 1 left out.")
        known = {"loss": LOSSES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "trained": TRAINED}
        for name, choices in known.items():
            value = getattr(self, name)
            require(value in choices, f"train.{name}={value!r} is none of {', '.join(choices)}.")
        require(
            self.learning_rate > 0, f"train.learning_rate={self.learning_rate} must be above 0."
        )
        require(
            self.batch % (self.accumulate * self.mixup_groups) == 0,
            f"train.batch={self.batch} does not divide into {self.accumulate} parts of "
            f"{self.mixup_groups} mixup groups.",
        )

    @property
    def warmup_steps(self) -> float:
        """Steps over which the learning rate rises."""
        return self.warmup if self.warmup >= 1 else self.warmup * self.steps


@dataclass(frozen=True)
class Experiment:
    """A model, what it eats, what it starts and learns from, and how."""

    name: str
    model: MBTConfig
    clip: ClipConfig
    data: DataConfig = DataConfig()
    augment: AugmentConfig = NONE
    start: StartConfig = StartConfig()
    train: TrainConfig = TrainConfig()


def read_json(path: Path) -> Experiment:
    """The experiment in the experiment.json of a run, perhaps edited by hand.

    ValueError names the file, the field and what is expected of it.
    """
    try:
        return from_dict(Experiment, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
