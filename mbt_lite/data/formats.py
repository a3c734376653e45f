"""Read label files in the formats of AudioSet, VGGSound, EPIC-KITCHENS and your own tables.

form       what it looks like
own        a header with path (or file, video, filename), labels; perhaps id, start, end, split
folders    a folder of folders that are named like classes
audioset   YTID, start_seconds, end_seconds, positive_labels; one header or three comments
vggsound   no header: id, start, label, split; or file, label
epic       EPIC-KITCHENS-100: narration_id, video_id, two timestamps, verb_class, noun_class
"""

import codecs
import csv
import io
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mbt_lite.paths import DOWNLOAD, address, stand_in

FILE_COLUMNS = ("file", "path", "video", "filename")
LABEL_COLUMNS = ("labels", "label")
START_COLUMNS = ("start", "start_seconds")
END_COLUMNS = ("end", "end_seconds")
SEPARATORS = "|;"
VGGSOUND_SECONDS = 10.0  # every clip of VGGSound is so long
SUFFIXES = frozenset(  # of everything that container.py opens, but for still images
    ".mp4 .m4v .mov .qt .f4v .ismv .psp .3gp .3g2 .3gpp .mj2 .mkv .mk3d .webm .avi .divx .flv .swf "
    ".mpg .mpeg .mpe .m1v .m2v .vob .ts .mts .m2ts .m2t .tod .trp .wmv .asf .rm .rmvb .ogv .ogm "
    ".mxf .gxf .dv .dif .nut .nsv .wtv .y4m .ivf .obu .mjpeg .mjpg .gif .apng .flc .fli .vc1 "
    ".h261 .h263 .h264 .264 .h26l .avc .h265 .265 .hevc .h266 .266 .vvc "
    ".wav .w64 .mp3 .mp2 .m2a .mpa .m4a .m4b .isma .aac .adts .flac .ogg .oga .opus .spx .wma .mka "
    ".weba .ra .aif .aiff .aifc .au .snd .caf .ac3 .eac3 .ec3 .dts .thd .tta .wv .ape .apl .mac "
    ".amr .awb .voc .mpc".split()
)
BESIDE = (".csv", ".json", ".txt", ".md")  # of what lies beside clips: not worth a word


class Annotation(NamedTuple):
    """One labelled window as a table writes it."""

    name: str  # tells the line from all others, where the table has no repetitions
    file: str  # a path, or where a data set names its videos only, such a name
    names: tuple[str, ...]  # labels as written
    start: float | None = None  # s
    end: float | None = None  # s
    split: str | None = None
    cuts: tuple[str, ...] = ()  # what a file that holds just this window may be called


@dataclass(frozen=True)
class AnnotationTable:
    """The lines of a source, and in sentences those that could not be read."""

    form: str
    folder: Path  # where the files of the lines lie, unless another folder is given
    lines: list[Annotation]
    problems: list[str]
    notes: tuple[str, ...] = ()  # in sentences, what was passed over


def read(source: Path) -> AnnotationTable:
    """Read a table, a folder with labels.csv, or a folder of class folders.

    Raises ValueError where the source is neither, or holds no line at all.
    """
    if (source / "labels.csv").is_file():
        source = source / "labels.csv"
    if source.is_dir():
        return _folders(source)
    if found := address(source):
        raise ValueError(f"{found}: addresses are not opened; {DOWNLOAD}.")
    if not source.is_file():
        raise ValueError(f"{source} is neither a table (CSV) nor a folder of labelled clips.")
    sheet = _table(source)
    if not (sheet.lines or sheet.problems):
        raise ValueError(f"{source} has a header and no rows.")
    return sheet


def _folders(folder: Path) -> AnnotationTable:
    """One line per video or audio file in the folders of a folder, whose names are the labels.

    ValueError that names the folders in which there is none: a class would be lost in silence.
    """
    classes = [path for path in sorted(folder.glob("[!._]*")) if path.is_dir()]
    clips = {path: [file for file in _visible(path) if is_clip(file)] for path in classes}
    if not any(clips.values()):
        raise ValueError(
            f"{folder} holds neither labels.csv nor folders, named like classes, of video files."
        )
    others = [path for path, files in clips.items() if not files and _is_no_class(path)]
    clips = {path: files for path, files in clips.items() if path not in others}
    empty = [f"{path.name} ({_holding(path)})" for path, files in clips.items() if not files]
    if empty:
        raise ValueError(
            f"{folder}: no video or audio file lies in the class folder {', '.join(empty)}; put "
            "clips there, or take the folder away."
        )
    lines = []
    for path, files in clips.items():
        label = composed(path.name)
        inside = [file.relative_to(folder) for file in files]
        lines += [Annotation(str(p.with_suffix("")), str(p), (label,)) for p in inside]
    left = [f"{path.name}/" for path in others]
    left += [
        str(file.relative_to(folder))
        for path, files in clips.items()
        for file in _visible(path)
        if file not in files and file.suffix.lower() not in BESIDE
    ]
    more = " ..." if len(left) > 5 else ""
    said = f"no video or audio by their suffix, left out ({len(left)}): {', '.join(left[:5])}{more}"
    return AnnotationTable("folders", folder, lines, [], (said,) if left else ())


def _visible(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*"))


def _is_no_class(folder: Path) -> bool:
    """Whether a folder without clips is what a command wrote there, such as runs/ or a report."""
    inside = _visible(folder)
    if any(path.suffix in (".json", ".html") for path in inside):
        return True
    only_folders = bool(inside) and all(path.is_dir() for path in inside)
    return only_folders and not any(is_clip(path) for path in folder.rglob("*"))


def _holding(folder: Path) -> str:
    """What is in a folder without clips, for a sentence."""
    names = [path.name + "/" * path.is_dir() for path in _visible(folder)]
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "") or "empty"


def is_clip(path: Path) -> bool:
    """Whether a file is video or audio by its suffix."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def composed(text: str) -> str:
    """A text with its accents as single characters, as they are typed; macOS takes them apart."""
    return unicodedata.normalize("NFC", text)


# ---- which form ----


def _table(path: Path) -> AnnotationTable:
    text, delimiter = _without_sep(_text(path))
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "").casefold()
    header = first.lstrip("#").replace(" ", "").split(",")
    if first.startswith("# segments csv") or header[0] == "ytid":
        return _sheet("audioset", path, text, ",", _audioset)
    if {"narration_id", "video_id", "verb_class", "noun_class"} <= set(header):
        return _sheet("epic", path, text, ",", _epic(header))
    if _is_vggsound(first):
        return _sheet("vggsound", path, text, ",", _vggsound)
    return _own_sheet(path, text, delimiter or _delimiter(text))


def _is_vggsound(first: str) -> bool:
    fields = next(csv.reader([first], skipinitialspace=True), [])
    named = len(fields) == 2 and Path(fields[0]).suffix.lower() in SUFFIXES
    return named or (len(fields) == 4 and fields[1].isdecimal() and fields[3] in ("train", "test"))


def _text(path: Path) -> str:
    data = path.read_bytes()
    if what := stand_in(data[:64]):
        raise ValueError(f"{path} is {what}.")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a UTF-8 text file; save the table as CSV UTF-8.") from None


def _without_sep(text: str) -> tuple[str, str | None]:
    """The text with Excel's first line sep=; left empty, and the character that it names."""
    found = re.match(r'"?sep=(.)"?[;,\t]*(?=[\r\n])', text, flags=re.IGNORECASE)
    return (text[found.end() :], found[1]) if found else (text, None)


def _sheet(form: str, path: Path, text: str, delimiter: str, read: Callable) -> AnnotationTable:
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
    return AnnotationTable(form, path.parent, lines, problems)


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row that holds something."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    begins = 1
    try:
        for fields in reader:
            if reader.line_num > begins:
                _check_closed(path, text, delimiter, begins)
            fields, begins = [field.strip() for field in fields], reader.line_num + 1
            if any(fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; is this a CSV file?") from None


def _check_closed(path: Path, text: str, delimiter: str, begins: int) -> None:
    """Refuse a row of several lines whose quote is never closed: all after it would be lost."""
    rest = io.StringIO(text, newline="").readlines()[begins - 1 :]
    try:
        next(csv.reader(rest, delimiter=delimiter, skipinitialspace=True, strict=True), None)
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise ValueError(
                f'{path}, line {begins}: a quote (") is opened and never closed, so that all rows '
                "after it are lost; close it."
            ) from None


# ---- tables of data sets ----


def _audioset(fields: Sequence[str]) -> Annotation | None:
    if fields[0].startswith("#") or fields[0].casefold() == "ytid":
        return None
    video, start, end, mids = fields[0], _seconds(fields[1]), _seconds(fields[2]), fields[3]
    if start is None or end is None or len(fields) > 4:
        raise ValueError("an id, a start, an end and labels in quotes are wanted.")
    return _segment(f"{video}_{_ms(start)}_{_ms(end)}", video, _split(mids, ","), start, end)


def _vggsound(fields: Sequence[str]) -> Annotation:
    if len(fields) == 2 and Path(fields[0]).suffix:
        path = Path(fields[0])
        return Annotation(path.stem, fields[0], _split(fields[1], ""), cuts=(path.stem,))
    if len(fields) != 4:
        raise ValueError("put quotes around a label with ','.")
    video, start, label, split = fields
    begin = _seconds(start)
    if begin is None:
        raise ValueError("no start is given.")
    end = begin + VGGSOUND_SECONDS
    line = _segment(f"{video}_{round(begin):06d}", video, _split(label, ""), begin, end)
    return line._replace(split=split or None)


def _epic(header: Sequence[str]) -> Callable[[Sequence[str]], Annotation | None]:
    def line(fields: Sequence[str]) -> Annotation | None:
        if list(map(str.casefold, fields)) == list(header):
            return None
        if len(fields) != len(header):
            raise ValueError(f"{len(fields)} fields, but the header has {len(header)}.")
        row = dict(zip(header, fields, strict=True))
        names = (f"verb:{int(row['verb_class'])}", f"noun:{int(row['noun_class'])}")
        start, end = _clock(row["start_timestamp"]), _clock(row["stop_timestamp"])
        _check_window(start, end)
        name = row["narration_id"]
        return Annotation(name, row["video_id"], names, start, end, cuts=(name,))

    return line


def _segment(name: str, video: str, names: tuple[str, ...], start: float, end: float) -> Annotation:
    """A window of a video, under the names that downloaders give to a file which is cut so."""
    _check_window(start, end)
    starts = [*dict.fromkeys([f"{start:g}", f"{round(start)}", f"{round(start):06d}"])]
    starts += [f"{start:.1f}", f"{start:.3f}", _ms(start)]
    ends = [f"{end:g}", f"{round(end)}", f"{round(end):06d}", f"{end:.1f}", f"{end:.3f}", _ms(end)]
    pairs = [f"{video}_{a}_{b}" for a in starts for b in ends]
    singles = [f"{video}_{a}" for a in starts]
    return Annotation(name, video, names, start, end, cuts=tuple(dict.fromkeys(pairs + singles)))


def _ms(seconds: float) -> str:
    return str(round(1000 * seconds))


def _clock(text: str) -> float:
    """Seconds of hours:minutes:seconds."""
    hours, minutes, seconds = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


# ---- a table of one's own ----


def _own_sheet(path: Path, text: str, delimiter: str) -> AnnotationTable:
    header = next((fields for _, fields in _rows(path, text, delimiter)), [])
    columns = _own_columns(path, header)

    def line(fields: Sequence[str]) -> Annotation | None:
        return None if fields == header else _own_line(fields, len(header), columns)

    return _sheet("own", path, text, delimiter, line)


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab: what the header has most of."""
    header = text.lstrip().partition("\n")[0]
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


def _own_line(fields: Sequence[str], width: int, columns: dict[str, int]) -> Annotation:
    if len(fields) > width:
        raise ValueError("too many fields; put quotes around one with ','.")
    row = {kind: fields[i] if i < len(fields) else "" for kind, i in columns.items()}
    if not row["file"]:
        raise ValueError("no file is named.")
    if "\n" in row["file"] + row["labels"]:
        raise ValueError('a quote (") is opened in one row and closed in another; close it.')
    if Path(row["file"]).name in ("", ".."):
        raise ValueError(f"{row['file']!r} is a folder; name a file.")
    start, end = _seconds(row.get("start", "")), _seconds(row.get("end", ""), "end")
    _check_window(start or 0.0, math.inf if end is None else end)
    window = "".join(f"_{_ms(time)}" for time in (start, end) if time is not None)
    name = row.get("id") or str(Path(row["file"]).with_suffix("")) + window
    names = _split(row["labels"], SEPARATORS)
    return Annotation(name, row["file"], names, start, end, row.get("split") or None)


def _split(labels: str, separators: str) -> tuple[str, ...]:
    for separator in separators:
        labels = labels.replace(separator, "\n")
    names = (composed(name.strip()) for name in labels.split("\n"))
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
