"""Settings as frozen dataclasses: model, clip, augmentation, data, start, training, experiment.

`dataclasses.replace(BASE, fusion_layer=10)` changes a setting in Python, `--model.fusion-layer 10`
on the command line. Derived numbers are properties. A value that cannot work raises ValueError when
the dataclass is created.
"""

import dataclasses
import json
import math
import numbers
import reprlib
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

STREAMS = ("spec", "rgb")
MODALITIES = {"spec": "audio", "rgb": "video"}  # the name of each stream in a sentence
PAIRINGS = ("synchronised", "ratio")  # of video and audio windows, see data/sampling.py
POOLS = ("token", "mean", "max", "sum")
FUSIONS = ("bottleneck", "joint", "late")
COMPRESSIONS = ("log", "none")
WINDOW_FNS = ("hamming", "hann")
DTYPES = ("float32", "bfloat16", "float16")
LOSSES = ("sigmoid", "softmax")
OPTIMIZERS = ("adamw", "momentum")
SCHEDULES = ("cosine", "constant")
TRAINED = ("all", "head")
# A run that starts from a trained model takes these from the recipe; with `start.rewire` also
# WIRING.
KEPT = ("dropout", "attention_dropout", "drop_path", "dtype")
WIRING = ("streams", "fusion", "fusion_layer", "bottlenecks", "bottlenecks_at_test")

# Upper limits far above any real model: a number in a damaged or hostile file must not cost
# gigabytes or hours.
MODEL_BOUNDS = {
    "classes": (1, 1_000_000),
    "width": (1, 1 << 16),
    "depth": (1, 1000),
    "heads": (1, 1 << 16),
    "mlp_dim": (1, 1 << 20),
    "bottlenecks": (0, 1 << 16),
    "representation": (1, 1 << 20),
    "rgb_sampled": (1, 1 << 16),
    "dropout": (0, 1),
    "attention_dropout": (0, 1),
    "drop_path": (0, 1),
}
MAX_SIDE, MAX_VOLUME = 1 << 20, 1 << 30  # of one axis of a shape or patch; of all axes together
CLIP_BOUNDS = {
    "frames": (1, 1 << 16),
    "stride": (1, 1 << 16),
    "size": (1, 1 << 13),
    "resize": (1, 1 << 13),
    "spec_frames": (1, 1 << 20),
    "fps": (1e-3, 1000),
}
MAX_SECONDS = 3600  # of a clip
FRONT_END_BOUNDS = {
    "rate": (1000, 384_000),
    "window": (1e-4, 10),
    "hop": (1e-4, 10),
    "fft": (1, 1 << 16),
    "mels": (1, 1024),
}


def require(condition: bool, sentence: str) -> None:
    """Raise ValueError with this sentence unless the condition holds."""
    if not condition:
        raise ValueError(sentence)


def require_bounds(config, bounds: Mapping[str, tuple[float, float]], prefix: str) -> None:
    """Raise ValueError naming the first field that is no number in its bounds; None is allowed."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        fits = value is None or (isinstance(value, numbers.Real) and low <= value <= high)
        require(fits, f"{prefix}{name}={reprlib.repr(value)} must lie in {low:,}..{high:,}.")


def require_at_least(config, low: float, names: Iterable[str], prefix: str) -> None:
    """Raise ValueError naming the first of these fields whose value is below `low`."""
    for name in names:
        value = getattr(config, name)
        require(value >= low, f"{prefix}{name}={value} must be {low} or more.")


@dataclass(frozen=True)
class FrontEnd:
    """Settings of the conversion from a waveform to a log-mel spectrogram.

    The paper (section 4.2) gives 16 kHz mono, a 25 ms Hamming window every 10 ms and 128 mel bins.
    The other settings were not published: they are fields here, with presets in
    `features.FRONT_ENDS`.
    """

    name: str = "log-mel"
    rate: int = 16_000  # Hz
    window: float = 0.025  # s
    hop: float = 0.010  # s
    fft: int = 512  # samples
    mels: int = 128
    low: float = 60.0  # Hz, lower edge of the first mel filter
    high: float = 7_800.0  # Hz, upper edge of the last one
    power: int = 1  # 1: magnitude, 2: power
    offset: float = 1e-3  # added before the natural logarithm
    mean: float = 0.0  # of log-mel values, measured over the data of the preset
    std: float = 1.0
    compression: str = "log"  # or "none": mel energies, without offset
    amplitude: float = 1.0  # value of full scale, 1 in the waveform; 32768 with 16-bit samples
    pre_emphasis: float = 0.0  # times the previous sample is subtracted from each
    window_fn: str = "hamming"  # or "hann"
    centered: bool = False  # frame k is centered on sample k * hop; otherwise it begins there

    def __post_init__(self):
        prefix = f"front end {self.name!r}: "
        require_bounds(self, FRONT_END_BOUNDS, prefix)
        for condition, sentence in (
            (
                self.window_samples <= self.fft,
                f"a window of {self.window_samples} samples does not fit an FFT of {self.fft}; "
                f"use fft={1 << (self.window_samples - 1).bit_length()} or more.",
            ),
            (
                0 <= self.low < self.high <= self.rate / 2,
                f"mel edges {self.low}-{self.high} Hz must rise and stay under half of the "
                f"{self.rate} Hz sampling rate.",
            ),
            (self.offset > 0, "silence needs a log offset above 0."),
            (self.std > 0, "std must be above 0."),
            (self.power in (1, 2), "power is 1 or 2."),
            (self.compression in COMPRESSIONS, f"compression is one of {COMPRESSIONS}."),
            (self.amplitude > 0, "the amplitude must be above 0."),
            (0 <= self.pre_emphasis < 1, "pre_emphasis must be at least 0 and below 1."),
            (self.window_fn in WINDOW_FNS, f"window_fn is one of {WINDOW_FNS}."),
        ):
            require(condition, prefix + sentence)

    @property
    def window_samples(self) -> int:
        return round(self.window * self.rate)

    @property
    def hop_samples(self) -> int:
        return round(self.hop * self.rate)

    @property
    def left_pad(self) -> int:
        """Samples of the first frame that lie before the audio."""
        return self.window_samples // 2 if self.centered else 0

    @property
    def silence(self) -> float:
        """The value of digital silence, before standardization."""
        return math.log(self.offset) if self.compression == "log" else 0.0


@dataclass(frozen=True)
class ClipConfig:
    """The input of a model: number, rate and size of frames, length of audio, front end."""

    frames: int = 32
    fps: float = 25.0  # the video is sampled at this rate first, by time
    stride: int = 2  # then every stride-th frame is kept
    size: int = 224  # pixels, side of the square crop
    resize: int = 256  # pixels, short side before the crop
    spec_frames: int = 800  # spectrogram frames
    front_end: FrontEnd = field(default_factory=FrontEnd)
    audio_track: int | None = None  # of a file, from 1 on; None: the one that players choose

    def __post_init__(self):
        require_bounds(self, CLIP_BOUNDS, "clip.")
        require(
            self.audio_track is None or self.audio_track > 0,
            f"audio track {self.audio_track}: tracks are counted from 1.",
        )
        seconds = max(self.video_seconds, self.audio_seconds)
        require(
            seconds <= MAX_SECONDS,
            f"a clip of {seconds:g} s is too long; at most {MAX_SECONDS:,} s are allowed.",
        )
        require(
            self.frames * self.size**2 <= MAX_VOLUME,
            f"clip.frames={self.frames} of clip.size={self.size} pixels a side are too many.",
        )
        require(
            self.size <= self.resize,
            f"a crop of {self.size} pixels does not fit a short side of {self.resize}.",
        )

    @property
    def frame_step(self) -> float:
        """Seconds between two sampled frames."""
        return self.stride / self.fps

    @property
    def video_seconds(self) -> float:
        return self.frames * self.frame_step

    @property
    def audio_seconds(self) -> float:
        return self.spec_frames * self.front_end.hop


def sampled_frames(frames: int, count: int) -> np.ndarray:
    """Indices of about `count` evenly spaced frames, ends left out; all if there are too few.

    For some pairs this gives one more than `count` (2 of 8 frames: 3), because rounding in float32
    lets the end in. Position embeddings were trained with that number, so it stays.
    """
    if count >= frames:
        return np.arange(frames)
    step = frames / (count + 1)
    steps = np.arange(step, frames, step, dtype=np.float32)
    return np.clip(np.round(steps), 0, frames - 1).astype(int)


@dataclass(frozen=True)
class MBTConfig:
    """Geometry and wiring of a Multimodal Bottleneck Transformer (paper, section 3)."""

    streams: tuple[str, ...] = STREAMS
    classes: int = 527
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    fusion: str = "bottleneck"  # through a few shared tokens; joint: all tokens; late: none
    fusion_layer: int = 8  # first block that sees the other stream
    bottlenecks: int = 5  # the paper's B = 4; Scenic adds one when it pools by class token
    bottlenecks_at_test: bool = True  # False: fuse in training only
    shared_encoder: bool = False  # one set of blocks for all streams
    pool: str = "token"
    representation: int | None = None  # width of the pre-logits layer, if there is one
    rgb_shape: tuple[int, int, int] = (32, 224, 224)  # frames, height, width
    rgb_patch: tuple[int, int, int] = (2, 16, 16)
    rgb_sampled: int | None = None  # frames picked inside the model before patching, None: all
    spec_shape: tuple[int, int] = (800, 128)  # time, mel
    spec_patch: tuple[int, int] = (16, 16)
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0  # stochastic depth at the last block, rising linearly from 0
    dtype: str = "float32"  # of the blocks; embeddings, final norm and head stay float32

    def __post_init__(self):
        require(
            len(self.streams) > 0
            and len(set(self.streams)) == len(self.streams)
            and set(self.streams) <= set(STREAMS),
            f"streams={self.streams!r}: name each of 'spec' and 'rgb' at most once.",
        )
        require(self.fusion in FUSIONS, f"fusion={self.fusion!r} is none of {FUSIONS}.")
        require(self.pool in POOLS, f"pool={self.pool!r} is none of {POOLS}.")
        require(self.dtype in DTYPES, f"model.dtype={self.dtype!r} is none of {DTYPES}.")
        require_bounds(self, MODEL_BOUNDS, "model.")
        require(
            self.width % self.heads == 0,
            f"width {self.width} does not divide into {self.heads} heads.",
        )
        require(
            0 <= self.fusion_layer <= self.depth,
            f"fusion_layer={self.fusion_layer} must lie in 0..depth={self.depth}.",
        )
        require(
            self.fusion != "bottleneck" or self.bottlenecks > 0,
            "bottleneck fusion needs at least one bottleneck; fusion='late' has none.",
        )
        for stream in self.streams:
            for name, sides in (("shape", self.shape(stream)), ("patch", self.patch(stream))):
                require(
                    all(1 <= side <= MAX_SIDE for side in sides) and math.prod(sides) <= MAX_VOLUME,
                    f"{stream}_{name}={reprlib.repr(sides)}: each side must be 1 or more, and the "
                    f"product at most {MAX_VOLUME:,}.",
                )
            require(
                min(self.grid(stream)) > 0,
                f"{stream}: patch {self.patch(stream)} does not fit input {self.shape(stream)}.",
            )

    def shape(self, stream: str) -> tuple[int, ...]:
        return self.rgb_shape if stream == "rgb" else self.spec_shape

    def patch(self, stream: str) -> tuple[int, ...]:
        return self.rgb_patch if stream == "rgb" else self.spec_patch

    def grid_of(self, stream: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Tokens along each axis of an input of this shape; a partial patch is dropped."""
        if stream == "rgb" and self.rgb_sampled:
            shape = (len(sampled_frames(shape[0], self.rgb_sampled)), *shape[1:])
        return tuple(n // p for n, p in zip(shape, self.patch(stream), strict=True))

    def grid(self, stream: str) -> tuple[int, ...]:
        """Tokens along time, height, width of the video, or along time and mel of the audio."""
        return self.grid_of(stream, self.shape(stream))

    @property
    def rgb_grid(self) -> tuple[int, int, int]:
        return self.grid("rgb")

    @property
    def spec_grid(self) -> tuple[int, int]:
        return self.grid("spec")

    def patches(self, stream: str) -> int:
        """Number of patch tokens of a stream, without its class token."""
        return math.prod(self.grid(stream))

    def prefix_depth(self, training: bool = True) -> int:
        """The number of layers before the first in which the modalities exchange information."""
        fused = (layer for layer in range(self.depth) if self.fuses(layer, training))
        return next(fused, self.depth)

    def fuses(self, layer: int, training: bool = True) -> bool:
        """Whether the modalities exchange information in this layer."""
        return (
            len(self.streams) > 1
            and self.fusion != "late"
            and layer >= self.fusion_layer
            and (training or self.fusion == "joint" or self.bottlenecks_at_test)
        )


BASE = MBTConfig()  # the released audio-visual checkpoints: 175,009,295 parameters
WORLD = MBTConfig(
    classes=31,
    width=96,
    depth=4,
    heads=4,
    mlp_dim=288,
    fusion_layer=1,
    bottlenecks=4,
    rgb_shape=(8, 48, 48),
    rgb_patch=(2, 12, 12),
    spec_shape=(200, 128),
    spec_patch=(25, 16),
)
WORLD_FRONT_END = FrontEnd("world", fft=1024, mean=-1.04, std=1.69)
WORLD_CLIP = ClipConfig(
    frames=8,
    fps=4.0,
    stride=1,
    size=48,
    resize=48,
    spec_frames=200,
    front_end=WORLD_FRONT_END,
)


@dataclass(frozen=True)
class AugmentConfig:
    """Random augmentation of training clips; by default there is none.

    The strengths of augmentations that are switched off are those of Scenic's MBT.
    """

    scale: tuple[float, float] = (
        1.0,
        1.0,
    )  # range of the factors of height and width, each its own
    random_crop: bool = False  # otherwise the middle is cropped
    flip: float = 0.0  # probability of a horizontal flip
    color: float = 0.0  # probability of color jitter, by these four:
    brightness: float = 32 / 255  # maximum that is added
    saturation: tuple[float, float] = (0.6, 1.4)  # factors
    contrast: tuple[float, float] = (0.6, 1.4)
    hue: float = 0.2  # maximum shift in turns of the color circle, either way
    gray: float = 0.0  # probability of a grayscale video
    time_masks: int = 0  # SpecAugment: number of masked bands of time
    time_mask: int = 192  # spectrogram frames that one band stays below
    time_mask_ratio: float = 1.0  # of the clip that one band may cover; 0: no bands
    mel_masks: int = 0  # SpecAugment: number of masked bands of frequency
    mel_mask: int = 48  # mel bins that one band stays below
    time_shift: float = 0.0  # most spectrogram frames that the audio moves, either way
    speed: float = 0.0  # most that the audio becomes longer or shorter, as a share
    pitch: float = 0.0  # most mel bins that it moves, either way
    mixup: float = 0.0  # a of Beta(a, a), from which the mixing weight is drawn; 0: no mixup
    mixmod: bool = False  # modality mixup: each stream has its own mixing weight

    def __post_init__(self):
        chances = ("flip", "color", "gray", "time_mask_ratio")
        require_bounds(self, dict.fromkeys(chances, (0, 1)), "augment.")
        counts = ("time_masks", "time_mask", "mel_masks", "mel_mask", "brightness", "mixup")
        require_at_least(self, 0, [*counts, "time_shift", "pitch"], "augment.")
        require(0 <= self.speed < 1, f"augment.speed={self.speed} must be at least 0 and below 1.")
        for name in ("scale", "saturation", "contrast"):
            low, high = factors = getattr(self, name)
            require(0 <= low <= high, f"augment.{name}={factors} must rise, from 0 on.")
        require(self.scale[0] > 0, f"augment.scale={self.scale} must be above 0.")
        require(
            0 <= self.hue <= 0.5,
            f"augment.hue={self.hue} must lie in 0..0.5, where 0.5 is half a turn.",
        )
        require(
            self.mixup > 0 or not self.mixmod,
            "modality mixup needs the a of its Beta(a, a): try augment.mixup=0.3, the paper's.",
        )


NONE = AugmentConfig()  # evaluation: only the middle crop
# The paper, section 4.2: random crop, flip, color jitter, SpecAugment as in AST (one band of each
# kind), modality mixup. It gives no numbers for the colors, so they are Scenic's.
PAPER = AugmentConfig(
    random_crop=True,
    flip=0.5,
    color=0.8,
    gray=0.1,
    time_masks=1,
    mel_masks=1,
    mixup=0.3,
    mixmod=True,
)
# Scenic's configuration of the released audio-visual model. Its four time masks never happen: the
# ratio is 0, at which Lingvo, the library that it calls, returns the spectrogram unchanged.
RELEASED = AugmentConfig(
    scale=(0.9, 1.33),
    random_crop=True,
    flip=0.5,
    color=0.8,
    gray=0.1,
    time_masks=4,
    time_mask=48,
    time_mask_ratio=0.0,
    mel_masks=1,
    mixup=0.5,
)


@dataclass(frozen=True)
class DataConfig:
    """The data of a run: the micro-world, or anything that `sources.open_source` opens."""

    path: str = "world"  # world; a folder of records, a TFDS dataset, a table, a folder of videos
    train: str | None = "train"  # the split to learn from, where there are some; None: all there is
    validation: str | None = "validation"  # the split that is scored during training; None: nothing
    test: str | None = "test"  # the split that is scored at the end; None: nothing is
    holdout: float = 0.0  # share of the files to learn from that is scored where splits are missing
    videos: str | None = None  # where the files of a table are; None: beside it
    labels: str | None = None  # file with the class names in order; None: the source's own
    clips: int = 0  # of the micro-world: so many, again and again; 0: each clip is new
    cache_dir: str = ""  # a folder: one window of each clip is cached there, for all epochs
    adapt: bool = False  # clip, model, augmentation and training are chosen by the data
    pairing: str = PAIRINGS[0]  # of audio and video: synchronised, or ratio as the original
    views: int = 4  # windows of a clip that is scored, their logits averaged
    audio_track: int | None = None  # of labeled files, from 1 on; None: as players choose
    workers: int = 1  # processes that read ahead; 0: none
    skip_errors: bool = True  # leave out clips that cannot be read, and say so

    def __post_init__(self):
        require(bool(self.path), "data.path must name something to learn from.")
        require(
            0 <= self.holdout < 1, f"data.holdout={self.holdout} must be at least 0 and below 1."
        )
        require(self.pairing in PAIRINGS, f"data.pairing={self.pairing!r} is none of {PAIRINGS}.")
        require_at_least(self, 0, ["clips"], "data.")
        require(
            not self.cache_dir or self.path != "world" or self.clips > 0,
            f"data.cache_dir={self.cache_dir}: set data.clips, how many clips are cached.",
        )
        require_bounds(self, {"views": (1, 1000), "workers": (0, 1024)}, "data.")
        require(
            self.audio_track is None or (self.audio_track > 0 and self.path != "world"),
            f"data.audio_track={self.audio_track}: it counts from 1, in files with several tracks.",
        )


@dataclass(frozen=True)
class StartConfig:
    """The initial weights of a run; the default trains from scratch."""

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
    """Training settings; the defaults are AdamW and a moving average of the weights."""

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
    keep_checkpoints: int = 2  # latest saved states that are kept, besides the best one
    best: str = ""  # score that decides which is best; "": the data's first one
    patience: int = 0  # validations without a better score end a run; its best state counts; 0: off
    skip_nonfinite: int = 0  # how many steps with a non-finite loss (NaN or inf) may be skipped
    samples: int = 8  # validation clips that are drawn with the model's predictions; 0: none

    def __post_init__(self):
        positive = (
            "steps batch accumulate shards mixup_groups log_every save_every keep_checkpoints"
        )
        require_at_least(self, 1, positive.split(), "train.")
        counts = "epochs warmup evaluate_every evaluate_clips test_clips patience skip_nonfinite"
        rates = "weight_decay kernel_decay l2 clip_norm"
        require_at_least(self, 0, [*counts.split(), "samples", *rates.split()], "train.")
        require(
            0 < self.backbone_rate <= 1,
            f"train.backbone_rate={self.backbone_rate} must be above 0 and at most 1; to freeze "
            "the backbone set train.trained='head'.",
        )
        for name in ("label_smoothing", "momentum", "beta2", "ema"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name}={value} must be at least 0 and below 1.")
        for name, choices in {
            "loss": LOSSES,
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "trained": TRAINED,
        }.items():
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
        """Number of steps of learning-rate warm-up."""
        return self.warmup if self.warmup >= 1 else self.warmup * self.steps


@dataclass(frozen=True)
class Experiment:
    """A whole run: model, clip, data, augmentation, initial weights, training."""

    name: str
    model: MBTConfig
    clip: ClipConfig
    data: DataConfig = DataConfig()
    augment: AugmentConfig = NONE
    start: StartConfig = StartConfig()
    train: TrainConfig = TrainConfig()


def to_dict(config) -> dict:
    """Convert a config to plain dictionaries, lists and numbers, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(cls, values, at: str = ""):
    """Rebuild a config from what `to_dict` wrote, perhaps edited by hand.

    Raises ValueError that names the field (its path begins with `at`) where one is unknown or
    missing, or has the wrong type or value.
    """
    title = at or cls.__name__
    require(
        isinstance(values, Mapping), f"{title} must be fields in {{}}, not {reprlib.repr(values)}."
    )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    require(not unknown, f"{title} has no field {', '.join(unknown)}.")
    needed = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in needed if name not in values]
    require(not missing, f"{title} lacks {', '.join(missing)}.")
    hints, arguments = typing.get_type_hints(cls), {}
    for name, value in values.items():
        hint, path = hints[name], f"{at}.{name}" if at else name
        if dataclasses.is_dataclass(hint):
            arguments[name] = from_dict(hint, value, path)
            continue
        try:
            arguments[name] = _convert(value, hint)
        except TypeError:
            expected = f"{path} must be {_type_name(hint)}, not {reprlib.repr(value)}."
            raise ValueError(expected) from None
    return cls(**arguments)


def read_json(path: Path) -> Experiment:
    """Read the experiment.json of a run, perhaps edited by hand.

    Raises ValueError that names the file, the field and what is expected of it.
    """
    try:
        return from_dict(Experiment, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def _convert(value, hint):
    """Return a JSON value as a field of type `hint` holds it; TypeError where it does not fit."""
    if isinstance(hint, types.UnionType):
        for kind in typing.get_args(hint):
            try:
                return _convert(value, kind)
            except TypeError:
                continue
    elif typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if isinstance(value, list | tuple):
            kinds = kinds[:1] * len(value) if kinds[-1] is ... else kinds
            if len(value) == len(kinds):
                return tuple(map(_convert, value, kinds))
    elif isinstance(value, bool | np.bool_):
        if hint is bool:
            return value
    elif hint is int:
        if isinstance(value, numbers.Integral):
            return int(value)
    elif hint is float:
        if isinstance(value, numbers.Real) and abs(value) <= sys.float_info.max:
            return float(value)
    elif isinstance(value, hint):
        return value
    raise TypeError


def _type_name(hint) -> str:
    """The type of a field in words."""
    if isinstance(hint, types.UnionType):
        return " or ".join(map(_type_name, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        count = "" if kinds[-1] is ... else f"{len(kinds)} "
        return f"a list of {count}{_type_name(kinds[0]).removeprefix('a ')}s"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(hint, "null")
