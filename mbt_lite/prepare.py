"""From a table and a folder of videos to shards of records: parallel, resumable, repeatable.

    OUT/name-train-00000-of-00128   records, see records.py
    OUT/dataset.json                front end with its mean and deviation, classes, counts, versions
    OUT/failures.csv                clips that could not be prepared, and why
    OUT/progress/                   a manifest per finished shard: what is in it, and made of what

The rows of a split are put in the order of a digest of their ids and dealt out to the shards, so
that a shard depends on the table only and its classes are mixed. A shard counts once its manifest
is there; both are written under other names and renamed, so that whatever interrupts a run, the
next one goes on after the finished shards and comes to the same bytes.
"""

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

import mbt_lite
from mbt_lite import extract, processes, tfrecord
from mbt_lite.extract import Settings
from mbt_lite.records import DESCRIPTION, SHARD, shard_name, to_bytes
from mbt_lite.tables import Row

CLIPS = 64  # a shard, unless the number of shards is given
PATIENCE = 600.0  # s for one clip
PROGRESS, FAILURES = "progress", "failures.csv"
TRAINING = ("train", "training")  # names of the split that mean and deviation are taken over
WHOLE = "all"  # the split of a table that has none
MISSING = "the file is missing"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
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


@dataclass(frozen=True)
class Job:
    """A row to be put at the end of a shard under way."""

    row: Row
    path: Path
    offset: int  # bytes


@dataclass(frozen=True)
class Done:
    """A clip that was written."""

    size: int  # bytes of its record
    seconds: int
    sums: tuple[int, float, float]
    unusual: tuple[str, ...]  # of its file, in plain words


# ---- which shards ----


def plan(rows: Sequence[Row], name: str, shards: int | None, split: str | None) -> list[Shard]:
    """The shards of a table: of all its splits, or of one; a table without splits becomes `split`.

    Without `shards` a split gets one per 64 rows. ValueError where the split is unknown, or there
    are more shards than rows.
    """
    known = {row.split for row in rows}
    if split and known != {None}:
        rows = [row for row in rows if row.split == split]
        if not rows:
            found = ", ".join(sorted(filter(None, known)))
            raise ValueError(f"the table has no rows of split {split}; it has {found}.")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.split or split or WHOLE, []).append(row)
    return [s for part in sorted(groups) for s in _dealt(groups[part], name, part, shards)]


def _dealt(rows: list[Row], name: str, split: str, shards: int | None) -> list[Shard]:
    count = math.ceil(len(rows) / CLIPS) if shards is None else shards
    if not 1 <= count <= len(rows):
        raise ValueError(f"{count} shards for the {len(rows)} rows of split {split}: take 1 to "
                         f"{len(rows)}.")  # fmt: skip
    base = name if split == WHOLE else f"{name}-{split}"
    mixed = sorted(rows, key=lambda row: (hashlib.blake2b(row.id.encode()).digest(), row.id))
    return [Shard(base, n, count, split, tuple(mixed[n::count])) for n in range(count)]


# ---- the run ----


def prepare(
    shards: Sequence[Shard],
    settings: Settings,
    folder: Path,
    workers: int | None = None,
    patience: float = PATIENCE,
) -> dict:
    """Write the shards that are not finished yet into a folder; what dataset.json then says.

    A clip that cannot be used, crashes its process twice or takes more than `patience` seconds is a
    line of failures.csv. ValueError where finished shards were made otherwise, or another run is at
    work; OSError where the disk is full. Shows progress on stderr.
    """
    with writing(folder):
        missing = unfinished(shards, settings, folder)
        total = sum(len(shard.rows) for shard in missing)
        with tqdm(total=total, unit="clip", smoothing=0.05, disable=not total) as bar:
            tasks = (write(shard, settings, folder, bar) for shard in missing)
            processes.run(tasks, work, settings, workers or os.cpu_count() or 1, patience)
        return finish(folder, settings)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The right to write into a folder, made where there is none; as `prepare` it may refuse."""
    with _alone(folder), _room(folder):
        yield


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Says what to do where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"{folder}: the disk is full. Finished shards are whole and stay; make room and run "
            "the same command again, which goes on from there."
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The right to write into a folder; what interruptions left goes, before and after."""
    (folder / PROGRESS).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / PROGRESS / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder}: another run is writing there; let it end.") from None
    try:
        _tidy(folder)
        yield
    finally:
        _tidy(folder)
        lock.release()


def _tidy(folder: Path) -> None:
    for part in [*folder.glob(".*.part"), *(folder / PROGRESS).glob(".*.part")]:
        part.unlink(missing_ok=True)


def write(shard: Shard, settings: Settings, folder: Path, bar: tqdm | None = None) -> Generator:
    """A task for `processes.run`: the jobs of a shard, at whose end it is renamed and listed.

    The same shard gives the same bytes wherever and how often it is written.
    """
    part = folder / f".{shard.name}.{secrets.token_hex(4)}.part"
    part.touch()
    size, done, failures = 0, [], []
    for row in shard.rows:
        if row.path is None:
            answer = processes.Lost(MISSING)
        else:
            answer = yield Job(row, part, size)
        if isinstance(answer, Done):
            size += answer.size
            done.append((row, answer))
        else:
            failures.append((row.id, str(row.path or ""), answer.reason))
        if bar is not None:
            bar.update()
    _to_disk(part, size)
    (folder / DESCRIPTION).unlink(missing_ok=True)  # of the shards before this one; soon rewritten
    part.replace(folder / shard.name)
    manifest = _manifest(shard, settings, size, done, failures)
    _write(folder / PROGRESS / f"{shard.name}.json", _json(asdict(manifest)))


def work(job: Job, settings: Settings) -> Done | processes.Lost:
    """Append the record of a row to its shard, in a process of its own.

    Raises OSError where the shard cannot be written.
    """
    try:
        clip, unusual = extract.example(job.row, settings)
        data = tfrecord.framed(to_bytes(clip))
    except ValueError as error:
        return processes.Lost(str(error))
    except Exception as error:  # whatever a damaged file does to a decoder costs this clip only
        return processes.Lost(f"{type(error).__name__}: {error}")
    with job.path.open("r+b") as file:
        file.truncate(job.offset)  # what a crashed process may have left
        file.seek(job.offset)
        file.write(data)
    values = clip.melspec.astype(np.float64)
    sums = values.size, float(values.sum()), float((values**2).sum())
    return Done(len(data), len(clip.melspec), sums, unusual)


def _to_disk(part: Path, size: int) -> None:
    with part.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def _write(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _json(values: dict) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# ---- manifests of finished shards ----


def _manifest(shard: Shard, settings: Settings, size: int, done: list, failures: list) -> Manifest:
    labels = Counter(name for row, _ in done for name in row.labels)
    unusual = Counter(_general(words) for _, answer in done for words in answer.unusual)
    sums = [answer.sums for _, answer in done]
    return Manifest(
        file=shard.name,
        split=shard.split,
        bytes=size,
        made_of=_made_of(settings, shard.count),
        rows=_digests(shard),
        records=len(done),
        seconds=sum(answer.seconds for _, answer in done),
        sums=tuple(map(sum, zip(*sums, strict=True))) if sums else (0, 0.0, 0.0),
        labels=dict(sorted(labels.items())),
        unusual=dict(sorted(unusual.items())),
        failures=failures,
    )


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
    """The shards still to be written: those without a manifest, or with files that came since.

    ValueError where the folder holds shards of other settings or of another table.
    """
    _refuse_others(shards, settings, folder)
    return [shard for shard in shards if not _finished(shard, folder)]


def _finished(shard: Shard, folder: Path) -> bool:
    manifest, path = read_manifest(folder, shard.name), folder / shard.name
    if manifest is None or not path.is_file() or path.stat().st_size != manifest.bytes:
        return False
    return manifest.rows == _digests(shard)


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
