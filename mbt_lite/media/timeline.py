"""Find the true length of a media file, and put its packets on one continuous clock.

A header is trusted if the file starts and ends as it says. If it says nothing, if it only guesses
(from a bit rate, or from the first and the last time stamp), or if the last packets contradict it,
the file is read through once without decoding. This finds time stamps that jump, as in joined
recordings, streams without time stamps, and files that are cut off.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from mbt_lite.media.container import (
    FAILURES,
    chosen,
    frame_rate,
    in_seconds,
    opened,
    total_seconds,
    zero,
)

LEAP = 60.0  # s from the end of all packets so far to the next one, from which on it is a jump
APART = 10.0  # s between the starts of two streams, above which the header is doubted
CUT = 1.0  # s that a file may end before its header says so
REORDERED = 16  # frames that a packet may be stored ahead of others that are shown earlier
RETRIES = 32  # failed reads in a row after which reading stops
THIN = 10_000  # bits per second of video and audio, below which a length is doubted
LARGE = 1 << 30  # bytes, from which on a guessed length is trusted: reading through takes seconds

# Containers without a length: libav guesses it from the bit rate or the last time stamp.
GUESSED = set(
    "mpegts mpeg mpegvideo mp3 aac ac3 eac3 dts truehd amr amrnb amrwb h261 h263 h264 hevc vvc m4v "
    "vc1 mjpeg obu".split()
)
BY_BYTE_RATE = {"wav", "w64", "aiff", "au", "voc"}  # seeking is exact for plain samples only
_doubted = set()  # files of which less could be decoded than their headers say


@dataclass(frozen=True)
class Timeline:
    """Zero point, length and reliability of a file's clock."""

    zero: float  # s: the time stamp that is t = 0
    total: float | None  # s that can be read; None if unknown
    promised: float | None = None  # s according to the header of a file that is cut off
    jumps: frozenset[int] = frozenset()  # indices of the streams whose time stamps jump
    ordered: bool = False  # whether the video's stamps are those of decoding, not of display
    walked: bool = False  # whether the file was read through
    seekable: bool = True  # whether seeking leads to the right place


def timeline(path, audio_track: int | None = None, doubted: bool = False) -> Timeline:
    """The `Timeline` of a file, cached; with `doubted` its header is not trusted."""
    try:
        stat = os.stat(path)
        state = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    except (OSError, ValueError, TypeError):
        state = ()  # opening it will raise the error
    if doubted:
        _doubted.add(state)
    return _timeline(path, state, state in _doubted, audio_track)


@lru_cache(maxsize=4096)
def _timeline(path, state: tuple, doubted: bool, audio_track: int | None) -> Timeline:
    with opened(path) as container:
        streams = [stream for stream in chosen(container, audio_track) if stream]
        total, origin = total_seconds(container, *streams), zero(*streams)
        if not streams:
            return Timeline(origin, total)
        if not (doubted or _is_doubtful(container, streams, total)):
            seekable = not _seeks_by_byte_rate(container, streams)
            return Timeline(origin, total, ordered=_is_avi(container, streams), seekable=seekable)
    with opened(path) as container:
        streams = [stream for stream in chosen(container, audio_track) if stream]
        clock = Clock(streams, origin)
        for _ in Packets(container, streams, clock):
            pass
        return _walked(container, streams, clock, total)


def _walked(container, streams: list, clock: "Clock", promised: float | None) -> Timeline:
    """The `Timeline` of a file whose packets a clock has gone through."""
    total = max(clock.ends.values(), default=0.0) or None
    guessed = bool(GUESSED & _formats(container))
    wrong = promised is None or abs(promised - (total or 0.0)) > CUT
    # a length may count from time stamp 0 on
    short = promised is not None and promised - (total or 0.0) > CUT + max(clock.zero, 0.0)
    audio_only = all(stream.type == "audio" for stream in streams)
    pipe = container.format.name.endswith("pipe")  # images in a row
    doubt = clock.jumps or clock.counted or pipe or (guessed and wrong and audio_only)
    return Timeline(
        zero=clock.zero,
        total=total,
        promised=promised if short and not (guessed or clock.jumps) else None,
        jumps=frozenset(clock.jumps),
        ordered=_is_avi(container, streams) or bool(clock.counted),
        walked=True,
        seekable=not (doubt or _seeks_by_byte_rate(container, streams)),
    )


# ---- whether the header can be trusted ----


def _formats(container) -> set[str]:
    return set(container.format.name.split(","))


def _is_avi(container, streams: list) -> bool:
    """Whether frames are stored and time-stamped in the order of decoding."""
    videos = [stream for stream in streams if stream.type == "video"]
    return "avi" in _formats(container) and any(s.codec_context.has_b_frames for s in videos)


def _seeks_by_byte_rate(container, streams: list) -> bool:
    plain = all(stream.codec_context.name.startswith("pcm") for stream in streams)
    return bool(BY_BYTE_RATE & _formats(container)) and not plain


def _is_doubtful(container, streams: list, total: float | None) -> bool:
    """Whether a file must be read through to find its length."""
    if total is None or (GUESSED & _formats(container) and container.size < LARGE):
        return True
    if len(streams) == 2 and 8 * container.size < THIN * total:
        return True
    starts = [in_seconds(s, s.start_time) for s in streams if s.start_time is not None]
    if starts and max(starts) - min(starts) > APART:
        return True
    ends = [_end(s, total, zero(*streams)) for s in streams]
    return max(ends) - min(ends) > LEAP or not _reaches(container, streams, ends)


def _end(stream, total: float, origin: float) -> float:
    """The time stamp, in seconds, at which a stream ends according to the header."""
    if stream.duration and stream.start_time is not None:
        return in_seconds(stream, stream.start_time + stream.duration)
    return origin + total


def _reaches(container, streams: list, ends: list[float]) -> bool:
    """Whether the last packets of all streams end where the header says."""
    last, guide = max(zip(ends, streams, strict=True), key=lambda pair: pair[0])
    due = {stream.index: end for end, stream in zip(ends, streams, strict=True)}
    try:
        container.seek(int(max(last - CUT, 0.0) / guide.time_base), stream=guide)
        for packet in container.demux(streams):
            if packet.pts is not None and packet.stream.index in due:
                end = in_seconds(packet.stream, packet.pts + (packet.duration or 0))
                if -1.5 * CUT < end - due[packet.stream.index] < APART:
                    del due[packet.stream.index]
            if not due:
                return True
    except FAILURES:
        pass
    return False


# ---- packets ----


def _step(stream) -> float:
    """Seconds from one video frame to the next, for packets without a duration; 1 at most."""
    return min(1 / frame_rate(stream), 1.0) if stream.type == "video" else 0.0


class Clock:
    """Corrects the time stamps of packets, in order from the beginning of a file.

    A jump is removed, for all streams alike if they jump together; in a stream without time stamps
    every packet begins where the previous one ends.
    """

    def __init__(self, streams: list, origin: float):
        self.streams, self.zero = streams, origin  # s
        self.ticks = {s.index: float(s.time_base) for s in streams}  # s
        self.steps = {s.index: _step(s) for s in streams}  # s
        self.shifts = dict.fromkeys(self.ticks, 0.0)  # s that are subtracted from the time stamps
        self.ends: dict[int, float] = {}  # s after t = 0
        self.jumps: dict[int, float] = {}  # s, the longest jump of each stream
        self.counted: set[int] = set()  # streams without time stamps

    def set(self, packet) -> float | None:
        """Correct a packet's time stamps; its start in s after t = 0, or None if it is empty."""
        index, end = packet.stream.index, self.ends.get(packet.stream.index)
        if not packet.size:
            return None
        tick, stamp = self.ticks[index], packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            time = end or 0.0
            if end is None or index in self.counted:
                self.counted.add(index)
                packet.pts = packet.dts = round((time + self.zero) / tick)
        else:
            time = self._time(index, stamp * tick - self.zero)
            if shift := round(self.shifts[index] / tick):
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts = None if packet.dts is None else packet.dts - shift
        length = (packet.duration or 0) * tick
        length = length if 0 < length < APART else self.steps[index]
        self.ends[index] = max(end or 0.0, time + length)
        return time

    def _time(self, index: int, stamp: float) -> float:
        """The time in s after t = 0 for a stamp; a jump shifts all later packets."""
        shifts = (self.shifts[index], *sorted(set(self.shifts.values()), reverse=True))
        for shift in shifts:
            if self._runs_on(index, stamp - shift):
                break
        else:
            shift = stamp - self.ends.get(index, 0.0)
        if shift != self.shifts[index]:
            self.jumps[index] = max(self.jumps.get(index, 0.0), abs(shift - self.shifts[index]))
            self.shifts[index] = shift
        return stamp - shift

    def _runs_on(self, index: int, time: float) -> bool:
        """Whether a packet may follow the previous ones at this time."""
        end, latest = self.ends.get(index), max(self.ends.values(), default=0.0)
        back = 1 + REORDERED * self.steps[index]
        return (end or 0.0) - back <= time <= latest + LEAP


class Packets:
    """The packets of some streams from a container's position on, skipping unreadable parts.

    With a clock, they are read from the beginning of the file and corrected; those before `start`
    s are skipped, but for each stream's packets from its last key frame on.
    """

    def __init__(self, container, streams: list, clock: Clock | None = None, start: float = 0.0):
        self.container, self.streams, self.clock, self.start = container, streams, clock, start
        self.failed = False  # whether a part could not be read

    def __iter__(self) -> Iterator:
        return self._all() if self.clock is None or self.start <= 0 else self._needed()

    def _all(self) -> Iterator:
        failures = 0
        while failures < RETRIES:
            try:
                for packet in self.container.demux(self.streams):
                    failures = 0
                    if self.clock:
                        self.clock.set(packet)
                    yield packet
                return
            except FAILURES:
                failures, self.failed = failures + 1, True

    def _needed(self) -> Iterator:
        before_start = {stream.index: [] for stream in self.streams}
        for packet in self._all():
            index, early = packet.stream.index, before_start.get(packet.stream.index)
            if early is not None and packet.size:
                if packet.is_keyframe:
                    early.clear()
                if self.clock.ends[index] <= self.start:
                    early.append(packet)
                    continue
            yield from before_start.pop(index, ())
            yield packet
        for early in before_start.values():
            yield from early
