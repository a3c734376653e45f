"""Hold out labeled files for validation where a data set has no splits."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mbt_lite.data.tables import Annotation


def held_out(rows: Sequence[Annotation], share: float) -> np.ndarray:
    """Whether each row is held out [rows]: about a `share` of the files, whole files only.

    A digest of a file's id decides, so that neither the order nor other files matter, with two
    exceptions: of each class in two files or more, at least one is held out; and no class is held
    out in whole.
    """
    drawn = _draws(rows)
    held = {file for file, number in drawn.items() if number < share}
    classes: dict[str, set] = {}
    for row in rows:
        for label in row.labels:
            classes.setdefault(label, set()).add(row.path)
    for files in classes.values():
        if len(files) > 1 and not files & held:
            held.add(min(files, key=drawn.__getitem__))
    for files in classes.values():
        if files <= held:
            held.remove(max(files, key=drawn.__getitem__))
    return np.array([row.path in held for row in rows])


def _draws(rows: Sequence[Annotation]) -> dict:
    """A number in 0..1 for each file; its place does not matter, but the first of its rows' ids."""
    names: dict = {}
    for row in rows:
        names[row.path] = min(row.id, names.get(row.path, row.id))
    return {file: _number(name) for file, name in names.items()}


def _number(name: str) -> float:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest()) / 2**48
