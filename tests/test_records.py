"""Prepared clips: the same bytes as protobuf's, and every damage named with shard and record."""

import dataclasses
import io
import json
import random

import numpy as np
import pytest
from PIL import Image

from mbt_lite.data import records, sequence_example, tfrecord
from mbt_lite.data.records import Example, Shards


def jpeg(value, size=(12, 8)):
    data = io.BytesIO()
    Image.new("RGB", size, (value, 128, 255 - value)).save(data, "JPEG", quality=90)
    return data.getvalue()


def example(number=0, seconds=2):
    rng = np.random.default_rng(number)
    return Example(
        id=f"clip_{number}",
        jpegs=[jpeg((number * 50 + i) % 256) for i in range(3 * seconds)],
        melspec=rng.normal(size=(seconds, 100, 128)).astype(np.float32),
        wave=rng.uniform(-1, 1, 16_000 * seconds).astype(np.float32),
        labels=(3, 137),
        names=("Speech, male", "Musik ä"),
        start=30.0,
        end=30.0 + seconds,
    )


def assert_same(clip, expected):
    plain = ("id", "jpegs", "labels", "names", "start", "end")
    assert [getattr(clip, n) for n in plain] == [getattr(expected, n) for n in plain]
    np.testing.assert_array_equal(clip.melspec, expected.melspec)
    np.testing.assert_array_equal(clip.wave, expected.wave)
    assert clip.melspec.dtype == clip.wave.dtype == np.float32


@pytest.fixture
def folder(tmp_path):
    """Three shards of two clips."""
    for shard in range(3):
        clips = [example(2 * shard), example(2 * shard + 1)]
        records.write_shard(tmp_path / records.shard_name("train", shard, 3), clips)
    return tmp_path


# ---- bytes ----


def test_a_clip_comes_back_as_it_was_written():
    clip = example()
    data = records.to_bytes(clip)
    assert_same(records.from_bytes(data), clip)
    assert records.to_bytes(records.from_bytes(data)) == data


def test_protobuf_reads_the_same_numbers_and_writes_the_same_message():
    pb = pytest.importorskip("tensorflow_datasets.proto.tf_example_generated_pb2")
    clip = example()
    parsed = pb.SequenceExample.FromString(records.to_bytes(clip))
    lists, context = parsed.feature_lists.feature_list, parsed.context.feature
    assert [f.bytes_list.value[0] for f in lists["image/encoded"].feature] == clip.jpegs
    mel = [f.float_list.value for f in lists["melspec/feature/floats"].feature]
    np.testing.assert_array_equal(mel, clip.melspec.reshape(2, -1))
    (wave,) = lists["WAVEFORM/feature/floats"].feature
    np.testing.assert_array_equal(wave.float_list.value, clip.wave)
    assert list(context["clip/label/index"].int64_list.value) == [3, 137]
    assert context["clip/label/text"].bytes_list.value[1].decode() == "Musik ä"
    assert context["clip/start/timestamp"].int64_list.value[0] == 30_000_000
    assert context["clip/end/timestamp"].int64_list.value[0] == 32_000_000
    assert_same(records.from_bytes(parsed.SerializeToString(deterministic=True)), clip)
    assert len(parsed.SerializeToString()) == len(records.to_bytes(clip))


def test_records_of_other_writers_may_lack_audio_names_and_times():
    pb = pytest.importorskip("tensorflow_datasets.proto.tf_example_generated_pb2")
    foreign = pb.SequenceExample()
    foreign.context.feature["clip/label/index"].int64_list.value.extend([-1, 2**40])
    lists = foreign.feature_lists.feature_list
    lists["image/encoded"].feature.add().bytes_list.value.append(b"x")
    lists["melspec/feature/floats"].feature.add().float_list.value.extend([0.5] * 12_800)
    clip = records.from_bytes(foreign.SerializeToString())
    assert (clip.labels, clip.names, clip.jpegs) == ((-1, 2**40), (), [b"x"])
    assert clip.melspec.shape == (1, 100, 128) and len(clip.wave) == 0
    assert (clip.id, clip.start, clip.end) == ("", 0.0, 0.0)


def test_damaged_bytes_are_refused_whatever_the_damage():
    data, rng = records.to_bytes(dataclasses.replace(example(), wave=np.zeros(9, "f4"))), random
    rng.seed(0)
    for _ in range(300):
        harmed = bytearray(data)
        for _ in range(rng.randrange(1, 9)):
            harmed[rng.randrange(min(len(harmed), 4000))] = rng.randrange(256)
        harmed = bytes(harmed[: rng.randrange(len(harmed)) if rng.random() < 0.5 else None])
        try:
            records.from_bytes(harmed, "here")
        except ValueError as error:
            assert str(error).startswith("here: ")


# ---- shards ----


def test_clips_of_shards_are_found_by_number_in_the_order_of_the_files(folder):
    for source in (folder, f"{folder}/train@3", f"{folder}/train@*", f"{folder}/train-*-of-00003"):
        shards = Shards(source)
        assert len(shards) == 6 and not shards.faults
        assert [shards[i].id for i in (0, 5, -1)] == ["clip_0", "clip_5", "clip_5"]
    assert_same(shards[3], example(3))
    assert shards[3].source == f"{folder / 'train-00001-of-00003'}, record 1"
    assert len(Shards(folder / "train-00002-of-00003")) == 2
    with pytest.raises(IndexError):
        shards[6]


def test_the_index_of_a_shard_is_that_of_grain(folder):
    grain = pytest.importorskip("grain.python")
    path = folder / "train-00000-of-00003"
    theirs = list(grain.experimental.TFRecordIterDataset(str(path)))
    shards = Shards(path)
    assert [shards.read(i) for i in range(len(shards))] == theirs


# ---- faults ----


def refused(shards, index):
    with pytest.raises(ValueError) as caught:
        shards[index]
    return str(caught.value)


@pytest.mark.parametrize(
    "damage, record, sentence",
    [
        ("length", 1, "its length is damaged, so that nothing after it can be found."),
        ("cut in its header", 1, "the file is cut off: 5 bytes are left of it."),
        ("missing", 0, "the shard cannot be read: no such file or directory."),
    ],
)
def test_damage_is_named_and_the_other_records_are_read(folder, damage, record, sentence):
    """Other kinds of damage are read through the loader, see test_data.py."""
    path = folder / "train-00001-of-00003"
    data, second = path.read_bytes(), tfrecord.index(path).offsets[1] - tfrecord.HEADER
    if damage == "missing":
        path.unlink()
    elif damage == "length":
        path.write_bytes(data[:second] + b"\xff\xff" + data[second + 2 :])
    else:
        path.write_bytes(data[: second + 5])
    shards = Shards(folder)
    assert refused(shards, 2 + record) == f"{path}, record {record}: {sentence}"
    others = [shards[i].id for i in range(len(shards)) if i != 2 + record]
    assert others == [f"clip_{n}" for n in ((0, 1, 4, 5) if record == 0 else (0, 1, 2, 4, 5))]


def shard_of(folder, context=None, lists=None):
    """A shard with one clip some of whose features were replaced."""
    clip = sequence_example.decode(records.to_bytes(example()))
    data = sequence_example.encode(clip[0] | (context or {}), clip[1] | (lists or {}))
    path = folder / "odd-00000-of-00001"
    path.write_bytes(tfrecord.framed(data))
    return path


def test_frames_are_decoded_where_asked_for_and_have_one_size(tmp_path):
    jpegs = [[jpeg(3)], [b"no image"], [jpeg(3, (8, 8))], [jpeg(9)]]
    clip = Shards(shard_of(tmp_path, lists={records.JPEG: jpegs}))[0]
    assert clip.frames([3, 0]).shape == (2, 8, 12, 3)
    np.testing.assert_array_equal(clip.frames([3, 0])[1], clip.frame(0))
    with pytest.raises(ValueError, match="record 0: its frames have several sizes"):
        clip.frames([0, 2])


def test_what_is_no_tfrecord_is_refused(tmp_path):
    path = tmp_path / "a-00000-of-00001"
    path.write_bytes(b"PK\3\4" + bytes(100))
    assert "record 0: its length is damaged" in refused(Shards(path), 0)
    assert "clip/label/index does not hold what it should" in refused(
        Shards(shard_of(tmp_path, {records.INDEX: [b"Speech"]})), 0
    )
    path.write_bytes(tfrecord.framed(b"no message at all"))
    assert refused(Shards(path), 0) == f"{path}, record 0: it holds no SequenceExample."
    with pytest.raises(ValueError, match="there are no shards such as train-00000-of-00128"):
        Shards(tmp_path / "nothing")


def test_the_description_says_how_many_records_and_classes_there_are(folder):
    files = [
        {"file": records.shard_name("train", i, 3), "records": n} for i, n in enumerate((2, 3, 2))
    ]
    text = json.dumps({"labels": ["a"] * 200, "splits": {"train": {"shards": files}}})
    (folder / "dataset.json").write_text(text)
    shards = Shards(folder, "train")
    assert shards.classes == 200
    assert refused(shards, 4).endswith("record 2: dataset.json promises 3 records.")
    assert shards[6].id == "clip_5"
    with pytest.raises(ValueError, match="has no split test; there are train"):
        Shards(folder, "test")


def test_a_folder_without_description_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="has no dataset.json; `mbt-lite prepare` writes it"):
        records.describe(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="dataset.json is damaged"):
        records.describe(tmp_path)


def test_a_shard_is_written_whole_or_not_at_all(tmp_path):
    def clips():
        yield example()
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        records.write_shard(tmp_path / "train-00000-of-00001", clips())
    assert list(tmp_path.iterdir()) == []
