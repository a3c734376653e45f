"""Cache logits clip by clip, so that an interrupted evaluation can resume.

    S conditions (both streams, audio only, video only)   C classes

The first line identifies the model and the data; each further line is one clip: JSON with the
logits as base64 of little-endian float32. A line that an interruption cut off is removed.
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
    """The logits of one clip."""

    key: str  # of the clip, see `data.source.Source.key`
    logits: np.ndarray  # float32 [S, C]
    notes: tuple[str, ...]


def fingerprint(classifier) -> str:
    """A digest of what decides a classifier's logits: weights, model and clip configs, labels."""
    digest = hashlib.blake2b(digest_size=16)
    configs = [to_dict(classifier.config), to_dict(classifier.clip_config), classifier.labels]
    digest.update(json.dumps(configs, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(classifier.params):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.view(np.uint8).data)
    return digest.hexdigest()


def resume(path: Path, header: dict, shape: tuple[int, int]) -> Iterator[CachedLogits]:
    """The logits [S, C] that a file already has; none if there is no file.

    Raises ValueError if the file belongs to another model, other data or other windows.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        first = file.readline()
        cut_off = not first.endswith(b"\n") and _line(header).encode().startswith(first)
        if not cut_off:
            _check_header(path, first, header)
        file.truncate(0 if cut_off else (yield from _complete_lines(file, shape)))


def _check_header(path: Path, line: bytes, expected: dict) -> None:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or set(header) != set(expected):
        raise ValueError(f"{path} is not a file of cached logits; choose another folder.")
    changed = [name for name in expected if header[name] != expected[name]]
    if changed:
        raise ValueError(
            f"{path} holds logits of another {' and '.join(changed)}; choose another folder "
            "for the report or remove that file."
        )


def _complete_lines(file: IO[bytes], shape: tuple[int, int]) -> Iterator[CachedLogits]:
    """The logits up to the first line that was cut off; returns where it begins, in bytes."""
    end = file.tell()
    for line in file:
        cached = _decode(line, shape)
        if cached is None:
            break
        yield cached
        end += len(line)
    return end


def _decode(line: bytes, shape: tuple[int, int]) -> CachedLogits | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
        logits = np.frombuffer(base64.b64decode(row["logits"]), "<f4").reshape(shape)
        return CachedLogits(row["key"], logits, tuple(row["notes"]))
    except (ValueError, KeyError, TypeError):
        return None


def open_to_append(path: Path, header: dict) -> IO[str]:
    """Open the file for more lines; a new one begins with the header."""
    file = path.open("a", encoding="utf-8", newline="\n")
    if file.tell() == 0:
        _append(file, _line(header))
    return file


def write(file: IO[str], cached: CachedLogits) -> None:
    """Append the logits of a clip and flush them."""
    logits = base64.b64encode(cached.logits.astype("<f4").tobytes()).decode()
    _append(file, _line({"key": cached.key, "notes": cached.notes, "logits": logits}))


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"


def _append(file: IO[str], line: str) -> None:
    file.write(line)
    file.flush()
