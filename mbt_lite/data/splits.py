"""Hold out labeled files for validation and test if a data set has no splits."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mbt_lite.data.tables import Annotation


def held_out(rows: Sequence[Annotation], share: float) -> np.ndarray:
    """Whether each row is held out [rows]: about a `share` of the files, with all their rows.

    Where rows have a group, such as a speaker, whole groups are held out instead of files. A digest
    of a file's id, or of the group's name, decides, so that neither the order nor other files
    matter, with exceptions: of each class with two files or groups or more, at least one is held
    out and at least one is not; of four groups or more at least two are, for validation and test.
    """
    digests = _digests(rows)
    held = {unit for unit, number in digests.items() if number < share}
    classes: dict[str, set] = {}
    for row in rows:
        for label in row.labels:
            classes.setdefault(label, set()).add(_unit(row))
    for units in classes.values():
        if len(units) > 1 and not units & held:
            held.add(min(units, key=digests.__getitem__))
    if _grouped(rows) and len(digests) > 3 and len(held) < 2:
        held |= set(sorted(digests, key=digests.__getitem__)[:2])
    for units in classes.values():
        if units <= held:
            held.remove(max(units, key=digests.__getitem__))
    return np.array([_unit(row) in held for row in rows])


def for_test(rows: Sequence[Annotation], held: np.ndarray) -> np.ndarray:
    """Whether each row is for the test [rows]: of each class every second file of those held out.

    The others are for validation, which chooses the best state of a run: a score on the same clips
    would be too good. Groups count as files do in `held_out`.
    """
    digests, labels = _digests(rows), {_unit(row): row.labels for row in reversed(rows)}
    units = {_unit(row) for row, is_held in zip(rows, held, strict=True) if is_held}
    if _grouped(rows):  # each may have all classes
        labels = dict.fromkeys(units, ())
    seen: dict[tuple, int] = {}
    test = set()
    for unit in sorted(units, key=digests.__getitem__):
        number = seen[labels[unit]] = seen.get(labels[unit], -1) + 1
        test |= {unit} if number % 2 == 0 else set()
    return np.array([_unit(row) in test for row in rows])


def _grouped(rows: Sequence[Annotation]) -> bool:
    return any(row.group for row in rows)


def _unit(row: Annotation):
    """What is held out as a whole: the group of a row, or its file."""
    return row.group or row.path


def _digests(rows: Sequence[Annotation]) -> dict:
    """A number in 0..1 for each unit: from its group's name, or from the first of its rows' ids.

    The path of a file does not matter.
    """
    ids: dict = {}
    for row in rows:
        name = row.group or row.id
        ids[_unit(row)] = min(name, ids.get(_unit(row), name))
    digests = {unit: hashlib.blake2b(i.encode(), digest_size=6).digest() for unit, i in ids.items()}
    return {unit: int.from_bytes(digest) / 2**48 for unit, digest in digests.items()}
