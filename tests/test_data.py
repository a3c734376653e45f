"""Batches of the loader: their clips and order, resuming, errors, and every kind of source."""

import importlib.util
import io
import json
import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import throughput
from mbt_lite import configs, media
from mbt_lite.config import WORLD_CLIP, ClipConfig
from mbt_lite.data import (
    datasets,
    extract,
    prepare,
    records,
    sequence_example,
    sources,
    tables,
    tfrecord,
    world,
)
from mbt_lite.data.loader import AHEAD, Loader
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import Source
from mbt_lite.data.workers import why_no_workers
from mbt_lite.features import log_mel, read_views

LABELS = ("a", "b", "c")
CLIP = ClipConfig(frames=4, stride=2, size=16, resize=20, spec_frames=100)
CLIPS, SECONDS = 11, 3


def shade(clip: int, frame: int) -> int:
    return 20 * clip + frame // 4


def jpeg(value: int, size=(28, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "JPEG", quality=95)
    return file.getvalue()


def example(clip: int, frames: int = 25 * SECONDS) -> records.Example:
    """Frames of an even shade; the spectrogram counts its rows."""
    rows = np.arange(100 * SECONDS, dtype=np.float32) + 1000 * clip
    melspec = np.repeat(rows, 128).reshape(SECONDS, 100, 128)
    wave = np.random.default_rng(clip).normal(0, 0.1, 16_000 * SECONDS).astype(np.float32)
    jpegs = [jpeg(shade(clip, frame)) for frame in range(frames)]
    return records.Example(f"clip{clip}", jpegs, melspec, wave, (clip % 3,), (), 0.0, 3.0)


@pytest.fixture(scope="module")
def examples():
    return [example(clip) for clip in range(CLIPS)]


@pytest.fixture(scope="module")
def shards(examples, tmp_path_factory):
    """A folder of three shards."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        path = folder / records.shard_name("train", number, 3)
        records.write_shard(path, examples[number * 4 : number * 4 + 4])
    return folder


@pytest.fixture
def source(shards):
    return sources.open_source(shards, labels=LABELS)


def loader(source, batch=4, training=True, **options):
    views = options.pop("views", 1)
    padded_size = (20, 28) if training else None
    return Loader(
        source, Sampling(CLIP, training, views, padded_size=padded_size), batch, **options
    )


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_a_batch_has_the_frames_and_the_rows_of_the_same_instant(source):
    for batch in loader(source):
        for row in np.flatnonzero(batch["mask"]):
            clip = int(batch["id"][row].removeprefix("clip"))
            middle = batch["spec"][row, 50, 0] - 1000 * clip  # rows
            assert batch["labels"][row].tolist() == np.eye(3)[clip % 3].tolist()
            shades = batch["rgb"][row].mean((1, 2, 3))
            frame = 4 * (shades.mean() - 20 * clip)
            assert abs(frame / 25 - middle / 100) < 0.2  # s; shades are whole numbers
            assert batch["valid_size"][row].tolist() == [20, 28]
    assert batch["rgb"].shape == (4, 4, 20, 28, 3) and batch["rgb"].dtype == np.uint8
    assert batch["spec"].shape == (4, 100, 128)


def test_an_epoch_has_every_clip_once_and_its_last_batch_is_filled_up_and_masked(source):
    batches = list(loader(source))
    assert [batch["mask"].tolist() for batch in batches] == [[1] * 4, [1] * 4, [1, 1, 1, 0]]
    assert sorted(filter(None, (name for batch in batches for name in batch["id"]))) == sorted(
        f"clip{clip}" for clip in range(CLIPS)
    )
    filler = batches[-1]
    assert filler["id"][3] == ""
    assert not any(filler[name][3].any() for name in ("rgb", "spec", "labels", "valid_size"))


def test_an_order_depends_on_seed_and_epoch(source):
    def order(**options):
        return [n for batch in loader(source, **options) for n in batch["id"] if n]

    first, second = order(epochs=2)[:CLIPS], order(epochs=2)[CLIPS:]
    assert first == order() and sorted(first) == sorted(second) and first != second
    assert order(seed=1) != first
    assert order(training=False) == [f"clip{clip}" for clip in range(CLIPS)]


def test_a_clip_is_drawn_anew_in_each_epoch(source):
    starts = {}
    for batch in loader(source, epochs=4):
        for name, spec in zip(batch["id"], batch["spec"], strict=True):
            starts.setdefault(name, []).append(float(spec[0, 0]))
    assert all(len(set(starts[f"clip{clip}"])) > 1 for clip in range(CLIPS))


@pytest.mark.full
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(source, workers):
    with_workers = loader(source, epochs=2, workers=workers)
    try:
        pairs = list(zip(with_workers, loader(source, epochs=2), strict=True))
        assert len(pairs) == 6 and all(same(one, other) for one, other in pairs)
    finally:
        with_workers.close()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.full)])
def test_clips_in_memory_are_read_once_and_epochs_take_their_four_windows_in_turn(
    source, workers, monkeypatch
):
    reads = []
    original = records.Shards.__getitem__
    monkeypatch.setattr(records.Shards, "__getitem__", lambda *a: reads.append(a) or original(*a))
    with loader(source, epochs=9, workers=workers, memory=8) as keeping:
        kept = list(keeping)
        assert keeping.note == "all clips are kept in memory: 4 windows each, 2 MiB."
    assert len(reads) == (0 if workers else CLIPS)
    epochs = [
        dict(pair for batch in kept[e : e + 3] for pair in rows(batch)) for e in range(0, 27, 3)
    ]
    for name in epochs[0]:
        starts = [float(epoch[name][0, 0]) for epoch in epochs]
        assert len(set(starts[:4])) > 1 and starts[4:] == starts[:4] + starts[:1]
    assert all(map(same, kept, loader(source, epochs=9, memory=8)))


def rows(batch):
    return [(name, spec) for name, spec in zip(batch["id"], batch["spec"], strict=True) if name]


def test_clips_that_do_not_fit_into_memory_are_drawn_anew(source):
    assert loader(source, memory=0).note == "" and loader(source).windows == 0
    evaluated = loader(source, training=False, memory=1)
    assert evaluated.windows == 0 and "1 windows each" in evaluated.note
    assert all(map(same, evaluated, loader(source, training=False)))


def test_a_run_resumes_bit_for_bit_with_clips_in_memory(source):
    whole = list(loader(source, epochs=9, memory=8))
    interrupted = loader(source, epochs=9, memory=8)
    for _ in range(20):
        next(interrupted)
    resumed = loader(source, epochs=9, memory=8)
    resumed.restore(interrupted.state())
    assert all(map(same, list(resumed), whole[20:]))
    with pytest.raises(ValueError, match="'windows': 4.*'windows': 0"):
        loader(source, epochs=9).restore(interrupted.state())


@pytest.mark.full
def test_two_hosts_with_two_workers_cover_every_clip_once(source):
    seen, counts = [], []
    for host in range(2):
        part = loader(source, batch=2, host=host, hosts=2, workers=2)
        batches = list(part)
        part.close()
        counts.append(len(batches))
        seen += [name for batch in batches for name in batch["id"] if name]
    assert sorted(seen) == sorted(f"clip{clip}" for clip in range(CLIPS))
    assert counts == [3, 3]


class Numbers(Source):
    """Clips that have nothing but their number."""

    labels = ("a",)

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def write(self, index, out, sampling, rng) -> str:
        return str(index)


@pytest.mark.parametrize("clips, batch, hosts", [(5, 2, 2), (1, 4, 3), (12, 2, 3), (7, 1, 4)])
def test_hosts_share_every_size_of_data_evenly(clips, batch, hosts):
    options = {"shuffle": True, "epochs": 2, "hosts": hosts}
    parts = [
        list(Loader(Numbers(clips), Sampling(CLIP, streams=("spec",)), batch, host=n, **options))
        for n in range(hosts)
    ]
    per_epoch = -(-clips // (batch * hosts))
    assert {len(part) for part in parts} == {2 * per_epoch}
    for epoch in (slice(per_epoch), slice(per_epoch, None)):
        ids = [name for part in parts for group in part[epoch] for name in group["id"] if name]
        assert sorted(map(int, ids)) == list(range(clips))


@pytest.mark.full
@pytest.mark.parametrize("before, after", [(0, 2), (2, 0)])
def test_a_saved_position_in_mid_epoch_goes_on_bit_for_bit_with_other_workers(
    source, before, after
):
    whole = list(loader(source, epochs=2))
    interrupted = loader(source, epochs=2, workers=before)
    for _ in range(4):
        next(interrupted)
    state = json.loads(json.dumps(interrupted.state()))
    interrupted.close()
    resumed = loader(source, epochs=2, workers=after)
    resumed.restore(state)
    rest = list(resumed)
    resumed.close()
    assert len(rest) == 2 and all(map(same, rest, whole[4:]))


def test_a_position_in_another_order_is_refused(source):
    state = loader(source).state()
    with pytest.raises(ValueError, match="the data was at .*'seed': 0.*now is .*'seed': 1"):
        loader(source, seed=1).restore(state)


def test_a_host_more_and_a_smaller_batch_continue_the_same_order(source):
    first = loader(source, batch=4)
    expected = [next(first)["id"], next(first)["id"]][1]
    halves = []
    for host in range(2):
        half = loader(source, batch=2, host=host, hosts=2)
        half.restore({**first.state(), "batches": 1})
        halves += next(half)["id"]
    assert halves == expected


def test_test_views_are_rows_of_their_own_from_end_to_end(source):
    batch = next(loader(source, batch=2, training=False, views=3))
    assert batch["rgb"].shape == (6, 4, 16, 16, 3) and "valid_size" not in batch
    assert batch["id"] == ["clip0"] * 3 + ["clip1"] * 3
    assert batch["spec"][:, 0, 0].tolist() == [0, 100, 200, 1000, 1100, 1200]
    assert batch["labels"].tolist() == np.eye(3)[[0, 0, 0, 1, 1, 1]].tolist()


def test_only_the_drawn_frames_are_decoded(source, monkeypatch):
    decoded = []
    original = records.Example.frame

    def counting(self, index, into=None):
        decoded.append(self.id)
        return original(self, index, into)

    monkeypatch.setattr(records.Example, "frame", counting)
    batch = next(loader(source, batch=3))
    assert decoded == [name for name in batch["id"] for _ in range(4)]  # of 75


def test_one_stream_may_be_left_out(source):
    audio = next(Loader(source, Sampling(CLIP, streams=("spec",)), 2))
    assert "rgb" not in audio and audio["spec"].shape == (2, 100, 128)
    video = next(Loader(source, Sampling(CLIP, streams=("rgb",)), 2))
    assert "spec" not in video and video["rgb"].shape == (2, 4, 16, 16, 3)


def test_records_of_another_front_end_get_their_spectrogram_from_the_stored_audio(shards, examples):
    source = sources.open_source(shards, labels=LABELS)
    source.front = replace(CLIP.front_end, power=2)  # as if dataset.json said so
    batch = next(Loader(source, Sampling(CLIP), 2))
    expected = log_mel(examples[0].wave, CLIP.front_end)[100:200]
    np.testing.assert_allclose(batch["spec"][0], expected, atol=1e-4)


@pytest.mark.full
def test_a_worker_imports_no_jax(source):
    with_workers = loader(source, workers=1)
    next(with_workers)
    pool = with_workers.workers.pool
    loaded = pool.submit(eval, "list(__import__('sys').modules)").result()
    with_workers.close()
    assert "mbt_lite.data.sources" in loaded
    assert not {"jax", "jaxlib", "flax", "grain", "tensorflow"} & set(loaded)


# ---- faults ----


def damage(path, fault: str) -> None:
    """Damage the second record of a shard, or the shard."""
    index = tfrecord.index(path)
    content = bytearray(path.read_bytes())
    if fault == "bytes":
        content[index.offsets[1] + 50] ^= 1
        path.write_bytes(content)
    elif fault == "truncated":
        path.write_bytes(content[: index.offsets[1] + 100])
    elif fault == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


def damaged_source(examples, folder, fault: str):
    """Two shards of two clips; the last clip, or the shard, is faulty."""
    last = examples[3]
    if fault == "jpeg":
        last = replace(last, jpegs=[b"\xff\xd8 no video"] * 75)
    if fault == "label":
        last = replace(last, labels=(3,))
    paths = [folder / records.shard_name("x", number, 2) for number in range(2)]
    records.write_shard(paths[0], examples[:2])
    records.write_shard(paths[1], [examples[2], last])
    if fault == "mel":
        context, lists = sequence_example.decode(records.to_bytes(last))
        lists[records.MEL][1] = lists[records.MEL][1][:-1]
        encoded = [records.to_bytes(examples[2]), sequence_example.encode(context, lists)]
        paths[1].write_bytes(b"".join(map(tfrecord.framed, encoded)))
    if fault in ("bytes", "truncated", "empty"):
        damage(paths[1], fault)
    source = sources.open_source(folder, labels=LABELS)
    if fault == "vanished":
        paths[1].unlink()
    return source


FAULTS = {
    "mel": (r"x-00001-of-00002, record 1: second 1 of its spectrogram has 12799 numbers", 1),
    "bytes": (r"x-00001-of-00002, record 1: its bytes are damaged", 1),
    "truncated": (r"x-00001-of-00002, record 1: the file is cut off", 1),
    "empty": (r"x-00001-of-00002, record 0: the shard is empty", 1),
    "vanished": (r"x-00001-of-00002, record 0: the shard cannot be read", 2),
    "jpeg": (r"x-00001-of-00002, record 1, frame \d+ of 75: it is no JPEG", 1),
    "label": (r"x-00001-of-00002, record 1: label 3 is none of the 3 classes", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_stops_the_loader_with_shard_and_record(examples, tmp_path, fault):
    source = damaged_source(examples, tmp_path, fault)
    with pytest.raises(ValueError, match=FAULTS[fault][0]):
        list(loader(source, batch=2, training=False))


@pytest.mark.parametrize(
    "fault, workers",
    [*((fault, 0) for fault in FAULTS), pytest.param("bytes", 2, marks=pytest.mark.full)],
)
def test_a_fault_that_is_skipped_leaves_its_place_empty_and_is_counted(
    examples, tmp_path, caplog, fault, workers
):
    source = damaged_source(examples, tmp_path, fault)
    skipping = loader(source, batch=2, training=False, on_error="skip", workers=workers)
    batches = list(skipping)
    skipping.close()
    sentence, lost = FAULTS[fault]
    assert skipping.skipped == lost == len(source) - sum(int(b["mask"].sum()) for b in batches)
    assert len(caplog.messages) == lost and f"number {lost}:" in caplog.messages[-1]
    caplog.clear()
    empty = batches[-1]["mask"] == 0
    assert not batches[-1]["rgb"][empty].any() and not batches[-1]["labels"][empty].any()
    assert batches[0]["id"] == ["clip0", "clip1"]


@pytest.mark.full
def test_a_worker_that_dies_is_reported_and_leaves_no_shared_memory(source):
    dying = loader(source, workers=2, epochs=None)
    next(dying)
    workers = dying.workers
    while workers.buffers.qsize() < AHEAD:  # until it has read ahead as far as it may
        time.sleep(0.05)
    buffers = [buffer.name for buffer in workers.buffers.queue]
    for pid in list(workers.pool._processes):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(OSError, match="a process that reads the data died.*workers=0"):
        for _ in range(50):
            next(dying)
    dying.close()
    with pytest.raises(FileNotFoundError):
        SharedMemory(buffers[0])


def test_options_that_cannot_work_are_refused(source):
    for wrong in ({"batch": 0}, {"host": 2, "hosts": 2}, {"on_error": "ignore"}, {"workers": -1}):
        with pytest.raises(ValueError, match="on_error is raise or skip"):
            loader(source, **wrong)
    huge = Sampling(ClipConfig(size=2000, resize=2000), training=True, padded_size=(9000, 9000))
    with pytest.raises(ValueError, match="MiB left; take a smaller batch"):
        Loader(source, huge, 64, workers=1)


# ---- other sources ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos of 4 s: the video brightens and the audio rises, in step."""
    folder = tmp_path_factory.mktemp("videos")
    time = np.arange(100) / 25
    shades = np.round(40 + 40 * time).astype(np.uint8)
    frames = np.broadcast_to(shades[:, None, None, None], (100, 64, 96, 3)).copy()
    seconds = np.arange(4 * 16_000) / 16_000
    wave = (0.2 * np.sin(2 * np.pi * (300 * seconds + 100 * seconds**2))).astype(np.float32)
    for name in "ab":
        media.write(folder / f"{name}.mp4", frames, 25.0, wave)
    (folder / "t.csv").write_text(
        "path,start,end,labels,split\na.mp4,,,x,train\nb.mp4,1,3,y,train\nb.mp4,0,1,x,test\n"
    )
    return folder


def instants(batch, row):
    """What video and audio tell about their middle, in s of the file."""
    shade = float(batch["rgb"][row].mean())
    spec = batch["spec"][row]
    peak = float(np.median(spec[len(spec) // 2 - 2 : len(spec) // 2 + 2].argmax(1)))
    return (shade - 40) / 40, peak


def test_files_of_a_table_are_read_where_they_were_drawn_with_audio_and_video_in_step(folder):
    source = sources.open_source(folder / "t.csv", "train")
    assert source.labels == ("x", "y") and len(source) == 2
    middles = []
    for batch in Loader(source, Sampling(CLIP, True, padded_size=(20, 30)), 2, epochs=8):
        middles += [instants(batch, row) for row in range(2)]
        assert batch["valid_size"].tolist() == [[20, 30]] * 2
    videos, peaks = np.array(middles).T
    assert videos.min() > 0.4 and videos.max() < 3.6 and np.ptp(videos) > 1
    line = np.polyfit(videos, peaks, 1)
    assert line[0] > 3  # mel bins a second
    assert np.abs(np.polyval(line, videos) - peaks).max() < 3


@pytest.mark.parametrize("clip", [CLIP, replace(CLIP, fps=4.0, stride=1)], ids=["25/s", "4/s"])
def test_the_windows_of_a_file_are_those_that_prediction_takes(folder, clip):
    source = sources.open_source(folder / "t.csv", "train")
    batch = next(Loader(source, Sampling(clip, views=3), 1))
    for row, view in enumerate(read_views(folder / "a.mp4", clip, 3)):
        np.testing.assert_array_equal(batch["rgb"][row], view.rgb)
        np.testing.assert_allclose(batch["spec"][row], view.spec, atol=1e-3)  # faint bins


@pytest.mark.full
def test_learning_from_files_and_records_takes_the_frames_that_prediction_takes(tmp_path):
    scenes = [world.scene(1, index) for index in range(2)]
    world.render(scenes, tmp_path)
    rows = tables.read(tmp_path)
    settings = extract.Settings(WORLD_CLIP.front_end, tuple(rows.labels))
    prepare.prepare(prepare.plan(rows.rows, "t", None, None), settings, tmp_path / "out", workers=1)
    sampling = Sampling(WORLD_CLIP, True, padded_size=(48, 48))
    for place, apart in ((tmp_path, 0), (tmp_path / "out", 4)):  # levels; JPEG, in another size
        batch = next(Loader(sources.open_source(place), sampling, 2))
        for name, rgb in zip(batch["id"], batch["rgb"], strict=True):
            view = read_views(tmp_path / f"{name}.mp4", WORLD_CLIP)[0]
            assert np.abs(view.rgb.astype(int) - rgb).mean() <= apart


def test_a_window_of_a_table_is_not_left(folder):
    source = sources.open_source(folder / "t.csv", "test")
    batch = next(Loader(source, Sampling(CLIP), 1))
    assert instants(batch, 0)[0] == pytest.approx(0.5, abs=0.1)
    assert batch["labels"].tolist() == [[1, 0]]


def test_a_table_without_such_rows_or_files_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="no rows of split valid"):
        sources.open_source(folder / "t.csv", "valid")
    rows = tables.AnnotationTable([tables.Annotation("a", None, None, None, ("x",))], ["x"])
    with pytest.raises(ValueError, match="1 rows, but no files"):
        sources.FileSource(rows)
    with pytest.raises(ValueError, match="name a folder of records, a table"):
        sources.open_source(tmp_path / "nothing")
    with pytest.raises(ValueError, match="names no classes"):
        sources.open_source(tmp_path / "nothing@2")


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_tfds_dataset_over_a_table_gives_the_clips_of_the_table(folder, tmp_path, workers):
    build = importlib.import_module("mbt_lite.data.tfds")
    config = build.TableConfig(name="t", table=folder / "t.csv", front_end=CLIP.front_end)
    builder = build.TableDataset(data_dir=tmp_path, config=config)
    builder.download_and_prepare()
    source = sources.open_source(builder.data_dir, "train")
    assert source.labels == ("x", "y") and source.front == CLIP.front_end
    batches = loader(source, batch=2, training=False, workers=workers)
    batch = next(batches)
    batches.close()
    row = batch["labels"].argmax(1).tolist().index(0)  # a.mp4, whole
    assert instants(batch, row)[0] == pytest.approx(2.0, abs=0.1)
    with pytest.raises(ValueError, match="has no split valid; it has test, train"):
        sources.open_source(builder.data_dir, "valid")


def test_pairs_of_digits_are_a_source():
    pair = {"image": np.full((28, 28), 200, np.uint8), "audio": np.full(8000, 100, np.int16)}
    stored = [{"id": f"{n}".encode(), "label": n, **pair} for n in range(3)]
    digits = [str(digit) for digit in range(10)]
    info = SimpleNamespace(features={"label": SimpleNamespace(names=digits)}, metadata={})
    builder = SimpleNamespace(info=info, as_data_source={"train": stored}.get)
    source = sources.DigitSource(builder, "train")
    batch = next(Loader(source, Sampling(CLIP, True, padded_size=(20, 20)), 3, shuffle=False))
    assert batch["id"] == ["0", "1", "2"] and batch["labels"].argmax(1).tolist() == [0, 1, 2]
    assert (batch["rgb"][..., :16, :16, :] == 200).all() and not batch["rgb"][..., 16:, :].any()
    assert batch["valid_size"].tolist() == [[16, 16]] * 3


@pytest.mark.full
def test_prepared_clips_are_a_source_that_knows_its_classes_and_front_end(folder, tmp_path):
    rows = tables.read(folder / "t.csv").rows
    settings = extract.Settings(CLIP.front_end, ("x", "y"))
    prepare.prepare(prepare.plan(rows, "t", None, None), settings, tmp_path / "out", workers=1)
    source = sources.open_source(tmp_path / "out", "test")
    assert source.labels == ("x", "y") and len(source) == 1
    assert source.front.mean != 0  # measured
    batch = next(Loader(source, Sampling(CLIP), 1))
    assert batch["id"] == [rows[2].id] and batch["labels"].tolist() == [[1, 0]]
    assert instants(batch, 0)[0] == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="has the classes x, y; the model's are a, b"):
        sources.open_source(tmp_path / "out", labels=("a", "b"))


def test_a_portrait_video_larger_than_the_padded_frames_is_cropped_at_random(tmp_path):
    rows = np.arange(0, 240, 6, dtype=np.uint8)[:, None, None]
    (tmp_path / "tall").mkdir()
    media.write(tmp_path / "tall/a.mp4", np.broadcast_to(rows, (25, 40, 20, 3)).copy(), 25.0, crf=0)
    source = sources.FileSource(tables.read(tmp_path))
    sampling = Sampling(CLIP, True, padded_size=(20, 28), streams=("rgb",))
    tops = []
    for batch in Loader(source, sampling, 1, epochs=40):
        assert batch["valid_size"].tolist() == [[20, 20]] and not batch["rgb"][..., 20:, :].any()
        tops.append(batch["rgb"][0, 0, 0, 0, 0] / 6)
    assert min(tops) <= 2 and max(tops) >= 17


def test_the_micro_world_is_a_source_whose_clips_are_new():
    source = sources.WorldSource("train", 6, seed=0)
    sampling = Sampling(WORLD_CLIP, True, padded_size=(48, 48))
    batches = list(Loader(source, sampling, 4, shuffle=False))
    assert [batch["mask"].sum() for batch in batches] == [4, 2]
    assert batches[0]["labels"].shape == (4, 39)
    assert "jax" in sys.modules  # only this process has it


# ---- speed ----


@pytest.mark.slow
def test_the_bench_reads_full_size_clips_and_says_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr(throughput, "ROUNDS", 1)
    monkeypatch.setattr(throughput, "VIDEOS", 1)
    result = throughput.measure(clips=8, python=sys.executable, long=40)
    assert set(result["clips a second and core"]) >= {"records", "mp4"}
    assert all(speed > 0.5 for speed in result["clips a second and core"].values())
    assert ("left out" in result) == (importlib.util.find_spec("tensorflow") is None)
    held = result["memory"]["MiB after so many clips"]
    assert list(held) == [4 * step for step in range(11)]
    assert "from records" in throughput.table(result)
    with pytest.raises(ValueError, match="nowhere/python is no Python"):
        throughput.lacks_tensorflow("nowhere/python")


@pytest.mark.parametrize(
    "text, module, reason",
    [
        ("import mbt_lite\n", "", "script.py has no `if __name__"),
        ("import mbt_lite\n", "package.__main__", None),
        ("if __name__ == '__main__':\n    pass\n", "", None),
        (None, "", "script.py is not a file"),
    ],
)
def test_workers_are_started_only_by_a_program_that_guards_its_start(
    monkeypatch, tmp_path, text, module, reason
):
    script = tmp_path / "script.py"
    if text is not None:
        script.write_text(text)
    main = SimpleNamespace(__file__=str(script), __spec__=SimpleNamespace(name=module))
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert reason in why_no_workers() if reason else why_no_workers() is None


def test_a_script_without_a_guard_reads_in_its_own_process(caplog, monkeypatch):
    monkeypatch.setattr(datasets, "why_no_workers", lambda: "script.py has no guard")
    experiment = configs.world.experiment()
    with datasets.make_loader(
        experiment, datasets.open_split(experiment.data, "train", clips=8), True, batch=2
    ) as loader:
        assert loader.workers is None and len(next(loader)["id"]) == 2
    assert "read in this process, without workers: script.py has no guard" in caplog.text
