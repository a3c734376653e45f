"""Store predictions clip by clip, so that an interrupted evaluation can be resumed.

    S conditions (both streams, audio only, video only)   C classes

The first line says which model answered; each further line is one clip: JSON with the logits as
base64 of little-endian float32. A line that an interruption tore is cut off and asked again.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import jax
import numpy as np

from mbt_lite.config import to_dict


class CachedLogits(NamedTuple):
    """What the model said about one clip."""

    key: str  # of the clip, see `data`
    logits: np.ndarray  # float32 [S, C]
    notes: tuple[str, ...]


def fingerprint(classifier) -> str:
    """A digest of what decides a classifier's answers: weights, geometry, way to see and hear."""
    digest = hashlib.blake2b(digest_size=16)
    configs = [to_dict(classifier.config), to_dict(classifier.clip_config), classifier.labels]
    digest.update(json.dumps(configs, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(classifier.params):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.view(np.uint8).data)
    return digest.hexdigest()


def resume(path: Path, header: dict, shape: tuple[int, int]) -> Iterator[CachedLogits]:
    """The answers [S, C] that a file already holds; none where there is no file.

    Raises ValueError where the file belongs to another model or another way of asking.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        first = file.readline()
        torn = not first.endswith(b"\n") and _line(header).encode().startswith(first)
        if not torn:
            _refuse_other(path, first, header)
        file.truncate(0 if torn else (yield from _whole_lines(file, shape)))


def _refuse_other(path: Path, line: bytes, header: dict) -> None:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or set(found) != set(header):
        raise ValueError(f"{path} is no file of answers; choose another folder.")
    changed = [name for name in header if found[name] != header[name]]
    if changed:
        raise ValueError(
            f"{path} holds answers of another {' and '.join(changed)}; choose another folder "
            "for the report or remove that file."
        )


def _whole_lines(file: IO[bytes], shape: tuple[int, int]) -> Iterator[CachedLogits]:
    """The answers up to the first torn line; returns where that begins, in bytes."""
    good = file.tell()
    for line in file:
        answer = _decode(line, shape)
        if answer is None:
            break
        yield answer
        good += len(line)
    return good


def _decode(line: bytes, shape: tuple[int, int]) -> CachedLogits | None:
    try:
        row = json.loads(line)
        logits = np.frombuffer(base64.b64decode(row["logits"]), "<f4").reshape(shape)
        return (
            CachedLogits(row["key"], logits, tuple(row["notes"])) if line.endswith(b"\n") else None
        )
    except (ValueError, KeyError, TypeError):
        return None


def begin(path: Path, header: dict) -> IO[str]:
    """The file, open for more lines; a new one begins with the header."""
    file = path.open("a", encoding="utf-8", newline="\n")
    if file.tell() == 0:
        _append(file, _line(header))
    return file


def write(file: IO[str], answer: CachedLogits) -> None:
    """Add one answer; it is on its way to the disk when this returns."""
    logits = base64.b64encode(answer.logits.astype("<f4").tobytes()).decode()
    _append(file, _line({"key": answer.key, "notes": answer.notes, "logits": logits}))


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"


def _append(file: IO[str], line: str) -> None:
    file.write(line)
    file.flush()
