"""Hold out labeled files for validation and test if a data set has no splits."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mbt_lite.data.tables import Annotation


def held_out(rows: Sequence[Annotation], share: float) -> np.ndarray:
    """Whether each row is held out [rows]: about a `share` of the files, with all their rows.

    A digest of a file's id decides, so that neither the order nor other files matter, with two
    exceptions: of each class with two files or more, at least one file is held out and at least one
    is not.
    """
    digests = _digests(rows)
    held = {file for file, number in digests.items() if number < share}
    classes: dict[str, set] = {}
    for row in rows:
        for label in row.labels:
            classes.setdefault(label, set()).add(row.path)
    for files in classes.values():
        if len(files) > 1 and not files & held:
            held.add(min(files, key=digests.__getitem__))
    for files in classes.values():
        if files <= held:
            held.remove(max(files, key=digests.__getitem__))
    return np.array([row.path in held for row in rows])


def for_test(rows: Sequence[Annotation], held: np.ndarray) -> np.ndarray:
    """Whether each row is for the test [rows]: of each class every second file of those held out.

    The others are for validation, which chooses the best state of a run: a score on the same clips
    would be too good.
    """
    digests, labels = _digests(rows), {row.path: row.labels for row in reversed(rows)}
    files = {row.path for row, is_held in zip(rows, held, strict=True) if is_held}
    seen: dict[tuple, int] = {}
    test = set()
    for file in sorted(files, key=digests.__getitem__):
        number = seen[labels[file]] = seen.get(labels[file], -1) + 1
        test |= {file} if number % 2 == 0 else set()
    return np.array([row.path in test for row in rows])


def _digests(rows: Sequence[Annotation]) -> dict:
    """A number in 0..1 for each file, from the first of its rows' ids; its path does not matter."""
    ids: dict = {}
    for row in rows:
        ids[row.path] = min(row.id, ids.get(row.path, row.id))
    digests = {file: hashlib.blake2b(i.encode(), digest_size=6).digest() for file, i in ids.items()}
    return {file: int.from_bytes(digest) / 2**48 for file, digest in digests.items()}
