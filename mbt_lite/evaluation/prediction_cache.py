"""Cache logits clip by clip, so that an interrupted evaluation can resume.

    S conditions (both streams, audio only, video only)   C classes

The first line identifies the model and the data; each further line is one clip: JSON with the
logits as base64 of little-endian float32. A line that an interruption cut off is removed.
"""

import base64
import hashlib
import json
from pathlib import Path

import jax
import numpy as np

from mbt_lite import __version__
from mbt_lite.config import to_dict
from mbt_lite.inference import Classifier
from mbt_lite.paths import write_text


class PredictionCache:
    """The logits in `answers.jsonl` of a folder, which belong to one model, data and windows."""

    def __init__(self, folder: Path, classifier: Classifier, settings: dict):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "answers.jsonl"
        self.header = {"mbt_lite": __version__, "model": _fingerprint(classifier)} | settings

    def read(self, shape: tuple[int, int]) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
        """{key of a clip: (logits [S, C], notes)} of all clips so far; none if there is no file.

        Raises ValueError if the file belongs to another model, other data or other windows.
        """
        header, cached = _line(self.header), {}
        text = self.path.read_text("utf-8", errors="replace") if self.path.exists() else ""
        first, *lines = text.splitlines(keepends=True) or [""]
        if not header.startswith(first):
            self._check_header(first)
        kept = [header]
        for line in lines:
            row = _decode(line, shape)
            if row is None:
                break
            cached[row[0]] = row[1:]
            kept.append(line)
        if len(kept) <= len(lines) or first != header:
            write_text(self.path, "".join(kept))
        return cached

    def append(self, key: str, logits: np.ndarray, notes: tuple[str, ...]) -> None:
        """Write the logits [S, C] of a clip."""
        encoded = base64.b64encode(logits.astype("<f4").tobytes()).decode()
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(_line({"key": key, "notes": notes, "logits": encoded}))

    def _check_header(self, line: str) -> None:
        try:
            header = json.loads(line)
        except ValueError:
            header = None
        if not isinstance(header, dict) or set(header) != set(self.header):
            raise ValueError(f"{self.path} is not a file of cached logits; choose another folder.")
        changed = [name for name in header if header[name] != self.header[name]]
        raise ValueError(
            f"{self.path} holds logits of another {' and '.join(changed)}; choose another folder "
            "for the report or remove that file."
        )


def _fingerprint(classifier: Classifier) -> str:
    """A digest of what decides a classifier's logits: weights, model and clip configs, labels."""
    digest = hashlib.blake2b(digest_size=16)
    configs = [to_dict(classifier.config), to_dict(classifier.clip_config), classifier.labels]
    digest.update(json.dumps(configs, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(classifier.params):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.view(np.uint8).data)
    return digest.hexdigest()


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"


def _decode(line: str, shape: tuple[int, int]) -> tuple[str, np.ndarray, tuple[str, ...]] | None:
    """(key, logits [S, C], notes) of a line; None if it was cut off."""
    if not line.endswith("\n"):
        return None
    try:
        row = json.loads(line)
        logits = np.frombuffer(base64.b64decode(row["logits"]), "<f4").reshape(shape)
        return row["key"], logits, tuple(row["notes"])
    except (ValueError, KeyError, TypeError):
        return None
