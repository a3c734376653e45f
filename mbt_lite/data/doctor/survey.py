"""Survey a media file without a model: its packets over time, its audio by channel."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mbt_lite.media.container import (
    FAILURES,
    chosen,
    in_seconds,
    opened,
)
from mbt_lite.media.decode import samples
from mbt_lite.media.timeline import (
    APART,
    Clock,
    Packets,
    timeline,
)


@dataclass(frozen=True)
class Stream:
    """One stream as its packets lie on the file's clock; nothing is decoded."""

    start: float  # s
    end: float  # s
    packets: int  # of the video: frames
    step: float  # s from one packet to the next, median
    varies: bool  # whether more than one step in twenty is half as long again, or as short
    pause: float  # s, the longest time without anything new
    pause_at: float  # s, where that begins
    jump: float  # s by which time stamps leap out of the file; 0: none do
    encrypted: bool

    @property
    def rate(self) -> float:
        """Packets per second, of the video frames per second; 0 of a single one."""
        return self.packets / (self.end - self.start) if self.packets > 1 else 0.0


@dataclass(frozen=True)
class Survey:
    """The streams of a file that are used, and whether all of it could be read."""

    video: Stream | None
    audio: Stream | None
    total: float | None  # s, as the header has it
    broken: bool  # whether reading stopped on the way


@dataclass(frozen=True)
class Channels:
    """Audio as it is stored, each channel for itself."""

    samples: np.ndarray  # float32 [C, S], 1 is full scale
    rate: int  # Hz
    start: float  # s on the file's clock


def survey(path, audio_track: int | None = None) -> Survey:
    """The `Survey` of a media file, read once and not decoded; `MediaError` where it is none."""
    line = timeline(path, audio_track)
    with opened(path) as container:
        streams = chosen(container, audio_track)
        used = [stream for stream in streams if stream]
        clock = None if line.seekable else Clock(used, line.zero)
        found, locked = {stream.index: [] for stream in used}, set()
        packets = Packets(container, used, clock)
        for packet in packets:
            if packet.pts is None or packet.is_discard:
                continue
            duration = in_seconds(packet.stream, packet.duration)
            at = in_seconds(packet.stream, packet.pts) - line.zero
            found[packet.stream.index].append((at, duration or 0.0))
            locked |= {packet.stream.index} if packet.has_sidedata("encryption_info") else set()
        jumps = clock.jumps if clock else {}
        video, audio = (
            stream
            and _stream(
                np.array(found[stream.index]),
                line.total,
                jumps.get(stream.index, 0.0),
                stream.index in locked,
            )
            for stream in streams
        )
        return Survey(video, audio, line.promised or line.total, packets.failed)


def _stream(packets: np.ndarray, total: float | None, jump: float, encrypted: bool):
    """The `Stream` of packets [P, 2]: start and duration in seconds, in any order; None of none."""
    if not len(packets):
        return None
    packets = packets[np.argsort(packets[:, 0], kind="stable")]
    limit = (math.inf if total is None else total) + APART
    inside = packets[packets[:, 0] <= limit]
    leap = packets[-1, 0] - inside[-1, 0] if len(inside) and len(inside) < len(packets) else 0.0
    inside = inside if len(inside) else packets
    times, steps = inside[:, 0], np.diff(inside[:, 0])
    pauses = steps if len(steps) else np.zeros(1)
    longest, last = int(pauses.argmax()), float(inside[-1, 1])
    low, step, high = np.percentile(pauses, (5, 50, 95)).tolist()
    return Stream(
        start=max(float(times[0]), 0.0),
        end=float(times[-1]) + (last if last <= APART else step),
        packets=len(inside),
        step=step,
        varies=high > 1.5 * step or step > 1.5 * low,
        pause=float(pauses[longest]),
        pause_at=float(times[longest]),
        jump=max(float(leap), jump),
        encrypted=encrypted,
    )


def channels(path, start: float, seconds: float, audio_track: int | None = None) -> Channels | None:
    """The audio's `Channels` from about `start` on, for `seconds`; None where none can be read."""
    line = timeline(path, audio_track)
    with opened(path) as container:
        video, audio = chosen(container, audio_track)
        if audio is None:
            return None
        frames, track = [], Packets(container, [audio])
        if not line.seekable:
            both = [stream for stream in (video, audio) if stream]
            track = Packets(container, both, Clock(both, line.zero), start - 1)
        elif start > 1:
            with contextlib.suppress(*FAILURES):
                container.seek(int((line.zero + start - 1) / audio.time_base), stream=audio)
        with contextlib.suppress(*FAILURES):  # what came before the damage is judged
            for frame in _decoded(track, audio):
                at = (in_seconds(audio, frame.pts) or 0.0) - line.zero
                if at >= start + seconds:
                    break
                if at + frame.samples / frame.sample_rate > start:
                    frames.append((at, frame.sample_rate, samples(frame)))
    return _joined(frames)


def _decoded(packets: Packets, stream) -> Iterator:
    """The frames of one of the streams."""
    for packet in packets:
        if packet.stream.index == stream.index:
            yield from packet.decode()


def _joined(frames: list) -> Channels | None:
    """Frames of one rate and channel count, the first one's, side by side."""
    if not frames:
        return None
    start, rate, first = frames[0]
    alike = [part for _, r, part in frames if r == rate and len(part) == len(first)]
    return Channels(np.nan_to_num(np.concatenate(alike, axis=1)), rate, max(start, 0.0))
