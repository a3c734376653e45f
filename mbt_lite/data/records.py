"""Prepared clips as `tf.SequenceExample`s in TFRecord shards, as Scenic's loader reads them.

    S seconds of a clip   N samples of its audio

    place          key                        holds
    feature list   image/encoded              a JPEG per frame, 25 a second
    feature list   melspec/feature/floats     per second 100 x 128 numbers, time first
    feature list   WAVEFORM/feature/floats    one feature with all samples at 16 kHz
    context        clip/label/index           class numbers
    context        clip/label/text            class names
    context        clip/start/timestamp       microseconds on the file's clock; clip/end/timestamp
    context        video/filename             the clip's id

A folder of shards has a dataset.json with the front end, its mean and deviation over the training
split, the classes and what was left out. This is MediaSequence as google-deepmind/dmvr uses it.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from mbt_lite.data import sequence_example, tfrecord

FPS = 25  # frames a second
ROWS, MELS = 100, 128  # of the spectrogram of one second
DESCRIPTION = "dataset.json"
SHARD = re.compile(r"(?P<base>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ext>\.\w+)?")
JPEG, MEL, WAVE = "image/encoded", "melspec/feature/floats", "WAVEFORM/feature/floats"
INDEX, TEXT, ID = "clip/label/index", "clip/label/text", "video/filename"
START, END = "clip/start/timestamp", "clip/end/timestamp"


class RecordError(ValueError):
    """A record that cannot be used: a sentence with its shard, its number and the cause."""


@dataclass(frozen=True, eq=False)
class Example:
    """One prepared clip."""

    id: str
    jpegs: list[bytes]  # 25 S of them
    melspec: np.ndarray  # float32 [S, 100, 128], not standardised
    wave: np.ndarray  # float32 [N], 16 kHz
    labels: tuple[int, ...]  # class numbers
    names: tuple[str, ...]  # class names, where they are known
    start: float  # s on the file's clock
    end: float  # s
    source: str = ""  # its shard and record, for errors

    def frames(self, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Frames uint8 [n, H, W, 3], all or those asked for; `RecordError` where one is damaged."""
        wanted = range(len(self.jpegs)) if indices is None else [int(i) for i in indices]
        if not len(wanted):
            return np.zeros((0, 0, 0, 3), np.uint8)
        first = self.frame(wanted[0])
        shown = np.empty((len(wanted), *first.shape), np.uint8)
        shown[0] = first
        for place, index in enumerate(wanted[1:], 1):
            if self.frame(index, shown[place]).shape != first.shape:
                raise RecordError(f"{self.source or self.id}: its frames have several sizes.")
        return shown

    def frame(self, index: int, into: np.ndarray | None = None) -> np.ndarray:
        """A frame uint8 [H, W, 3], in the memory of `into` where it fits; errors as `frames`."""
        try:
            return _decoded(self.jpegs[index], into)
        except (OSError, SyntaxError, ValueError, IndexError) as error:
            place = f"{self.source or self.id}, frame {index} of {len(self.jpegs)}"
            raise RecordError(f"{place}: it is no JPEG that can be decoded.") from error


def _decoded(jpeg: bytes, into: np.ndarray | None) -> np.ndarray:
    """A video uint8 [H, W, 3]; Pillow sees to the rare kinds, in twice the time."""
    try:
        return simplejpeg.decode_jpeg(jpeg, "RGB", buffer=into)
    except ValueError:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            image = np.asarray(image.convert("RGB"))
    if into is not None and into.shape == image.shape:
        into[:] = image
    return image


# ---- bytes ----


def to_bytes(example: Example) -> bytes:
    """The SequenceExample of a clip; equal clips give equal bytes."""
    if example.melspec.shape[1:] != (ROWS, MELS) or example.melspec.dtype != np.float32:
        raise ValueError(f"{example.id}: a spectrogram {example.melspec.shape} is no float32 [S, "
                         f"{ROWS}, {MELS}].")  # fmt: skip
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
    """The clip of a SequenceExample; `RecordError`, naming `source`, where it is damaged.

    JPEGs are not decoded here. Audio, names and times may be absent, as other writers leave them
    out.
    """
    try:
        context, lists = sequence_example.decode(data)
        return Example(
            id=_texts(context, ID)[0] if context.get(ID) else "",
            jpegs=[jpeg for step in lists.get(JPEG, []) for jpeg in _of(list, step, JPEG)],
            melspec=_melspec(lists.get(MEL, [])),
            wave=_numbers(lists.get(WAVE, [])),
            labels=tuple(int(n) for n in _of(np.ndarray, context.get(INDEX, []), INDEX)),
            names=_texts(context, TEXT),
            start=_microseconds(context, START),
            end=_microseconds(context, END),
            source=source,
        )
    except ValueError as error:
        raise RecordError(f"{source or 'a record'}: {error}.") from error


def _of(kind: type, value, key: str):
    """The value of a feature, which is of the right kind or empty."""
    if not isinstance(value, kind) and len(value):
        raise ValueError(f"{key} does not hold what it should")
    return value


def _texts(context: dict, key: str) -> tuple[str, ...]:
    return tuple(text.decode() for text in _of(list, context.get(key, []), key))


def _microseconds(context: dict, key: str) -> float:
    values = _of(np.ndarray, context.get(key, []), key)
    return float(values[0]) / 1e6 if len(values) else 0.0


def _melspec(seconds: list) -> np.ndarray:
    """float32 [S, 100, 128] of one feature a second."""
    for number, values in enumerate(seconds):
        if len(_of(np.ndarray, values, MEL)) != ROWS * MELS:
            raise ValueError(
                f"second {number} of its spectrogram has {len(values)} numbers instead of "
                f"{ROWS} x {MELS}"
            )
    return _numbers(seconds).reshape(-1, ROWS, MELS)


def _numbers(steps: list) -> np.ndarray:
    """float32 [n], all steps in a row, with memory of its own."""
    found = [_of(np.ndarray, step, "a list of numbers") for step in steps]
    return np.concatenate([np.zeros(0, np.float32), *found]).astype(np.float32, copy=False)


# ---- shards ----


def describe(folder: str | Path) -> dict:
    """What dataset.json in a folder of shards says; ValueError where there is none."""
    path = Path(folder) / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found, "labels": list(found["labels"]), "splits": dict(found["splits"])}
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no {DESCRIPTION}; `mbt-lite prepare` writes it when all shards are done."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; run `mbt-lite prepare` again.") from None


def shard_name(base: str, number: int, count: int) -> str:
    """A shard's file name, as in train-00000-of-00128."""
    return f"{base}-{number:05d}-of-{count:05d}"


def write_shard(path: Path, examples: Sequence[Example] | Iterator[Example]) -> int:
    """Write a shard, whole or not at all; its size in bytes."""
    return tfrecord.write(path, (to_bytes(example) for example in examples))


class Shards:
    """The clips of TFRecord shards by number, in the order of the files.

    The source is a folder (or one of its splits), a pattern, name@128, name@*, or one file; the
    header of every record is read once. ValueError where there is no shard at all.

    What cannot be found stands in for its records: a shard that is missing, empty or cut off counts
    as one clip (`faults` says which), and reading that clip raises `RecordError`, as does any
    damaged record and a label beyond the classes. So a loader may raise or skip, and either way
    shard and record are named. Files are opened for each record anew: nothing stays open, and the
    object may go to other processes.
    """

    def __init__(self, source: str | Path, split: str | None = None, classes: int | None = None):
        self.paths, promised, told = _listed(Path(source), split)
        self.classes = told if classes is None else classes
        self.faults: dict[int, str] = {}  # clip → sentence
        places = []
        with ThreadPoolExecutor(8) as pool:
            indices = list(pool.map(_index, self.paths))
        for file, (path, found) in enumerate(zip(self.paths, indices, strict=True)):
            rows = enumerate(zip(found.offsets, found.lengths, strict=True))
            places += [(file, record, offset, length) for record, (offset, length) in rows]
            count = len(found.offsets)
            fault = found.fault or _short(count, promised.get(path.name))
            if fault:
                self.faults[len(places)] = f"{path}, record {count}: {fault}."
                places.append((file, count, 0, -1))
        # file, record in it, offset, length (-1: a fault)
        self.places = np.array(places, np.int64).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.places)

    def file(self, index: int) -> Path:
        """The shard of a clip."""
        return self.paths[self.places[index][0]]

    def where(self, index: int) -> str:
        """The shard and the record of a clip, for errors."""
        return f"{self.file(index)}, record {self.places[index][1]}"

    def read(self, index: int) -> bytes:
        """The bytes of a clip's SequenceExample."""
        file, _, offset, length = (int(n) for n in self.places[index])
        if length < 0:
            raise RecordError(self.faults[index % len(self)])
        try:
            return tfrecord.read(self.paths[file], offset, length)
        except OSError as error:
            cause = f"the shard cannot be read: {(error.strerror or str(error)).lower()}"
            raise RecordError(f"{self.where(index)}: {cause}.") from error
        except ValueError as error:
            raise RecordError(f"{self.where(index)}: {error}.") from None

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        example = from_bytes(self.read(index), self.where(index))
        beyond = [n for n in example.labels if not 0 <= n < (self.classes or n + 1)]
        if beyond:
            raise RecordError(
                f"{example.source}: label {beyond[0]} is none of the {self.classes} classes."
            )
        return example


def _listed(source: Path, split: str | None) -> tuple[list[Path], dict[str, int], int | None]:
    """The shards of a source, how many records each should have, and how many classes there are."""
    if source.is_dir() and ((source / DESCRIPTION).exists() or split):
        told = describe(source)
        if split is not None and split not in told["splits"]:
            raise ValueError(
                f"{source} has no split {split}; there are {', '.join(told['splits'])}."
            )
        splits = [told["splits"][split]] if split else told["splits"].values()
        promised = {s["file"]: s["records"] for part in splits for s in part["shards"]}
        return [source / name for name in promised], promised, len(told["labels"])
    paths = _found(source)
    if not paths:
        raise ValueError(f"{source}: there are no shards such as train-00000-of-00128.")
    return paths, {}, None


def _found(source: Path) -> list[Path]:
    """Shards by name, with those that a set of shards lacks."""
    if source.is_file():
        return [source]
    name = re.fullmatch(r"(?P<base>.+)@(?P<count>\d+|\*)(?P<ext>\.\w+)?", source.name)
    if name and name["count"] != "*":
        count = int(name["count"])
        names = [shard_name(name["base"], n, count) + (name["ext"] or "") for n in range(count)]
        return [source.with_name(n) for n in names]
    pattern = "*" if source.is_dir() else re.sub(r"@\*(\.\w+)?$", r"-*-of-*\1", source.name)
    folder = source if source.is_dir() else source.parent
    matches = [m for m in map(SHARD.fullmatch, (p.name for p in folder.glob(pattern))) if m]
    sets = sorted({(m["base"], int(m["count"]), m["ext"] or "") for m in matches})
    return [folder / (shard_name(b, n, count) + e) for b, count, e in sets for n in range(count)]


def _index(path: Path) -> tfrecord.Index:
    try:
        return tfrecord.index(path)
    except OSError as error:
        cause = f"the shard cannot be read: {(error.strerror or str(error)).lower()}"
        return tfrecord.Index([], [], cause)


def _short(count: int, promised: int | None) -> str | None:
    """What is wrong with a whole file of so many records."""
    if promised is None:
        return None if count else "the shard is empty"
    return None if count == promised else f"{DESCRIPTION} promises {promised} records"
