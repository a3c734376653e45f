"""Read untrusted files in a separate process: a hostile file costs its own answer and nothing else.

    with SandboxedReader(classifier.clip_config) as reader:
        reading = reader.read("upload.avi")         # or MediaError, one sentence for a person

The process opens the given file and no other (container.py sees to that), holds no model, and is
bounded in memory and time; one that crashes, hangs or grows is replaced. Size, length, pixels, rate
and tracks are looked at before anything is decoded in earnest. The bound on memory is the kernel's:
Linux keeps it, other systems do not.
"""

import math
import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from mbt_lite import features, media
from mbt_lite.config import STREAMS, ClipConfig
from mbt_lite.data import doctor
from mbt_lite.data.doctor import quoted
from mbt_lite.media import MediaError, encode
from mbt_lite.media.container import FAILURES, chosen, opened
from mbt_lite.media.isolate import TOO_LONG, Child, Lost

try:
    import resource
except ImportError:  # not a POSIX system: time is bounded there, memory is not
    resource = None

GROWN = 0.5  # of the memory: a process that holds so much after a file is replaced
MANY = 200  # files after which it is replaced anyway
NAME = 80  # letters of a file's name in a sentence

# What a file may hold; more is no video of a person.
MAX_RATE = 768_000  # Hz
MAX_CHANNELS = 64
MAX_TRACKS = 64

# A copy for the browser.
SHORT_SIDE, LONG_SIDE = 360, 1280  # pixels
LENGTH, LEAD = 60.0, 5.0  # s, at most, and of them before what the model looked at
PIECE = 2.0  # s that are decoded at a time, for frames take much room
FPS = 25.0  # at most
SHARE = 0.5  # of the time that reading may take, after which the copy ends where it is

# What every browser plays: by suffix the container, pictures and sounds.
PLAYED = {
    ".mp4": ("mp4", ("h264",), ("aac",)),
    ".m4v": ("mp4", ("h264",), ("aac",)),
    ".m4a": ("mp4", (), ("aac",)),
    ".webm": ("webm", ("vp8", "vp9"), ("opus", "vorbis")),
    ".mp3": ("mp3", (), ("mp3float", "mp3")),
    ".wav": ("wav", (), ("pcm_s16le",)),
}


@dataclass(frozen=True)
class Reading:
    """What was found in a file."""

    views: tuple[features.View, ...]  # windows, evenly spread, in order
    notes: tuple[str, ...]  # what the doctor found, in sentences
    duration: float  # s
    playable: bytes | None  # a small mp4 of what browsers do not play themselves
    playable_start: float = 0.0  # s on the file's clock, where that begins


@dataclass(frozen=True)
class Limits:
    """What a file may be and cost."""

    clip_config: ClipConfig
    streams: tuple[str, ...]
    seconds: float  # of reading
    memory: int  # bytes, of the process
    megabytes: float  # of the file
    minutes: float
    pixels: int  # of a frame


class SandboxedReader:
    """Reads one file at a time, in one warm process; threads wait for each other."""

    def __init__(
        self,
        clip_config: ClipConfig,
        streams: tuple[str, ...] = STREAMS,
        *,
        seconds: float = 30.0,
        memory: int = 2 << 30,
        megabytes: float = 200,
        minutes: float = 240,
        pixels: int = 4096 * 4096,
        work=None,
    ):
        bounds = Limits(clip_config, tuple(streams), seconds, memory, megabytes, minutes, pixels)
        self._bounds, self._child, self._count = bounds, Child(work or read_untrusted, bounds), 0
        self._alone, self._closed = threading.Lock(), False
        self._child.start()

    def __enter__(self) -> "SandboxedReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the process; what is being read is waited for."""
        with self._alone:
            self._closed = True
            self._child.end()

    def read(self, path, windows: int = 1) -> Reading:
        """The `Reading` of a file with so many windows; `MediaError` where it cannot be used."""
        if windows < 1:
            raise ValueError(f"windows={windows}: ask for one or more.")
        with self._alone:
            if self._closed:
                raise RuntimeError("this guard is closed; make another one.")
            answer = self._ask((os.path.abspath(path), windows))
        if isinstance(answer, MediaError):
            raise answer
        return answer

    def _ask(self, job: tuple[str, int]) -> Reading | MediaError:
        answer = self._child.ask(job, self._bounds.seconds)
        if isinstance(answer, Lost) and self._count and not answer.reason.startswith(TOO_LONG):
            self._count = 0  # perhaps a file before it did the harm
            answer = self._child.ask(job, self._bounds.seconds)
        if isinstance(answer, Lost):
            self._renew()
            return MediaError(_given_up(job[0], answer))
        found, held = answer
        self._count += 1
        if held > GROWN * self._bounds.memory or self._count >= MANY:
            self._renew()
        return found

    def _renew(self) -> None:
        """Another process, which gets ready while nobody waits for it."""
        self._child.end()
        self._child.start()
        self._count = 0


def _given_up(path, lost: Lost) -> str:
    name = shown(os.path.basename(path))
    if lost.reason.startswith(TOO_LONG):
        return f"{name} {lost.reason} to read and was given up; try a shorter or smaller one."
    return f"{name} {lost.reason}; it is damaged or made to do harm, so try another copy."


def shown(name: str) -> str:
    """A file's name fit to be shown: no line breaks or signs that cannot be seen, not too long."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= NAME else f"{name[: NAME // 2]}...{name[-NAME // 2 :]}"


# ---- in the other process ----


def read_untrusted(job: tuple[str, int], bounds: Limits) -> tuple[Reading | MediaError, int]:
    """The `Reading` of a file, or why there is none; and how many bytes of memory are held now."""
    path, windows = job
    folder, name = os.path.split(path)
    limit(bounds.memory)
    try:
        os.chdir(folder or ".")  # from here on nothing knows where the file lies
        answer = _read(name, windows, bounds)
    except MediaError as error:
        answer = MediaError(str(error).replace(name, shown(name)))
    except MemoryError:
        found = f"takes more than {bounds.memory / 2**30:.1f} GiB of memory to read"
        answer = MediaError(f"{shown(name)} {found}; try a shorter or smaller one.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "there is no such file"
        answer = MediaError(f"{shown(name)} cannot be opened: {reason}; check the name.")
    except Exception as error:
        traceback.print_exc()
        kind = type(error).__name__
        answer = MediaError(f"{shown(name)} cannot be read ({kind}); try another copy.")
    return answer, _resident()


def limit(memory: int) -> None:
    """Bound the memory of this process, in bytes; a crash leaves no file of it behind."""
    if resource:
        for kind, most in (("DATA", memory), ("CORE", 0)):
            resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (most, most))


def _resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _read(name: str, windows: int, bounds: Limits) -> Reading:
    deadline, played = time.monotonic() + SHARE * bounds.seconds, _check(name, bounds)
    report = doctor.examine(name, bounds.clip_config, bounds.streams)
    if windows == 1 and report.view:  # the doctor looks where one window lies
        views = (report.view,)
    else:
        views = tuple(features.read_views(name, bounds.clip_config, windows))
    if not any(view.rgb.any() or view.wave.any() for view in views):
        raise MediaError(f"{name} shows nothing but black and is silent; try another one.")
    ends = [s.end for s in (report.survey.video, report.survey.audio) if s]
    duration = report.info.duration or max(ends, default=0.0)
    start, copy = 0.0, None
    if not played:
        start = max(0.0, views[0].start - LEAD)
        with suppress(*FAILURES):  # the answer is worth more than the copy
            copy = _playable(name, start, report.info, deadline) or None
    return Reading(views, tuple(_notes(name, report)), duration, copy, start)


def _notes(name: str, report: doctor.Report) -> Iterator[str]:
    """The findings; advice that is a line for the shell is of no use to who uploads a file."""
    for finding in report.findings:
        command = f" {quoted(report.path)} -" in finding.do
        yield f"{finding.found} {'' if command else finding.do}".strip().replace(name, shown(name))


# ---- before anything is decoded ----


def _check(name: str, bounds: Limits) -> bool:
    """Whether browsers play the file; `MediaError` where it is more than is taken."""
    size = os.stat(name).st_size / 1e6
    if size > bounds.megabytes:
        raise MediaError(
            f"{name} has {size:,.0f} MB, and up to {bounds.megabytes:g} are taken; cut out a part."
        )
    with opened(name) as container:
        _check_tracks(name, container, bounds)
        return _is_played(name, container)


def _check_tracks(name: str, container, bounds: Limits) -> None:
    if len(container.streams) > MAX_TRACKS:
        found = f"{len(container.streams)} tracks, and up to {MAX_TRACKS} are taken"
        raise MediaError(f"{name} has {found}; keep only the picture and the sound.")
    video, audio = chosen(container)
    minutes = (media.seconds(name) or 0.0) / 60
    if minutes > bounds.minutes:
        found = f"lasts {minutes:,.1f} minutes, and up to {bounds.minutes:g} are taken"
        raise MediaError(f"{name} {found}; cut out a part.")
    if video:
        width, height = video.codec_context.width, video.codec_context.height
        if width * height > bounds.pixels:
            found = f"{width} x {height} pixels, and up to {bounds.pixels:,} in all are taken"
            raise MediaError(f"{name} has frames of {found}; scale it down.")
    if audio:
        rate, channels = audio.codec_context.sample_rate, audio.codec_context.channels
        if rate > MAX_RATE or channels > MAX_CHANNELS:
            found = f"{channels} channels of sound at {rate:,} Hz, and up to {MAX_CHANNELS} at "
            raise MediaError(f"{name} has {found}{MAX_RATE:,} Hz are taken; store it anew.")


def _is_played(name: str, container) -> bool:
    """Whether every browser plays a file as it is."""
    kind, pictures, sounds = PLAYED.get(os.path.splitext(name)[1].lower(), ("", (), ()))
    video, audio = chosen(container)
    if kind not in container.format.name.split(",") or not (video or audio):
        return False
    if container.metadata.get("major_brand", "").startswith("qt"):
        return False
    if video and (
        video.codec_context.name not in pictures
        or video.codec_context.pix_fmt not in ("yuv420p", "yuvj420p")
    ):
        return False
    return audio is None or audio.codec_context.name in sounds


# ---- a copy for the browser ----


def _playable(name: str, start: float, info: media.Info, deadline: float) -> bytes:
    """An mp4 of at most `LENGTH` seconds from `start` on; shorter, or empty, if that takes long."""
    wave = None
    if info.has_audio:
        with suppress(MediaError):
            wave = media.read(name, start, LENGTH, only="sound").wave
    fps = min(info.fps or FPS, FPS)
    if not info.has_video:
        length = 0.0 if wave is None else len(wave) / media.RATE
        black = np.zeros((90, 160, 3), np.uint8)
        return encode.packed(((second, black) for second in range(math.ceil(length))), 1.0, wave)
    return encode.packed(_images(name, start, fps, info, deadline), 1 / fps, wave)


def _images(name: str, start: float, fps: float, info: media.Info, deadline: float) -> Iterator:
    """Instants after `start` and reduced frames uint8 [H, W, 3], piece by piece."""
    ratio = max(info.width, info.height) / max(1, min(info.width, info.height))
    shared = {"fps": fps, "short_side": max(2, min(SHORT_SIDE, int(LONG_SIDE / ratio)))}
    last, size, slowest = -math.inf, None, 0.0
    for piece in np.arange(0, LENGTH, PIECE).tolist():
        began = time.monotonic()
        if began + slowest > deadline:
            return
        try:
            found = media.read(name, start + piece, PIECE, only="picture", **shared)
        except MediaError:  # the end
            return
        slowest = max(slowest, time.monotonic() - began)
        for at, image in zip(found.times, found.frames, strict=True):
            size = size or image.shape
            stamp = max(0.0, piece + at)
            if stamp > last + 0.5 / fps and image.shape == size:
                yield stamp, image
                last = stamp
