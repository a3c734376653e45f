"""Read label files in the formats of AudioSet, VGGSound, EPIC-KITCHENS and your own tables.

format     what it looks like
own        a header with path (or file, video, filename), labels; perhaps id, start, end, split
folders    a folder of folders that are named like classes
audioset   YTID, start_seconds, end_seconds, positive_labels; one header or three comments
vggsound   no header: id, start, label, split; or file, label
epic       EPIC-KITCHENS-100: narration_id, video_id, two timestamps, verb_class, noun_class

This module reads what is written; tables.py assigns the classes and searches for the files.
"""

import codecs
import csv
import io
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mbt_lite.paths import DOWNLOAD, address, stand_in

COLUMNS = {  # field of an annotation: the names that its column may have
    "path": ("file", "path", "video", "filename"),
    "labels": ("labels", "label"),
    "start": ("start", "start_seconds"),
    "end": ("end", "end_seconds"),
    "split": ("split",),
    "id": ("id",),
}
SEPARATORS = "|;"  # between labels
VGGSOUND_SECONDS = 10.0  # duration of every clip of VGGSound
SUFFIXES = frozenset(  # of all formats that container.py opens, except still images
    ".mp4 .m4v .mov .qt .f4v .ismv .psp .3gp .3g2 .3gpp .mj2 .mkv .mk3d .webm .avi .divx .flv .swf "
    ".mpg .mpeg .mpe .m1v .m2v .vob .ts .mts .m2ts .m2t .tod .trp .wmv .asf .rm .rmvb .ogv .ogm "
    ".mxf .gxf .dv .dif .nut .nsv .wtv .y4m .ivf .obu .mjpeg .mjpg .gif .apng .flc .fli .vc1 "
    ".h261 .h263 .h264 .264 .h26l .avc .h265 .265 .hevc .h266 .266 .vvc "
    ".wav .w64 .mp3 .mp2 .m2a .mpa .m4a .m4b .isma .aac .adts .flac .ogg .oga .opus .spx .wma .mka "
    ".weba .ra .aif .aiff .aifc .au .snd .caf .ac3 .eac3 .ec3 .dts .thd .tta .wv .ape .apl .mac "
    ".amr .awb .voc .mpc".split()
)
SIDECARS = (".csv", ".json", ".txt", ".md")  # files beside clips that need no note


@dataclass(frozen=True)
class Annotation:
    """One labeled window of a file."""

    id: str  # unique in its table
    path: Path | None  # None: the file is missing
    start: float | None = None  # s on the file's clock; None: its beginning
    end: float | None = None  # s; None: its end
    labels: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None  # rows of a group, such as a speaker, are held out together


@dataclass(frozen=True)
class AnnotationTable:
    """The annotations of a source, the classes in fixed order, and notes on what was left out."""

    rows: list[Annotation]
    labels: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    format: str = "own"
    folder: Path = Path()  # where the files are, unless another folder is given
    problems: tuple[str, ...] = ()  # lines that cannot be read: a sentence for each


def read(source: Path, group: str = "") -> AnnotationTable:
    """Read a table, a folder with labels.csv, or a folder of class folders, as it is written.

    The paths of the rows are relative to `folder`; they may be the names of videos. `group` names
    a column of a table of your own. Raises ValueError if the source is none of these, has no rows
    or lacks that column.
    """
    if (source / "labels.csv").is_file():
        source = source / "labels.csv"
    if source.is_dir():
        if group:
            raise ValueError(f"{source} is no table: write one with a column {group}.")
        return _class_folders(source)
    if url := address(source):
        raise ValueError(f"{url}: addresses are not opened; {DOWNLOAD}.")
    if not source.is_file():
        raise ValueError(f"{source} is neither a table (CSV) nor a folder of labeled clips.")
    table = _table(source, group)
    if not (table.rows or table.problems):
        raise ValueError(f"{source} has a header and no rows.")
    return table


def _class_folders(folder: Path) -> AnnotationTable:
    """One row per video or audio file in the subfolders of a folder, whose names are the labels.

    Raises ValueError that names the subfolders without clips: a class would be lost silently.
    """
    clips: dict[Path, list[Path]] = {}
    others = []
    for subfolder in (path for path in sorted(folder.glob("[!._]*")) if path.is_dir()):
        files = sorted(subfolder.glob("[!.]*"))
        clips[subfolder] = list(filter(is_clip, files))
        others += [f for f in files if not is_clip(f) and f.suffix.lower() not in SIDECARS]
    if not any(clips.values()):
        raise ValueError(
            f"{folder} holds neither labels.csv nor folders, named like classes, of video files."
        )
    if empty := [path.name for path in clips if not clips[path]]:
        raise ValueError(
            f"{folder}: no video or audio file lies in the class folder {', '.join(empty)}; put "
            "clips there, or take the folder away."
        )
    rows = [
        Annotation(str(path.with_suffix("")), path, labels=(composed(path.parent.name),))
        for files in clips.values()
        for path in (file.relative_to(folder) for file in files)
    ]
    ignored = [str(path.relative_to(folder)) for path in others]
    notes = counted("no video or audio by their suffix, left out", ignored)
    return AnnotationTable(rows, notes=tuple(notes), format="folders", folder=folder)


def is_clip(path: Path) -> bool:
    """Whether a file is video or audio by its suffix."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def composed(text: str) -> str:
    """A text with each accented letter as one character; macOS writes two."""
    return unicodedata.normalize("NFC", text)


def counted(what: str, names: Sequence[str]) -> list[str]:
    """A note that counts some names and shows the first five; no note if there are none."""
    return [f"{what} ({len(names)}): {first(names)}"] if names else []


def first(names: Sequence[str], count: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


# ---- which format ----


def _table(path: Path, group: str) -> AnnotationTable:
    text = _text(path)
    # Excel may begin with a line that names the delimiter; it stays, empty, so that lines count
    sep = re.match(r'"?sep=(.)"?[;,\t]*(?=[\r\n])', text, flags=re.IGNORECASE)
    text = text[sep.end() :] if sep else text
    first_line = next((line for line in text.splitlines() if line.strip()), "").casefold()
    header = first_line.lstrip("#").replace(" ", "").split(",")
    if first_line.startswith("# segments csv") or header[0] == "ytid":
        return _parse("audioset", path, text, ",", _audioset)
    if {"narration_id", "video_id", "verb_class", "noun_class"} <= set(header):
        return _parse("epic", path, text, ",", _epic(header))
    fields = next(csv.reader([first_line], skipinitialspace=True), [])
    names_file = len(fields) == 2 and Path(fields[0]).suffix.lower() in SUFFIXES
    whole = len(fields) == 4 and fields[1].isdecimal() and fields[3] in ("train", "test")
    if names_file or whole:
        return _parse("vggsound", path, text, ",", _vggsound)
    delimiter = sep[1] if sep else max(",;\t", key=first_line.count)
    header = next((fields for _, fields in _rows(path, text, delimiter)), [])
    return _parse("own", path, text, delimiter, _own(path, header, group))


def _text(path: Path) -> str:
    data = path.read_bytes()
    if description := stand_in(data[:64]):
        raise ValueError(f"{path} is {description}.")
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # "Unicode text"
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a UTF-8 text file; save the table as CSV UTF-8.") from None


def _parse(name: str, path: Path, text: str, delimiter: str, parse: Callable) -> AnnotationTable:
    """Parse each line with `parse(fields)`, which names the fields as `COLUMNS` does.

    For a header it returns None.
    """
    rows, problems = [], []
    for number, fields in _rows(path, text, delimiter):
        try:
            if row := parse(fields):
                rows.append(_annotation(row))
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}")
    return AnnotationTable(rows, format=name, folder=path.parent, problems=tuple(problems))


def _annotation(row: dict[str, str]) -> Annotation:
    """The annotation of a line, by the names of its fields; ValueError if it makes no sense."""
    if not row["path"]:
        raise ValueError("no file is named.")
    file = Path(row["path"])
    if file.name in ("", ".."):
        raise ValueError(f"{row['path']!r} is a folder; name a file.")
    start, end = _seconds(row.get("start", "")), _seconds(row.get("end", ""), "end")
    if not (start or 0.0) < (math.inf if end is None else end):
        raise ValueError(f"the window ends at {end:g} s, but begins at {start or 0.0:g} s.")
    window = "".join(f"_{_milliseconds(time)}" for time in (start, end) if time is not None)
    name = row.get("id") or str(file.with_suffix("")) + window
    labels = (composed(label.strip()) for label in re.split(f"[{SEPARATORS}]", row["labels"]))
    split, group = (row.get(name) or None for name in ("split", "group"))
    return Annotation(name, file, start, end, tuple(filter(None, labels)), split, group)


def _seconds(text: str, name: str = "start") -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} {text!r} is no time in seconds.")
    return value


def _milliseconds(seconds: float) -> str:
    return str(round(1000 * seconds))


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    line = 1
    try:
        for fields in reader:
            if reader.line_num > line:
                raise ValueError(
                    f'{path}, line {line}: a quote (") is opened and not closed in this line, so '
                    "that the next rows belong to its text; close it."
                )
            if any(fields := [value.strip() for value in fields]):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; is this a CSV file?") from None


# ---- formats of data sets ----


def _audioset(fields: Sequence[str]) -> dict[str, str] | None:
    if fields[0].startswith("#") or fields[0].casefold() == "ytid":
        return None
    _expect(fields, 4)
    video, start, end, mids = fields
    return {"path": video, "start": start, "end": end, "labels": mids.replace(",", "|")}


def _vggsound(fields: Sequence[str]) -> dict[str, str]:
    if len(fields) == 2:
        return {"id": Path(fields[0]).stem, "path": fields[0], "labels": fields[1]}
    _expect(fields, 4)
    video, start, label, split = fields
    begin = _seconds(start) or 0.0
    window = {"start": start, "end": str(begin + VGGSOUND_SECONDS)}
    name = f"{video}_{round(begin):06d}"
    return {"id": name, "path": video, **window, "labels": label, "split": split}


def _epic(header: Sequence[str]) -> Callable[[Sequence[str]], dict[str, str] | None]:
    def parse(fields: Sequence[str]) -> dict[str, str] | None:
        if list(map(str.casefold, fields)) == list(header):
            return None
        _expect(fields, len(header))
        row = dict(zip(header, fields, strict=True))
        return {
            "id": row["narration_id"],
            "path": row["video_id"],
            "start": _clock(row["start_timestamp"]),
            "end": _clock(row["stop_timestamp"]),
            "labels": f"verb:{int(row['verb_class'])}|noun:{int(row['noun_class'])}",
        }

    return parse


def _expect(fields: Sequence[str], count: int) -> None:
    if len(fields) != count:
        raise ValueError(
            f"{len(fields)} fields instead of {count}; put quotes around one with ','."
        )


def _clock(text: str) -> str:
    """Seconds of hours:minutes:seconds."""
    hours, minutes, seconds = text.split(":")
    return str(3600 * int(hours) + 60 * int(minutes) + float(seconds))


def clip_names(row: Annotation, table_format: str) -> list[str]:
    """Names, without suffix, that downloaders give to a file that was cut to a row's window."""
    if table_format not in ("audioset", "vggsound", "epic"):
        return []
    if table_format == "epic" or row.start is None:
        return [row.id]
    begin, end = (
        [f"{t:g}", f"{round(t)}", f"{round(t):06d}", f"{t:.1f}", f"{t:.3f}", _milliseconds(t)]
        for t in (row.start, row.end)
    )
    both = [f"{row.path}_{a}_{b}" for a in begin for b in end]
    return both + [f"{row.path}_{a}" for a in begin]


# ---- your own tables ----


def _own(
    path: Path, header: Sequence[str], group: str
) -> Callable[[Sequence[str]], dict[str, str] | None]:
    columns = _columns(path, header, group)

    def parse(fields: Sequence[str]) -> dict[str, str] | None:
        if fields == header:
            return None
        if len(fields) > len(header):
            raise ValueError("too many fields; put quotes around one with ','.")
        return {name: fields[i] if i < len(fields) else "" for name, i in columns.items()}

    return parse


def _columns(path: Path, header: Sequence[str], group: str) -> dict[str, int]:
    """{field of an annotation: number of its column}."""
    numbers = {name.strip().casefold(): i for i, name in reversed(list(enumerate(header)))}
    columns = {}
    wanted = COLUMNS | ({"group": (group.casefold(),)} if group else {})
    for key, names in wanted.items():
        if name := next((name for name in names if name in numbers), None):
            columns[key] = numbers[name]
        elif key in ("path", "labels", "group"):
            raise ValueError(
                f"{path} has no column {' or '.join(names)}; its first line says "
                f"{', '.join(header)!r}."
            )
    return columns
