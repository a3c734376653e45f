"""Turn a table and a folder of videos into shards of records: parallel, resumable, repeatable.

    OUT/name-train-00000-of-00128   records, see records.py
    OUT/dataset.json                front end with its mean and deviation, classes, counts, versions
    OUT/failures.csv                clips that could not be prepared, and why
    OUT/progress/                   a manifest per finished shard: what is in it, and made of what

The rows of a split are put in the order of a digest of their ids and dealt out to the shards, so
that a shard depends on the table only and its classes are mixed. A shard counts once its manifest
is there; both are written under other names and renamed, so that whatever interrupts a run, the
next one goes on after the finished shards and comes to the same bytes.
"""

import errno
import hashlib
import math
import os
import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from mbt_lite.data import extract, tfrecord
from mbt_lite.data.extract import Settings
from mbt_lite.data.manifest import (
    PROGRESS,
    Done,
    Shard,
    finish,
    unfinished,
    write_manifest,
)
from mbt_lite.data.records import DESCRIPTION, FPS, to_bytes
from mbt_lite.data.tables import Row
from mbt_lite.media import MediaError, isolate

CLIPS = 64  # a shard, unless the number of shards is given
PATIENCE = 600.0  # s for one clip
WHOLE = "all"  # the split of a table that has none
MISSING = "the file is missing"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Job:
    """A row to be put at the end of a shard under way."""

    row: Row
    path: Path
    offset: int  # bytes


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
            isolate.run(tasks, work, settings, workers or os.cpu_count() or 1, patience)
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
    """A task for `isolate.run`: the jobs of a shard, at whose end it is renamed and listed.

    The same shard gives the same bytes wherever and how often it is written.
    """
    part = folder / f".{shard.name}.{secrets.token_hex(4)}.part"
    part.touch()
    size, done, failures = 0, [], []
    for row in shard.rows:
        answer = MediaError(MISSING) if row.path is None else (yield Job(row, part, size))
        if isinstance(answer, Done):
            size += answer.size
            done.append((row, answer))
        else:
            failures.append((row.id, str(row.path or ""), str(answer)))
        if bar is not None:
            bar.update()
    _to_disk(part, size)
    (folder / DESCRIPTION).unlink(missing_ok=True)  # of the shards before this one; soon rewritten
    part.replace(folder / shard.name)
    write_manifest(folder, shard, settings, done, failures)


def work(job: Job, settings: Settings) -> Done:
    """Append the record of a row to its shard, in a process of its own.

    Raises MediaError where the file cannot be used, OSError where the shard cannot be written.
    """
    try:
        clip, unusual = extract.example(job.row, settings)
        data = tfrecord.framed(to_bytes(clip))
    except ValueError as error:
        raise MediaError(str(error)) from None
    except Exception as error:  # whatever a damaged file does to a decoder costs this clip only
        raise MediaError(f"{type(error).__name__}: {error}") from None
    with job.path.open("r+b") as file:
        file.truncate(job.offset)  # what a crashed process may have left
        file.seek(job.offset)
        file.write(data)
    values = clip.melspec.astype(np.float64)
    sums = values.size, float(values.sum()), float((values**2).sum())
    seconds = max(len(clip.melspec), len(clip.jpegs) // FPS)
    return Done(len(data), seconds, sums, unusual)


def _to_disk(part: Path, size: int) -> None:
    with part.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())
