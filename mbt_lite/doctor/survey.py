"""What lies in a media file before the model sees it: its packets in time, its sound by channel."""

import math
from dataclasses import dataclass

import numpy as np

from mbt_lite.container import FAILURES, chosen, in_seconds, opened, total_seconds, zero
from mbt_lite.tracks import SLACK, samples


@dataclass(frozen=True)
class Stream:
    """One stream as its packets lie on the file's clock; nothing is decoded."""

    start: float  # s
    end: float  # s
    packets: int  # of the picture: frames
    step: float  # s from one packet to the next, median
    varies: bool  # whether more than one step in twenty is half as long again, or as short
    pause: float  # s, the longest time without anything new
    pause_at: float  # s, where that begins
    jump: float  # s by which time stamps leap out of the file; 0: none do
    encrypted: bool

    @property
    def rate(self) -> float:
        """Packets per second, of the picture frames per second; 0 of a single one."""
        return self.packets / (self.end - self.start) if self.packets > 1 else 0.0


@dataclass(frozen=True)
class Survey:
    """The streams of a file that are used, and whether all of it could be read."""

    picture: Stream | None
    sound: Stream | None
    total: float | None  # s, as the header has it
    broken: bool  # whether reading stopped on the way


@dataclass(frozen=True)
class Channels:
    """Sound as it is stored, each channel for itself."""

    samples: np.ndarray  # float32 [C, S], 1 is full scale
    rate: int  # Hz
    start: float  # s on the file's clock


def survey(path) -> Survey:
    """The `Survey` of a media file, read once and not decoded; `MediaError` where it is none."""
    with opened(path) as container:
        video, audio = chosen(container)
        origin, total = zero(video, audio), total_seconds(container, video, audio)
        packets, broken = {s.index: [] for s in (video, audio) if s}, False
        locked = set()
        try:
            for packet in container.demux([s for s in (video, audio) if s]):
                if packet.pts is None or packet.is_discard:
                    continue
                index, duration = packet.stream.index, in_seconds(packet.stream, packet.duration)
                at = in_seconds(packet.stream, packet.pts) - origin
                packets[index].append((at, duration or 0.0))
                locked |= {index} if packet.has_sidedata("encryption_info") else set()
        except FAILURES:
            broken = True
        made = [
            s and _stream(np.array(packets[s.index]), total, s.index in locked)
            for s in (video, audio)
        ]
        return Survey(*made, total, broken)


def _stream(packets: np.ndarray, total: float | None, encrypted: bool) -> Stream | None:
    """The `Stream` of packets [P, 2]: start and duration in seconds, in any order."""
    if not len(packets):
        return None
    packets = packets[np.argsort(packets[:, 0], kind="stable")]
    limit = (math.inf if total is None else total) + SLACK
    inside = packets[packets[:, 0] <= limit]
    leap = packets[-1, 0] - inside[-1, 0] if len(inside) and len(inside) < len(packets) else 0.0
    inside = inside if len(inside) else packets
    times, steps = inside[:, 0], np.diff(inside[:, 0])
    pauses = steps if len(steps) else np.zeros(1)
    longest, last = int(pauses.argmax()), float(inside[-1, 1])
    low, step, high = np.percentile(pauses, (5, 50, 95)).tolist()
    return Stream(
        start=max(float(times[0]), 0.0),
        end=float(times[-1]) + (last if last <= SLACK else step),
        packets=len(inside),
        step=step,
        varies=high > 1.5 * step or step > 1.5 * low,
        pause=float(pauses[longest]),
        pause_at=float(times[longest]),
        jump=float(leap),
        encrypted=encrypted,
    )


def channels(path, start: float, seconds: float) -> Channels | None:
    """The sound's `Channels` from about `start` on, for `seconds`; None where none can be read."""
    with opened(path) as container:
        video, audio = chosen(container)
        if audio is None:
            return None
        origin = zero(video, audio)
        frames = []
        try:
            if start > 1:
                container.seek(int((origin + start - 1) / audio.time_base), stream=audio)
            for frame in container.decode(audio):
                at = (in_seconds(audio, frame.pts) or 0.0) - origin
                if at >= start + seconds:
                    break
                if at + frame.samples / frame.sample_rate > start:
                    frames.append((at, frame.sample_rate, samples(frame)))
        except FAILURES:
            pass  # what came before the damage is judged
    return _joined(frames)


def _joined(frames: list) -> Channels | None:
    """Frames of one rate and channel count, the first one's, side by side."""
    if not frames:
        return None
    start, rate, first = frames[0]
    alike = [part for _, r, part in frames if r == rate and len(part) == len(first)]
    return Channels(np.nan_to_num(np.concatenate(alike, axis=1)), rate, max(start, 0.0))
