"""The forms in which data sets write their labels, each read into the same lines.

form       what it looks like
own        a header with path (or file, video, filename), labels; perhaps id, start, end, split
folders    a folder of folders that are named like classes
audioset   YTID, start_seconds, end_seconds, positive_labels; one header or three comments
vggsound   no header: id, start, label, split; or file, label
epic       EPIC-KITCHENS-100: narration_id, video_id, two timestamps, verb_class, noun_class
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

FILE_COLUMNS = ("file", "path", "video", "filename")
LABEL_COLUMNS = ("labels", "label")
START_COLUMNS = ("start", "start_seconds")
END_COLUMNS = ("end", "end_seconds")
SEPARATORS = "|;"
VGGSOUND_SECONDS = 10.0  # every clip of VGGSound is so long
SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .3gp .flv .ogv .wmv .gif "
    ".wav .mp3 .m4a .aac .flac .ogg .opus".split()
)


class Line(NamedTuple):
    """One labelled window as a table writes it."""

    name: str  # tells the line from all others, where the table has no repetitions
    file: str  # a path, or where a data set names its videos only, such a name
    names: tuple[str, ...]  # labels as written
    start: float | None = None  # s
    end: float | None = None  # s
    split: str | None = None
    cuts: tuple[str, ...] = ()  # what a file that holds just this window may be called


@dataclass(frozen=True)
class Sheet:
    """The lines of a source, and in sentences those that could not be read."""

    form: str
    folder: Path  # where the files of the lines lie, unless another folder is given
    lines: list[Line]
    problems: list[str]


def read(source: Path) -> Sheet:
    """The `Sheet` of a table, of a folder with labels.csv, or of a folder of class folders.

    Raises ValueError where the source is neither, or holds no line at all.
    """
    if (source / "labels.csv").is_file():
        source = source / "labels.csv"
    if source.is_dir():
        return Sheet("folders", source, _folders(source), [])
    if not source.is_file():
        raise ValueError(f"{source} is neither a table (CSV) nor a folder of labelled clips.")
    sheet = _table(source)
    if not (sheet.lines or sheet.problems):
        raise ValueError(f"{source} has a header and no rows.")
    return sheet


def _folders(folder: Path) -> list[Line]:
    """One line per video or sound file in the folders of a folder, whose names are the labels."""
    paths = [
        path
        for path in sorted(folder.glob("[!.]*/[!.]*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not paths:
        raise ValueError(
            f"{folder} holds neither labels.csv nor folders, named like classes, of video files."
        )
    inside = [path.relative_to(folder) for path in paths]
    return [Line(str(p.with_suffix("")), str(p), (p.parent.name,)) for p in inside]


# ---- which form ----


def _table(path: Path) -> Sheet:
    text = _text(path)
    lines = text.splitlines()
    first = lines[0].casefold() if lines else ""
    header = first.lstrip("#").replace(" ", "").split(",")
    if first.startswith("# segments csv") or header[0] == "ytid":
        return _sheet("audioset", path, text, ",", _audioset)
    if {"narration_id", "video_id", "verb_class", "noun_class"} <= set(header):
        return _sheet("epic", path, text, ",", _epic(header))
    if _is_vggsound(first):
        return _sheet("vggsound", path, text, ",", _vggsound)
    return _own_sheet(path, text)


def _is_vggsound(first: str) -> bool:
    fields = next(csv.reader([first], skipinitialspace=True), [])
    named = len(fields) == 2 and Path(fields[0]).suffix in SUFFIXES
    return named or (len(fields) == 4 and fields[1].isdecimal() and fields[3] in ("train", "test"))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a UTF-8 text file; save the table as CSV UTF-8.") from None


def _sheet(form: str, path: Path, text: str, delimiter: str, read: Callable) -> Sheet:
    """The sheet of a table whose rows `read` turns into a line; None stands for a header."""
    lines, problems = [], []
    for number, fields in _rows(path, text, delimiter):
        try:
            line = read(fields)
        except (ValueError, IndexError) as error:
            reason = error if isinstance(error, ValueError) else "too few fields."
            problems.append(f"{path}, line {number}: {reason}")
        else:
            lines += [line] if line else []
    return Sheet(form, path.parent, lines, problems)


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row that holds something."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any(fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; is this a CSV file?") from None


# ---- tables of data sets ----


def _audioset(fields: Sequence[str]) -> Line | None:
    if fields[0].startswith("#") or fields[0].casefold() == "ytid":
        return None
    video, start, end, mids = fields[0], _seconds(fields[1]), _seconds(fields[2]), fields[3]
    if start is None or end is None or len(fields) > 4:
        raise ValueError("an id, a start, an end and labels in quotes are wanted.")
    return _segment(f"{video}_{_ms(start)}_{_ms(end)}", video, _split(mids, ","), start, end)


def _vggsound(fields: Sequence[str]) -> Line:
    if len(fields) == 2 and Path(fields[0]).suffix:
        path = Path(fields[0])
        return Line(path.stem, fields[0], _split(fields[1], ""), cuts=(path.stem,))
    if len(fields) != 4:
        raise ValueError("put quotes around a label with ','.")
    video, start, label, split = fields
    begin = _seconds(start)
    if begin is None:
        raise ValueError("no start is given.")
    end = begin + VGGSOUND_SECONDS
    line = _segment(f"{video}_{round(begin):06d}", video, _split(label, ""), begin, end)
    return line._replace(split=split or None)


def _epic(header: Sequence[str]) -> Callable[[Sequence[str]], Line | None]:
    def line(fields: Sequence[str]) -> Line | None:
        if list(map(str.casefold, fields)) == list(header):
            return None
        if len(fields) != len(header):
            raise ValueError(f"{len(fields)} fields, but the header has {len(header)}.")
        row = dict(zip(header, fields, strict=True))
        names = (f"verb:{int(row['verb_class'])}", f"noun:{int(row['noun_class'])}")
        start, end = _clock(row["start_timestamp"]), _clock(row["stop_timestamp"])
        _check_window(start, end)
        name = row["narration_id"]
        return Line(name, row["video_id"], names, start, end, cuts=(name,))

    return line


def _segment(name: str, video: str, names: tuple[str, ...], start: float, end: float) -> Line:
    """A window of a video, under the names that downloaders give to a file which is cut so."""
    _check_window(start, end)
    starts = [*dict.fromkeys([f"{start:g}", f"{round(start)}", f"{round(start):06d}"])]
    starts += [f"{start:.1f}", f"{start:.3f}", _ms(start)]
    ends = [f"{end:g}", f"{round(end)}", f"{round(end):06d}", f"{end:.1f}", f"{end:.3f}", _ms(end)]
    pairs = [f"{video}_{a}_{b}" for a in starts for b in ends]
    singles = [f"{video}_{a}" for a in starts]
    return Line(name, video, names, start, end, cuts=tuple(dict.fromkeys(pairs + singles)))


def _ms(seconds: float) -> str:
    return str(round(1000 * seconds))


def _clock(text: str) -> float:
    """Seconds of hours:minutes:seconds."""
    hours, minutes, seconds = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


# ---- a table of one's own ----


def _own_sheet(path: Path, text: str) -> Sheet:
    delimiter = _delimiter(text)
    header = next((fields for _, fields in _rows(path, text, delimiter)), [])
    columns = _own_columns(path, header)

    def line(fields: Sequence[str]) -> Line | None:
        return None if fields == header else _own_line(fields, len(header), columns)

    return _sheet("own", path, text, delimiter, line)


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab: what the header has most of."""
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def _own_columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Where each thing stands in a row."""
    spelled = {name.strip().casefold(): i for i, name in reversed(list(enumerate(header)))}
    wanted = {"file": FILE_COLUMNS, "labels": LABEL_COLUMNS, "start": START_COLUMNS}
    wanted |= {"end": END_COLUMNS, "split": ("split",), "id": ("id",)}
    found = {
        kind: next((spelled[name] for name in names if name in spelled), None)
        for kind, names in wanted.items()
    }
    for kind in ("file", "labels"):
        if found[kind] is None:
            raise ValueError(
                f"{path} has no column {' or '.join(wanted[kind])}; its first line says "
                f"{', '.join(header)!r}."
            )
    return {kind: column for kind, column in found.items() if column is not None}


def _own_line(fields: Sequence[str], width: int, columns: dict[str, int]) -> Line:
    if len(fields) > width:
        raise ValueError("too many fields; put quotes around one with ','.")
    row = {kind: fields[i] if i < len(fields) else "" for kind, i in columns.items()}
    if not row["file"]:
        raise ValueError("no file is named.")
    start, end = _seconds(row.get("start", "")), _seconds(row.get("end", ""), "end")
    _check_window(start or 0.0, math.inf if end is None else end)
    window = "".join(f"_{_ms(time)}" for time in (start, end) if time is not None)
    name = row.get("id") or str(Path(row["file"]).with_suffix("")) + window
    names = _split(row["labels"], SEPARATORS)
    return Line(name, row["file"], names, start, end, row.get("split") or None)


def _split(labels: str, separators: str) -> tuple[str, ...]:
    for separator in separators:
        labels = labels.replace(separator, "\n")
    names = (name.strip() for name in labels.split("\n"))
    return tuple(name for name in names if name)


def _seconds(text: str, what: str = "start") -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{what} {text!r} is no time in seconds.")
    return value


def _check_window(start: float, end: float) -> None:
    if not start < end:
        raise ValueError(f"the window ends at {end:g} s, but begins at {start:g} s.")
