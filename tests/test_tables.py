"""Tables as people write them: which clip, which classes, what is left out and what is refused."""

import pytest

from mbt_lite import tables

LABELS = ("dog barks", "bell", "Male speech, man speaking")


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def write(folder, text, name="labels.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def found(source, labels=LABELS):
    """{file: (classes, start)} and the notes."""
    table = tables.read(source, labels)
    classes = {i.path.name: (i.truth.nonzero()[0].tolist(), i.start) for i in table.items}
    return classes, table.notes


@pytest.mark.parametrize("column", ["file", "path", "video", "filename", "File"])
@pytest.mark.parametrize("separator", ["|", ";", " | "])
def test_labels_are_found_by_name_under_the_usual_column_names(folder, column, separator):
    write(folder, f'{column},labels\na.mp4,"bell{separator}dog barks"\nb.mp4,bell\n')
    assert found(folder) == ({"a.mp4": ([0, 1], None), "b.mp4": ([1], None)}, ())


@pytest.mark.parametrize(
    "text, encoding",
    [
        ('file,label\r\na.mp4,"Male speech, man speaking"\r\n', "utf-8"),
        ('file,label\na.mp4,"Male speech, man speaking"', "utf-8-sig"),
        ("file;label\na.mp4;Male speech, man speaking\n", "utf-8"),
        ("file\tlabel\na.mp4\tmale SPEECH, man speaking\n\n", "utf-8"),
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(folder, text, encoding):
    write(folder, text, encoding=encoding)
    assert found(folder)[0] == {"a.mp4": ([2], None)}


def test_class_numbers_count_from_0_where_no_name_is_the_models(folder):
    path = write(folder, "file,labels\na.mp4,0|2\nb.mp4,1\n")
    assert found(path)[0] == {"a.mp4": ([0, 2], None), "b.mp4": ([1], None)}
    assert found(path, ("2", "1", "0"))[0]["a.mp4"] == ([0, 2], None)  # here they are names
    assert found(path, ("1", "0", "2"))[0]["b.mp4"] == ([0], None)


def test_a_class_number_beyond_the_model_is_refused(folder):
    with pytest.raises(ValueError, match="class numbers reach 3, but the model's end at 2"):
        tables.read(write(folder, "file,labels\na.mp4,3\n"), LABELS)


def test_a_start_in_seconds_belongs_to_the_clip(folder):
    write(folder, "file,labels,start_seconds\na.mp4,bell,1.5\na.mp4,bell,30\nb.mp4,bell,\n")
    items = tables.read(folder, LABELS).items
    assert [(i.path.name, i.start) for i in items] == [
        ("a.mp4", 1.5),
        ("a.mp4", 30.0),
        ("b.mp4", None),
    ]


def test_folders_named_like_classes_label_the_files_in_them(tmp_path):
    for name in ("bell/1.mp4", "bell/2.MKV", "bell/notes.txt", "Dog barks/1.wav", ".git/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    table = tables.read(tmp_path, LABELS)
    pairs = {str(i.path.relative_to(tmp_path)): int(i.truth.argmax()) for i in table.items}
    assert pairs == {"Dog barks/1.wav": 0, "bell/1.mp4": 1, "bell/2.MKV": 1}


def test_rows_without_a_label_of_the_model_are_left_out_and_counted(folder):
    write(folder, "file,labels\na.mp4,bell|cow\nb.mp4,cow\nc.mp4,\n")
    classes, notes = found(folder)
    assert classes == {"a.mp4": ([1], None)}
    assert notes == (
        "labels unknown to the model (1): cow",
        "rows without a label of the model (2): b.mp4, c.mp4",
    )
    with pytest.warns(UserWarning) as warned:
        assert len(tables.read_table(folder, LABELS)) == 1
    assert len(warned) == 2


def test_a_repeated_row_counts_once_and_a_contradiction_is_refused(folder):
    write(folder, "file,labels\na.mp4,bell\na.mp4,bell\n")
    assert found(folder) == ({"a.mp4": ([1], None)}, ("repeated rows, taken once: 1",))
    write(folder, "file,labels\na.mp4,bell\na.mp4,dog barks\n")
    with pytest.raises(ValueError, match="a.mp4 is labelled in two ways"):
        tables.read(folder, LABELS)


def test_missing_files_are_counted_and_the_first_ones_named(folder):
    rows = "".join(f"x{i}.mp4,bell\n" for i in range(9))
    with pytest.raises(ValueError, match=r"9 of 10 files are missing: .*x0.mp4.* and 4 more"):
        tables.read(write(folder, f"file,labels\na.mp4,bell\n{rows}"), LABELS)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "no column file or path"),
        ("file,labels\n", "a header and no rows"),
        ("name,labels\na.mp4,bell\n", "no column file or path or video or filename"),
        ("file,class\na.mp4,bell\n", "no column labels or label"),
        ("file,labels\na.mp4,Male speech, man speaking\n", "line 2: too many fields"),
        ("file,labels\n,bell\n", "line 2: no file is named"),
        ("file,labels,start\na.mp4,bell,soon\n", "line 2: start 'soon' is no time"),
        ("file,labels,start\na.mp4,bell,-1\n", "start '-1' is no time"),
        (
            "file,labels\na.mp4,cow\n",
            r"none of 1 rows can be used; labels unknown to the model \(1\): cow",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(folder, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        tables.read(write(folder, text), LABELS)


def test_what_is_no_text_or_not_there_is_refused(folder):
    (folder / "video.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="not a UTF-8 text file"):
        tables.read(folder / "video.csv", LABELS)
    with pytest.raises(ValueError, match="neither a table"):
        tables.read(folder / "nothing", LABELS)
    with pytest.raises(ValueError, match="holds neither labels.csv nor folders"):
        tables.read(folder, LABELS)
