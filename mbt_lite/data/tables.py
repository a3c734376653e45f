"""Read a table or a folder as annotations: labeled windows of files with their classes.

formats.py reads what is written; here labels become classes and names become files.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

from mbt_lite import paths
from mbt_lite.data import formats
from mbt_lite.data.formats import SUFFIXES, Annotation, AnnotationTable, counted, first

NEAR = 1.0  # s; files and windows of the same length differ by less
EPIC_CLASSES = {"verb": 97, "noun": 300}  # of EPIC-KITCHENS-100


def read(
    source: str | Path,
    videos: Path | None = None,
    names: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    split: str | None = None,
    group: str = "",
    strict: bool = False,
) -> AnnotationTable:
    """Read a table or a folder in any format of formats.py, in its order, with files and classes.

    Files are searched for in the folder `videos`, otherwise beside the table. The classes are
    `classes`, those of a model, or else those in the file `names`, in its order (AudioSet's
    class_labels_indices.csv, vggsound_stat.csv, one name a line; for EPIC-KITCHENS the folder of
    both classes files). Without both, such a file beside the table is used (AudioSet's is
    downloaded), otherwise the table's own labels in alphabetical order. `group` names the column
    of `Annotation.group`.

    Lines that cannot be read or have no known label, and repetitions, are left out and noted; a
    missing file has the path None. If `strict`, as for evaluation, ValueError is raised if a line
    cannot be read, no file exists, or the same clip is labeled in two ways; a missing file has the
    path where it was expected. ValueError is also raised if nothing is left.
    """
    source = Path(source)
    table = formats.read(source, group)
    if strict and table.problems:
        raise ValueError(table.problems[0])
    table = _of_split(source, table, split)
    labels, aliases, notes = _vocabulary(table, names)
    rows = [replace(r, labels=tuple(aliases.get(n, n) for n in r.labels)) for r in table.rows]
    labels = list(classes or labels or sorted({name for row in rows for name in row.labels}))
    rows, label_notes = _classified(rows, labels)
    rows, repeat_notes = _unique(source, _located(source, table, rows, videos, strict), strict)
    rows = [replace(row, id=_safe_name(row.id)) for row in rows]
    notes += [*table.notes, *counted("lines that cannot be read", table.problems)]
    notes += [*label_notes, *repeat_notes]
    if not rows:
        total = len(table.rows)
        raise ValueError(f"{source}: none of {total} rows can be used; {'; '.join(notes)}.")
    notes += counted("files missing", [row.id for row in rows if row.path is None])
    return AnnotationTable(rows, labels, tuple(notes))


def _of_split(source: Path, table: AnnotationTable, split: str | None) -> AnnotationTable:
    rows = [row for row in table.rows if split in (None, row.split)]
    if split and not rows:
        splits = ", ".join(dict.fromkeys(row.split for row in table.rows if row.split))
        raise ValueError(f"{source} has no rows of split {split}; it has {splits or 'no splits'}.")
    return replace(table, rows=rows)


def window(row: Annotation, total: float | None) -> tuple[float, float | None]:
    """Start and duration (s) of a row in a file of `total` seconds; duration None: to its end.

    A file that ends before the window does, but is about as long as it, was already cut to it.
    """
    start = row.start or 0.0
    if row.end is None:
        return start, None
    length = row.end - start
    is_cut = total is not None and total < row.end - NEAR and total <= length + NEAR
    return (0.0 if is_cut else start), length


# ---- names of classes ----


def _vocabulary(
    table: AnnotationTable, names: Path | None
) -> tuple[list[str], dict[str, str], list[str]]:
    """The classes in order (empty: the table's labels), {written label: class}, and notes."""
    if table.format == "epic":
        return _epic_classes(names or table.folder)
    path = names or _names_beside(table)
    if path is None:
        return [], {}, []
    aliases = read_names(path)
    notes = [] if names else [f"class names are those of {path.name}"]
    return list(dict.fromkeys(aliases.values())), aliases, notes


def _names_beside(table: AnnotationTable) -> Path | None:
    """The file with the class names of a data set, beside its table or downloaded."""
    patterns = {"audioset": "*class_labels_indices*.csv", "vggsound": "vggsound_stat.csv"}
    if table.format not in patterns:
        return None
    if files := sorted(table.folder.glob(patterns[table.format])):
        return files[0]
    if table.format != "audioset":
        return None
    from mbt_lite.checkpoints import zoo  # imports JAX, which loader processes should not need

    zoo.audioset_labels()
    return paths.cache_folder() / "class_labels_indices.csv"


def read_names(path: Path) -> dict[str, str]:
    """{written label: class}, in the order of a file with class names."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text with the names of the classes.") from None
    lines = [line for line in text.splitlines() if line.strip()]
    rows = list(csv.reader(lines, skipinitialspace=True))
    if rows and rows[0][1:] == ["mid", "display_name"]:
        return {row[1]: row[2] for row in rows[1:]}
    is_table = len({len(row) for row in rows}) == 1  # otherwise one name a line, some with commas
    names = [row[0].strip() for row in rows] if is_table else [line.strip() for line in lines]
    if not names:
        raise ValueError(f"{path} names no class; write one a line.")
    return {name: name for name in names}


def _epic_classes(folder: Path) -> tuple[list[str], dict[str, str], list[str]]:
    """The verbs, then the nouns, of EPIC-KITCHENS; numbers replace names that are missing."""
    aliases, notes = {}, []
    for kind, count in EPIC_CLASSES.items():
        keys = {str(number): str(number) for number in range(count)}
        if files := sorted(folder.glob(f"*{kind}_classes.csv")):
            with files[0].open(encoding="utf-8-sig", newline="") as file:
                keys = {row["id"]: row["key"] for row in csv.DictReader(file)}
        else:
            notes.append(f"no {kind}_classes.csv in {folder}: each {kind} is named by its number")
        aliases |= {f"{kind}:{number}": f"{kind}:{key}" for number, key in keys.items()}
    return list(aliases.values()), aliases, notes


def _classified(
    rows: Sequence[Annotation], labels: Sequence[str]
) -> tuple[list[Annotation], list[str]]:
    """The rows that have a known label, with the names of their classes, and notes on the others.

    A name matches a class exactly, or without regard to case, accents in two parts, and _ for a
    space.
    """
    classes = {_folded(label): label for label in reversed(labels)} | {x: x for x in labels}
    written = dict.fromkeys(name for row in rows for name in row.labels)
    known = {name: classes.get(name, classes.get(_folded(name))) for name in written}
    rows = [
        replace(row, labels=tuple(dict.fromkeys(filter(None, map(known.get, row.labels)))))
        for row in rows
    ]
    notes = counted("labels unknown", [name for name in written if not known[name]])
    notes += counted("rows without a known label", [r.path.name for r in rows if not r.labels])
    return [row for row in rows if row.labels], notes


def _folded(name: str) -> str:
    return formats.composed(name).casefold().replace("_", " ")


# ---- files ----


def _located(
    source: Path, table: AnnotationTable, rows: list[Annotation], videos: Path | None, strict: bool
) -> list[Annotation]:
    """The rows with the paths of their files and the windows in them.

    The path of a missing file is None, or if `strict` where it was expected, unless all are
    missing.
    """
    folder = videos or table.folder
    folders = dict.fromkeys([folder, table.folder])
    by_stem = {} if table.format in ("own", "folders") else _by_stem(folder)
    located = [_locate(row, folders, by_stem, table.format) for row in rows]
    if not strict:
        return located
    expected = [folder / row.path for row in rows]
    if rows and not any(row.path for row in located):
        names = list(dict.fromkeys(map(str, expected)))
        raise ValueError(f"{source}: none of its files is there: {first(names)}.")
    return [replace(row, path=row.path or p) for row, p in zip(located, expected, strict=True)]


def _by_stem(folder: Path) -> dict[str, Path]:
    """{name without suffix: file} of all video and audio files under a folder."""
    files = sorted(folder.rglob("*"), reverse=True)  # of equal names the first one counts
    return {path.stem: path for path in files if path.suffix.lower() in SUFFIXES}


def _locate(
    row: Annotation, folders: Iterable[Path], by_stem: dict[str, Path], table_format: str
) -> Annotation:
    """The row with the path of its file, None if it is missing, and the window in that file."""
    name = str(row.path)
    for folder in folders:
        for spelling in _spellings(name):
            if (folder / spelling).is_file():
                return replace(row, path=folder / spelling)
    for cut in formats.clip_names(row, table_format):
        if cut in by_stem:
            return replace(row, path=by_stem[cut], start=0.0, end=row.end - row.start)
    return replace(row, path=by_stem.get(name, by_stem.get(f"Y{name}")))


def _spellings(name: str) -> Iterable[str]:
    """How a file may be called: as written, with backslashes of Windows replaced, and with accented
    letters as one character or as two, as a copy from another system has them.
    """
    slashed = name.replace("\\", "/")
    return dict.fromkeys([name, slashed, normalize("NFC", slashed), normalize("NFD", slashed)])


# ---- ids ----


def _safe_name(name: str) -> str:
    """A name that is valid for a file; two names never become the same one."""
    safe = re.sub(r"[^\w.-]+", "_", name.strip("/"), flags=re.ASCII)[:120]
    if safe == name and not name.startswith("."):
        return name
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return f"{safe.lstrip('.')}-{digest}"


def _unique(
    source: Path, rows: Sequence[Annotation], strict: bool
) -> tuple[list[Annotation], list[str]]:
    """One row per id, the first one, and notes on ids that are repeated.

    If `strict`, one row per clip (file and start), and a contradiction raises ValueError.
    """
    unique: dict[tuple, Annotation] = {}
    repeated, contrary = [], []
    for row in rows:
        earlier = unique.setdefault((row.path, row.start) if strict else (row.id,), row)
        if earlier is row:
            continue
        if strict and set(earlier.labels) != set(row.labels):
            raise ValueError(
                f"{source}: {row.path.name} is labeled in two ways; write all labels of a clip in "
                "one row, separated by |."
            )
        (repeated if strict or earlier == row else contrary).append(row.id)
    notes = counted("repeated rows, taken once", repeated)
    notes += counted("ids with other values in an earlier row, left out", contrary)
    return list(unique.values()), notes
