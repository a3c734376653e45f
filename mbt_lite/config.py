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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

STREAMS = ("spec", "rgb")
MODALITIES = {"spec": "audio", "rgb": "video"}  # the name of each stream in a sentence
UNFAMILIAR = "unlike anything this model was trained on: its answer says little, however sure"
PAIRINGS = ("synchronised", "ratio")  # of video and audio windows, see data/sampling.py
# A run that starts from a trained model takes these from the recipe; with `start.rewire` also
# WIRING.
KEPT = ("dropout", "attention_dropout", "drop_path", "dtype")
WIRING = ("streams", "fusion", "fusion_layer", "bottlenecks", "bottlenecks_at_test")

# Upper limits are far above any real model: a number in a damaged or hostile file must not cost
# gigabytes or hours.
MAX_SIDE, MAX_VOLUME = 1 << 20, 1 << 30  # of one axis of a shape or patch; of all axes together
_MAX_SECONDS = 3600  # of a clip


def _require(condition: bool, sentence: str) -> None:
    """Raise ValueError with this sentence unless the condition holds."""
    if not condition:
        raise ValueError(sentence)


def _check(config, prefix: str, limits: Mapping[str, str], **choices: Sequence) -> None:
    """Raise ValueError naming the first field outside its limits or choices; None is allowed.

    `limits` maps intervals, such as "[0, 1)", to names of fields; `choices` are the values of a
    field.
    """
    for interval, names in limits.items():
        low, high = map(float, interval[1:-1].split(", "))
        for name in names.split():
            value = getattr(config, name)
            fits = value is None or (isinstance(value, numbers.Real) and low <= value <= high)
            fits = fits and not (value == low and interval[0] == "(")
            fits = fits and not (value == high and interval[-1] == ")")
            what = f"{prefix}{name}={reprlib.repr(value)}"
            _require(fits, f"{what} must {_in_words(interval, low, high)}.")
    for name, values in choices.items():
        value = getattr(config, name)
        allowed = ", ".join(map(str, values))
        _require(value in values, f"{prefix}{name}={value!r} is none of {allowed}.")


def _in_words(interval: str, low: float, high: float) -> str:
    low, end = f"{low:,g}", f"{high:,.12g}"
    if interval[0] == "[" and interval[-1] == "]":
        return f"lie in {low}..{end}"
    if high == math.inf:
        return f"be {low} or more" if interval[0] == "[" else f"be above {low}"
    least = "at least" if interval[0] == "[" else "above"
    return f"be {least} {low} and {'at most' if interval[-1] == ']' else 'below'} {end}"


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
        limits = {
            "[1000, 384000]": "rate",
            "[1e-4, 10]": "window hop",
            "[1, 65536]": "fft",
            "[1, 1024]": "mels",
            "(0, inf)": "offset std amplitude",
            "[0, 1)": "pre_emphasis",
        }
        choices = {"compression": ("log", "none"), "window_fn": ("hamming", "hann")}
        _check(self, prefix, limits, power=(1, 2), **choices)
        _require(
            self.window_samples <= self.fft,
            f"{prefix}a window of {self.window_samples} samples does not fit an FFT of {self.fft}; "
            f"use fft={1 << (self.window_samples - 1).bit_length()} or more.",
        )
        _require(
            0 <= self.low < self.high <= self.rate / 2,
            f"{prefix}mel edges {self.low}-{self.high} Hz must rise and stay under half of the "
            f"{self.rate} Hz sampling rate.",
        )

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
        limits = {"[1, 65536]": "frames stride", "[1, 8192]": "size resize"}
        limits |= {"[1, 1048576]": "spec_frames", "[0.001, 1000]": "fps", "[1, inf)": "audio_track"}
        _check(self, "clip.", limits)
        seconds = max(self.video_seconds, self.audio_seconds)
        _require(
            seconds <= _MAX_SECONDS,
            f"a clip of {seconds:g} s is too long; at most {_MAX_SECONDS:,} s are allowed.",
        )
        _require(
            self.frames * self.size**2 <= MAX_VOLUME,
            f"clip.frames={self.frames} of clip.size={self.size} pixels a side are too many.",
        )
        _require(
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

    @property
    def lengths(self) -> dict[str, float]:
        """Seconds of each stream."""
        return {"rgb": self.video_seconds, "spec": self.audio_seconds}


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
        _require(
            len(self.streams) > 0
            and len(set(self.streams)) == len(self.streams)
            and set(self.streams) <= set(STREAMS),
            f"streams={self.streams!r}: name each of 'spec' and 'rgb' at most once.",
        )
        limits = {
            "[1, 1000000]": "classes",
            "[1, 65536]": "width heads rgb_sampled",
            "[1, 1000]": "depth",
            "[1, 1048576]": "mlp_dim representation",
            "[0, 65536]": "bottlenecks",
            "[0, 1]": "dropout attention_dropout drop_path",
        }
        choices = {"fusion": ("bottleneck", "joint", "late")}
        choices |= {"pool": ("token", "mean", "max", "sum")}
        _check(self, "model.", limits, dtype=("float32", "bfloat16", "float16"), **choices)
        _require(
            self.width % self.heads == 0,
            f"width {self.width} does not divide into {self.heads} heads.",
        )
        _require(
            0 <= self.fusion_layer <= self.depth,
            f"fusion_layer={self.fusion_layer} must lie in 0..depth={self.depth}.",
        )
        _require(
            self.fusion != "bottleneck" or self.bottlenecks > 0,
            "bottleneck fusion needs at least one bottleneck; fusion='late' has none.",
        )
        for stream in self.streams:
            for name, sides in (("shape", self.shape(stream)), ("patch", self.patch(stream))):
                _require(
                    all(1 <= side <= MAX_SIDE for side in sides) and math.prod(sides) <= MAX_VOLUME,
                    f"{stream}_{name}={reprlib.repr(sides)}: each side must be 1 or more, and the "
                    f"product at most {MAX_VOLUME:,}.",
                )
            _require(
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

EVERYDAY = MBTConfig(
    classes=31,
    width=128,
    depth=6,
    heads=4,
    mlp_dim=512,
    fusion_layer=3,
    bottlenecks=4,
    rgb_shape=(4, 96, 96),
    rgb_patch=(2, 16, 16),
    spec_shape=(300, 64),
    spec_patch=(10, 32),
)
EVERYDAY_CLIP = ClipConfig(
    frames=4,
    fps=4.0,
    stride=3,
    size=96,
    resize=96,
    spec_frames=300,
    front_end=FrontEnd("everyday", fft=512, mels=64, mean=-2.05, std=2.0),
)


@dataclass(frozen=True)
class AugmentConfig:
    """Random augmentation of training clips; by default there is none.

    The strengths of augmentations that are switched off are those of Scenic's MBT.
    """

    scale: tuple[float, float] = (1.0, 1.0)  # range of the factors of height and of width
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
        limits = {"[0, 1]": "flip color gray time_mask_ratio"}
        counts = "time_masks time_mask mel_masks mel_mask time_shift pitch brightness mixup"
        limits |= {"[0, inf)": counts, "[0, 1)": "speed"}
        _check(self, "augment.", limits)
        for name in ("scale", "saturation", "contrast"):
            low, high = factors = getattr(self, name)
            _require(0 <= low <= high, f"augment.{name}={factors} must rise, from 0 on.")
        _require(self.scale[0] > 0, f"augment.scale={self.scale} must be above 0.")
        _require(
            0 <= self.hue <= 0.5,
            f"augment.hue={self.hue} must lie in 0..0.5, where 0.5 is half a turn.",
        )
        _require(
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
    group: str = ""  # column of a table whose rows are held out together: speaker, film
    videos: str | None = None  # where the files of a table are; None: beside it
    labels: str | None = None  # file with the class names in order; None: the source's own
    clips: int = 0  # of the micro-world: so many, again and again; 0: each clip is new
    cache_dir: str = ""  # a folder: clips that are the same in every epoch are cached there
    adapt: bool = False  # clip, model, augmentation and training are chosen by the data
    pairing: str = PAIRINGS[0]  # of audio and video: synchronised, or ratio as the original
    views: int = 4  # windows of a clip that is scored, their logits averaged
    audio_track: int | None = None  # of labeled files, from 1 on; None: as players choose
    workers: int = 1  # processes that read ahead; 0: none
    memory: int = 1024  # MiB: small data is kept in memory, see `data.loader.Loader`; 0: none is
    skip_errors: bool = True  # leave out clips that cannot be read, and say so

    def __post_init__(self):
        _require(bool(self.path), "data.path must name something to learn from.")
        limits = {"[0, 1)": "holdout", "[0, inf)": "clips memory", "[1, inf)": "audio_track"}
        limits |= {"[1, 1000]": "views", "[0, 1024]": "workers"}
        _check(self, "data.", limits, pairing=PAIRINGS)
        world = self.path == "world"
        _require(
            not (self.cache_dir and world) or self.clips > 0,
            f"data.cache_dir={self.cache_dir}: set data.clips, how many clips are cached.",
        )
        _require(
            not (self.audio_track and world),
            f"data.audio_track={self.audio_track}: the micro-world has no files with tracks.",
        )


@dataclass(frozen=True)
class StartConfig:
    """The initial weights of a run; the default trains from scratch."""

    model: str | None = None  # a trained MBT: a name of the zoo, a file, a folder, hf://user/repo
    probe: bool = False  # with data.adapt: the embedded model, if its features suit the clips
    rewire: bool = False  # with the recipe's streams and fusion instead of that model's
    prior: bool = False  # from scratch: the head begins with the frequency of each class
    vit: str | None = None  # an image ViT, see `vit.from_vit` for this and what follows
    inflate: str = "central"
    bottleneck: str = "positions"
    audio_cls: str = "copy"

    def __post_init__(self):
        _require(
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
    backbone_rate: float = 1.0  # share of the learning rate for all but the head (0: trained=head)
    schedule: str = "cosine"  # to zero at the last step; constant
    warmup: float = 500  # steps, or below 1 the share of all steps
    momentum: float = 0.9
    beta2: float = 0.98  # of AdamW
    weight_decay: float = 0.05  # AdamW: taken off matrices; momentum: added to every gradient
    clip_norm: float = 1.0  # of the whole gradient; 0: not clipped
    ema: float = 0.999  # decay of the averaged weights that evaluation uses; 0: none
    trained: str = "all"  # or head: the backbone is frozen
    remat: bool = False  # compute blocks again in the backward pass: less memory, a third more work
    shards: int = 1  # devices that share one copy of the parameters (FSDP); divides their number
    seed: int = 0
    log_every: int = 50  # steps
    save_every: int = 500  # steps
    evaluate_every: int = 500  # steps; 0: at the end only
    evaluate_clips: int = 200  # of the validation split, the first ones; 0: all
    test_clips: int = 0  # of the test split, the first ones, at the end; 0: all
    keep_checkpoints: int = 2  # latest saved states that are kept
    patience: int = 0  # validations without a better score end a run, with its best weights; 0: off
    skip_nonfinite: int = 0  # how many steps with a non-finite loss (NaN or inf) may be skipped

    def __post_init__(self):
        limits = {
            "[1, inf)": "steps batch accumulate shards log_every save_every keep_checkpoints",
            "[0, inf)": "epochs warmup weight_decay clip_norm evaluate_every "
            "evaluate_clips test_clips patience skip_nonfinite",
            "(0, 1]": "backbone_rate",
            "(0, inf)": "learning_rate",
            "[0, 1)": "label_smoothing momentum beta2 ema",
        }
        choices = {"loss": ("sigmoid", "softmax"), "optimizer": ("adamw", "momentum")}
        choices |= {"schedule": ("cosine", "constant"), "trained": ("all", "head")}
        _check(self, "train.", limits, **choices)
        _require(
            self.batch % self.accumulate == 0,
            f"train.batch={self.batch} does not divide into {self.accumulate} parts.",
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
    _require(
        isinstance(values, Mapping), f"{title} must be fields in {{}}, not {reprlib.repr(values)}."
    )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    _require(not unknown, f"{title} has no field {', '.join(unknown)}.")
    needed = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in needed if name not in values]
    _require(not missing, f"{title} lacks {', '.join(missing)}.")
    hints, arguments = typing.get_type_hints(cls), {}
    for name, value in values.items():
        hint, path = hints[name], f"{at}.{name}" if at else name
        if dataclasses.is_dataclass(hint):
            arguments[name] = from_dict(hint, value, path)
            continue
        try:
            arguments[name] = _convert(value, hint)
        except TypeError:
            kind = hint.__name__ if isinstance(hint, type) else str(hint)
            raise ValueError(f"{path} must be {kind}, not {reprlib.repr(value)}.") from None
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
