"""Prepared clips: the same bytes as protobuf's, and every damage named with shard and record."""

import dataclasses
import io
import json
import multiprocessing
import operator
import random
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mbt_lite.data import records, sequence_example, tfrecord
from mbt_lite.data.records import Example, RecordError, Shards


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


def test_tensorflow_parses_the_same_arrays(folder):
    tf = pytest.importorskip("tensorflow")
    expected = [example(n) for n in range(6)]
    paths = sorted(map(str, folder.glob("train-*")))
    for data, clip in zip(tf.data.TFRecordDataset(paths), expected, strict=True):
        context, lists = tf.io.parse_single_sequence_example(
            data,
            {
                "clip/label/index": tf.io.VarLenFeature(tf.int64),
                "clip/label/text": tf.io.VarLenFeature(tf.string),
                "clip/start/timestamp": tf.io.FixedLenFeature((), tf.int64),
                "clip/end/timestamp": tf.io.FixedLenFeature((), tf.int64),
            },
            {
                "image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
                "melspec/feature/floats": tf.io.FixedLenSequenceFeature((100, 128), tf.float32),
                "WAVEFORM/feature/floats": tf.io.VarLenFeature(tf.float32),
            },
        )
        assert list(lists["image/encoded"].numpy()) == clip.jpegs
        np.testing.assert_array_equal(lists["melspec/feature/floats"].numpy(), clip.melspec)
        np.testing.assert_array_equal(lists["WAVEFORM/feature/floats"].values.numpy(), clip.wave)
        assert tuple(context["clip/label/index"].values.numpy()) == clip.labels
        assert context["clip/label/text"].values.numpy()[1].decode() == clip.names[1]
        assert context["clip/start/timestamp"].numpy() == 30_000_000
        image = tf.io.decode_jpeg(lists["image/encoded"][0], channels=3).numpy()
        assert np.abs(image.astype(int) - clip.frames([0])[0]).max() <= 2


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


def test_numbers_that_come_one_by_one_are_read_too():
    # Feature{float_list{value: 1.5 value: -2}} and Feature{int64_list{value: 300}}, not packed
    floats = bytes([13]) + np.float32(1.5).tobytes() + bytes([13]) + np.float32(-2).tobytes()
    feature = bytes([18, len(floats)]) + floats
    np.testing.assert_array_equal(sequence_example._value(memoryview(feature)), [1.5, -2])
    feature = bytes([26, 3, 8, 0xAC, 0x02])
    assert sequence_example._value(memoryview(feature)).tolist() == [300]


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
        except RecordError as error:
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


@pytest.mark.full
def test_shards_go_to_another_process(folder):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        clip = other.submit(operator.getitem, Shards(folder), 4).result()
    assert clip.id == "clip_4"


def test_the_index_of_a_shard_is_that_of_grain(folder):
    grain = pytest.importorskip("grain.python")
    path = folder / "train-00000-of-00003"
    theirs = list(grain.experimental.TFRecordIterDataset(str(path)))
    shards = Shards(path)
    assert [shards.read(i) for i in range(len(shards))] == theirs


def test_frames_are_decoded_only_where_asked_for():
    clip = example()
    broken = dataclasses.replace(clip, jpegs=[*clip.jpegs[:5], b"no image"])
    assert broken.frames([4, 0]).shape == (2, 8, 12, 3)
    np.testing.assert_array_equal(broken.frames([4, 0])[1], clip.frames()[0])


# ---- faults ----


def harm(folder, shard, at, data=b"\xff\xff"):
    path = folder / f"train-0000{shard}-of-00003"
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    return path


def refused(shards, index):
    with pytest.raises(RecordError) as caught:
        shards[index]
    return str(caught.value)


def others_are_read(shards, faulty):
    good = [i for i in range(len(shards)) if i not in faulty]
    return [shards[i].id for i in good]


def test_a_damaged_record_is_named_and_the_others_are_read(folder):
    path = harm(folder, 1, 5000)
    shards = Shards(folder)
    assert refused(shards, 2) == f"{path}, record 0: its bytes are damaged (the checksum differs)."
    assert others_are_read(shards, {2}) == ["clip_0", "clip_1", "clip_3", "clip_4", "clip_5"]


def test_a_damaged_length_hides_the_rest_of_its_shard_only(folder):
    start = tfrecord.index(folder / "train-00001-of-00003").offsets[1] - tfrecord.HEADER
    path = harm(folder, 1, start)
    shards = Shards(folder)
    assert len(shards) == 6 and list(shards.faults) == [3]
    assert refused(shards, 3).startswith(f"{path}, record 1: its length is damaged")
    assert others_are_read(shards, {3})[-3:] == ["clip_2", "clip_4", "clip_5"]


@pytest.mark.parametrize("left", [-1, -200_000, 5], ids=["last byte", "much", "in the header"])
def test_a_shard_that_is_cut_off_gives_the_records_before_the_cut(folder, left):
    path = folder / "train-00002-of-00003"
    start = tfrecord.index(path).offsets[1] - tfrecord.HEADER
    data = path.read_bytes()
    path.write_bytes(data[:left] if left < 0 else data[: start + left])
    shards = Shards(folder)
    assert refused(shards, 5).startswith(f"{path}, record 1: the file is cut off")
    assert others_are_read(shards, {5})[-1] == "clip_4"


def test_an_empty_and_a_missing_shard_count_as_one_clip_each_that_cannot_be_read(folder):
    (folder / "train-00000-of-00003").write_bytes(b"")
    (folder / "train-00001-of-00003").unlink()
    shards = Shards(folder)
    assert refused(shards, 0) == f"{folder}/train-00000-of-00003, record 0: the shard is empty."
    assert "train-00001-of-00003, record 0: the shard cannot be read: no such" in refused(shards, 1)
    assert others_are_read(shards, {0, 1}) == ["clip_4", "clip_5"]


def test_a_shard_that_vanishes_or_shrinks_while_reading_is_named(folder):
    shards = Shards(folder)
    (folder / "train-00000-of-00003").unlink()
    (folder / "train-00001-of-00003").write_bytes(b"short")
    assert refused(shards, 1).startswith(f"{folder}/train-00000-of-00003, record 1: the shard can")
    assert refused(shards, 3).endswith("00001-of-00003, record 1: the file is cut off in it.")


def shard_of(folder, context=None, lists=None):
    """A shard with one clip some of whose features were replaced."""
    clip = sequence_example.decode(records.to_bytes(example()))
    data = sequence_example.encode(clip[0] | (context or {}), clip[1] | (lists or {}))
    path = folder / "odd-00000-of-00001"
    tfrecord.write(path, [data])
    return path


def test_a_spectrogram_of_another_length_is_named(tmp_path):
    wrong = [np.zeros(12_800, np.float32), np.zeros(12_799, np.float32)]
    path = shard_of(tmp_path, lists={"melspec/feature/floats": wrong})
    sentence = refused(Shards(path), 0)
    assert sentence == (
        f"{path}, record 0: second 1 of its spectrogram has 12799 numbers instead of 100 x 128."
    )


def test_a_jpeg_that_cannot_be_decoded_is_named(tmp_path):
    whole = jpeg(3)
    path = shard_of(tmp_path, lists={"image/encoded": [[whole], [whole[: len(whole) // 2]]]})
    clip = Shards(path)[0]
    assert len(clip.frames([0])) == 1
    with pytest.raises(RecordError, match="record 0, frame 1 of 2: it is no JPEG that can be"):
        clip.frames()


def test_frames_of_several_sizes_are_refused(tmp_path):
    path = shard_of(tmp_path, lists={"image/encoded": [[jpeg(1)], [jpeg(1, (8, 8))]]})
    with pytest.raises(RecordError, match="record 0: its frames have several sizes"):
        Shards(path)[0].frames()


@pytest.mark.parametrize("label", [137, -1])
def test_a_label_that_is_none_of_the_classes_is_named(tmp_path, label):
    path = shard_of(tmp_path, context={"clip/label/index": np.array([3, label])})
    assert refused(Shards(path, classes=137), 0) == (
        f"{path}, record 0: label {label} is none of the 137 classes."
    )


def test_a_feature_of_another_kind_is_refused(tmp_path):
    path = shard_of(tmp_path, context={"clip/label/index": [b"Speech"]})
    assert "clip/label/index does not hold what it should" in refused(Shards(path), 0)


def test_what_is_no_tfrecord_is_refused(tmp_path):
    path = tmp_path / "a-00000-of-00001"
    path.write_bytes(b"PK\3\4" + bytes(100))
    assert "record 0: its length is damaged" in refused(Shards(path), 0)
    tfrecord.write(path, [b"no message at all"])
    assert refused(Shards(path), 0) == f"{path}, record 0: it holds no SequenceExample."
    with pytest.raises(ValueError, match="there are no shards such as train-00000-of-00128"):
        Shards(tmp_path / "nothing")


def described(folder, counts):
    shards = [
        {"file": records.shard_name("train", i, 3), "records": n} for i, n in enumerate(counts)
    ]
    text = json.dumps({"labels": ["a"] * 200, "splits": {"train": {"shards": shards}}})
    (folder / "dataset.json").write_text(text)


def test_the_description_says_how_many_records_and_classes_there_are(folder):
    described(folder, (2, 3, 2))
    shards = Shards(folder, "train")
    assert shards.classes == 200
    assert refused(shards, 4).endswith("record 2: dataset.json promises 3 records.")
    assert others_are_read(shards, {4})[-1] == "clip_5"
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
