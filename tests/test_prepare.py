"""Videos and a table become records: the same bytes whatever interrupts, crashes or hangs."""

import csv
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mbt_lite import (
    cli,
    config,
    features,
    media,
)
from mbt_lite.data import (
    extract,
    manifest,
    prepare,
    records,
    tables,
)
from mbt_lite.data.extract import Settings
from mbt_lite.data.records import Shards
from mbt_lite.media import isolate

FRONT = features.FRONT_ENDS["ln-magnitude-1e-3"]
SETTINGS = Settings(FRONT, ("bell", "dog"), short_side=32)
ROOT = Path(__file__).parent.parent


def film(path, seconds=1.0, fps=25.0, size=(32, 48), hum=440.0):
    """A clip whose brightness counts its frames, with a hum or in silence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(seconds * fps)
    frames = np.empty((count, *size, 3), np.uint8)
    frames[:] = (np.arange(count) * 5 % 250)[:, None, None, None]
    times = np.arange(round(seconds * media.RATE)) / media.RATE
    wave = np.sin(2 * np.pi * hum * times).astype(np.float32) / 4
    media.write(path, frames, np.arange(count) / fps, wave if hum else None)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Eight clips of 1 s, one of 2.6 s, one without audio, one that is no video, and a table."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(8):
        film(folder / f"v{i}.mp4", hum=200.0 + 40 * i)
    film(folder / "long.mp4", 2.6)
    film(folder / "silent.mp4", hum=0)
    (folder / "broken.mp4").write_bytes(b"no video")
    rows = [(f"v{i}.mp4", "bell|dog" if i % 3 else "dog", "train") for i in range(8)]
    rows += [("long.mp4", "bell", "test"), ("silent.mp4", "dog", "test")]
    rows += [("broken.mp4", "dog", "test"), ("gone.mp4", "dog", "test")]
    lines = ["path,labels,split", *map(",".join, rows)]
    (folder / "table.csv").write_text("\n".join(lines))
    return folder


def shards_of(videos, count=3, split=None):
    return prepare.plan(tables.read(videos / "table.csv").rows, "v", count, split)


@pytest.mark.parametrize("stream, other", [("spec", "rgb"), ("rgb", "spec")])
def test_records_of_one_stream_hold_nothing_of_the_other(capsys, tmp_path, stream, other):
    film(tmp_path / "clips" / "bell" / "both.mp4", 2.0)
    film(tmp_path / "clips" / "dog" / "silent.mp4", hum=0)
    words = [str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert cli.main(["prepare", *words, "--streams", stream]) == int(stream == "spec")
    shown = capsys.readouterr()
    clips = list(Shards(tmp_path / "out"))
    assert len(clips) == (1 if stream == "spec" else 2)
    for clip in clips:
        seconds = 2 if clip.names == ("bell",) else 1
        kept = {"rgb": len(clip.jpegs) / 25, "spec": len(clip.melspec)}
        assert kept == {stream: seconds, other: 0}
    if stream == "spec":
        assert "1 clip could not be prepared" in shown.err
        assert "no audio" in (tmp_path / "out" / "failures.csv").read_text()


def contents(folder):
    """File → bytes, of all that a run leaves, but for its lock."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def prepared(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare.prepare(shards_of(videos), SETTINGS, folder, workers=2)
    return folder


# ---- one clip ----


def row_of(path, start=None, end=None):
    return tables.Annotation("x", path, start, end, ("bell",))


def brightness(clip):
    return [clip.frame(number).mean() for number in range(len(clip.jpegs))]


def test_a_clip_has_25_frames_100_rows_and_16000_samples_for_each_second(videos):
    clip = extract.example(row_of(videos / "long.mp4"), SETTINGS)
    assert (len(clip.jpegs), clip.melspec.shape, len(clip.wave)) == (75, (3, 100, 128), 48_000)
    assert (clip.labels, clip.names, clip.start) == ((0,), ("bell",), 0.0)
    assert clip.end == pytest.approx(2.6, abs=0.05)
    assert np.abs(clip.wave[: 2 * 16_000]).max() > 0.1 and not clip.wave[-5000:].any()
    np.testing.assert_array_equal(features.log_mel(clip.wave, FRONT), clip.melspec.reshape(-1, 128))


def test_frames_are_those_nearest_to_each_25th_of_a_second(videos, tmp_path):
    clip = extract.example(row_of(videos / "long.mp4"), SETTINGS)
    np.testing.assert_allclose(brightness(clip)[:50], np.arange(50) * 5 % 250, atol=4)
    for fps in (10.0, 50.0):
        film(tmp_path / "other.mp4", fps=fps)
        clip = extract.example(row_of(tmp_path / "other.mp4"), SETTINGS)
        nearest = np.round(np.arange(20) / 25 * fps - 1e-6) * 5
        np.testing.assert_allclose(brightness(clip)[:20], nearest, atol=4)


def test_a_window_is_cut_out_of_its_file(videos):
    clip = extract.example(row_of(videos / "long.mp4", 0.8, 1.8), SETTINGS)
    assert (len(clip.jpegs), clip.start, clip.end) == (25, 0.8, pytest.approx(1.8))
    np.testing.assert_allclose(brightness(clip), np.arange(20, 45) * 5 % 250, atol=4)


def test_a_file_that_was_cut_to_its_window_begins_at_0(videos):
    clip = extract.example(row_of(videos / "long.mp4", 30.0, 32.6), SETTINGS)
    assert (clip.start, len(clip.jpegs)) == (0.0, 75)


@pytest.mark.parametrize("size", [(24, 40), (96, 64)])
def test_the_short_side_is_the_same_for_small_and_large_frames(tmp_path, size):
    film(tmp_path / "a.mp4", size=size)
    clip = extract.example(row_of(tmp_path / "a.mp4"), SETTINGS)
    assert min(clip.frame(0).shape[:2]) == 32


def test_a_front_end_that_does_not_fit_records_is_refused():
    with pytest.raises(ValueError, match="wide gives 50 rows of 128 mels a second; records hold"):
        Settings(config.FrontEnd("wide", hop=0.02), ("bell",))


# ---- which shard ----


def rows(count, split=None):
    return [tables.Annotation(f"r{i}", None, None, None, ("bell",), split) for i in range(count)]


def test_every_row_is_in_one_shard_which_depends_on_the_ids_only():
    planned = prepare.plan(rows(100), "a", 7, None)
    assert [s.name for s in planned[:2]] == ["a-00000-of-00007", "a-00001-of-00007"]
    assert sorted(r.id for s in planned for r in s.rows) == sorted(r.id for r in rows(100))
    assert {len(s.rows) for s in planned} <= {14, 15}
    assert prepare.plan(rows(100)[::-1], "a", 7, None) == planned
    assert [int(r.id[1:]) for r in planned[0].rows] != sorted(
        int(r.id[1:]) for r in planned[0].rows
    )


def test_splits_have_shards_of_their_own_and_one_may_be_chosen():
    table = rows(130, "train") + [replace(r, id=f"t{r.id}") for r in rows(5, "test")]
    names = [shard.name for shard in prepare.plan(table, "a", None, None)]
    assert names == ["a-test-00000-of-00001", *(f"a-train-0000{i}-of-00003" for i in range(3))]
    assert {s.split for s in prepare.plan(table, "a", None, "test")} == {"test"}
    assert prepare.plan(rows(2), "a", None, "eval")[0].name == "a-eval-00000-of-00001"
    with pytest.raises(ValueError, match="no rows of split valid; it has test, train"):
        prepare.plan(table, "a", None, "valid")
    with pytest.raises(ValueError, match="9 shards for the 5 rows of split test: take 1 to 5"):
        prepare.plan(table, "a", 9, "test")


# ---- the whole ----


@pytest.mark.full
def test_all_clips_are_in_the_records_or_in_the_failures(prepared):
    clips = Shards(prepared, "train")
    assert sorted(clip.id for clip in map(clips.__getitem__, range(8))) == [
        f"v{i}" for i in range(8)
    ]
    assert not Shards(prepared).faults and len(Shards(prepared, "test")) == 1
    with (prepared / "failures.csv").open() as file:
        failures = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert failures.keys() == {"silent", "broken", "gone"}
    assert "has no audio in the window; a clip needs both" in failures["silent"]
    assert failures["broken"].endswith("header is lost; get it again.")
    assert failures["gone"] == "the file is missing"


@pytest.mark.full
def test_the_description_counts_clips_and_measures_the_training_split(prepared):
    dataset = records.describe(prepared)
    assert dataset["labels"] == ["bell", "dog"] and dataset["failures"] == 3
    train, test = dataset["splits"]["train"], dataset["splits"]["test"]
    assert (train["examples"], train["counts"]) == (8, {"bell": 5, "dog": 8})
    assert (test["examples"], test["seconds"], test["failures"]) == (1, 3, 3)
    clips = Shards(prepared, "train")
    values = np.concatenate([clips[i].melspec.ravel() for i in range(8)]).astype(float)
    front = config.from_dict(config.FrontEnd, dataset["front_end"])
    assert front.mean == pytest.approx(values.mean()) and front.std == pytest.approx(values.std())
    assert replace(front, mean=FRONT.mean, std=FRONT.std) == FRONT
    assert dataset["measured_on"] == ["train"]


@pytest.mark.full
def test_a_shard_that_was_lost_or_cut_is_written_again(videos, prepared):
    before = contents(prepared)
    assert manifest.unfinished(shards_of(videos), SETTINGS, prepared) == []
    names = [f"v-train-0000{i}-of-00003" for i in range(3)]
    (prepared / names[0]).unlink()
    (prepared / names[1]).write_bytes(b"half")
    (prepared / "progress" / f"{names[2]}.json").write_text("{")
    (prepared / ".v-train-00000-of-00003.dead.part").write_bytes(b"left over")
    assert [s.name for s in manifest.unfinished(shards_of(videos), SETTINGS, prepared)] == names
    prepare.prepare(shards_of(videos), SETTINGS, prepared, workers=1)
    assert contents(prepared) == before


@pytest.mark.full
def test_a_split_is_added_and_the_bytes_do_not_depend_on_workers(videos, prepared, tmp_path):
    for split in ("test", "train"):
        prepare.prepare(shards_of(videos, split=split), SETTINGS, tmp_path, workers=1)
    assert contents(tmp_path) == contents(prepared)


@pytest.mark.full
def test_shards_with_other_settings_are_refused(videos, prepared):
    def refusal(shards, settings):
        with pytest.raises(ValueError) as caught:
            prepare.prepare(shards, settings, prepared, workers=1)
        return str(caught.value)

    planned = shards_of(videos)
    other = replace(SETTINGS, front_end=features.FRONT_ENDS["yamnet"])
    assert "made with another front end; choose another folder" in refusal(planned, other)
    other = replace(SETTINGS, labels=("dog", "bell"), short_side=64)
    assert "made with another labels and short side" in refusal(planned, other)
    assert "another audio track" in refusal(planned, replace(SETTINGS, audio_track=2))
    assert "another number of shards" in refusal(shards_of(videos, 2), SETTINGS)
    changed = [replace(s, rows=tuple(replace(r, end=0.5) for r in s.rows)) for s in planned]
    assert "made with another table" in refusal(changed, SETTINGS)


def test_two_runs_do_not_write_into_one_folder(videos, tmp_path):
    with prepare._locked(tmp_path), pytest.raises(ValueError, match="another run is writing there"):
        prepare.prepare(shards_of(videos), SETTINGS, tmp_path, workers=1)


# ---- crashes, hangs, a full disk ----


def work_that_crashes(job, folder):
    """Stands in for `prepare.work`: a decoder that dies of one clip, or once of another."""
    mark = Path(folder) / f"{job.row.id}.tried"
    if job.row.id == "v3" or (job.row.id == "v5" and not mark.exists()):
        mark.touch()
        with job.path.open("ab") as file:
            file.write(b"half a record")
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.row.id == "v6":
        time.sleep(60)
    return prepare.work(job, SETTINGS)


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs_costs_its_clip_only(videos, prepared, tmp_path):
    planned, out = shards_of(videos, split="train"), tmp_path / "out"
    (out / "progress").mkdir(parents=True)
    tasks = (prepare.write(shard, SETTINGS, out) for shard in planned)
    isolate.run(tasks, work_that_crashes, str(tmp_path), 2, timeout=10.0)
    dataset = manifest.finish(out, SETTINGS)
    clips = Shards(out, "train")
    undisturbed = Shards(prepared, "train")
    assert dataset["splits"]["train"]["examples"] == 6 and not clips.faults
    expected = {
        undisturbed[i].id: undisturbed.read(i)
        for i in range(8)
        if undisturbed[i].id not in ("v3", "v6")
    }
    assert {clips[i].id: clips.read(i) for i in range(6)} == expected
    with (out / "failures.csv").open() as file:
        reasons = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {
        "v3": "crashed the process that decodes (SIGSEGV), 2 times",
        "v6": "took more than 10 s, 2 times",
    }


def run_limited(command, limit):
    """A finished process whose files may grow to `limit` bytes; set from outside, for a process
    with threads should not fork with work to do."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    process = subprocess.Popen(command, **pipes)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def command(videos, out, *more):
    return [
        sys.executable, "-m", "mbt_lite", "prepare", str(videos / "table.csv"), "--out", str(out),
        "--shards", "4", "--workers", "2", "--name", "v", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_full_disk_stops_with_a_sentence_and_leaves_whole_shards_only(videos, tmp_path):
    out = tmp_path / "out"
    options = {"capture_output": True, "text": True, "cwd": ROOT}
    full = run_limited(command(videos, out), 450_000)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert f"mbt-lite: {out}: the disk is full. Finished shards are whole and stay" in full.stderr
    assert not (out / "dataset.json").exists() and not list(out.glob(".*.part"))
    again = subprocess.run(command(videos, out), **options)
    assert again.returncode == 1 and "3 clips could not be prepared" in again.stderr
    subprocess.run(command(videos, tmp_path / "whole"), **options)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.full
def test_the_command_reports_its_output_and_errors(videos, tmp_path, capsys):
    words = ["prepare", str(videos / "table.csv"), "--out", str(tmp_path / "out"), "--workers", "2"]
    assert cli.main([*words, "--front-end", "yamnet"]) == 1  # three clips failed
    output = capsys.readouterr()
    assert "train: 8 clips, 0.00 h, 1 shards" in output.out and "yamnet: mean" in output.out
    assert "table.csv: files missing (1): gone" in output.err
    assert "3 clips could not be prepared, see" in output.err
    assert cli.main([*words, "--front-end", "vggish"]) == 1
    assert "made with another front end" in capsys.readouterr().err
    assert cli.main([*words, "--front-end", "loud"]) == 1
    assert "there is no front end 'loud'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_twenty_times_at_random_moments_comes_to_the_same_bytes(videos, tmp_path):
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    out, kills, chance = tmp_path / "out", 0, random.Random(0)
    start = time.monotonic()
    subprocess.run(command(videos, tmp_path / "whole"), **options)
    took = time.monotonic() - start
    while kills < 20:
        start = time.monotonic()
        run = subprocess.Popen(command(videos, out), **options)
        try:
            run.wait(chance.uniform(0.2, 1.0) * took)
        except subprocess.TimeoutExpired:
            kills += 1
            run.kill()
            run.wait()
            listed = [path.stem for path in (out / "progress").glob("v-*.json")]
            assert all((out / name).exists() for name in listed), "a manifest without its shard"
            if kills < 20 and len(listed) == 8:  # nothing is left to interrupt: from the beginning
                shutil.rmtree(out)
        else:
            took = min(took, time.monotonic() - start)
            shutil.rmtree(out)
    subprocess.run(command(videos, out), **options)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.full
def test_a_clip_that_failed_or_was_missing_is_tried_again_when_its_file_is_there(tmp_path, capsys):
    whole = (Path(ROOT) / "data_samples" / "bell.mp4").read_bytes()
    (tmp_path / "bell.mp4").write_bytes(whole)
    (tmp_path / "late.mp4").write_bytes(b"")
    (tmp_path / "table.csv").write_text("file,labels\nbell.mp4,b\nlate.mp4,b\ngone.mp4,b\n")
    command = ["prepare", str(tmp_path / "table.csv"), "--out", str(tmp_path / "out")]
    for late, clips in ((), 1), (("late.mp4", "gone.mp4"), 3):
        for name in late:
            (tmp_path / name).write_bytes(whole)
        assert cli.main([*command, "--workers", "1"]) == int(clips < 3)
        assert f"all: {clips} clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--workers", "-1"], "at least one process"),
        (["--timeout", "0"], "some seconds"),
        (["--videos", "nowhere"], "is no folder"),
        ([], "none of the files"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, capsys, more, sentence):
    (tmp_path / "table.csv").write_text("file,labels\ngone.mp4,bell\n")
    out = tmp_path / "out"
    assert cli.main(["prepare", str(tmp_path / "table.csv"), "--out", str(out), *more]) == 1
    assert sentence in capsys.readouterr().err and not out.exists()
