"""Read a window of a media file, without JAX: frames, audio, and notes on what is unusual.

`Media.times` and `Media.wave` share one clock, which starts with the window; the window's start is
on the clock of the file (container.py). Decoding is in decode.py, writing in encode.py.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mbt_lite.media.container import (
    FAILURES,
    MAX_PIXELS,
    RATE,
    MediaError,
    PastEnd,
    audio_tracks,
    chosen,
    display_size,
    frame_rate,
    is_cover,
    opened,
    pixel_aspect,
    undecodable,
)
from mbt_lite.media.decode import (
    GAP,
    MAX_BYTES,
    NEAR,
    AudioDecoder,
    SparseVideoDecoder,
    TooLarge,
    Track,
    VideoDecoder,
    display_matrix,
    pump,
    reduced,
    turns,
)
from mbt_lite.media.timeline import (
    Clock,
    Packets,
    Timeline,
    timeline,
)

PREROLL = 1.0  # s decoded before the window; the first audio frame after a seek is lost
LISTEN = 600.0  # s of another audio track that are checked for audio
SILENCE = 1e-4  # of full scale, below which audio counts as silent
ASK_LESS = "ask for a window with start= and duration=, or for small frames with short_side=."


@dataclass(frozen=True)
class Media:
    """Frames and audio of a window of a file, on one clock."""

    frames: np.ndarray  # uint8 [T, H, W, 3], upright; T = 0 without video
    times: np.ndarray  # float64 [T], s after the window's start; times[0] may be a little below 0
    wave: np.ndarray  # float32 [S], mono (`decode.downmix`); wave[0] is at time 0
    start: float  # s, of the window on the file's clock
    duration: float  # s, of the window, cut where the file ends
    total: float | None  # s, of the file
    notes: tuple[str, ...] = ()  # on what is unusual, in plain words
    rate: int = RATE  # Hz


@dataclass(frozen=True)
class Info:
    """Facts about a file from its header and its first frame."""

    duration: float | None  # s
    has_video: bool
    has_audio: bool
    width: int = 0  # square pixels, upright
    height: int = 0
    fps: float | None = None
    rotation: int = 0  # degrees, counter-clockwise, that were applied to get upright frames
    sample_rate: int = 0  # Hz, as stored
    channels: int = 0
    container: str = ""
    video_codec: str = ""
    audio_codec: str = ""


def probe(path, audio_track: int | None = None) -> Info:
    """Facts about the file `path`, from one decoded frame at most; `MediaError` if unreadable."""
    total = seconds(path, audio_track)
    with opened(path) as container:
        video, audio = chosen(container, audio_track)
        first = _first_frame(container, video)
        turned = first is not None and turns(display_matrix(first))
        size = (0, 0)
        if first:
            size = display_size(first.width, first.height, pixel_aspect(video))
            size = size[:: -1 if turned else 1]
        return Info(
            duration=total,
            has_video=first is not None,
            has_audio=audio is not None,
            width=size[0],
            height=size[1],
            fps=frame_rate(video) if first else None,
            rotation=first.rotation if first else 0,
            sample_rate=audio.codec_context.sample_rate if audio else 0,
            channels=audio.codec_context.channels if audio else 0,
            container=container.format.name,
            video_codec=video.codec_context.name if video else "",
            audio_codec=audio.codec_context.name if audio else "",
        )


def seconds(path, audio_track: int | None = None) -> float | None:
    """Length of a file in seconds, from its header or, if that is wrong, from its last packet.

    Nothing is decoded. None if there is no packet.
    """
    return timeline(path, audio_track).total


def read(
    path,
    start: float | None = None,
    duration: float | None = None,
    *,
    short_side: int | None = None,
    only: str | None = None,
    audio_track: int | None = None,
    at: Callable[[float], np.ndarray] | None = None,
) -> Media:
    """Read the window of `duration` seconds at `start`; `MediaError` if nothing in it is usable.

    Without `start` and `duration` the whole file is read, up to 2 GiB. `short_side` reduces frames
    to that many pixels (area mean, never enlarged); `only` "video" or "audio" skips the other
    stream; `at` is a function from the length of the window to instants in s after its start:
    frames that are shown at none of them are left out, if the file's time stamps are reliable. All
    three act while decoding, so that long or large videos cost little. `audio_track` counts from 1;
    the default is the track that players choose.
    The frame shown at `start` is included, so `times[0]` may be slightly below 0. The readable
    parts of a damaged file are used; `notes` say so.
    """
    length = math.inf if duration is None else duration
    window = _Window(path, start or 0.0, length, only, audio_track, short_side, at)
    if not (0 <= window.start < math.inf and length > 0):
        raise MediaError(f"{path}: start={start} must be 0 or more, duration={duration} above 0.")
    if short_side is not None and short_side <= 0:
        raise MediaError(f"{path}: short_side={short_side} must be above 0.")
    try:
        return _read(window)
    except TooLarge:
        raise MediaError(f"{path} takes more than {MAX_BYTES >> 30} GiB; {ASK_LESS}") from None


def _read(window: "_Window") -> Media:
    """`Media` of a window; a file that ends earlier than its header says is read through."""
    line = timeline(window.path, window.audio_track)
    try:
        media = window.at and _sparse(window, line)
        return media or _media(_decoded(window, line))
    except PastEnd:
        if line.walked or window.start >= (line.total or 0.0):
            raise
    return _media(_decoded(window, timeline(window.path, window.audio_track, doubted=True)))


def _first_frame(container, video):
    """The first frame that can be decoded, whatever is damaged before it."""
    for packet in container.demux(video) if video else ():
        with contextlib.suppress(*FAILURES):
            for frame in packet.decode():
                return frame
    return None


@dataclass(frozen=True)
class _Window:
    path: object
    start: float  # s
    length: float  # s, infinite: up to the end of the file
    only: str | None  # "video" or "audio"; None for both
    audio_track: int | None  # from 1 on; None for the one that players choose
    short_side: int | None  # pixels
    at: Callable[[float], np.ndarray] | None

    def wants(self, stream: str) -> bool:
        return self.only in (None, stream)


@dataclass(frozen=True)
class _Decoded:
    window: _Window
    line: Timeline
    video: VideoDecoder | None
    audio: AudioDecoder | None
    cover: bool
    undecodable: dict[str, str]  # see `container.undecodable`
    others: dict[int, str]  # the audio tracks that are not used, see `audio_tracks`

    @property
    def tracks(self) -> list[Track]:
        return [track for track in (self.video, self.audio) if track]

    @property
    def length(self) -> float:
        """Seconds of the window up to the end of the longest stream; below 0 after that end."""
        used = [track for track in self.tracks if track.usable]
        ends = [track.finish_at(self.line.total, self.window.start) for track in used]
        return min(self.window.length, max(ends, default=0.0))


# ---- decoding ----


def _sparse(window: _Window, line: Timeline) -> Media | None:
    """`Media` with the frames shown at some instants; None if only a full read can tell them."""
    with contextlib.suppress(MediaError):
        decoded = _decoded(window, line, SparseVideoDecoder)
        if decoded.video and decoded.video.settled:
            return _media(decoded)


def _decoded(window: _Window, line: Timeline, decoder: type = VideoDecoder) -> _Decoded:
    """Decode the streams from so far before the window that none of it is missed."""
    for preroll in (PREROLL, 10 * PREROLL, 60 * PREROLL):  # some formats seek past a key frame
        with opened(window.path) as container:
            decoded = _decode(container, window, line, preroll, decoder)
        if not any(track.late for track in decoded.tracks):
            break
    return decoded


def _decode(container, window: _Window, line: Timeline, preroll: float, decoder: type) -> _Decoded:
    """Decode the two streams up to the end of the window."""
    streams, lost = chosen(container, window.audio_track), undecodable(container)
    used = _used(streams, lost, window)
    left = (line.total or 0.0) - window.start  # s
    _refuse_large(window, used, min(window.length, max(0.0, left)), decoder is VideoDecoder)
    packets, sought = _packets(container, streams, used, window, line, preroll)
    shared = window.length, line.zero + window.start, sought, left
    video = used[0] and decoder(
        used[0], *shared, short_side=window.short_side, ordered=line.ordered
    )
    audio = used[1] and AudioDecoder(used[1], *shared)
    tracks = [track for track in (video, audio) if track]
    pump(packets, tracks, window.length)
    tracks[0].damaged += packets.failed
    cover = not streams[0] and any(map(is_cover, container.streams))
    others = {}
    if audio and len(container.streams.audio) > 1:
        others = audio_tracks(container)
        others.pop(list(container.streams.audio).index(used[1]) + 1)
    decoded = _Decoded(window, line, video, audio, cover, lost, others)
    if decoder is SparseVideoDecoder and video and decoded.length > 0:
        video.show(window.at(decoded.length))
    return decoded


def _used(streams, lost: dict[str, str], window: _Window) -> list:
    """The streams that the window wants, None for others; `MediaError` if there is none."""
    kinds = [kind for kind in ("video", "audio") if window.wants(kind)]
    used = [stream if stream and stream.type in kinds else None for stream in streams]
    if any(used):
        return used
    if codecs := [lost[kind] for kind in (kinds if any(streams) else lost) if kind in lost]:
        raise MediaError(f"{window.path}: {' and '.join(codecs)}; convert the file to mp4.")
    content = "neither video nor audio; name a video file"
    if any(streams):
        content = f"no {window.only}; name a file that does"
    raise MediaError(f"{window.path} holds {content}.")


def _packets(container, streams, used, window: _Window, line: Timeline, preroll: float):
    """The `Packets` of a window, and whether they begin in the middle of the file."""
    start, (video, audio) = window.start - preroll, used
    if not line.seekable:
        clock = Clock([stream for stream in streams if stream], line.zero)
        return Packets(container, clock.streams, clock, start), start > 0
    guide = video if video and (video.codec_context.pix_fmt or not audio) else audio
    sought = start > 0 and _seek(container, guide, line.zero + start)
    return Packets(container, [stream for stream in used if stream]), sought


def _refuse_large(window: _Window, used: list, seconds: float, all_frames: bool) -> None:
    """Refuse a window of `seconds` that would not fit into memory, by the file's header."""
    video, audio = used
    size = 4 * RATE * seconds if audio else 0  # bytes
    if video:
        stored = video.codec_context.width, video.codec_context.height
        width, height = display_size(*stored, pixel_aspect(video))
        if max(width * height, math.prod(stored)) > MAX_PIXELS:
            cause = f"frames of {width} x {height} pixels exceed {MAX_PIXELS}"
            raise MediaError(f"{window.path}: {cause}; scale them down.")
        count = min(seconds * frame_rate(video), video.frames or math.inf) if all_frames else 0
        size += count * 3 * math.prod(reduced(width, height, window.short_side))
    if size > MAX_BYTES:
        raise MediaError(f"{window.path} would take {size / 2**30:.1f} GiB; {ASK_LESS}")


def _seek(container, stream, time: float) -> bool:
    try:
        container.seek(int(time / stream.time_base), stream=stream)
    except FAILURES:
        return False  # read from the beginning instead
    return True


# ---- the result and its notes ----


def _media(decoded: _Decoded) -> Media:
    window, total = decoded.window, decoded.line.total
    used = [track for track in decoded.tracks if track.usable]
    length = decoded.length if used else (total or math.inf) - window.start
    end = length + window.start
    if length <= 0 < end:
        raise PastEnd(f"{window.path} ends at {end:.2f} s; ask for a start before that.", end)
    if length <= 0 or not used:
        cause = f"it is damaged, encrypted, or its frames exceed {MAX_PIXELS} pixels"
        cause = f"nothing in it could be decoded, {cause}"
        raise MediaError(f"{window.path}: {cause}; get a good copy.")
    frames, times = np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0)
    wave = np.zeros(0, np.float32)
    if decoded.video in used:
        frames, times = decoded.video.finish()
    if decoded.audio in used:
        wave = decoded.audio.finish(length)
    notes = (*_notes(decoded, length, times, wave), *_louder(decoded, wave))
    return Media(frames, times, wave, window.start, length, total, notes)


def _notes(decoded: _Decoded, length: float, times, wave) -> Iterator[str]:
    window, video, audio, line = decoded.window, decoded.video, decoded.audio, decoded.line
    if decoded.cover:
        yield "the video in the file is a cover, not a video"
    if not len(times) and window.wants("video"):
        yield _absent("video", video, decoded)
    if len(wave):
        yield from _silence(audio, wave)
    elif window.wants("audio"):
        yield _absent("audio", audio, decoded)
    if len(times):
        yield from _video_notes(video, times)
    if len(times) and len(wave):
        yield from _sync_notes(video, audio)
    for name, track in (("video", video), ("audio", audio)):
        if track and (track.damaged or track.corrupt):
            yield f"damaged: parts of the {name} could not be decoded"
        if track and (track.jumps or track.index in line.jumps):
            yield f"the time stamps of the {name} jump; it is played on without the jump"
        if track and track.changes:
            yield f"the {name} changes its {'size' if name == 'video' else 'rate'} on the way"
    if len(wave) and audio.gaps(length):
        yield "the audio has gaps"
    yield from _end_notes(window, line, length)


def _end_notes(window, line: Timeline, length: float) -> Iterator[str]:
    if line.promised:
        readable = f"{line.total:.1f} s of {line.promised:.1f} s can be read"
        yield f"the file is cut off or damaged: {readable}"
    if line.total and length < min(window.length, line.total - window.start) - 1:
        yield f"the file ends {line.total - window.start - length:.1f} s early, as if cut off"
    elif window.length - length > 0.1 and window.length < math.inf:
        yield f"the file ends {window.length - length:.2f} s before the window does"


def _silence(audio: AudioDecoder, wave) -> Iterator[str]:
    if audio.until < GAP:
        yield "the audio ends before the window"
    elif not wave.any():
        yield "the audio is digital silence"


def _louder(decoded: _Decoded, wave) -> Iterator[str]:
    """A note on an audio track that is not silent, if the default one is."""
    window = decoded.window
    if window.audio_track or not decoded.others or np.abs(wave).max(initial=0) > SILENCE:
        return
    for number, words in decoded.others.items():
        with contextlib.suppress(MediaError):
            length, choice = min(window.length, LISTEN), {"only": "audio", "audio_track": number}
            other = read(window.path, window.start, length, **choice).wave
            if np.abs(other).max(initial=0) > 10 * SILENCE:
                choice = f"audio track {number} ({words}) has audio; choose it with"
                yield f"{choice} --audio-track {number}, in Python audio_track={number}"
                return


def _absent(name: str, track, decoded: _Decoded) -> str:
    if track is None:
        return decoded.undecodable.get(name, f"no {name}")
    return f"no {name} in the window" if track.usable else f"no {name} could be decoded"


def _video_notes(video: VideoDecoder, times) -> Iterator[str]:
    if not np.array_equal(video.matrix, np.eye(2)):
        yield "the video was turned or mirrored upright, as its metadata asks"
    if video.hdr in ("HLG", "PQ"):
        yield f"the video is HDR ({video.hdr}); its colors were tone-mapped to BT.709"
    elif video.hdr:
        yield f"the video has {video.hdr} colors; they were converted to BT.709"
    if video.steps and max(video.steps) > 1.5 * min(video.steps) + 2 * NEAR:
        yield "the frame rate varies"
    if video.until < -GAP:
        yield "the video ends before the window; its last frame stands in"
    elif len(times) == 1:
        yield "only one frame" + ("" if video.good == 1 else " in the window")


def _sync_notes(video: VideoDecoder, audio: AudioDecoder) -> Iterator[str]:
    apart = video.first - audio.first
    if abs(apart) > 0.1 and not video.sought:
        names = ("video", "audio") if apart > 0 else ("audio", "video")
        yield f"the {names[0]} starts {abs(apart):.2f} s after the {names[1]}"
    shorter = video.until - audio.until
    if abs(shorter) > 0.25 and not (video.done or audio.done):
        names = ("audio", "video") if shorter > 0 else ("video", "audio")
        yield f"the {names[0]} ends {abs(shorter):.2f} s before the {names[1]}"
