"""Turn a table and a folder of videos into shards of records: parallel, resumable, repeatable.

    OUT/name-train-00000-of-00128   records, see records.py
    OUT/dataset.json                front end with mean and deviation, classes, counts, versions
    OUT/failures.csv                clips that could not be prepared, and why
    OUT/progress/                   a manifest per finished shard: its content, rows and settings

The rows of a split are sorted by a digest of their ids and distributed over the shards, so that a
shard depends on the table only and its classes are mixed. A shard is finished once its manifest is
there; both are written under temporary names and renamed. So whatever interrupts a run, the next
one continues after the finished shards and produces the same bytes.
"""

import hashlib
import math
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from mbt_lite.data import extract, tfrecord
from mbt_lite.data.extract import Settings
from mbt_lite.data.formats import Annotation
from mbt_lite.data.manifest import PROGRESS, Shard, Written, finish, unfinished, write_manifest
from mbt_lite.data.records import DESCRIPTION, FPS, to_bytes
from mbt_lite.media import MediaError, isolate
from mbt_lite.paths import FULL, replacing

CLIPS = 64  # per shard, unless the number of shards is given
TIMEOUT = 600.0  # s for one clip
WHOLE = "all"  # the split of a table that has none
MISSING = "the file is missing"


class _Job(NamedTuple):
    """A row whose record is appended to an unfinished shard."""

    row: Annotation
    path: Path
    offset: int  # bytes


# ---- which shards ----


def plan(
    rows: Sequence[Annotation], name: str, shards: int | None, split: str | None
) -> list[Shard]:
    """Distribute the rows of a table, of all its splits or of one, over shards.

    A table without splits becomes the `split`. Without `shards` a split gets one per 64 rows.
    ValueError if the split is unknown, or there are more shards than rows.
    """
    splits = {row.split for row in rows}
    if split and splits != {None}:
        rows = [row for row in rows if row.split == split]
        if not rows:
            names = ", ".join(sorted(filter(None, splits)))
            raise ValueError(f"the table has no rows of split {split}; it has {names}.")
    groups: dict[str, list[Annotation]] = {}
    for row in rows:
        groups.setdefault(row.split or split or WHOLE, []).append(row)
    return [shard for key in sorted(groups) for shard in _shards(groups[key], name, key, shards)]


def _shards(rows: list[Annotation], name: str, split: str, count: int | None) -> list[Shard]:
    count = math.ceil(len(rows) / CLIPS) if count is None else count
    if not 1 <= count <= len(rows):
        raise ValueError(
            f"{count} shards for the {len(rows)} rows of split {split}: take 1 to {len(rows)}."
        )
    base = name if split == WHOLE else f"{name}-{split}"
    mixed = sorted(rows, key=lambda row: (hashlib.blake2b(row.id.encode()).digest(), row.id))
    return [Shard(base, n, count, split, tuple(mixed[n::count])) for n in range(count)]


# ---- the run ----


def prepare(
    shards: Sequence[Shard],
    settings: Settings,
    folder: Path,
    workers: int | None = None,
    timeout: float = TIMEOUT,
) -> dict:
    """Write the shards that are not finished yet into a folder; the content of dataset.json.

    A clip that cannot be used, crashes its process twice or takes more than `timeout` seconds is a
    line of failures.csv. ValueError if finished shards were made with other settings, or another
    run is writing there; OSError if the disk is full. Shows progress on stderr.
    """
    with _locked(folder):
        missing = unfinished(shards, settings, folder)
        total = sum(len(shard.rows) for shard in missing)
        with tqdm(total=total, unit="clip", smoothing=0.05, disable=not total) as bar:
            tasks = (write(shard, settings, folder, bar) for shard in missing)
            isolate.run(tasks, work, settings, workers or os.cpu_count() or 1, timeout)
        return finish(folder, settings)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder, created if needed, and remove what an interrupted run left, before and after.

    ValueError if another run holds the lock; OSError says what to do if the disk is full.
    """
    (folder / PROGRESS).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / PROGRESS / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder}: another run is writing there; let it end.") from None
    try:
        _remove_partial_files(folder)
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"{folder}: the disk is full. Finished shards are whole and stay; make room and run "
            "the same command again, which goes on from there."
        ) from None
    finally:
        _remove_partial_files(folder)
        lock.release()


def _remove_partial_files(folder: Path) -> None:
    for part in [*folder.glob(".*.part"), *(folder / PROGRESS).glob(".*.part")]:
        part.unlink(missing_ok=True)


def write(shard: Shard, settings: Settings, folder: Path, bar: tqdm | None = None) -> Generator:
    """A task for `isolate.run` that yields the jobs of a shard, then writes its manifest.

    The same shard has the same bytes wherever and however often it is written.
    """
    size, clips, failures = 0, [], {}
    with replacing(folder / shard.name) as part:
        part.touch()
        for row in shard.rows:
            answer = MediaError(MISSING) if row.path is None else (yield _Job(row, part, size))
            if isinstance(answer, Written):
                size += answer.bytes
                clips.append((row, answer))
            else:
                failures[row.id] = str(answer)
            if bar is not None:
                bar.update()
        with part.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
        (folder / DESCRIPTION).unlink(missing_ok=True)  # it describes the shards before this one
    write_manifest(folder, shard, settings, clips, failures)


def work(job: _Job, settings: Settings) -> Written:
    """Append the record of a row to its shard, in a process of its own.

    Raises MediaError where the file cannot be used, OSError where the shard cannot be written.
    """
    try:
        clip = extract.example(job.row, settings)
        data = tfrecord.framed(to_bytes(clip))
    except ValueError as error:
        raise MediaError(str(error)) from None
    except Exception as error:  # whatever a damaged file does to a decoder costs this clip only
        raise MediaError(f"{type(error).__name__}: {error}") from None
    with job.path.open("r+b") as file:
        file.truncate(job.offset)  # removes what a crashed process may have left
        file.seek(job.offset)
        file.write(data)
    values = clip.melspec.astype(np.float64)
    sums = values.size, float(values.sum()), float((values**2).sum())
    return Written(len(data), max(len(clip.melspec), len(clip.jpegs) // FPS), sums)
