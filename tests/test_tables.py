"""Tables and class folders become annotations; what is left out is noted, errors are refused."""

import re
from unicodedata import normalize

import av
import pytest

from mbt_lite.data import formats, tables
from mbt_lite.media import container

LABELS = ("dog barks", "bell", "Male speech, man speaking")


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def write(folder, text, name="labels.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def read(source, labels=LABELS):
    """The table for a model with these classes."""
    return tables.read(source, classes=labels, strict=True)


def numbered(source, labels=LABELS):
    """{file: (class numbers, start)} and the notes."""
    table = read(source, labels)
    numbers = {r.path.name: sorted(labels.index(name) for name in r.labels) for r in table.rows}
    return {r.path.name: (numbers[r.path.name], r.start) for r in table.rows}, table.notes


@pytest.mark.parametrize(
    "column, separator", [("file", "|"), ("path", ";"), ("video", " | "), ("Filename", "|")]
)
def test_labels_match_by_name_under_the_usual_column_names(folder, column, separator):
    write(folder, f'{column},labels\na.mp4,"bell{separator}dog barks"\nb.mp4,bell\n')
    assert numbered(folder) == ({"a.mp4": ([0, 1], None), "b.mp4": ([1], None)}, ())


@pytest.mark.parametrize(
    "text, encoding",
    [
        ('file,label\r\na.mp4,"Male speech, man speaking"\r\n', "utf-8"),
        ('file,label\na.mp4,"Male speech, man speaking"', "utf-8-sig"),
        ("file;label\na.mp4;Male speech, man speaking\n", "utf-8"),
        ("file\tlabel\na.mp4\tmale SPEECH, man speaking\n\n", "utf-8"),
        ("file\tlabel\r\na.mp4\tMale speech, man speaking\r\n", "utf-16"),
        ("sep=;\r\nfile;label\r\na.mp4;Male speech, man speaking\r\n", "utf-8-sig"),
        ('"sep=|"\nfile|label\na.mp4|Male speech, man speaking\n', "utf-8"),
        ("file;label\n.\\a.mp4;Male_speech, man speaking\n", "utf-8"),
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(folder, text, encoding):
    write(folder, text, encoding=encoding)
    assert numbered(folder)[0] == {"a.mp4": ([2], None)}


def test_rows_without_a_label_of_the_model_are_left_out_and_counted(folder):
    write(folder, "file,labels\na.mp4,bell|cow\nb.mp4,cow\nc.mp4,\n")
    classes, notes = numbered(folder)
    assert classes == {"a.mp4": ([1], None)}
    assert notes == (
        "labels unknown (1): cow",
        "rows without a known label (2): b.mp4, c.mp4",
    )


def test_a_repeated_row_counts_once_and_a_contradiction_is_refused(folder):
    write(folder, "file,labels\na.mp4,bell\na.mp4,bell\n")
    assert numbered(folder) == ({"a.mp4": ([1], None)}, ("repeated rows, taken once (1): a",))
    write(folder, "file,labels\na.mp4,bell\na.mp4,dog barks\n")
    with pytest.raises(ValueError, match="a.mp4 is labeled in two ways"):
        read(folder)


def test_missing_files_do_not_stop_the_others_but_a_table_without_any_is_refused(folder):
    rows = "".join(f"x{i}.mp4,bell\n" for i in range(9))
    items = read(write(folder, f"file,labels\na.mp4,bell\n{rows}")).rows
    assert [item.path.name for item in items] == ["a.mp4", *(f"x{i}.mp4" for i in range(9))]
    with pytest.raises(ValueError, match=r"none of its files is there: .*x0.mp4.* and 4 more"):
        read(write(folder, f"file,labels\n{rows}"))


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "no column file or path"),
        ("file,labels\n", "a header and no rows"),
        ("name,labels\na.mp4,bell\n", "no column file or path or video or filename"),
        ("file,class\na.mp4,bell\n", "no column labels or label"),
        ("file,labels\na.mp4,Male speech, man speaking\n", "line 2: too many fields"),
        ("file,labels\n,bell\n", "line 2: no file is named"),
        ("file,labels\n.,bell\n", "line 2: '.' is a folder; name a file"),
        ('file,labels\n"a.mp4,bell\nb.mp4,bell\n', "line 2: a quote .* not closed in this line"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "is a git-lfs pointer"),
        ("file,labels,start\na.mp4,bell,soon\n", "line 2: start 'soon' is no time"),
        ("file,labels,start\na.mp4,bell,-1\n", "start '-1' is no time"),
        (
            "file,labels\na.mp4,cow\n",
            r"none of 1 rows can be used; labels unknown \(1\): cow",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(folder, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(write(folder, text))


@pytest.mark.parametrize("table, disk", [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_accent_is_one_letter_or_two(folder, table, disk):
    (folder / normalize(disk, "über.mp4")).write_bytes(b"")
    text = f"file,labels\n{normalize(table, 'über.mp4,Tür')}\na.mp4,bell\n"
    classes, notes = numbered(write(folder, text), ("bell", normalize(disk, "Tür")))
    assert classes == {normalize(disk, "über.mp4"): ([1], None), "a.mp4": ([0], None)}
    rows = tables.read(folder)
    assert [row.path is not None for row in rows.rows] == [True, True]
    assert rows.labels == ["Tür", "bell"] and rows.notes == notes == ()


def test_every_suffix_of_a_format_that_is_opened_counts_as_a_clip():
    stills = {"avif", "heic", "heif", "mks", "mpo", "ism"}
    opened = set()
    for name in container.CONTAINERS.split(","):
        opened |= set(av.ContainerFormat(name, "r").extensions)
    assert {f".{suffix}" for suffix in opened - stills} <= formats.SUFFIXES
    assert {".mts", ".m2ts", ".mxf", ".asf", ".aif", ".caf", ".wma", ".amr"} <= formats.SUFFIXES
    assert all(suffix == suffix.lower() for suffix in formats.SUFFIXES)


def test_a_class_folder_without_clips_is_refused_and_other_files_are_noted(tmp_path):
    names = ("bell/1.MTS", "bell/2.m2ts", "bell/3.doc", "bell/notes.txt", "dog_barks/1.Aif")
    for name in (*names, ".fish/deeper/1.mp4", ".git/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    expected = ("no video or audio by their suffix, left out (1): bell/3.doc",)
    classes, notes = numbered(tmp_path)
    assert classes == {"1.MTS": ([1], None), "2.m2ts": ([1], None), "1.Aif": ([0], None)}
    assert notes == tables.read(tmp_path).notes == expected
    (tmp_path / ".fish").rename(tmp_path / "fish")
    (tmp_path / "goat").mkdir()
    for function in (numbered, tables.read):
        with pytest.raises(ValueError, match="in the class folder fish, goat; put clips there"):
            function(tmp_path)


def test_a_source_that_is_missing_or_no_text_is_refused(folder):
    (folder / "video.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="not a UTF-8 text file"):
        read(folder / "video.csv")
    with pytest.raises(ValueError, match="neither a table"):
        read(folder / "nothing")
    with pytest.raises(ValueError, match="holds neither labels.csv nor folders"):
        read(folder)


# ---- formats of data sets ----

INDICES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'
ORIGINAL = (
    "# Segments csv created Sun Mar  5 10:54:25 2017\n"
    "# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
    '--ZhevVpy1s, 50.000, 60.000, "/m/05zppz"\n'
)
ONE_HEADER = ORIGINAL.partition("\n# YTID")[2].replace(", ", ",")
ONE_HEADER = "YTID" + ONE_HEADER


def rows_of(folder, text, files=(), **options):
    """The annotations of a table with these files in the folder videos/."""
    for name in files:
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "videos" / name).write_bytes(b"")
    table = write(folder, text, "table.csv")
    return tables.read(table, folder / "videos", **options)


@pytest.mark.parametrize("text", [ORIGINAL, ONE_HEADER], ids=["three comments", "one header"])
def test_audioset_is_read_in_both_forms_with_names_in_official_order(tmp_path, text):
    write(tmp_path, INDICES, "class_labels_indices.csv")
    table = rows_of(tmp_path, text, ["--PJHxphWEs.mp4"])
    assert table.labels == ["Speech", "Male speech, man speaking"]
    assert table.rows == [
        tables.Annotation(
            "--PJHxphWEs_30000_40000",
            tmp_path / "videos" / "--PJHxphWEs.mp4",
            30.0,
            40.0,
            ("Speech",),
        ),
        tables.Annotation(
            "--ZhevVpy1s_50000_60000", None, 50.0, 60.0, ("Male speech, man speaking",)
        ),
    ]
    assert table.notes == (
        "class names are those of class_labels_indices.csv",
        "labels unknown (1): /t/dd00088",
        "files missing (1): --ZhevVpy1s_50000_60000",
    )


@pytest.mark.parametrize(
    "name",
    [
        "--PJHxphWEs_30.mp4",
        "--PJHxphWEs_30.000.mkv",
        "--PJHxphWEs_30000.mp4",
        "--PJHxphWEs_000030.mp4",
        "--PJHxphWEs_30_40.webm",
        "deep/er/--PJHxphWEs_30000_40000.mp4",
    ],
)
def test_a_file_that_was_cut_to_its_segment_begins_at_0(tmp_path, name):
    write(tmp_path, INDICES, "class_labels_indices.csv")
    row = rows_of(tmp_path, ORIGINAL, [name, "--PJHxphWEs.mp4"]).rows[0]
    assert (row.path, row.start, row.end) == (tmp_path / "videos" / name, 0.0, 10.0)


def test_a_whole_file_as_long_as_the_segment_was_cut_too():
    row = tables.Annotation("a", None, 30.0, 40.0, ())
    assert tables.window(row, 300.0) == (30.0, 10.0)
    assert tables.window(row, 10.02) == (0.0, 10.0)
    assert tables.window(row, 39.5) == (30.0, 10.0)  # its end is a little short
    assert tables.window(row, None) == (30.0, 10.0)
    assert tables.window(tables.Annotation("a", None, None, None, ()), 5.0) == (0.0, None)


def test_vggsound_is_read_in_both_forms_and_its_names_keep_their_commas(tmp_path):
    write(tmp_path, '"bird chirping, tweeting",9,animals\nrapping,8,music\n', "vggsound_stat.csv")
    full = '---g-f_I2yQ,1,"bird chirping, tweeting",test\nabc,70,rapping,train\n'
    table = rows_of(tmp_path, full, ["---g-f_I2yQ_000001.mp4", "abc.mp4"])
    assert table.labels == ["bird chirping, tweeting", "rapping"]
    assert [(r.id, r.start, r.end, r.labels, r.split) for r in table.rows] == [
        ("---g-f_I2yQ_000001", 0.0, 10.0, ("bird chirping, tweeting",), "test"),
        ("abc_000070", 70.0, 80.0, ("rapping",), "train"),
    ]
    short = '---g-f_I2yQ_000001.mp4,"bird chirping, tweeting"\nxyz_000003.mp4,rapping\n'
    table = rows_of(tmp_path, short)
    assert [(r.id, r.path is None, r.labels) for r in table.rows] == [
        ("---g-f_I2yQ_000001", False, ("bird chirping, tweeting",)),
        ("xyz_000003", True, ("rapping",)),
    ]


EPIC = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
    "P01_11_1,P01,P01_11,00:00:01.700,00:01:01.56,00:01:02.45,93,147,put down plate,put-down,1,"
    "plate,2,['plate'],[2]\n"
)


def test_epic_kitchens_has_a_verb_and_a_noun_whose_names_are_those_of_the_classes(tmp_path):
    table = rows_of(tmp_path, EPIC, ["P01/videos/P01_11.MP4"])
    assert (len(table.labels), table.rows[0].labels) == (397, ("verb:1", "noun:2"))
    assert len(table.notes) == 2
    write(tmp_path, "id,key,instances,category\n0,take,x,y\n1,put,x,y\n", "EPIC_verb_classes.csv")
    write(tmp_path, "id,key\n0,tap\n1,spoon\n2,plate\n", "EPIC_noun_classes.csv")
    table = rows_of(tmp_path, EPIC, names=tmp_path)
    assert table.labels == ["verb:take", "verb:put", "noun:tap", "noun:spoon", "noun:plate"]
    row = table.rows[0]
    assert row.path == tmp_path / "videos/P01/videos/P01_11.MP4"
    assert row.start == pytest.approx(61.56) and row.end == pytest.approx(62.45)
    assert row.labels == ("verb:put", "noun:plate")


def test_your_own_table_has_windows_splits_and_classes_in_alphabetical_order(tmp_path):
    text = "path,start,end,labels,split\na.mp4,1,2.5,dog|bell,train\nb/a.mp4,,,bell,test\n"
    table = rows_of(tmp_path, text, ["a.mp4", "b/a.mp4"])
    assert table.labels == ["bell", "dog"] and table.notes == ()
    first, second = table.rows
    assert (first.id, first.start, first.end, first.split) == ("a_1000_2500", 1.0, 2.5, "train")
    assert first.labels == ("dog", "bell")
    assert (second.start, second.end, second.split) == (None, None, "test")
    assert second.id.startswith("b_a-") and "/" not in second.id


def test_classes_of_a_names_file_keep_its_order_and_their_commas(tmp_path):
    names = write(tmp_path, "zebra\nMale speech, man speaking\nape\n", "names.txt")
    text = 'path,labels\na.mp4,"APE|Male speech, man speaking|cow"\n'
    table = rows_of(tmp_path, text, ["a.mp4"], names=names)
    assert table.labels == ["zebra", "Male speech, man speaking", "ape"]
    assert table.rows[0].labels == ("ape", "Male speech, man speaking")
    assert table.notes == ("labels unknown (1): cow",)


def test_bad_rows_are_noted_and_the_others_are_read(tmp_path):
    text = (
        "path,start,end,labels,split\n"
        "a.mp4,1,2,bell,train\na.mp4,1,2,bell,train\na.mp4,1,2,dog,train\n"
        "a.mp4,5,3,bell,train\na.mp4,soon,,bell,train\na.mp4,3,4,,train\ngone.mp4,,,dog,train\n"
    )
    table = rows_of(tmp_path, text, ["a.mp4"])
    assert [row.id for row in table.rows] == ["a_1000_2000", "gone"]
    notes = "; ".join(table.notes)
    assert "line 5: the window ends at 3 s, but begins at 5 s" in notes
    assert "line 6: start 'soon' is no time" in notes
    assert "rows without a known label (1): a.mp4" in notes
    assert "repeated rows, taken once (1): a_1000_2000" in notes
    assert "ids with other values in an earlier row, left out (1): a_1000_2000" in notes
    assert "files missing (1): gone" in notes


def test_ids_are_valid_file_names_and_stay_different():
    ids = {
        tables._safe_name(name) for name in ("a/b", "a b", "a_b", "a:b", "../a_b", "é", "x" * 300)
    }
    assert len(ids) == 7
    assert all(re.fullmatch(r"[\w.-]{1,129}", i, flags=re.ASCII) for i in ids)
    assert not any(i.startswith(".") for i in ids)
