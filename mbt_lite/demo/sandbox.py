"""Read untrusted files in a separate process: a hostile file costs its own answer and nothing else.

    with SandboxedReader(Limits(classifier.clip_config)) as reader:
        reading = reader.read("upload.avi")         # or MediaError, one sentence for a person

The process opens the given file and no other (container.py sees to that), holds no model, and is
bounded in memory and time; one that crashes, hangs or is old is replaced. Size, length, pixels,
rate and tracks are checked before anything is decoded. The bound on memory is the kernel's: Linux
keeps it, other systems do not.
"""

import math
import os
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from pebble import ProcessExpired

from mbt_lite import features, media
from mbt_lite.config import ClipConfig
from mbt_lite.data import doctor
from mbt_lite.data.doctor import quoted
from mbt_lite.media import MediaError, encode, isolate
from mbt_lite.media.container import FAILURES, chosen, opened
from mbt_lite.media.isolate import DecodeTimeout

FILES_PER_PROCESS = 50  # after which it is replaced, for memory that files have left scattered
MAX_NAME = 80  # letters of a file's name in a sentence

# What a file may hold; a video of a person has less.
MAX_RATE = 768_000  # Hz
MAX_CHANNELS = 64
MAX_TRACKS = 64

# A copy for the browser.
SHORT_SIDE, LONG_SIDE = 360, 1280  # pixels
LENGTH, LEAD = 60.0, 5.0  # s at most; s of them before the window that the model gets
PIECE = 2.0  # s that are decoded at a time, for frames take much memory
MAX_FPS = 25.0
COPY_SHARE = 0.5  # of the time limit, after which the copy ends where it is

# The codecs that every browser plays, by the suffix of a file, which is the name of its container.
PLAYED = {
    "mp4": {"h264", "aac"},
    "m4a": {"aac"},
    "webm": {"vp8", "vp9", "opus", "vorbis"},
    "mp3": {"mp3float", "mp3"},
    "wav": {"pcm_s16le"},
}


@dataclass(frozen=True)
class Reading:
    """What a file holds for the model and for the page."""

    views: tuple[features.View, ...]  # windows, evenly spread, in order
    notes: tuple[str, ...]  # of the doctor, in sentences
    duration: float  # s
    playable: bytes | None  # a small mp4 of what browsers do not play themselves
    playable_start: float = 0.0  # s on the file's clock, where the copy begins


@dataclass(frozen=True)
class Limits:
    """What a file may hold, and what reading it may cost."""

    clip_config: ClipConfig
    seconds: float = 30.0  # of reading
    memory: int = 2 << 30  # bytes, of the process
    megabytes: float = 200  # of the file
    minutes: float = 240
    pixels: int = 4096 * 4096  # of a frame


class SandboxedReader:
    """Reads one file at a time, in one warm process; threads wait for each other."""

    def __init__(self, limits: Limits, work=None):
        self._limits, self._work, self._lock = limits, work or read_untrusted, threading.Lock()
        self._start()

    def __enter__(self) -> "SandboxedReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a file that is being read is waited for."""
        with self._lock:
            self._stop()

    def read(self, path, windows: int = 1) -> Reading:
        """The `Reading` of a file with so many windows; `MediaError` where it cannot be used."""
        with self._lock:
            if not self._stop.alive:
                raise RuntimeError("this reader is closed; make another one.")
            try:
                return self._read((os.path.abspath(path), windows))
            except RuntimeError:  # the pool has ended, for its process was killed between two files
                self._stop()
                self._start()
                return self._read((os.path.abspath(path), windows))

    def _start(self) -> None:
        self._pool = isolate.start_pool(
            self._work, 1, self._limits.memory, max_tasks=FILES_PER_PROCESS
        )
        # also called when nobody holds this reader any more, and at the end of the program
        self._stop = weakref.finalize(self, isolate.stop_pool, self._pool)

    def _read(self, job: tuple[str, int]) -> Reading:
        """Read a file; after a crash, whose cause may be the file before it, once more."""
        limit, reason = self._limits.seconds, None
        for _ in range(isolate.ATTEMPTS):
            future = self._pool.schedule(self._work, (job, self._limits), timeout=limit)
            try:
                return future.result()
            except (TimeoutError, ProcessExpired) as error:
                reason = isolate.failure(error, limit)
            finally:
                future.cancel()  # of an interrupted call; its process is replaced
            if isinstance(reason, DecodeTimeout):
                break
        raise type(reason)(_given_up(job[0], reason))


def _given_up(path, reason: MediaError) -> str:
    name = shown(os.path.basename(path))
    if isinstance(reason, DecodeTimeout):
        return f"{name} {reason} to read and was given up; try a shorter or smaller one."
    return f"{name} {reason}; it is damaged or made to do harm, so try another copy."


def shown(name: str) -> str:
    """A file's name fit for a sentence: printable characters only, and not too long."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2]}...{name[-MAX_NAME // 2 :]}"


# ---- in the other process ----


def read_untrusted(job: tuple[str, int], limits: Limits) -> Reading:
    """The `Reading` of a file, or `MediaError`; what is wrong in our own code is one, too."""
    path, windows = job
    folder, name = os.path.split(path)
    try:
        os.chdir(folder or ".")  # from here on nothing knows where the file lies
        return _read(name, windows, limits)
    except MediaError as error:
        reason = str(error).replace(name, shown(name))
    except MemoryError:
        size = f"{limits.memory / 2**30:.1f} GiB of memory"
        reason = f"{shown(name)} takes more than {size} to read; try a shorter or smaller one."
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "there is no such file"
        reason = f"{shown(name)} cannot be opened: {cause}; check the name."
    except Exception as error:
        traceback.print_exc()
        reason = f"{shown(name)} cannot be read ({type(error).__name__}); try another copy."
    raise MediaError(reason)


def _read(name: str, windows: int, limits: Limits) -> Reading:
    deadline, played = time.monotonic() + COPY_SHARE * limits.seconds, _check(name, limits)
    report = doctor.examine(name, limits.clip_config)
    if windows == 1 and report.view:  # the doctor looks where one window lies
        views = (report.view,)
    else:
        views = tuple(features.read_views(name, limits.clip_config, windows))
    if not any(view.rgb.any() or view.wave.any() for view in views):
        raise MediaError(f"{name} shows nothing but black and is silent; try another one.")
    start, copy = 0.0, None
    if not played:
        start = max(0.0, views[0].start - LEAD)
        with suppress(*FAILURES):  # the answer is worth more than the copy
            copy = _playable(name, start, report.info, deadline) or None
    duration = report.info.duration or 0.0
    return Reading(views, tuple(_notes(name, report)), duration, copy, start)


def _notes(name: str, report: doctor.Report) -> Iterator[str]:
    """The doctor's findings, without advice that is a shell command."""
    for finding in report.findings:
        is_command = f" {quoted(report.path)} -" in finding.do
        advice = "" if is_command else finding.do
        yield f"{finding.problem} {advice}".strip().replace(name, shown(name))


# ---- checks before anything is decoded ----


def _check(name: str, limits: Limits) -> bool:
    """Whether browsers play the file; `MediaError` where it exceeds a limit."""
    size = os.stat(name).st_size / 1e6
    if size > limits.megabytes:
        raise MediaError(
            f"{name} has {size:,.0f} MB, and up to {limits.megabytes:g} are taken; cut out a part."
        )
    with opened(name) as container:
        _check_tracks(name, container, limits)
        return _is_played(name, container)


def _check_tracks(name: str, container, limits: Limits) -> None:
    if len(container.streams) > MAX_TRACKS:
        count = f"{len(container.streams)} tracks, and up to {MAX_TRACKS} are taken"
        raise MediaError(f"{name} has {count}; keep only the picture and the sound.")
    video, audio = chosen(container)
    minutes = (media.seconds(name) or 0.0) / 60
    if minutes > limits.minutes:
        excess = f"lasts {minutes:,.1f} minutes, and up to {limits.minutes:g} are taken"
        raise MediaError(f"{name} {excess}; cut out a part.")
    if video:
        width, height = video.codec_context.width, video.codec_context.height
        if width * height > limits.pixels:
            size = f"{width} x {height} pixels, and up to {limits.pixels:,} in all are taken"
            raise MediaError(f"{name} has frames of {size}; scale it down.")
    if audio:
        rate, channels = audio.codec_context.sample_rate, audio.codec_context.channels
        if rate > MAX_RATE or channels > MAX_CHANNELS:
            excess = f"{channels} channels of audio at {rate:,} Hz, and up to {MAX_CHANNELS} at "
            raise MediaError(f"{name} has {excess}{MAX_RATE:,} Hz are taken; store it anew.")


def _is_played(name: str, container) -> bool:
    """Whether every browser plays a file as it is."""
    suffix = os.path.splitext(name)[1][1:].lower()
    quicktime = container.metadata.get("major_brand", "").startswith("qt")
    if suffix not in container.format.name.split(",") or quicktime:
        return False
    contexts = [stream.codec_context for stream in chosen(container) if stream]
    plain = all(c.type == "audio" or c.pix_fmt in ("yuv420p", "yuvj420p") for c in contexts)
    return bool(contexts) and plain and {c.name for c in contexts} <= PLAYED.get(suffix, set())


# ---- a copy for the browser ----


def _playable(name: str, start: float, info: media.Info, deadline: float) -> bytes:
    """An mp4 of at most `LENGTH` seconds from `start` on, cut short at the deadline."""
    wave = None
    if info.has_audio:
        with suppress(MediaError):
            wave = media.read(name, start, LENGTH, only="audio").wave
    fps = min(info.fps or MAX_FPS, MAX_FPS)
    if not info.has_video:
        length = 0.0 if wave is None else len(wave) / media.RATE
        black = np.zeros((90, 160, 3), np.uint8)
        return encode.packed(((second, black) for second in range(math.ceil(length))), 1.0, wave)
    return encode.packed(_frames(name, start, fps, info, deadline), 1 / fps, wave)


def _frames(name: str, start: float, fps: float, info: media.Info, deadline: float) -> Iterator:
    """(seconds after `start`, small frame uint8 [H, W, 3]) pairs, decoded piece by piece."""
    ratio = max(info.width, info.height) / max(1, min(info.width, info.height))
    options = {"only": "video", "short_side": max(2, min(SHORT_SIDE, int(LONG_SIDE / ratio)))}
    options["at"] = lambda length: np.arange(0, length, 1 / fps)
    last, size, slowest = -math.inf, None, 0.0
    for piece in np.arange(0, LENGTH, PIECE).tolist():
        began = time.monotonic()
        if began + slowest > deadline:
            return
        try:
            window = media.read(name, start + piece, PIECE, **options)
        except MediaError:  # the end
            return
        slowest = max(slowest, time.monotonic() - began)
        for at, frame in zip(window.times, window.frames, strict=True):
            size = size or frame.shape
            time_stamp = max(0.0, piece + at)
            if time_stamp > last + 0.5 / fps and frame.shape == size:
                yield time_stamp, frame
                last = time_stamp
