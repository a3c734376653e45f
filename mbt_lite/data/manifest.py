"""Write and compare manifests: one per finished shard of a prepared folder.

A shard is finished once its manifest is there, which also says from which rows and settings it was
written. dataset.json and failures.csv are computed from the manifests alone.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import mbt_lite
from mbt_lite.data.extract import Settings
from mbt_lite.data.formats import Annotation
from mbt_lite.data.records import DESCRIPTION, shard_name
from mbt_lite.media.isolate import DecodeTimeout
from mbt_lite.paths import write_text

PROGRESS, FAILURES = "progress", "failures.csv"
TRAINING = ("train", "training")  # names of the split that mean and deviation are computed over
LIBRARIES = ("numpy", "pillow", "av")  # their versions affect the bytes, too


@dataclass(frozen=True)
class Shard:
    """A planned file of records, and the rows that go into it."""

    base: str  # the name without the number
    number: int
    count: int  # of shards
    split: str
    rows: tuple[Annotation, ...]

    @property
    def name(self) -> str:
        return shard_name(self.base, self.number, self.count)


class Written(NamedTuple):
    """A record that was written."""

    bytes: int
    seconds: int
    sums: tuple[int, float, float]  # count, sum, sum of squares of its log-mels


# ---- finished shards ----


def write_manifest(
    folder: Path,
    shard: Shard,
    settings: Settings,
    clips: Sequence[tuple[Annotation, Written]],
    failures: Mapping[str, str],
) -> None:
    """Mark a shard as finished: what is in it, and {id: reason} of the rows that are not."""
    manifest = {
        "file": shard.name,
        "base": shard.base,
        "split": shard.split,
        "bytes": sum(written.bytes for _, written in clips),
        "settings": _described(settings, shard.count),
        "rows": _digests(shard),
        "records": len(clips),
        "seconds": sum(written.seconds for _, written in clips),
        "sums": [math.fsum(written.sums[i] for _, written in clips) for i in range(3)],
        "labels": dict(sorted(Counter(label for row, _ in clips for label in row.labels).items())),
        "failures": [
            {
                "id": row.id,
                "file": str(row.path or ""),
                "reason": failures[row.id],
                "state": _state(row.path),
            }
            for row in shard.rows
            if row.id in failures
        ],
    }
    _write(folder / PROGRESS / f"{shard.name}.json", _json(manifest))


def _described(settings: Settings, shards: int) -> dict:
    values = settings.described()
    return values | {"labels": _digest(values["labels"]), "number of shards": shards}


def _digests(shard: Shard) -> dict[str, str]:
    """{id: digest of a row, "" if its file is missing}."""
    return {
        row.id: "" if row.path is None else _digest([row.start, row.end, row.labels])
        for row in shard.rows
    }


def _digest(values: list) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def _state(path: Path | None) -> str:
    """A text that changes when a file does; empty if there is none."""
    if path is None or not path.exists():
        return ""
    status = path.stat()
    return f"{status.st_size} bytes, {status.st_mtime_ns}"


def _manifests(folder: Path) -> dict[str, dict]:
    """{name of a finished shard: its manifest}."""
    manifests = {}
    for path in sorted((folder / PROGRESS).glob("*-of-*.json")):
        with contextlib.suppress(ValueError):  # damaged: the shard is written again
            manifests[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    return manifests


def unfinished(shards: Sequence[Shard], settings: Settings, folder: Path) -> list[Shard]:
    """The shards still to be written: those that are not finished, or whose missing or failed files
    have changed, or in which a clip took too long.

    ValueError if the folder holds shards of other settings or of another table.
    """
    manifests = _manifests(folder)
    planned = {shard.name: shard for shard in shards}
    counts = {shard.base: shard.count for shard in shards}
    for name, manifest in manifests.items():
        old = manifest["settings"]
        new = _described(settings, counts.get(manifest["base"], old["number of shards"]))
        other = [key.replace("_", " ") for key in old | new if old.get(key) != new.get(key)]
        if name in planned and not _same_table(manifest["rows"], _digests(planned[name])):
            other.append("table")
        if other:
            raise ValueError(
                f"{folder} holds {name}, made with another {' and '.join(other)}; choose another "
                "folder, or remove that one."
            )
    return [s for s in shards if not _is_finished(s, manifests.get(s.name), folder / s.name)]


def _is_finished(shard: Shard, manifest: dict | None, path: Path) -> bool:
    if manifest is None or not path.is_file() or path.stat().st_size != manifest["bytes"]:
        return False
    paths = {row.id: row.path for row in shard.rows}
    return manifest["rows"] == _digests(shard) and not any(
        DecodeTimeout.PHRASE in failure["reason"]
        or failure["state"] != _state(paths[failure["id"]])
        for failure in manifest["failures"]
    )


def _same_table(old: dict[str, str], new: dict[str, str]) -> bool:
    """Whether the rows are the same, except for files that were missing or are missing now."""
    return list(old) == list(new) and all(
        old[name] == new[name] for name in old if old[name] and new[name]
    )


# ---- the data set ----


def finish(folder: Path, settings: Settings) -> dict:
    """Write failures.csv and dataset.json of the sets of shards that are complete."""
    manifests = list(_manifests(folder).values())
    sizes = Counter(m["base"] for m in manifests)
    manifests = [m for m in manifests if sizes[m["base"]] == m["settings"]["number of shards"]]
    splits: dict[str, list[dict]] = {}
    for manifest in manifests:
        splits.setdefault(manifest["split"], []).append(manifest)
    measured = [name for name in splits if name in TRAINING] or list(splits)
    mean, std = _moments([m for name in measured for m in splits[name]], settings)
    dataset = settings.described() | {
        "front_end": asdict(replace(settings.front_end, mean=mean, std=std)),
        "measured_on": measured,
        "splits": {name: _split(part, settings) for name, part in splits.items()},
        "failures": sum(len(m["failures"]) for m in manifests),
        "versions": {"mbt-lite": mbt_lite.__version__} | {n: version(n) for n in LIBRARIES},
    }
    _write(folder / FAILURES, _failures(manifests))
    _write(folder / DESCRIPTION, _json(dataset))
    return dataset


def _split(manifests: list[dict], settings: Settings) -> dict:
    labels = sum((Counter(m["labels"]) for m in manifests), Counter())
    return {
        "examples": sum(m["records"] for m in manifests),
        "seconds": sum(m["seconds"] for m in manifests),
        "failures": sum(len(m["failures"]) for m in manifests),
        "counts": {label: labels[label] for label in settings.labels},
        "shards": [{key: m[key] for key in ("file", "records", "bytes")} for m in manifests],
    }


def _moments(manifests: list[dict], settings: Settings) -> tuple[float, float]:
    """Mean and standard deviation of all log-mels; the front end's own if there is no clip."""
    count, total, squares = (math.fsum(m["sums"][i] for m in manifests) for i in range(3))
    if not count:
        return settings.front_end.mean, settings.front_end.std
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean**2, 0.0)) or 1.0


def _failures(manifests: list[dict]) -> str:
    names = ("id", "file", "reason")
    rows = [(m["split"], *(f[name] for name in names)) for m in manifests for f in m["failures"]]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([("split", *names), *sorted(rows)])
    return file.getvalue()


def _json(values: dict) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    """Write a text, in which file names may hold bytes that are not UTF-8, whole or not at all."""
    write_text(path, text.encode(errors="backslashreplace").decode())
