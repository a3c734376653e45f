"""Manifests of a prepared folder: one per finished shard, dataset.json and failures.csv.

A shard counts once its manifest is there, which also says of which rows and settings it was made.
dataset.json and failures.csv are made of the manifests alone.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import mbt_lite
from mbt_lite.data.extract import Settings
from mbt_lite.data.records import DESCRIPTION, SHARD, shard_name
from mbt_lite.data.tables import Row
from mbt_lite.media.isolate import DecodeTimeout

PROGRESS, FAILURES = "progress", "failures.csv"
TRAINING = ("train", "training")  # names of the split that mean and deviation are taken over
LIBRARIES = ("numpy", "pillow", "av")  # whose versions decide the bytes, too


@dataclass(frozen=True)
class Shard:
    """A file of records to be, and the rows that go into it."""

    base: str  # the name without the number
    number: int
    count: int  # of shards
    split: str
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        return shard_name(self.base, self.number, self.count)


@dataclass(frozen=True)
class Done:
    """A clip that was written."""

    size: int  # bytes of its record
    seconds: int
    sums: tuple[int, float, float]
    unusual: tuple[str, ...]  # of its file, in plain words


@dataclass(frozen=True)
class Manifest:
    """What is in a finished shard, and what it was made of."""

    file: str
    split: str
    bytes: int
    made_of: dict  # settings, and the number of shards
    rows: dict[str, str]  # id → digest of a row, "" where its file was missing
    records: int = 0
    seconds: int = 0
    sums: tuple[int, float, float] = (0, 0.0, 0.0)  # count, sum, sum of squares of log-mels
    labels: dict[str, int] = field(default_factory=dict)
    unusual: dict[str, int] = field(default_factory=dict)  # in plain words → clips
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # id, file, reason
    states: dict[str, str] = field(default_factory=dict)  # id → state of a file that failed


# ---- finished shards ----


def write_manifest(
    folder: Path,
    shard: Shard,
    settings: Settings,
    done: Sequence[tuple[Row, Done]],
    failures: list[tuple[str, str, str]],
) -> None:
    """Say that a shard is finished: what is in it, and why the other rows (`failures`) are not."""
    labels = Counter(name for row, _ in done for name in row.labels)
    unusual = Counter(_general(words) for _, answer in done for words in answer.unusual)
    sums = [answer.sums for _, answer in done]
    failed = {name for name, _, _ in failures}
    manifest = Manifest(
        file=shard.name,
        split=shard.split,
        bytes=sum(answer.size for _, answer in done),
        made_of=_made_of(settings, shard.count),
        rows=_digests(shard),
        records=len(done),
        seconds=sum(answer.seconds for _, answer in done),
        sums=tuple(map(sum, zip(*sums, strict=True))) if sums else (0, 0.0, 0.0),
        labels=dict(sorted(labels.items())),
        unusual=dict(sorted(unusual.items())),
        failures=failures,
        states={row.id: _state(row.path) for row in shard.rows if row.id in failed},
    )
    _write(folder / PROGRESS / f"{shard.name}.json", _json(asdict(manifest)))


def _general(words: str) -> str:
    """What was unusual, without the numbers of one file, so that clips can be counted."""
    return re.sub(r"\d+(\.\d+)?", "N", words)


def _made_of(settings: Settings, shards: int) -> dict:
    described = settings.described()
    return described | {"labels": _digest(described["labels"]), "number of shards": shards}


def _digests(shard: Shard) -> dict[str, str]:
    return {
        row.id: "" if row.path is None else _digest([row.start, row.end, row.labels])
        for row in shard.rows
    }


def _digest(values: list) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def read_manifest(folder: Path, name: str) -> Manifest | None:
    """The manifest of a shard; None where it is not finished."""
    try:
        found = json.loads((folder / PROGRESS / f"{name}.json").read_text(encoding="utf-8"))
        found["sums"] = tuple(found["sums"])
        found["failures"] = [tuple(failure) for failure in found["failures"]]
        return Manifest(**found)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def unfinished(shards: Sequence[Shard], settings: Settings, folder: Path) -> list[Shard]:
    """The shards still to be written: those without a manifest, or with files that came since, or
    that failed and have changed, or took too long.

    ValueError where the folder holds shards of other settings or of another table.
    """
    _refuse_others(shards, settings, folder)
    return [shard for shard in shards if not _finished(shard, folder)]


def _finished(shard: Shard, folder: Path) -> bool:
    manifest, path = read_manifest(folder, shard.name), folder / shard.name
    if manifest is None or not path.is_file() or path.stat().st_size != manifest.bytes:
        return False
    slow = any(DecodeTimeout.PHRASE in reason for _, _, reason in manifest.failures)
    failed = {row.id: _state(row.path) for row in shard.rows if row.id in manifest.states}
    return manifest.rows == _digests(shard) and manifest.states == failed and not slow


def _state(path: Path | None) -> str:
    """What changes when a file does; empty where there is none."""
    found = path.stat() if path is not None and path.exists() else None
    return f"{found.st_size} bytes, {found.st_mtime_ns}" if found else ""


def _refuse_others(shards: Sequence[Shard], settings: Settings, folder: Path) -> None:
    planned = {shard.name: shard for shard in shards}
    counts = {shard.base: shard.count for shard in shards}
    remedy = "choose another folder, or remove that one."
    for found in _manifests(folder):
        wanted = _made_of(settings, counts.get(_base(found), found.made_of["number of shards"]))
        changed = [name for name in wanted if found.made_of.get(name) != wanted[name]]
        if changed:
            what = " and ".join(changed).replace("_", " ")
            raise ValueError(f"{folder} holds {found.file}, made with another {what}; {remedy}")
        if found.file in planned and not _agrees(found.rows, _digests(planned[found.file])):
            raise ValueError(f"{folder} holds {found.file}, made of another table; {remedy}")


def _agrees(then: dict[str, str], now: dict[str, str]) -> bool:
    """Whether the rows are the same, but for files that came or went."""
    return list(then) == list(now) and all(
        then[name] == now[name] for name in then if then[name] and now[name]
    )


def _manifests(folder: Path) -> list[Manifest]:
    names = sorted(path.stem for path in (folder / PROGRESS).glob("*-of-*.json"))
    return [found for found in (read_manifest(folder, name) for name in names) if found]


def _base(manifest: Manifest) -> str:
    """The name of a set of shards: what stands before the number."""
    return SHARD.fullmatch(manifest.file)["base"]


# ---- the whole data set ----


def finish(folder: Path, settings: Settings) -> dict:
    """Write failures.csv and dataset.json of the sets of shards that are all there."""
    found = _complete(_manifests(folder))
    splits = {name: [m for m in found if m.split == name] for name in {m.split: 0 for m in found}}
    measured = [name for name in splits if name in TRAINING] or list(splits)
    mean, std = _moments([m for name in measured for m in splits[name]], settings)
    described = settings.described()
    dataset = {
        "format": "tf.SequenceExample in TFRecord shards",
        "front_end": asdict(replace(settings.front_end, mean=mean, std=std)),
        "measured_on": measured,
        "frames": described["frames"],
        "labels": described["labels"],
        "splits": {name: _split(part, settings) for name, part in splits.items()},
        "failures": sum(len(m.failures) for m in found),
        "versions": {"mbt-lite": mbt_lite.__version__} | {n: version(n) for n in LIBRARIES},
    }
    _write(folder / FAILURES, _failures(found))
    _write(folder / DESCRIPTION, _json(dataset))
    return dataset


def _complete(found: list[Manifest]) -> list[Manifest]:
    """The manifests of the sets of shards that are all there."""
    there = Counter(map(_base, found))
    return [m for m in found if there[_base(m)] == m.made_of["number of shards"]]


def _split(part: list[Manifest], settings: Settings) -> dict:
    labels, unusual = Counter(), Counter()
    for manifest in part:
        labels.update(manifest.labels)
        unusual.update(manifest.unusual)
    return {
        "examples": sum(m.records for m in part),
        "seconds": sum(m.seconds for m in part),
        "failures": sum(len(m.failures) for m in part),
        "counts": {label: labels[label] for label in settings.labels},
        "unusual": dict(sorted(unusual.items())),
        "shards": [{"file": m.file, "records": m.records, "bytes": m.bytes} for m in part],
    }


def _moments(part: list[Manifest], settings: Settings) -> tuple[float, float]:
    """Mean and deviation of all log-mels; the front end's own where there is not one clip."""
    count, total, squares = (math.fsum(m.sums[i] for m in part) for i in range(3))
    if not count:
        return settings.front_end.mean, settings.front_end.std
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean**2, 0.0)) or 1.0


def _failures(found: list[Manifest]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["split", "id", "file", "reason"])
    writer.writerows(sorted((m.split, *failure) for m in found for failure in m.failures))
    return file.getvalue()


# ---- files ----


def _write(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _json(values: dict) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
