"""Labelled files: a table or a folder → items of a path and its true classes.

C classes of the model
"""

import csv
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE_COLUMNS = ("file", "path", "video", "filename")
LABEL_COLUMNS = ("labels", "label")
START_COLUMNS = ("start", "start_seconds")
SEPARATORS = "|;"
SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .3gp .flv .ogv .wmv .gif "
    ".wav .mp3 .m4a .aac .flac .ogg .opus".split()
)
SHOWN = 5  # examples in a sentence that counts


@dataclass(frozen=True, eq=False)
class Item:
    """A file and which classes are true of it."""

    path: Path
    truth: np.ndarray  # float32 [C], 0 or 1
    start: float | None = None  # s, where the labelled window begins; None: the whole file


@dataclass(frozen=True)
class Table:
    """The items of a source, and in sentences what was left out of it."""

    items: list[Item]
    notes: tuple[str, ...] = ()


class Row(NamedTuple):
    """One line of a source, not yet compared with a model."""

    path: Path
    names: tuple[str, ...]  # labels, or class numbers
    start: float | None


def read_table(source: str | Path, labels: Sequence[str]) -> list[Item]:
    """The items of a labelled source; what was left out is warned of. As `read`."""
    table = read(source, labels)
    for note in table.notes:
        warnings.warn(f"{source}: {note}", stacklevel=2)
    return table.items


def read(source: str | Path, labels: Sequence[str]) -> Table:
    """The `Table` of a CSV file, of a folder with labels.csv, or of a folder of class folders.

    A CSV has a column `file` (or path, video, filename; relative to the table), a column `labels`
    (or label; several separated by | or ;) and perhaps `start` (or start_seconds). Labels are the
    model's names, or class numbers from 0 where no name in the source is one of them. Rows with
    none of the model's labels are left out and counted, as are repetitions. Raises ValueError where
    files are missing, a row cannot be read, the same clip is labelled in two ways, or nothing is
    left.
    """
    source = Path(source)
    rows = _rows(source)
    _refuse_missing(source, rows)
    named, notes = _with_classes(source, rows, labels)
    items, repeated = _merged(source, named, len(labels))
    if not items:
        raise ValueError(f"{source}: none of {len(rows)} rows can be used; {'; '.join(notes)}.")
    return Table(items, (*notes, *repeated))


def _rows(source: Path) -> list[Row]:
    if (source / "labels.csv").is_file():
        return _csv_rows(source / "labels.csv")
    if source.is_dir():
        return _folder_rows(source)
    if source.is_file():
        return _csv_rows(source)
    raise ValueError(f"{source} is neither a table (CSV) nor a folder of labelled clips.")


def _folder_rows(folder: Path) -> list[Row]:
    """One row per video or sound file in the folders of a folder, whose names are the labels."""
    rows = [
        Row(path, (path.parent.name,), None)
        for path in sorted(folder.glob("[!.]*/[!.]*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not rows:
        raise ValueError(
            f"{folder} holds neither labels.csv nor folders, named like classes, of video files."
        )
    return rows


def _csv_rows(path: Path) -> list[Row]:
    text = _text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    try:
        columns = [_column(path, reader.fieldnames or [], names) for names in _WANTED]
        rows = [_row(path, reader.line_num, found, columns) for found in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; is this a CSV file?") from None
    if not rows:
        raise ValueError(f"{path} has a header and no rows.")
    return rows


_WANTED = (FILE_COLUMNS, LABEL_COLUMNS, START_COLUMNS)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a UTF-8 text file; save the table as CSV UTF-8.") from None


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab: what the header has most of."""
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> str | None:
    """The header's own spelling of the first of these names that it has."""
    spelled = {name.strip().lower(): name for name in header}
    found = next((spelled[name] for name in names if name in spelled), None)
    if found is None and names is not START_COLUMNS:
        raise ValueError(
            f"{path} has no column {' or '.join(names)}; its first line is {', '.join(header)!r}. "
            "Name the columns there: file,labels."
        )
    return found


def _row(path: Path, line: int, found: dict, columns: Sequence[str | None]) -> Row:
    file, labels, start = (((found[c] or "").strip() if c else "") for c in columns)
    if None in found:
        raise ValueError(f"{path}, line {line}: too many fields; put quotes around one with ','.")
    if not file:
        raise ValueError(f"{path}, line {line}: no file is named.")
    return Row(path.parent / file, _split(labels), _seconds(path, line, start))


def _split(labels: str) -> tuple[str, ...]:
    for separator in SEPARATORS[1:]:
        labels = labels.replace(separator, SEPARATORS[0])
    names = (name.strip() for name in labels.split(SEPARATORS[0]))
    return tuple(name for name in names if name)


def _seconds(path: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{path}, line {line}: start {text!r} is no time in seconds.")
    return value


def _refuse_missing(source: Path, rows: Sequence[Row]) -> None:
    missing = sorted({str(row.path) for row in rows if not row.path.is_file()})
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} of {len({row.path for row in rows})} files are missing: "
            f"{_first(missing)}; put them there or take their rows out."
        )


def _with_classes(source: Path, rows: Sequence[Row], labels: Sequence[str]):
    """(row, its class numbers) of every row the model has a label for, and notes on the others."""
    known = _classes(source, rows, labels)
    named = [(row, [known[name] for name in row.names if name in known]) for row in rows]
    unknown = dict.fromkeys(name for row in rows for name in row.names if name not in known)
    bare = [row.path.name for row, classes in named if not classes]
    notes = []
    if unknown:
        notes.append(f"labels unknown to the model ({len(unknown)}): {_first(unknown)}")
    if bare:
        notes.append(f"rows without a label of the model ({len(bare)}): {_first(bare)}")
    return [pair for pair in named if pair[1]], notes


def _classes(source: Path, rows: Sequence[Row], labels: Sequence[str]) -> dict[str, int]:
    """The class number of each name in the source that the model has."""
    folded = {label.casefold(): i for i, label in reversed(list(enumerate(labels)))}
    exact = {label: i for i, label in reversed(list(enumerate(labels)))}
    names = {name for row in rows for name in row.names}
    known = {n: exact.get(n, folded.get(n.casefold())) for n in names}
    known = {name: i for name, i in known.items() if i is not None}
    if known or not names or not all(name.isdecimal() for name in names):
        return known
    numbers = {name: int(name) for name in names}
    if max(numbers.values()) >= len(labels):
        raise ValueError(
            f"{source}: class numbers reach {max(numbers.values())}, but the model's end at "
            f"{len(labels) - 1}."
        )
    return numbers


def _merged(source: Path, named, classes: int) -> tuple[list[Item], list[str]]:
    """One item per clip, and a note where rows were repeated."""
    seen: dict[tuple, frozenset] = {}
    for row, numbers in named:
        key, numbers = (row.path, row.start), frozenset(numbers)
        if seen.setdefault(key, numbers) != numbers:
            raise ValueError(
                f"{source}: {row.path.name} is labelled in two ways; write all labels of a clip in "
                "one row, separated by |."
            )
    repeated = len(named) - len(seen)
    notes = [f"repeated rows, taken once: {repeated}"] if repeated else []
    return [_item(path, start, numbers, classes) for (path, start), numbers in seen.items()], notes


def _item(path: Path, start: float | None, numbers: Iterable[int], classes: int) -> Item:
    truth = np.zeros(classes, np.float32)
    truth[sorted(numbers)] = 1
    return Item(path, truth, start)


def _first(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
