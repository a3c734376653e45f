"""Untrusted files: each is read or refused in a sentence, and the next one is read all the same."""

import io
import multiprocessing
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import av
import damage
import numpy as np
import pebble
import pytest

from mbt_lite import features, media
from mbt_lite.config import WORLD_CLIP
from mbt_lite.demo import sandbox
from mbt_lite.demo.sandbox import Limits, Reading, SandboxedReader

pytestmark = pytest.mark.full  # the reader starts a process
ROOT = Path(__file__).parent.parent


def clip(path, seconds=3.0, size=(48, 64), light=255) -> Path:
    """Noise with a hum, as `media.write` makes it."""
    count = round(10 * seconds)
    frames = np.random.default_rng(0).integers(0, light + 1, (count, *size, 3), np.uint8)
    times = np.arange(round(seconds * media.RATE)) / media.RATE
    media.write(path, frames, 10, light / 1024 * np.sin(2 * np.pi * 440 * times))
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("good") / "good.mp4")


@pytest.fixture(scope="module")
def reader():
    with SandboxedReader(Limits(WORLD_CLIP)) as reader:
        yield reader


def refusal(reader: SandboxedReader, path) -> str:
    """The sentence with which a file is refused: one, with its name and without its folder."""
    with pytest.raises(media.MediaError) as caught:
        reader.read(path)
    sentence = str(caught.value)
    assert_sentence(sentence, path)
    return sentence


def assert_sentence(sentence: str, path) -> None:
    assert sentence.startswith(sandbox.shown(Path(path).name)) and sentence.endswith(".")
    assert ". " not in sentence.removeprefix(Path(path).name) and "\n" not in sentence
    assert_no_folder(sentence, path)


def assert_no_folder(sentence: str, path) -> None:
    assert not any(
        part in sentence for part in (str(Path(path).parent), str(ROOT), "/tmp/", "/home/")
    )


# ---- what is read ----


@pytest.mark.parametrize("seconds, windows", [(7.0, 1), (7.0, 3), (0.5, 3)])
def test_the_sandbox_reads_the_same_windows_as_read_views(reader, tmp_path, seconds, windows):
    path = clip(tmp_path / "a.mp4", seconds)
    reading, direct = reader.read(path, windows), features.read_views(path, WORLD_CLIP, windows)
    assert len(reading.views) == len(direct) and reading.duration == pytest.approx(seconds, abs=0.1)
    for got, want in zip(reading.views, direct, strict=True):
        for name in ("rgb", "times", "wave"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        np.testing.assert_allclose(got.spec, want.spec, atol=1e-3)  # one thread adds up otherwise
        assert (got.start, got.notes) == (want.start, want.notes)
    assert any("so it is repeated" in note for note in reading.notes) == (seconds < 1)


def test_notes_are_sentences_without_shell_commands(reader, tmp_path):
    path = clip(tmp_path / "faint.mp4", light=1)
    notes = reader.read(path).notes
    assert any("The audio is very faint" in note for note in notes)
    assert all(note.endswith((".", "!")) and "ffmpeg" not in note for note in notes)
    assert not any(str(tmp_path) in note or "mbt-lite" in note for note in notes)


def test_each_of_eight_threads_gets_its_own_file(reader, tmp_path):
    lengths = [1.0 + 0.5 * i for i in range(8)]
    paths = [clip(tmp_path / f"{i}.mp4", length) for i, length in enumerate(lengths)]
    with ThreadPoolExecutor(8) as threads:
        durations = list(threads.map(lambda path: reader.read(path).duration, 3 * paths))
    assert durations == pytest.approx(3 * lengths, abs=0.11)


# ---- a copy for the browser ----


@pytest.mark.parametrize("suffix", ["mp4", "webm", "wav"])
def test_what_every_browser_plays_has_no_copy(reader, tmp_path, suffix):
    reading = reader.read(damage.film(tmp_path / f"a.{suffix}"))
    assert reading.playable is None and reading.playable_start == 0


ODD = {
    "old.avi": None,
    "loop.gif": None,
    "audio.ogg": None,
    "wide.mp4": ("libx264", "yuv444p", "aac"),
    "camera.mov": ("libx264", "yuv420p", "pcm_s16le"),
    "phone.mp4": ("libx265", "yuv420p", "aac"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_a_browser_may_not_play_has_a_small_h264_copy(reader, tmp_path, name):
    path = damage.film(tmp_path / name, 3.0, size=(400, 640), codecs=ODD[name])
    reading = reader.read(path)
    with av.open(io.BytesIO(reading.playable)) as container:
        video = container.streams.video[0]
        audio = container.streams.audio
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert [stream.codec_context.name for stream in audio] == ["aac"] * (name != "loop.gif")
        assert min(video.width, video.height) == (90 if name == "audio.ogg" else 360)
    (tmp_path / "copy.mp4").write_bytes(reading.playable)
    assert media.probe(tmp_path / "copy.mp4").duration == pytest.approx(3, abs=0.25)
    assert reading.playable_start == 0


def test_the_copy_of_a_long_file_is_a_minute_around_the_models_window(reader, tmp_path):
    path = damage.film(tmp_path / "long.avi", 150.0, fps=2)
    reading = reader.read(path)
    (tmp_path / "copy.mp4").write_bytes(reading.playable)
    copy, original = media.read(tmp_path / "copy.mp4"), media.read(path, reading.playable_start, 60)
    assert copy.duration == pytest.approx(60, abs=1)
    assert 0 < reading.views[0].start - reading.playable_start < 10
    assert np.abs(copy.frames[:20].astype(int) - original.frames[:20]).mean() < 12  # gray levels


# ---- what is refused ----


def test_a_file_that_is_no_video_is_refused_in_a_sentence(reader, good, tmp_path):
    (tmp_path / "letter.mp4").write_text("this is a letter\n")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "letter.mp4 is no video" in refusal(reader, tmp_path / "letter.mp4")
    assert "empty.mp4 is empty" in refusal(reader, tmp_path / "empty.mp4")
    assert "is a directory" in refusal(reader, tmp_path / "folder.mp4")
    assert "is not a regular file" in refusal(reader, tmp_path / "pipe.mp4")
    assert "gone.mp4 cannot be opened" in refusal(reader, tmp_path / "gone.mp4")
    assert "a.mp4 cannot be opened" in refusal(reader, tmp_path / "nowhere" / "a.mp4")
    assert reader.read(good)


def test_a_black_and_silent_file_is_refused(reader, tmp_path):
    assert "nothing but black and is silent" in refusal(reader, clip(tmp_path / "a.mp4", light=0))


def test_a_name_cannot_break_a_sentence(reader, tmp_path):
    path = tmp_path / ("line\nfeed\x1b[31m" + 150 * "a" + ".mp4")
    path.write_bytes(b"no video")
    sentence = refusal(reader, path)
    assert sentence.startswith("line?feed?[31maaa") and len(sentence) < 200


@pytest.mark.parametrize("name", ["http://127.0.0.1:{}/a.mp4", "concat:{}", "file:{}", "a\0b.mp4"])
def test_a_name_that_is_an_address_is_not_opened(reader, good, name):
    with pytest.raises(media.MediaError, match="cannot be opened"):
        reader.read(name.format(good))


def with_reference(movie: bytes, target: Path) -> bytes:
    """A QuickTime movie whose samples are in another file, named by an alias in its `dref` box."""
    name = os.fsencode(target)
    alias = bytes(10) + b"\x03abc".ljust(28, b"\0") + bytes(12) + b"\x01a".ljust(64, b"\0")
    alias += bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    alias += struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + b"\xff\xff\0\0"
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    plain = struct.pack(">I4sI", 12, b"url ", 1)
    assert movie.rindex(b"moov") > movie.rindex(b"mdat"), "boxes may grow: the samples come first"
    return grown(movie, plain, entry)


def grown(data: bytes, old: bytes, new: bytes) -> bytes:
    """Boxes with one replaced by a longer one, and the sizes of those around it corrected."""
    boxes, at = b"", 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            body = grown(body, old, new)
        elif kind == b"dref":
            body = body.replace(old, new)
        boxes += struct.pack(">I4s", 8 + len(body), kind) + body
        at += size
    return boxes


def test_a_movie_cannot_read_samples_from_another_file(reader, tmp_path):
    secret = damage.film(tmp_path / "secret.mov", codecs=("libx264", "yuv420p", "aac"))
    movie = with_reference(secret.read_bytes(), secret)
    at = movie.index(b"mdat")
    end = movie.rindex(b"moov") - 4
    path = tmp_path / "reference.mov"
    path.write_bytes(movie[: at + 4] + bytes(end - at - 4) + movie[end:])
    follow = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), options=follow) as container:
        assert len(list(container.decode(video=0))) == 15, "where it is allowed, it works"
    assert "nothing in it could be decoded" in refusal(reader, path)


# ---- limits ----


def test_a_file_that_is_too_large_long_or_detailed_is_refused_from_its_header(good, tmp_path):
    with SandboxedReader(
        Limits(WORLD_CLIP, megabytes=0.5, minutes=0.2, pixels=100 * 100)
    ) as reader:
        large = tmp_path / "large.mp4"
        large.write_bytes(good.read_bytes())
        os.truncate(large, 1 << 40)
        assert "large.mp4 has 1,099,512 MB, and up to 0.5 are taken" in refusal(reader, large)
        long = damage.film(tmp_path / "long.mp4", 30.0, fps=1)
        assert "lasts 0.5 minutes, and up to 0.2 are taken" in refusal(reader, long)
        wide = damage.film(tmp_path / "wide.mp4", size=(120, 160))
        assert "has frames of 160 x 120 pixels, and up to 10,000" in refusal(reader, wide)
        assert reader.read(good)


def test_many_tracks_and_channels_are_refused(reader, tmp_path):
    with av.open(str(tmp_path / "many.mkv"), "w") as container:
        tracks = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(70)]
        frame = av.AudioFrame.from_ndarray(np.ones((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        for track in tracks:
            container.mux(track.encode(frame))
    assert "70 tracks, and up to 64 are taken" in refusal(reader, tmp_path / "many.mkv")
    data = struct.pack("<HHIIHH", 1, 200, 8000, 8000 * 400, 400, 16)
    body = b"fmt " + struct.pack("<I", 16) + data + b"data" + struct.pack("<I", 80_000)
    body += np.ones(40_000, "<i2").tobytes()
    riff = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body
    (tmp_path / "choir.wav").write_bytes(riff)
    assert "200 channels of audio at 8,000 Hz" in refusal(reader, tmp_path / "choir.wav")


def test_a_file_that_takes_too_much_memory_is_refused(good):
    with SandboxedReader(Limits(WORLD_CLIP, memory=1 << 30), work_that_fails) as reader:
        sentence = refusal(reader, "/srv/memory")
        assert "takes more than 1.0 GiB of memory to read; try a shorter" in sentence
        assert reader.read(good)


def test_a_process_is_replaced_after_some_files(good, monkeypatch):
    monkeypatch.setattr(sandbox, "FILES_PER_PROCESS", 2)
    with SandboxedReader(Limits(WORLD_CLIP), work_that_fails) as reader:
        first, second, third = (refusal(reader, "/srv/pid") for _ in range(3))
        assert first == second != third
        assert reader.read(good)


# ---- crashes and hangs ----


def work_that_fails(job, limits):
    """Stand in for `sandbox.read_untrusted` with decoders that die, hang, take memory or fail."""
    path, _ = job
    name = Path(path).name
    if name == "abort":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "exit":
        os._exit(3)
    if name == "hang":
        time.sleep(60)
    if name == "memory":
        with mock.patch.object(sandbox, "_read", lambda *_: bytes(2 << 30)):
            return sandbox.read_untrusted(job, limits)
    if name == "poison":
        sandbox._read = lambda *_: os.abort()
        raise media.MediaError("poison.")
    if name == "pid":
        raise media.MediaError(f"pid {os.getpid()}.")
    if name == "modules":
        raise media.MediaError(" ".join(sys.modules))
    return sandbox.read_untrusted(job, limits)


def process_of(reader: SandboxedReader) -> int:
    """The number of the process that reads, once it has replaced one that crashed."""
    deadline, workers = time.monotonic() + 10, reader._pool._pool_manager.worker_manager.workers
    while not workers and time.monotonic() < deadline:
        time.sleep(0.05)
    (process,) = workers
    return process


@pytest.mark.parametrize(
    "name, reason",
    [
        pytest.param(
            "abort",
            "abort crashed the process that decodes (SIGSEGV); it is damaged",
            marks=pytest.mark.slow,
        ),
        ("exit", "exit crashed the process that decodes (exit status 3); it is damaged"),
        ("hang", "hang took more than 1 s to read and was given up; try a shorter"),
    ],
)
def test_a_crash_or_a_time_out_costs_its_file_only(good, name, reason):
    with SandboxedReader(Limits(WORLD_CLIP, seconds=1.0), work_that_fails) as reader:
        before = process_of(reader)
        assert refusal(reader, f"/srv/{name}").startswith(reason)
        assert process_of(reader) != before
    with SandboxedReader(Limits(WORLD_CLIP, seconds=10.0), work_that_fails) as reader:
        if name != "hang":
            refusal(reader, f"/srv/{name}")
        assert reader.read(good)


def test_a_process_that_was_killed_while_idle_costs_no_file(good):
    with SandboxedReader(Limits(WORLD_CLIP)) as reader:
        for wait in (0, 0.5):
            reader.read(good)
            os.kill(process_of(reader), signal.SIGKILL)
            time.sleep(wait)
            assert reader.read(good)


def test_damage_that_a_file_leaves_in_the_process_does_not_cost_the_next_one(good):
    with SandboxedReader(Limits(WORLD_CLIP), work_that_fails) as reader:
        refusal(reader, "/srv/poison")
        assert reader.read(good)


def test_a_fault_in_our_own_code_is_reported_in_a_sentence(good, monkeypatch, capsys):
    monkeypatch.setattr(sandbox, "_read", lambda *_: 1 / 0)
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    with pytest.raises(media.MediaError) as caught:
        sandbox.read_untrusted((str(good), 1), Limits(WORLD_CLIP))
    assert str(caught.value) == "good.mp4 cannot be read (ZeroDivisionError); try another copy."
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_process_holds_no_model():
    with SandboxedReader(Limits(WORLD_CLIP), work_that_fails) as reader:
        with pytest.raises(media.MediaError) as caught:
            reader.read("modules")
    modules = set(str(caught.value).split())
    assert "av" in modules and not modules & {"jax", "flax", "matplotlib", "gradio"}


# ---- the end ----


def test_no_process_is_left_after_closing(good):
    before = set(multiprocessing.active_children())
    reader = SandboxedReader(Limits(WORLD_CLIP))
    reader.read(good)
    process = process_of(reader)
    reader.close()
    assert set(multiprocessing.active_children()) == before and not lives(process)
    with pytest.raises(RuntimeError, match="closed"):
        reader.read(good)
    reader = SandboxedReader(Limits(WORLD_CLIP))
    process = process_of(reader)
    del reader
    assert ends(process)


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()


def ends(process: int) -> bool:
    """Whether a process ends within 10 s."""
    deadline = time.monotonic() + 10
    while lives(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not lives(process)


PROGRAM = """
import sys, threading
from pathlib import Path
from mbt_lite.config import WORLD_CLIP
from mbt_lite.demo.sandbox import Limits, SandboxedReader
from test_sandbox import process_of, work_that_fails

print("program", __name__, flush=True)
reader = SandboxedReader(Limits(WORLD_CLIP), work_that_fails)
print(reader.read(sys.argv[1]).duration, flush=True)
print(process_of(reader), flush=True)
reader.read("hang")
"""


def test_the_process_ends_with_its_caller_and_does_not_run_its_program(good, tmp_path):
    (tmp_path / "server.py").write_text(PROGRAM)  # no `if __name__ == "__main__":`
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    server = subprocess.Popen(
        [sys.executable, tmp_path / "server.py", good],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    program, duration, process = (server.stdout.readline().strip() for _ in range(3))
    assert program == "program __main__" and float(duration) == pytest.approx(3, abs=0.1)
    process = int(process)
    assert lives(process)
    server.kill()
    assert server.communicate()[0] == ""
    assert ends(process)


def test_an_interrupted_read_leaves_no_result_for_the_next(good, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with SandboxedReader(Limits(WORLD_CLIP), work_that_fails) as reader:
        with monkeypatch.context() as patch:
            patch.setattr(pebble.ProcessFuture, "result", interrupt)
            with pytest.raises(KeyboardInterrupt):
                reader.read("hang")
        began = time.monotonic()
        assert isinstance(reader.read(good), Reading) and time.monotonic() - began < 30


# ---- many ----


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_damaged_files_are_read_or_refused_and_nothing_grows(good, tmp_path, capsys):
    outcomes, first, longest = Counter(), 0, 0.0
    threads = threading.active_count()
    with SandboxedReader(Limits(WORLD_CLIP)) as reader:
        for i, (kind, path) in enumerate(damage.variants(tmp_path, 200)):
            began = time.monotonic()
            try:
                reading = reader.read(path)
                assert reading.views and reading.duration >= 0
                for note in reading.notes:
                    assert_no_folder(note, path)
                outcomes[kind, "read"] += 1
            except media.MediaError as error:
                assert_sentence(str(error), path)
                outcomes[kind, "refused"] += 1
            longest = max(longest, time.monotonic() - began)
            if i % 50 == 49:
                assert reader.read(good)
            first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if i == 19 else first
        last = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with capsys.disabled():
        print(
            f"\n{outcomes}\nlongest {longest:.1f} s, {first / 1e3:.0f} MB, then {last / 1e3:.0f} MB"
        )
    assert outcomes.total() == 200 and last < 1.1 * first
    assert threading.active_count() == threads
