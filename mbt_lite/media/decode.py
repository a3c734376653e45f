"""Decode one stream of a file: the chosen frames, or mono audio at 16 kHz."""

import contextlib
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from functools import lru_cache

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from mbt_lite.media import hdr
from mbt_lite.media.container import (
    FAILURES,
    RATE,
    display_size,
    frame_rate,
    in_seconds,
    pixel_aspect,
)
from mbt_lite.media.timeline import REORDERED

MAX_BYTES = 2 << 30  # of the frames, and of the wave, of one window
SLACK = 10.0  # s that one stream may be stored after the other; a longer jump is doubted
SAME = 1e-6  # s that rounding may put an instant before the frame that is shown then
NEAR = 1e-3  # s within which two instants are the same: containers round to a millisecond
GAP = 0.03  # s of missing audio that count as rounding
OVERLAP = 0.1  # s that audio may run ahead of its time stamps before these are used
MATRICES = {0, 1, 2, 4, 5, 6, 7, 9}  # from YUV to RGB that libswscale has (ITU-T H.273)


class TooLarge(Exception):
    """More than `MAX_BYTES` were decoded; not one of `FAILURES`, so that it ends the reading."""


def pump(packets: Iterable, tracks, length: float) -> None:
    """Feed the tracks until the window is full or the packets end."""
    by_index = {track.stream.index: track for track in tracks}
    for packet in packets:
        track = by_index.get(packet.stream.index)
        if track is None:
            continue
        if track.beyond(packet, length + SLACK):
            break
        track.feed(packet)
        if all(track.done for track in tracks):
            return
    for track in tracks:
        track.feed(None)  # the frames that the decoder holds back


class Track:
    """Decodes one stream onto the window's clock; a subclass has `seconds` and `take`."""

    padding = 0.0  # s that a codec may add at the end

    def __init__(self, stream, length: float, origin: float, sought: bool, end: float):
        self.stream, self.index, self.length = stream, stream.index, length  # s, of the window
        self.origin = origin  # s: the time stamp that is time 0 of the window
        self.sought, self.end = sought, end  # whether decoding began after a seek; s, of the file
        self.begin = max(0.0, (in_seconds(stream, stream.start_time) or 0.0) - origin)
        last = in_seconds(stream, stream.duration and stream.duration + (stream.start_time or 0))
        self.over = last is not None and last <= origin  # the stream ended before the window
        # s: time of the first frame, of the last one, and of the next one
        self.first = self.last = self.expected = None
        self.packets = self.good = self.damaged = self.corrupt = self.jumps = self.changes = 0
        self.done, self.until = False, -math.inf

    @property
    def late(self) -> bool:
        """Whether the seek went past the start of the window."""
        if self.first is None:
            return self.sought and not self.over
        return self.sought and self.first > self.begin + GAP

    def feed(self, packet) -> None:
        """Decode a packet and place its frames; None for those that the decoder holds back."""
        if self.done:
            return
        self.packets += 1
        try:
            frames = packet.decode() if packet else self.stream.decode(None)
        except FAILURES:  # failures right after a seek, or at the end, are no damage
            self.damaged += packet is not None and (not self.sought or self.first is not None)
            return
        for frame in frames:
            try:
                self.place(frame)
            except av.FFmpegError:
                pass
            except FAILURES:
                self.damaged += 1

    @property
    def usable(self) -> bool:
        """Whether frames were decoded, and not just by chance from a scrambled stream."""
        scrambled = self.damaged >= max(5, 0.8 * self.packets) or (self.damaged and not self.good)
        return self.first is not None and not scrambled

    def finish_at(self, total: float | None, start: float) -> float:
        """End of the stream in the window, s, without a codec's padding after the end."""
        padding = self.until + start - (total or math.inf)
        return self.until - padding if 0 < padding < self.padding else self.until

    def beyond(self, packet, length: float) -> bool:
        """Whether a packet lies more than `length` seconds after the window's start."""
        return packet.dts is not None and in_seconds(self.stream, packet.dts) - self.origin > length

    def place(self, frame) -> None:
        """Find a frame's time, count the frame, and take it if it is before the window's end."""
        time = self.time(in_seconds(self.stream, self.stamp(frame)))
        self.first = time if self.first is None else self.first
        self.last, self.expected = time, time + self.seconds(frame)
        self.until = max(self.until, self.expected)
        self.corrupt += time >= 0 and frame.is_corrupt
        self.good += not frame.is_corrupt
        self.done = time >= self.length - NEAR
        if not self.done:
            self.take(frame, time)

    def stamp(self, frame) -> int | None:
        """The time stamp of a frame, in ticks of its stream."""
        return frame.pts

    def time(self, stamp: float | None) -> float:
        """Seconds after the window's start; a stamp that jumps absurdly is replaced."""
        if stamp is None:
            return self.expected or 0.0
        time, expected = stamp - self.origin, self.expected
        if expected is None:
            expected = time if self.sought or time < SLACK else 0.0
        back = expected if self.last is None else self.last
        if time < back - 1 or time > max(expected + SLACK, self.end):
            self.origin += time - expected
            self.jumps += 1
            return expected
        return time


def _check(size: int) -> None:
    if size > MAX_BYTES:
        raise TooLarge


class _Order:
    """Display time stamps for frames stamped in decoding order: the n-th shown gets the n-th.

    After a seek, frames may be missing that need others before the key frame. Their number is
    unknown until the next key frame: all packets stored before it, and all frames that were decoded
    before it although they are stored after it, are shown before it.
    """

    def __init__(self):
        self.stored = []  # stamps of packets, rising
        self.shown = deque(maxlen=4 * REORDERED)  # own stamps of the last frames
        self.next = 0  # place in `stored`
        self.sure = False  # whether a key frame confirmed the places before the window began

    def stamp(self, frame, before: bool) -> int | None:
        """The stamp of the next frame to be shown; `before`: the window has not begun yet."""
        if frame.pts is None or not self.stored:
            return None
        if frame.key_frame:
            behind = sum(stamp > frame.pts for stamp in self.shown)
            self.sure |= before and bool(self.shown)
            self.next = bisect_left(self.stored, frame.pts) + behind
        self.shown.append(frame.pts)
        self.next += 1
        return self.stored[min(self.next, len(self.stored)) - 1]


class VideoDecoder(Track):
    """The frames of a window, each at its time."""

    def __init__(self, *args, short_side: int | None, ordered: bool):
        super().__init__(*args)
        self.order = _Order() if ordered else None
        self.short_side, self.scale = short_side, VideoReformatter()
        self.frames, self.times, self.steps = [], [], []
        self.held = None  # time and frame that is shown now
        self.stored = self.size = None  # width and height of the first frame, stored and reduced
        self.aspect = pixel_aspect(self.stream)  # now, while the file is open
        self.hdr = ""  # what the frames were converted from, see `hdr.kind`
        self.matrix, self.step = np.eye(2), 1 / frame_rate(self.stream)

    def seconds(self, frame) -> float:
        """How long a frame is shown, according to the header."""
        return self.step

    @property
    def late(self) -> bool:
        """Whether the seek went past the window's start, or past the frames that give the order."""
        return super().late or bool(self.sought and self.order and not self.order.sure)

    def feed(self, packet) -> None:
        """Decode a packet and place its frames; without display stamps it gets that of decoding."""
        if packet and packet.size and self.order and packet.dts is not None:
            packet.pts = packet.dts
            self.order.stored.append(packet.dts)
        super().feed(packet)

    def stamp(self, frame) -> int | None:
        """The time stamp of a frame, in ticks of its stream."""
        before = self.first is None or self.expected <= self.step  # the window begins later
        return self.order.stamp(frame, before) if self.order else frame.pts

    def take(self, frame, time: float) -> None:
        """Show a frame, which decides about the one before it; one out of order is dropped."""
        if self.held and time <= self.held[0]:
            return
        if self.held:
            self.steps += [time - self.held[0]] if time > 0 else []
            if time > NEAR:
                self.keep(*self.held)
        self.held = time, frame

    def keep(self, time: float, frame) -> None:
        """Add a frame to the result: reduced, RGB and upright."""
        if self.stored is None:
            self.matrix = display_matrix(frame)
            self.stored = frame.width, frame.height
            self.size = reduced(*display_size(*self.stored, self.aspect), self.short_side)
        self.changes += (frame.width, frame.height) != self.stored
        upright = _upright(self.rgb(frame), self.matrix)  # [H, W, 3]
        _check((len(self.frames) + 1) * upright.size)
        self.frames.append(upright)
        self.times.append(time)

    def rgb(self, frame) -> np.ndarray:
        """The frame in square pixels, reduced, uint8 [H, W, 3] in BT.709."""
        if frame.colorspace not in MATRICES:  # libswscale would refuse it
            frame.colorspace = 2  # unspecified
        primaries = frame.color_primaries
        kind = hdr.kind(frame.color_trc, primaries)
        self.hdr = self.hdr or kind
        area = Interpolation.AREA | Interpolation.ACCURATE_RND
        form = "rgb48le" if kind else "rgb24"
        rgb = self.scale.reformat(frame, *self.size, form, interpolation=area, threads=1)
        image = rgb.to_ndarray()
        return hdr.to_bt709(image, kind, primaries) if kind else image

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Frames uint8 [T, H, W, 3] and times [T]; after the video's end, its last frame."""
        with contextlib.suppress(av.FFmpegError):
            if self.held and (self.held[0] + self.step > 2 * NEAR or not self.times):
                self.keep(*self.held)
        frames = np.stack(self.frames) if self.frames else np.zeros((0, 0, 0, 3), np.uint8)
        return frames, np.array(self.times, np.float64)


class SparseVideoDecoder(VideoDecoder):
    """Decodes only the frames that are shown at some instants, and those that they depend on.

    Packets are stored until `show` gets the instants. If the time stamps leave any doubt, it is
    `odd`: then the whole video must be decoded.
    """

    def __init__(self, *args, **thin):
        super().__init__(*args, **thin)
        self.stored_packets, self.selected, self.odd = [], set(), False

    def feed(self, packet) -> None:
        """Store a packet until the instants are known."""
        if packet is None or self.done or not packet.size:
            return
        if self.sought and not self.stored_packets and not packet.is_keyframe:
            return  # no key frame before it
        unsure = packet.pts is None or packet.dts is None or self.order is not None
        if unsure or packet.is_corrupt or packet.is_discard:
            self.odd = self.done = True
            return
        time, expected = self.after_start(packet.pts), self.expected
        if expected is None:
            expected = time if self.sought or time < SLACK else 0.0
        back = 1 + REORDERED * self.step
        self.odd |= time < expected - back or time > max(expected + SLACK, self.end)
        self.first = time if self.first is None else min(self.first, time)
        self.expected = time + self.step
        self.until = max(self.until, self.expected)
        self.done = self.after_start(packet.dts) >= self.length - NEAR
        self.stored_packets.append(packet)

    def after_start(self, stamp: int) -> float:
        """Seconds from the window's start to a time stamp."""
        return in_seconds(self.stream, stamp) - self.origin

    def show(self, at: np.ndarray) -> None:
        """Decode the frames that are shown at these instants, s."""
        times = [self.after_start(packet.pts) for packet in self.stored_packets]
        shown = np.unique([time for time in times if time < self.length - NEAR])  # rising
        keys = [i for i, packet in enumerate(self.stored_packets) if packet.is_keyframe]
        begin = max((i for i in keys if times[i] <= at.min() + SAME), default=0)
        self.odd |= not len(shown) or not self.stored_packets[begin].is_keyframe
        if self.odd:
            return
        self.steps = list(np.diff(shown)[shown[1:] > 0])
        indices = np.maximum(np.searchsorted(shown, at + SAME, side="right") - 1, 0)
        self.selected = set(shown[indices].tolist())
        self.done, self.expected = False, times[begin]
        for packet, time in zip(
            [*self.stored_packets, None][begin:], [*times, None][begin:], strict=True
        ):
            # a frame on which no other depends is decoded only if it is selected
            self.stream.codec_context.skip_frame = "DEFAULT" if time in self.selected else "NONREF"
            super().feed(packet)
            if self.complete:
                break
        self.done = max(times) >= self.length - NEAR

    def take(self, frame, time: float) -> None:
        """Add a frame that is shown at one of the instants."""
        if time in self.selected:
            self.keep(time, frame)

    @property
    def complete(self) -> bool:
        return bool(self.selected) and len(self.times) == len(self.selected)

    @property
    def settled(self) -> bool:
        """Whether every instant has its frame without doubt."""
        doubt = self.odd or self.jumps or self.damaged or self.corrupt or self.changes
        return self.complete and not doubt


class AudioDecoder(Track):
    """Decodes audio to unbroken runs at 16 kHz, each with its start time."""

    padding = 0.2

    def __init__(self, *args):
        super().__init__(*args)
        self.length += GAP  # a little more, for the resampling filter
        self.runs, self.size = [], 0  # (time, bytes of float32), and their sum
        self.rate, self.cursor, self.resampler = None, -math.inf, None

    def seconds(self, frame) -> float:
        """The duration of a frame."""
        return frame.samples / frame.sample_rate

    def take(self, frame, time: float) -> None:
        """Extend the run of audio, or begin another after a gap or a change of rate."""
        if frame.sample_rate != self.rate or not -OVERLAP < time - self.cursor < GAP:
            self.flush()
            self.changes += self.rate not in (None, frame.sample_rate)
            self.rate, self.cursor = frame.sample_rate, time
            self.resampler = av.AudioResampler("flt", "mono", RATE)
            self.runs.append((time, bytearray()))
        mono = av.AudioFrame.from_ndarray(_mono(frame)[None], "flt", "mono")
        mono.sample_rate = self.rate
        self.cursor += self.seconds(frame)
        self.push(mono)

    def push(self, mono) -> None:
        """Resample a mono frame to 16 kHz onto the run; None for what the filter holds back."""
        for frame in self.resampler.resample(mono):
            if frame is not None:
                self.runs[-1][1].extend(frame.to_ndarray().tobytes())
                self.size += 4 * frame.samples
                _check(self.size)

    def flush(self) -> None:
        if self.resampler:
            self.push(None)

    def gaps(self, length: float) -> int:
        """Number of gaps in the audio within a window of this length, s."""
        ends = [time + len(data) / (4 * RATE) for time, data in self.runs]
        pairs = zip(ends, [time for time, _ in self.runs[1:]], strict=False)
        return sum(begin - end > GAP and begin > 0 and end < length for end, begin in pairs)

    def finish(self, length: float) -> np.ndarray:
        """Wave float32 [S] of `length` seconds, silent where there is no audio."""
        self.flush()
        wave = np.zeros(round(length * RATE), np.float32)
        for time, data in self.runs:
            at, run = round(time * RATE), np.frombuffer(data, np.float32)
            np.clip(np.nan_to_num(run, copy=False), -1, 1, out=run)
            run = run[max(0, -at) :][: max(0, len(wave) - max(0, at))]
            wave[max(0, at) :][: len(run)] = run
        return wave


# ---- pixels and samples ----


def reduced(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height, reduced so that the shorter one is at most `short_side`."""
    scale = min(1.0, (short_side or math.inf) / max(1, min(width, height)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def display_matrix(frame) -> np.ndarray:
    """The display matrix [2, 2] as signs: x' = x m[0,0] + y m[1,0], y' = x m[0,1] + y m[1,1]."""
    data = None
    with contextlib.suppress(*FAILURES):
        data = _named_only(frame).side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    matrix = np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2].astype(np.float64)
    straight = abs(matrix[0, 0]) + abs(matrix[1, 1]) >= abs(matrix[0, 1]) + abs(matrix[1, 0])
    return np.sign(matrix) * (np.eye(2) if straight else np.eye(2)[::-1])


def _named_only(frame) -> av.VideoFrame:
    """The frame without side data that PyAV cannot name, such as EXIF: it would refuse all."""
    graph = Graph()
    shape = {"width": frame.width, "height": frame.height, "format": frame.format}
    source = graph.add_buffer(time_base=frame.time_base or 1, **shape)
    unnamed = range(len(Type), len(Type) + 16)
    removers = [graph.add("sidedata", f"mode=delete:type={number}") for number in unnamed]
    graph.link_nodes(source, *removers, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


def turns(matrix) -> bool:
    """Whether a display matrix swaps width and height."""
    return bool(matrix[0, 1])


def _upright(image, matrix) -> np.ndarray:
    """Turn an image [H, W, 3] as the display matrix says."""
    image = image.swapaxes(0, 1) if turns(matrix) else image
    right, down = matrix.sum(axis=0)  # signs of x' and y'
    return image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def _mono(frame) -> np.ndarray:
    """One channel, float32 [n]: the mean of two, the standard downmix of more."""
    values = samples(frame)
    if len(values) <= 2:
        return values.mean(axis=0, dtype=np.float32)
    return downmix(frame.layout.name, len(values)) @ values


@lru_cache(maxsize=64)
def downmix(layout: str, channels: int) -> np.ndarray:
    """The weight of each channel in mono, float32 [C], as `ffmpeg -ac 1` mixes them.

    libswresample gives the weights of speakers, with a sum of 1 at most. Channels of an unknown
    layout get equal weights; the first channel of ambisonic audio is the mono signal.
    """
    if layout.startswith("ambisonic"):
        return np.eye(1, channels, dtype=np.float32)[0]
    weights = np.zeros(channels, np.float32)
    if layout != f"{channels} channels" or channels <= 8:  # else the speakers are unknown
        with contextlib.suppress(*FAILURES):
            each = np.eye(channels, dtype=np.float32).reshape(1, -1)  # each channel in turn
            frame = av.AudioFrame.from_ndarray(each, "flt", layout)
            frame.sample_rate = RATE
            weights = av.AudioResampler("flt", "mono", RATE).resample(frame)[0].to_ndarray()[0]
    return weights / max(1, weights.sum()) if weights.any() else np.full_like(weights, 1 / channels)


def samples(frame) -> np.ndarray:
    """The channels of a frame of audio, float32 [C, n], full scale at 1."""
    if frame.format.is_planar and frame.layout.nb_channels > 8:
        frame = av.AudioResampler("flt").resample(frame)[0]  # PyAV miscounts so many planes
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T  # [C, n]
    if values.dtype.kind in "iu":
        bits = 8 * values.dtype.itemsize - 1
        offset = 128.0 if values.dtype.kind == "u" else 0.0
        values = (values.astype(np.float32) - offset) / 2.0**bits
    return values
