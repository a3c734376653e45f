"""Read a table or a folder as labeled windows of files.

The forms of tables are in formats.py; here labels get their numbers and lines their files.

C classes of the model
"""

import csv
import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

import numpy as np

from mbt_lite import paths
from mbt_lite.data import formats
from mbt_lite.data.formats import SUFFIXES, Annotation, AnnotationTable

SHOWN = 5  # examples in a sentence that counts
NEAR = 1.0  # s; files and windows of the same length differ by less
EPIC_CLASSES = {"verb": 97, "noun": 300}  # of EPIC-KITCHENS-100


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


@dataclass(frozen=True)
class Row:
    """One labelled window of a file."""

    id: str  # unique in its table, fit for a file name
    path: Path | None  # None: there is no such file
    start: float | None  # s on the file's clock; None: its beginning
    end: float | None  # s; None: its end
    labels: tuple[str, ...]  # names of classes
    split: str | None = None


@dataclass(frozen=True)
class AnnotatedRows:
    """The rows of a source, its classes in fixed order, and in sentences what was left out."""

    rows: list[Row]
    labels: list[str]
    notes: tuple[str, ...] = ()


def read_rows(
    source: str | Path,
    videos: Path | None = None,
    names: Mapping[str, str] | Path | None = None,
) -> AnnotatedRows:
    """The `AnnotatedRows` of a table or folder in any form of formats.py, in the table's order.

    Files are sought in the folder `videos`, otherwise beside the table. `names` is a file with the
    class names in order (AudioSet's class_labels_indices.csv, vggsound_stat.csv, one name a line;
    for EPIC-KITCHENS the folder of both classes files), or written label → name. Without it such a
    file beside the table is used, for AudioSet the one that is fetched; otherwise the classes are
    the table's own labels in alphabetical order.

    Lines that cannot be read or have no known label, and repetitions, are left out and noted. A row
    whose file is missing stays, with path None. Raises ValueError where nothing is left.
    """
    source = Path(source)
    sheet = formats.read(source)
    labels, lines, notes = _named(sheet, names)
    known = _classes(source, lines, labels)
    labelled, unlabelled = _with_classes(lines, known)
    files = _Files(videos or sheet.folder, sheet)
    labelled, folders = _without_folders(labelled, files)
    rows, repeated = _unique([_row(line, labels, numbers, files) for line, numbers in labelled])
    unlabelled += folders
    notes += [*sheet.notes, *_counted("lines that cannot be read", sheet.problems)]
    notes += [*unlabelled, *repeated]
    if not rows:
        raise ValueError(f"{source}: none of its rows can be used; {'; '.join(notes)}.")
    notes += _counted("files missing", [row.id for row in rows if row.path is None])
    return AnnotatedRows(rows, labels, tuple(notes))


def read_table(source: str | Path, labels: Sequence[str]) -> list[Item]:
    """The items of a labelled source; what was left out is warned of. As `read`."""
    table = read(source, labels)
    for note in table.notes:
        warnings.warn(f"{source}: {note}", stacklevel=2)
    return table.items


def read(source: str | Path, labels: Sequence[str], split: str | None = None) -> Table:
    """The `Table` of a source in any form of formats.py, or of one split, with a model's classes.

    A CSV of one's own has a column `file` (or path, video, filename; relative to the table), a
    column `labels` (or label; several separated by | or ;) and perhaps `start` (or start_seconds).
    Labels are the model's names, or class numbers from 0 where no name in the source is one of
    them. Rows with none of the model's labels are left out and counted, as are repetitions; of a
    missing file the item has the path where it was sought. Raises ValueError where no file is
    there, a row cannot be read, the same clip is labelled in two ways, or nothing is left.
    """
    source = Path(source)
    sheet = formats.read(source)
    if sheet.problems:
        raise ValueError(sheet.problems[0])
    sheet = _of_split(source, sheet, split)
    lines = _named(sheet, None)[1] if sheet.form in ("audioset", "epic") else sheet.lines
    files = _Files(sheet.folder, sheet)
    if lines and not any(files.window(line)[0] for line in lines):
        sought = _first(dict.fromkeys(str(sheet.folder / line.file) for line in lines))
        raise ValueError(f"{source}: none of its files is there: {sought}.")
    named, notes = _with_classes(lines, _classes(source, lines, labels), " to the model")
    named, folders = _without_folders(named, files)
    notes = [*sheet.notes, *notes, *folders]
    placed = [
        (path or sheet.folder / line.file, start, end, numbers)
        for line, numbers in named
        for path, start, end in [files.window(line)]
    ]
    items, repeated = _merged(source, placed, len(labels))
    if not items:
        raise ValueError(f"{source}: none of {len(lines)} rows can be used; {'; '.join(notes)}.")
    return Table(items, (*notes, *repeated))


def _of_split(source: Path, sheet: AnnotationTable, split: str | None) -> AnnotationTable:
    lines = [line for line in sheet.lines if split in (None, line.split)]
    if not lines:
        known = ", ".join(dict.fromkeys(line.split for line in sheet.lines if line.split))
        raise ValueError(f"{source} has no rows of split {split}; it has {known or 'no splits'}.")
    return replace(sheet, lines=lines)


def window(row: Row, total: float | None) -> tuple[float, float | None]:
    """Start and duration, in s, of a row in a file of `total` seconds; duration None: to its end.

    A file that ends before the window does, but is about as long as it, was cut already.
    """
    start = row.start or 0.0
    if row.end is None:
        return start, None
    length = row.end - start
    cut = total is not None and total < row.end - NEAR and total <= length + NEAR
    return (0.0 if cut else start), length


# ---- names of classes ----


def _named(sheet: AnnotationTable, names) -> tuple[list[str], list[Annotation], list[str]]:
    """The classes in order, the lines with class names for what was written, and notes."""
    labels, meaning, notes = _vocabulary(sheet, names)
    lines = [
        line._replace(names=tuple(meaning.get(name, name) for name in line.names))
        for line in sheet.lines
    ]
    labels = labels or sorted({name for line in lines for name in line.names})
    return labels, lines, notes


def _vocabulary(sheet: AnnotationTable, names) -> tuple[list[str], dict[str, str], list[str]]:
    """The classes in order (none: those of the table), written label → class, and notes."""
    if isinstance(names, Mapping):
        return list(dict.fromkeys(names.values())), dict(names), []
    if sheet.form == "epic":
        return _epic_classes(Path(names) if names else sheet.folder)
    path = Path(names) if names else _beside(sheet)
    if path is None:
        return [], {}, []
    meaning = read_names(path)
    notes = [] if names else [f"class names are those of {path.name}"]
    return list(dict.fromkeys(meaning.values())), meaning, notes


def _beside(sheet: AnnotationTable) -> Path | None:
    """The file with the class names of a data set that came without one."""
    patterns = {"audioset": "*class_labels_indices*.csv", "vggsound": "vggsound_stat.csv"}
    pattern = patterns.get(sheet.form)
    found = sorted(sheet.folder.glob(pattern)) if pattern else []
    if found or sheet.form != "audioset":
        return found[0] if found else None
    from mbt_lite.checkpoints import zoo  # brings JAX, which loader processes should not need

    zoo.audioset_labels()
    return paths.cache_folder() / "class_labels_indices.csv"


def read_names(path: Path) -> dict[str, str]:
    """Written label → class name, in the order of a file with class names."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no UTF-8 text with the names of the classes.") from None
    lines = [line for line in text.splitlines() if line.strip()]
    rows = list(csv.reader(lines, skipinitialspace=True))
    if rows and rows[0][1:] == ["mid", "display_name"]:
        return {row[1]: row[2] for row in rows[1:]}
    same = len({len(row) for row in rows}) == 1  # otherwise one name a line, some with commas
    names = [row[0].strip() for row in rows] if same else [line.strip() for line in lines]
    if not names:
        raise ValueError(f"{path} names no class; write one a line.")
    return {name: name for name in names}


def _epic_classes(folder: Path) -> tuple[list[str], dict[str, str], list[str]]:
    """The verbs, then the nouns, of EPIC-KITCHENS; class numbers stand for names that are lost."""
    meaning, notes = {}, []
    for kind, count in EPIC_CLASSES.items():
        found = sorted(folder.glob(f"*{kind}_classes.csv"))
        keys = {str(number): str(number) for number in range(count)}
        if found:
            with found[0].open(encoding="utf-8-sig", newline="") as file:
                keys = {row["id"]: row["key"] for row in csv.DictReader(file)}
        else:
            notes.append(f"no {kind}_classes.csv in {folder}: each {kind} is named by its number")
        meaning |= {f"{kind}:{number}": f"{kind}:{key}" for number, key in keys.items()}
    return list(meaning.values()), meaning, notes


def _classes(source: Path, lines: Sequence[Annotation], labels: Sequence[str]) -> dict[str, int]:
    """The class number of each name in the source that is among the labels."""
    folded = {_folded(label): i for i, label in reversed(list(enumerate(labels)))}
    exact = {label: i for i, label in reversed(list(enumerate(labels)))}
    names = {name for line in lines for name in line.names}
    known = {n: exact.get(n, folded.get(_folded(n))) for n in names}
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


def _folded(name: str) -> str:
    """A name without what people write in two ways: capitals, accents in parts, _ for a space."""
    return formats.composed(name).casefold().replace("_", " ")


def _with_classes(lines: Sequence[Annotation], known: Mapping[str, int], to: str = ""):
    """(line, its class numbers) of every line with a known label, and notes on the others."""
    named = [(line, [known[n] for n in line.names if n in known]) for line in lines]
    unknown = dict.fromkeys(n for line in lines for n in line.names if n not in known)
    bare = [Path(line.file).name for line, numbers in named if not numbers]
    notes = _counted(f"labels unknown{to}", unknown)
    notes += _counted(f"rows without a {'label of the model' if to else 'known label'}", bare)
    return [pair for pair in named if pair[1]], notes


# ---- files ----


class _Files:
    """Where the files of a sheet lie; data sets that only name their videos are searched once."""

    def __init__(self, folder: Path, sheet: AnnotationTable):
        self.folders = dict.fromkeys([folder, sheet.folder])
        self.stems: dict[str, Path] = {}
        if any(line.cuts for line in sheet.lines):
            self.stems = _by_stem(folder)

    def window(self, line: Annotation) -> tuple[Path | None, float | None, float | None]:
        """The file of a line, None where there is none, and the window's start and end in it."""
        for path in self.places(line):
            if path.is_file():
                return path, line.start, line.end
        cut = next((self.stems[name] for name in line.cuts if name in self.stems), None)
        if cut:
            return cut, (None if line.start is None else 0.0), _length(line)
        return self.stems.get(line.file, self.stems.get(f"Y{line.file}")), line.start, line.end

    def places(self, line: Annotation) -> list[Path]:
        """Where the file of a line may lie: as written, with Windows' back slashes turned, and with
        accents as one character or as two, as a copy from another system has them.
        """
        spelled = [line.file, line.file.replace("\\", "/")]
        spelled += [normalize(form, spelled[1]) for form in ("NFC", "NFD")]
        return [folder / file for folder in self.folders for file in dict.fromkeys(spelled)]


def _without_folders(named, files: _Files) -> tuple[list, list[str]]:
    """The (line, class numbers) that do not name a folder, and a note on those that do."""
    named = list(named)
    bare = [line for line, _ in named if not line.cuts and not Path(line.file).suffix]
    folders = [line.file for line in bare if any(path.is_dir() for path in files.places(line))]
    notes = _counted("rows that name a folder, not a file, left out", folders)
    return [pair for pair in named if pair[0].file not in folders] if folders else named, notes


def _length(line: Annotation) -> float | None:
    return None if line.end is None else line.end - (line.start or 0.0)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Name without suffix → file, of all video and audio files under a folder."""
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                found.setdefault(stem, Path(place, name))
    return found


# ---- rows and items ----


def _row(line: Annotation, labels: Sequence[str], numbers: Iterable[int], files: _Files) -> Row:
    names = tuple(labels[i] for i in dict.fromkeys(numbers))
    return Row(_safe(line.name), *files.window(line), names, line.split)


def _safe(name: str) -> str:
    """A name that is fit for a file; another name never becomes the same one."""
    safe = re.sub(r"[^\w.-]+", "_", name.strip("/"), flags=re.ASCII)[:120]
    if safe == name and not name.startswith("."):
        return name
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return f"{safe.lstrip('.')}-{digest}"


def _unique(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """One row per id, the first one, and notes where ids came again."""
    seen: dict[str, Row] = {}
    repeated, contrary = [], []
    for row in rows:
        first = seen.setdefault(row.id, row)
        if first is not row:
            (repeated if first == row else contrary).append(row.id)
    notes = _counted("repeated rows, taken once", repeated)
    notes += _counted("ids told otherwise before, left out", contrary)
    return list(seen.values()), notes


def _merged(source: Path, placed, classes: int) -> tuple[list[Item], list[str]]:
    """One item per clip, and a note where rows were repeated."""
    seen: dict[tuple, frozenset] = {}
    for path, start, _, numbers in placed:
        key, numbers = (path, start), frozenset(numbers)
        if seen.setdefault(key, numbers) != numbers:
            raise ValueError(
                f"{source}: {path.name} is labelled in two ways; write all labels of a clip in "
                "one row, separated by |."
            )
    repeated = len(placed) - len(seen)
    notes = [f"repeated rows, taken once: {repeated}"] if repeated else []
    return [_item(path, start, numbers, classes) for (path, start), numbers in seen.items()], notes


def _item(path: Path, start: float | None, numbers: Iterable[int], classes: int) -> Item:
    truth = np.zeros(classes, np.float32)
    truth[sorted(numbers)] = 1
    return Item(path, truth, start)


def _counted(what: str, names: Iterable[str]) -> list[str]:
    """A note that counts and names the first few; none where there are none."""
    names = list(names)
    return [f"{what} ({len(names)}): {_first(names)}"] if names else []


def _first(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
