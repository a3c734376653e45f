"""Prepared clips as `tf.SequenceExample`s in TFRecord shards, as Scenic's loader reads them.

    S seconds of a clip   N samples of its audio

    part           key                        holds
    feature list   image/encoded              a JPEG per frame, 25 a second
    feature list   melspec/feature/floats     per second 100 x 128 numbers, time first
    feature list   WAVEFORM/feature/floats    one feature with all samples at 16 kHz
    context        clip/label/index           class numbers
    context        clip/label/text            class names
    context        clip/start/timestamp       microseconds on the file's clock; clip/end/timestamp
    context        video/filename             the clip's id

A folder of shards has a dataset.json with the front end, its mean and standard deviation over the
training split, the classes and the number of failures. The records are MediaSequence as
google-deepmind/dmvr uses it.
"""

import io
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from mbt_lite.data import sequence_example, tfrecord
from mbt_lite.paths import replacing

FPS = 25  # frames a second
ROWS, MELS = 100, 128  # of the spectrogram of one second
DESCRIPTION = "dataset.json"
SHARD = re.compile(r"(?P<base>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ext>\.\w+)?")
JPEG, MEL, WAVE = "image/encoded", "melspec/feature/floats", "WAVEFORM/feature/floats"
INDEX, TEXT, ID = "clip/label/index", "clip/label/text", "video/filename"
START, END = "clip/start/timestamp", "clip/end/timestamp"


@dataclass(frozen=True, eq=False)
class Example:
    """One prepared clip."""

    id: str
    jpegs: list[bytes]  # 25 S of them
    melspec: np.ndarray  # float32 [S, 100, 128], not standardized
    wave: np.ndarray  # float32 [N], 16 kHz
    labels: tuple[int, ...]  # class numbers
    names: tuple[str, ...]  # class names, if they are known
    start: float  # s on the file's clock
    end: float  # s
    source: str = ""  # its shard and record, for errors

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode these frames, uint8 [n, H, W, 3]; ValueError if one is damaged."""
        if not len(indices):
            return np.zeros((0, 0, 0, 3), np.uint8)
        first = self.frame(int(indices[0]))
        frames = np.empty((len(indices), *first.shape), np.uint8)
        frames[0] = first
        for out, index in zip(frames[1:], indices[1:], strict=True):
            if self.frame(int(index), out).shape != first.shape:
                raise ValueError(f"{self.source or self.id}: its frames have several sizes.")
        return frames

    def frame(self, index: int, into: np.ndarray | None = None) -> np.ndarray:
        """Decode a frame uint8 [H, W, 3], into the memory of `into` if it fits; as `frames`."""
        try:
            return _decode_jpeg(self.jpegs[index], into)
        except (OSError, SyntaxError, ValueError, IndexError) as error:
            place = f"{self.source or self.id}, frame {index} of {len(self.jpegs)}"
            raise ValueError(f"{place}: it is no JPEG that can be decoded.") from error


def _decode_jpeg(jpeg: bytes, into: np.ndarray | None) -> np.ndarray:
    """An image uint8 [H, W, 3]; Pillow decodes the rare kinds, in twice the time."""
    try:
        return simplejpeg.decode_jpeg(jpeg, "RGB", buffer=into)
    except ValueError:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as file:
            image = np.asarray(file.convert("RGB"))
    if into is not None and into.shape == image.shape:
        into[:] = image
    return image


# ---- bytes ----


def to_bytes(example: Example) -> bytes:
    """The SequenceExample of a clip; equal clips have equal bytes."""
    shape, dtype = example.melspec.shape, example.melspec.dtype
    if shape[1:] != (ROWS, MELS) or dtype != np.float32:
        raise ValueError(
            f"{example.id}: a spectrogram {dtype} {shape} is not float32 [S, {ROWS}, {MELS}]."
        )
    lists = {
        JPEG: [[jpeg] for jpeg in example.jpegs],
        MEL: [second.ravel() for second in example.melspec],
    }
    if len(example.wave):
        lists[WAVE] = [example.wave.astype(np.float32)]
    context = {
        ID: [example.id.encode()],
        INDEX: np.array(example.labels, np.int64),
        TEXT: [name.encode() for name in example.names],
        START: np.array([round(1e6 * example.start)]),
        END: np.array([round(1e6 * example.end)]),
    }
    return sequence_example.encode(context, lists)


def from_bytes(data: bytes, source: str = "") -> Example:
    """The clip of a SequenceExample; ValueError, naming `source`, if it is damaged.

    JPEGs are not decoded here. Audio, names and times may be missing, as other writers omit them.
    """
    try:
        context, lists = sequence_example.decode(data)
        return Example(
            id="".join(_texts(context, ID)[:1]),
            jpegs=[jpeg for step in lists.get(JPEG, []) for jpeg in _typed(bytes, step, JPEG)],
            melspec=_melspec(lists.get(MEL, [])),
            wave=_floats(lists.get(WAVE, []), WAVE),
            labels=tuple(map(int, _typed(np.int64, context.get(INDEX, []), INDEX))),
            names=_texts(context, TEXT),
            start=_seconds(context, START),
            end=_seconds(context, END),
            source=source,
        )
    except ValueError as error:
        raise ValueError(f"{source or 'a record'}: {error}.") from error


def _typed(kind: type, values: sequence_example.Value, key: str) -> sequence_example.Value:
    """The values of a feature; ValueError if there are some of another kind."""
    if len(values) and (bytes if isinstance(values, list) else values.dtype) != kind:
        raise ValueError(f"{key} does not hold what it should")
    return values


def _texts(context: dict, key: str) -> tuple[str, ...]:
    return tuple(text.decode() for text in _typed(bytes, context.get(key, []), key))


def _seconds(context: dict, key: str) -> float:
    """The time of a feature in microseconds."""
    values = _typed(np.int64, context.get(key, []), key)
    return float(values[0]) / 1e6 if len(values) else 0.0


def _melspec(seconds: list) -> np.ndarray:
    """float32 [S, 100, 128] of one feature a second."""
    for number, values in enumerate(seconds):
        if len(values) != ROWS * MELS:
            size = f"{len(values)} numbers instead of {ROWS} x {MELS}"
            raise ValueError(f"second {number} of its spectrogram has {size}")
    return _floats(seconds, MEL).reshape(-1, ROWS, MELS)


def _floats(steps: list, key: str) -> np.ndarray:
    """float32 [n], all steps in a row, with memory of its own."""
    return np.concatenate([np.zeros(0, "f4"), *(_typed(np.float32, step, key) for step in steps)])


# ---- shards ----


def describe(folder: str | Path) -> dict:
    """Read dataset.json of a folder of shards; ValueError if it is missing or damaged."""
    path = Path(folder) / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        labels, splits = list(description["labels"]), dict(description["splits"])
        return {**description, "labels": labels, "splits": splits}
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no {DESCRIPTION}; `mbt-lite prepare` writes it when all shards are done."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; run `mbt-lite prepare` again.") from None


def shard_name(base: str, number: int, count: int) -> str:
    """A shard's file name, as in train-00000-of-00128."""
    return f"{base}-{number:05d}-of-{count:05d}"


def write_shard(path: Path, examples: Iterable[Example]) -> None:
    """Write a shard, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(tfrecord.framed(to_bytes(example)) for example in examples)


class Shards:
    """The clips of TFRecord shards by number, in the order of the files.

    The source is a folder (or one of its splits), a pattern, name@128, name@*, or one file; the
    header of every record is read once. ValueError if there is no shard at all.

    Damage counts as a clip: a shard that is missing, empty or cut off adds one clip in the place of
    its lost records (`faults` describes it), and reading that clip raises ValueError, as does
    any damaged record and a label beyond the classes. So a loader may raise or skip, and either way
    shard and record are named. Files are opened for each record anew: nothing stays open, and the
    object can be sent to other processes.
    """

    def __init__(self, source: str | Path, split: str | None = None, classes: int | None = None):
        self.paths, record_counts, described = _list_shards(Path(source), split)
        self.classes = described if classes is None else classes
        self.faults: dict[int, str] = {}  # clip → sentence
        places = []
        with ThreadPoolExecutor(8) as pool:
            indices = list(pool.map(_index, self.paths))
        for file, (path, index) in enumerate(zip(self.paths, indices, strict=True)):
            records = enumerate(zip(index.offsets, index.lengths, strict=True))
            places += [(file, record, offset, length) for record, (offset, length) in records]
            count = len(index.offsets)
            if fault := index.fault or _wrong_count(count, record_counts.get(path.name)):
                self.faults[len(places)] = f"{path}, record {count}: {fault}."
                places.append((file, count, 0, -1))
        # file, record in it, offset, length (-1: a fault)
        self.places = np.array(places, np.int64).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.places)

    def file(self, index: int) -> Path:
        """The shard of a clip."""
        return self.paths[self.places[index][0]]

    def read(self, index: int) -> bytes:
        """The bytes of a clip's SequenceExample."""
        _, _, offset, length = (int(n) for n in self.places[index])
        if length < 0:
            raise ValueError(self.faults[index % len(self)])
        try:
            return tfrecord.read(self.file(index), offset, length)
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.location(index)}: {_fault(error)}.") from error

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        example = from_bytes(self.read(index), self.location(index))
        for label in example.labels:
            if label < 0 or (self.classes and label >= self.classes):
                raise ValueError(
                    f"{example.source}: label {label} is none of the {self.classes} classes."
                )
        return example

    def location(self, index: int) -> str:
        """The shard and the record of a clip, for errors."""
        return f"{self.file(index)}, record {self.places[index][1]}"


def _list_shards(source: Path, split: str | None) -> tuple[list[Path], dict[str, int], int | None]:
    """Shards of a source, {file: records it should have} and the number of classes, if known."""
    if source.is_dir() and ((source / DESCRIPTION).exists() or split):
        description = describe(source)
        splits = description["splits"]
        if split is not None and split not in splits:
            raise ValueError(f"{source} has no split {split}; there are {', '.join(splits)}.")
        parts = [splits[split]] if split else splits.values()
        counts = {shard["file"]: shard["records"] for part in parts for shard in part["shards"]}
        return [source / name for name in counts], counts, len(description["labels"])
    paths = _shards_by_name(source)
    if not paths:
        raise ValueError(f"{source}: there are no shards such as train-00000-of-00128.")
    return paths, {}, None


def _shards_by_name(source: Path) -> list[Path]:
    """The shards that a name stands for, including the missing ones of a set."""
    if source.is_file():
        return [source]
    match = re.fullmatch(r"(?P<base>.+)@(?P<count>\d+|\*)(?P<ext>\.\w+)?", source.name)
    if match and match["count"] != "*":
        sets = [(match["base"], int(match["count"]), match["ext"] or "")]
        return _shard_paths(source.parent, sets)
    pattern = "*" if source.is_dir() else re.sub(r"@\*(\.\w+)?$", r"-*-of-*\1", source.name)
    folder = source if source.is_dir() else source.parent
    matches = [SHARD.fullmatch(path.name) for path in folder.glob(pattern)]
    sets = {(m["base"], int(m["count"]), m["ext"] or "") for m in matches if m}
    return _shard_paths(folder, sorted(sets))


def _shard_paths(folder: Path, sets: Sequence[tuple[str, int, str]]) -> list[Path]:
    return [folder / (shard_name(base, n, c) + ext) for base, c, ext in sets for n in range(c)]


def _index(path: Path) -> tfrecord.Index:
    try:
        return tfrecord.index(path)
    except OSError as error:
        return tfrecord.Index([], [], _fault(error))


def _fault(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"the shard cannot be read: {(error.strerror or str(error)).lower()}"
    return str(error)


def _wrong_count(count: int, expected: int | None) -> str | None:
    """What is wrong with a readable file of so many records."""
    if expected is None:
        return None if count else "the shard is empty"
    return None if count == expected else f"{DESCRIPTION} promises {expected} records"
