"""Video and sound files in and out; the only module that knows codecs (PyAV), free of JAX.

One clock: t = 0 of a file is the earliest time stamp of the picture and the sound that are used (a
run-in of less than 0.1 s before 0 is hidden, as players do). `Media.times` and `Media.wave` both
count from the start of the asked window on that clock. Nothing but the named file is ever opened.
"""

import contextlib
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

RATE = 16_000  # Hz, of every wave
MAX_PIXELS = 8192 * 8192  # of one frame; more is refused before it is decoded
MAX_BYTES = 2 << 30  # of the frames and the wave of one read
PREROLL = 1.0  # s before the window that are decoded; the first audio frame after a seek is lost
SLACK = 10.0  # s that one stream may be stored behind the other; a longer jump is doubted
NEAR = 1e-3  # s within which two instants are the same: containers round to a millisecond
GAP = 0.03  # s of missing sound that are taken for rounding
OVERLAP = 0.1  # s that sound may run ahead of its time stamps before they win
RETRIES = 32  # failed reads in a row after which the rest of a file is given up

# Containers that hold what they play. Play lists and descriptions (hls, dash, concat, sdp, ...),
# devices and numbered pictures are absent: they would make libav open something else.
CONTAINERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,ivf,obu,av1,h261,h263,h264,"
    "hevc,vvc,m4v,vc1,mjpeg,dv,gxf,mxf,nut,rm,swf,wtv,nsv,yuv4mpegpipe,smjpeg,flic,wav,w64,aiff,"
    "au,caf,mp3,aac,ac3,eac3,dts,truehd,flac,tta,wv,ape,amr,amrnb,amrwb,voc,mpc,mpc8,jpeg_pipe,"
    "png_pipe,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,pgm_pipe,pbm_pipe,pam_pipe,j2k_pipe"
)
ASK_LESS = "ask for a window with start= and duration=, or for less with fps= and short_side=."
REFERENCES = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"<smil", b"v=0", b"[playlist]")
TITLES = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
FAILURES = (av.FFmpegError, OSError, ValueError, RuntimeError, EOFError, MemoryError)


class MediaError(ValueError):
    """A file that cannot be used: one sentence with its name, the cause and the remedy."""


@dataclass(frozen=True)
class Media:
    """What a window of a file holds, picture and sound on one clock."""

    frames: np.ndarray  # uint8 [T, H, W, 3], upright; T = 0 without picture
    times: np.ndarray  # float64 [T], s after the window's start; times[0] may be a little below 0
    wave: np.ndarray  # float32 [S], mono (mean of the channels); wave[0] is at time 0
    start: float  # s, of the window on the file's clock
    duration: float  # s, of the window, cut where the file ends
    total: float | None  # s, of the whole file, where the header says so
    notes: tuple[str, ...] = ()  # what was unusual, in plain words
    rate: int = RATE  # Hz


@dataclass(frozen=True)
class Info:
    """What the header and the first frame say about a file."""

    duration: float | None  # s
    has_video: bool
    has_audio: bool
    width: int = 0  # pixels, upright
    height: int = 0
    fps: float | None = None
    rotation: int = 0  # degrees, counter-clockwise, that were applied to get upright frames
    sample_rate: int = 0  # Hz, as stored
    channels: int = 0
    container: str = ""
    video_codec: str = ""
    audio_codec: str = ""


def probe(path) -> Info:
    """What `path` holds, decoding one frame at most; `MediaError` where nothing can be read."""
    with _open(path) as container:
        video, audio = _streams(container)
        first = _first_frame(container, video)
        turned = first is not None and _turns(_matrix(first))
        size = (first.width, first.height)[:: -1 if turned else 1] if first else (0, 0)
        return Info(
            duration=_total(container, video, audio),
            has_video=first is not None,
            has_audio=audio is not None,
            width=size[0],
            height=size[1],
            fps=_fps(video) if first else None,
            rotation=first.rotation if first else 0,
            sample_rate=audio.codec_context.sample_rate if audio else 0,
            channels=audio.codec_context.channels if audio else 0,
            container=container.format.name,
            video_codec=video.codec_context.name if video else "",
            audio_codec=audio.codec_context.name if audio else "",
        )


def read(
    path,
    start: float | None = None,
    duration: float | None = None,
    *,
    fps: float | None = None,
    short_side: int | None = None,
) -> Media:
    """`Media` of the window of `duration` seconds at `start`; `MediaError` where nothing is usable.

    Without `start` and `duration` the whole file is read, up to 2 GiB. `fps` keeps only the frames
    nearest to start, start + 1/fps, ...; `short_side` reduces frames to that many pixels (area
    mean, never enlarged); both act while decoding, so that long or large videos cost little.
    The frame on show at `start` is included, hence `times[0]` may lie a little below 0. What a
    damaged file still gives is used; `notes` say so.
    """
    window = _Window(start or 0.0, math.inf if duration is None else duration)
    if not (0 <= window.start < math.inf and window.length > 0):
        raise MediaError(f"{path}: start={start} must be 0 or more, duration={duration} above 0.")
    if min(1 if fps is None else fps, 1 if short_side is None else short_side) <= 0:
        raise MediaError(f"{path}: fps={fps} and short_side={short_side} must be above 0.")
    for preroll in (PREROLL, 10 * PREROLL, 60 * PREROLL):  # some formats seek past the key frame
        with _open(path) as container:
            decoded = _decode(container, path, window, preroll, fps, short_side)
        if not any(track.late for track in decoded.tracks):
            break
    return _media(path, window, decoded)


def write(path, frames, times, wave=None, rate: int = RATE, *, crf: int = 18) -> None:
    """An mp4 file (H.264 4:2:0 + AAC) of frames uint8 [T, H, W, 3] and wave float [S]; None back.

    `times` is a frame rate, or the instants [T] in seconds, rising from 0 or later; the wave starts
    at 0. The file appears complete or not at all, and the same input gives the same bytes.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise MediaError(f"{path}: frames must be uint8 [T, H, W, 3] with T > 0.")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise MediaError(f"{path}: H.264 4:2:0 needs an even height and width; crop a row.")
    if np.ndim(times) and (np.shape(times) != frames.shape[:1] or np.any(np.diff(times) <= 0)):
        raise MediaError(f"{path}: times must rise and be as many as the frames.")
    folder, name = os.path.split(os.path.abspath(path))
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", delete=False) as file:
        try:
            _encode(file, frames, times, wave, rate, crf)
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


# ---- opening ----


@contextlib.contextmanager
def _open(path) -> Iterator[av.container.InputContainer]:
    with contextlib.ExitStack() as stack:
        try:
            mode = os.stat(path).st_mode
            if not stat.S_ISREG(mode):
                kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
                raise MediaError(f"{path} is {kind}; name one video file.")
            file = stack.enter_context(open(path, "rb"))
        except (OSError, ValueError, TypeError) as error:
            if isinstance(error, MediaError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise MediaError(f"{path} cannot be opened: {reason}; check the name.") from None
        head = file.read(512)
        file.seek(0)
        if not head:
            raise MediaError(f"{path} is empty (0 bytes); copy or download it again.")
        yield stack.enter_context(_container(path, file, head))


def _container(path, file, head: bytes) -> av.container.InputContainer:
    try:
        return av.open(
            file,
            options={"format_whitelist": CONTAINERS, "max_pixels": str(MAX_PIXELS)},
            container_options={"protocol_whitelist": "none"},
            io_open=_refuse,
            **TITLES,
        )
    except FAILURES:
        if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(REFERENCES):
            cause = "points to other files, which are never opened; give the video itself"
        else:
            cause = "is no video or sound that can be read, or its header is lost; get it again"
        raise MediaError(f"{path} {cause}.") from None


def _refuse(url, flags, options):
    raise PermissionError("a media file may not open another one")


def _streams(container):
    """The picture and the sound to use, or None; a cover picture is not a video."""
    usable = [s for s in container.streams if s.codec_context and not _is_cover(s)]
    video = _best(container, "video", usable)
    audio = _best(container, "audio", usable, video)
    for stream in filter(None, (video, audio)):
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return video, audio
    return video, audio


def _best(container, kind: str, usable: list, related=None):
    """The stream that libav prefers, or else the first of its kind that has a decoder."""
    best = container.streams.best(kind, related) or container.streams.best(kind)
    return best if best in usable else next((s for s in usable if s.type == kind), None)


def _is_cover(stream) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _refuse_large(path, video) -> None:
    if video and video.codec_context.width * video.codec_context.height > MAX_PIXELS:
        size = f"{video.codec_context.width} x {video.codec_context.height}"
        raise MediaError(f"{path}: frames of {size} pixels exceed {MAX_PIXELS}; scale them down.")


def _first_frame(container, video):
    if video is None:
        return None
    with contextlib.suppress(*FAILURES):
        return next(container.decode(video), None)


# ---- the clock ----


def _seconds(stream, value) -> float | None:
    return None if value is None else float(value * stream.time_base)


def _fps(video) -> float:
    return min(float(video.average_rate or video.guessed_rate or 25), 240.0)


def _zero(*streams) -> float:
    """The time stamp, in seconds, that is t = 0 of the file."""
    starts = [_seconds(s, s.start_time) for s in streams if s and s.start_time is not None]
    zero = min(starts, default=0.0)
    return 0.0 if -0.1 < zero < 0 else zero


def _total(container, *streams) -> float | None:
    """Seconds from t = 0 to the end of the streams, as the header has it; None: unknown."""
    used = [s for s in streams if s]
    if all(s.duration and s.start_time is not None for s in used):
        ends = [_seconds(s, s.start_time + s.duration) for s in used]
        return max(ends, default=0.0) - _zero(*used) or None
    return container.duration / 1e6 if (container.duration or 0) > 0 else None


@dataclass(frozen=True)
class _Window:
    start: float  # s
    length: float  # s, infinite: up to the end of the file


@dataclass(frozen=True)
class _Decoded:
    picture: "_Picture | None"
    sound: "_Sound | None"
    total: float | None  # s
    cover: bool

    @property
    def tracks(self) -> list["_Track"]:
        return [track for track in (self.picture, self.sound) if track]


class _Track:
    """One stream being decoded onto the window's clock."""

    padding = 0.0  # s that a codec may add at the end

    def __init__(self, path, stream, window: _Window, origin: float, sought: bool, end: float):
        self.path, self.stream, self.sought, self.end = path, stream, sought, end
        self.origin, self.length = origin, window.length
        self.begin = max(0.0, (_seconds(stream, stream.start_time) or 0.0) - origin)
        last = _seconds(stream, stream.duration and stream.duration + (stream.start_time or 0))
        self.over = last is not None and last <= origin  # the stream ended before the window
        self.first = self.expected = None  # s: time of the first frame, and of the next one
        self.packets = self.good = self.damaged = self.corrupt = self.jumps = self.changes = 0
        self.done, self.until = False, -math.inf

    @property
    def late(self) -> bool:
        """Whether seeking went past what the window needs."""
        if self.first is None:
            return self.sought and not self.over
        return self.sought and self.first > self.begin + GAP

    def feed(self, packet) -> None:
        """Place what a packet holds; None: what the decoder still keeps back."""
        if self.done:
            return
        self.packets += 1
        try:
            frames = packet.decode() if packet else self.stream.decode(None)
        except FAILURES:  # what seeking cut off does not count
            self.damaged += not self.sought or self.first is not None
            return
        for frame in frames:
            with contextlib.suppress(av.FFmpegError):
                self.place(frame)

    @property
    def usable(self) -> bool:
        """Whether frames came out, and not just by chance out of a scrambled stream."""
        scrambled = self.damaged >= max(5, 0.8 * self.packets) or (self.damaged and not self.good)
        return self.first is not None and not scrambled

    def finish_at(self, total: float | None, start: float) -> float:
        """Where the stream ends in the window, s; a codec's padding after the end is no sound."""
        padding = self.until + start - (total or math.inf)
        return self.until - padding if 0 < padding < self.padding else self.until

    def beyond(self, packet, length: float) -> bool:
        return packet.dts is not None and _seconds(self.stream, packet.dts) - self.origin > length

    def place(self, frame) -> None:
        time = self.time(_seconds(self.stream, frame.pts))
        self.first = time if self.first is None else self.first
        self.expected = time + self.seconds(frame)
        self.until = max(self.until, self.expected)
        self.corrupt += time >= 0 and frame.is_corrupt
        self.good += not frame.is_corrupt
        self.done = time >= self.length - NEAR
        if not self.done:
            self.take(frame, time)

    def time(self, stamp: float | None) -> float:
        """Seconds after the window's start; a stamp that jumps absurdly is replaced."""
        if stamp is None:
            return self.expected or 0.0
        time, expected = stamp - self.origin, self.expected
        if expected is None:
            expected = time if self.sought or time < SLACK else 0.0
        if time < expected - 1 or time > max(expected + SLACK, self.end):
            self.origin += time - expected
            self.jumps += 1
            return expected
        return time

    def check(self, size: int) -> None:
        if size > MAX_BYTES:
            raise MediaError(f"{self.path} takes more than {MAX_BYTES >> 30} GiB; {ASK_LESS}")


class _Picture(_Track):
    """The chosen frames, each at its time."""

    def __init__(self, *args, fps: float | None, short_side: int | None, promised: int):
        super().__init__(*args)
        self.fps, self.short_side, self.promised = fps, short_side, promised
        self.frames, self.times, self.steps = np.zeros((0, 0, 0, 3), np.uint8), [], []
        self.held = None  # time and frame on show
        self.served = 0  # instants k / fps that have their nearest frame
        self.scale = VideoReformatter()
        self.size, self.matrix, self.step = None, np.eye(2), 1 / _fps(self.stream)

    def seconds(self, frame) -> float:
        return self.step

    def take(self, frame, time: float) -> None:
        if self.held and time <= self.held[0]:
            return
        if self.held:
            self.steps.append(time - self.held[0])
            self.settle(time if self.fps is None else (self.held[0] + time) / 2)
        self.held = time, frame

    def settle(self, until: float) -> None:
        """Keep the frame on show if it is wanted up to this instant."""
        instants = 0 if self.fps is None else math.floor(until * self.fps) + 1
        if until > NEAR if self.fps is None else instants > self.served:
            self.keep(*self.held)
        self.served = max(self.served, instants)

    def keep(self, time: float, frame) -> None:
        if self.size is None:
            self.matrix = _matrix(frame)
            self.size = _reduced(frame.width, frame.height, self.short_side)
            self.stored = frame.width, frame.height
        self.changes += (frame.width, frame.height) != self.stored
        area = Interpolation.AREA | Interpolation.ACCURATE_RND
        rgb = self.scale.reformat(frame, *self.size, "rgb24", interpolation=area, threads=1)
        upright = _upright(rgb.to_ndarray(), self.matrix)  # [H, W, 3]
        if len(self.times) == len(self.frames):
            self.grow(upright.shape)
        self.frames[len(self.times)] = upright
        self.times.append(time)

    def grow(self, shape: tuple[int, int, int]) -> None:
        """Room for what the header promises, then for twice as much; untouched room is free."""
        count, size = len(self.frames), math.prod(shape)
        self.check((count + 1) * size)
        count = min(max(self.promised, 2 * count, 16), MAX_BYTES // size)
        frames = np.empty((count, *shape), np.uint8)
        frames[: len(self.frames)] = self.frames.reshape(-1, *shape)
        self.frames = frames

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Frames uint8 [T, H, W, 3] and times [T]; a picture that ended earlier gives its last."""
        with contextlib.suppress(av.FFmpegError):
            if self.held:
                self.settle(min(self.length, self.held[0] + self.step) - NEAR)
            if self.held and not self.times:
                self.keep(*self.held)
        return self.frames[: len(self.times)], np.array(self.times, np.float64)


class _Sound(_Track):
    """Runs of unbroken sound at 16 kHz, each with the time it starts at."""

    padding = 0.2

    def __init__(self, *args):
        super().__init__(*args)
        self.length += GAP  # a little more, for the resampling filter
        self.runs, self.size = [], 0  # (time, bytes of float32), and their sum
        self.rate, self.cursor, self.resampler = None, -math.inf, None

    def seconds(self, frame) -> float:
        return frame.samples / frame.sample_rate

    def take(self, frame, time: float) -> None:
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
        for frame in self.resampler.resample(mono):
            if frame is not None:
                self.runs[-1][1].extend(frame.to_ndarray().tobytes())
                self.size += 4 * frame.samples
                self.check(self.size)

    def flush(self) -> None:
        if self.resampler:
            self.push(None)

    def finish(self, length: float) -> np.ndarray:
        """Wave float32 [S] of `length` seconds, silent where there is no sound."""
        self.flush()
        wave = np.zeros(round(length * RATE), np.float32)
        for time, data in self.runs:
            at, run = round(time * RATE), np.frombuffer(data, np.float32)
            np.clip(np.nan_to_num(run, copy=False), -1, 1, out=run)
            run = run[max(0, -at) :][: max(0, len(wave) - max(0, at))]
            wave[max(0, at) :][: len(run)] = run
        return wave


# ---- decoding ----


def _decode(container, path, window, preroll, fps, short_side):
    """The two tracks (or None), read up to the end of the window."""
    video, audio = _streams(container)
    if not (video or audio):
        raise MediaError(f"{path} holds neither picture nor sound; name a video file.")
    total = _total(container, video, audio)
    _refuse_large(path, video)
    ahead = min(window.length, max(0.0, (total or 0.0) - window.start))  # s
    promised = _count(video, ahead, fps)
    _refuse_long(path, video, promised, 4 * RATE * ahead if audio else 0, short_side)
    origin = _zero(video, audio) + window.start
    sought = window.start > preroll and _seek(container, video or audio, origin - preroll)
    shared = window, origin, sought, (total or 0.0) - window.start
    thin = {"fps": fps, "short_side": short_side, "promised": promised}
    picture = video and _Picture(path, video, *shared, **thin)
    sound = audio and _Sound(path, audio, *shared)
    _pump(container, [t for t in (picture, sound) if t], window.length)
    return _Decoded(picture, sound, total, any(map(_is_cover, container.streams)))


def _count(video, seconds: float, fps: float | None) -> int:
    """Frames that the header promises."""
    if video is None:
        return 0
    return math.ceil(min(seconds * min(fps or 240, _fps(video)), video.frames or math.inf))


def _refuse_long(path, video, count: int, size: float, short_side: int | None) -> None:
    """Refuse from the header what would not fit into memory; `size`: bytes of the wave."""
    if video:
        context = video.codec_context
        size += count * 3 * math.prod(_reduced(context.width, context.height, short_side))
    if size > MAX_BYTES:
        raise MediaError(f"{path} would take {size / 2**30:.1f} GiB; {ASK_LESS}")


def _seek(container, stream, time: float) -> bool:
    try:
        container.seek(int(time / stream.time_base), stream=stream)
    except FAILURES:
        return False  # read from the beginning instead
    return True


def _pump(container, tracks, length: float) -> None:
    """Feed the tracks until the window is full or the file, or what can be read of it, ends."""
    by_index, failures = {track.stream.index: track for track in tracks}, 0
    while failures < RETRIES:
        try:
            for packet in container.demux([track.stream for track in tracks]):
                failures, track = 0, by_index[packet.stream.index]
                if track.beyond(packet, length + SLACK):
                    return _drain(tracks)
                track.feed(packet)
                if all(track.done for track in tracks):
                    return
            return
        except FAILURES as error:
            if isinstance(error, MediaError):
                raise
            failures += 1
            tracks[0].damaged += failures == 1
    _drain(tracks)


def _drain(tracks) -> None:
    """Take what the decoders still hold back."""
    for track in tracks:
        track.feed(None)


def _reduced(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    scale = min(1.0, (short_side or math.inf) / max(1, min(width, height)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _matrix(frame) -> np.ndarray:
    """The display matrix [2, 2] as signs: x' = x m[0,0] + y m[1,0], y' = x m[0,1] + y m[1,1]."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    matrix = np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2].astype(np.float64)
    straight = abs(matrix[0, 0]) + abs(matrix[1, 1]) >= abs(matrix[0, 1]) + abs(matrix[1, 0])
    return np.sign(matrix) * (np.eye(2) if straight else np.eye(2)[::-1])


def _turns(matrix) -> bool:
    return bool(matrix[0, 1])


def _upright(image, matrix) -> np.ndarray:
    """The image [H, W, 3] as the display matrix wants it shown."""
    image = image.swapaxes(0, 1) if _turns(matrix) else image
    right, down = matrix.sum(axis=0)  # signs of x' and y'
    return image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def _mono(frame) -> np.ndarray:
    """The mean of all channels, float32 [n]."""
    if frame.format.is_planar and frame.layout.nb_channels > 8:
        frame = av.AudioResampler("flt").resample(frame)[0]  # PyAV miscounts so many planes
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T  # [C, n]
    if samples.dtype.kind in "iu":
        bits = 8 * samples.dtype.itemsize - 1
        offset = 128.0 if samples.dtype.kind == "u" else 0.0
        samples = (samples.astype(np.float32) - offset) / 2.0**bits
    return samples.mean(axis=0, dtype=np.float32)


# ---- the answer ----


def _media(path, window: _Window, decoded: _Decoded) -> Media:
    used = [track for track in decoded.tracks if track.usable]
    if not used:
        cause = f"it is damaged, encrypted, or its frames exceed {MAX_PIXELS} pixels"
        raise MediaError(f"{path}: nothing in it could be decoded, {cause}; get a good copy.")
    end = max(track.finish_at(decoded.total, window.start) for track in used)
    length = min(window.length, end)
    if length <= 0:
        end += window.start
        raise MediaError(f"{path} ends at {end:.2f} s; ask for a start before that.")
    picture, sound = decoded.picture, decoded.sound
    frames, times = np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0)
    wave = np.zeros(0, np.float32)
    if picture in used:
        frames, times = picture.finish()
    if sound in used:
        wave = sound.finish(length)
    notes = tuple(_notes(window, decoded, length, times, wave))
    return Media(frames, times, wave, window.start, length, decoded.total, notes)


def _notes(window, decoded: _Decoded, length: float, times, wave) -> Iterator[str]:
    picture, sound, total = decoded.picture, decoded.sound, decoded.total
    if decoded.cover:
        yield "the picture in the file is a cover, not a video"
    if not len(times):
        yield _absent("picture", picture)
    if len(times) == 1:
        yield "only one frame"
    if not len(wave):
        yield _absent("sound", sound)
    elif not wave.any():
        yield "the sound is digital silence"
    if len(times):
        yield from _picture_notes(picture)
    if len(times) and len(wave):
        yield from _sync_notes(window, picture, sound)
    for name, track in (("picture", picture), ("sound", sound)):
        if track and (track.damaged or track.corrupt):
            yield f"damaged: parts of the {name} could not be decoded"
        if track and track.jumps:
            yield f"the time stamps of the {name} jump; it is played on without the jump"
        if track and track.changes:
            yield f"the {name} changes its {'size' if name == 'picture' else 'rate'} on the way"
    if sound and len(sound.runs) > 1 + sound.changes:
        yield "the sound has gaps"
    if total and length < min(window.length, total - window.start) - 1:
        yield f"the file ends {total - window.start - length:.1f} s early, as if cut off"
    elif window.length - length > 0.1 and window.length < math.inf:
        yield f"the file ends {window.length - length:.2f} s before the window does"


def _absent(name: str, track) -> str:
    if track is None:
        return f"no {name}"
    return f"no {name} in the window" if track.usable else f"no {name} could be decoded"


def _picture_notes(picture: _Picture) -> Iterator[str]:
    if not np.array_equal(picture.matrix, np.eye(2)):
        yield "the picture was turned or mirrored upright, as its metadata asks"
    if picture.steps and max(picture.steps) > 1.5 * min(picture.steps) + 2 * NEAR:
        yield "the frame rate varies"
    if picture.times[0] + picture.step < -GAP:
        yield "the picture ends before the window; its last frame stands in"


def _sync_notes(window, picture: _Picture, sound: _Sound) -> Iterator[str]:
    apart = picture.first - sound.first
    if abs(apart) > 0.1 and not picture.sought:
        names = ("picture", "sound") if apart > 0 else ("sound", "picture")
        yield f"the {names[0]} starts {abs(apart):.2f} s after the {names[1]}"
    shorter = picture.until - sound.until
    if abs(shorter) > 0.25 and not (picture.done or sound.done):
        names = ("sound", "picture") if shorter > 0 else ("picture", "sound")
        yield f"the {names[0]} ends {abs(shorter):.2f} s before the {names[1]}"


# ---- writing ----


def _encode(file, frames, times, wave, rate: int, crf: int) -> None:
    ticks = Fraction(1, 90_000)
    steady = np.ndim(times) == 0
    stamps = np.arange(len(frames)) / times if steady else np.asarray(times, np.float64)
    step = 1 / times if steady else float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.04
    options = {"fflags": "+bitexact"}
    with av.open(file, "w", format="mp4", container_options=options) as container:
        video = container.add_stream("libx264", rate=Fraction(1 / step).limit_denominator(1001))
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt, video.codec_context.time_base = "yuv420p", ticks
        video.codec_context.options = {"crf": str(crf), "threads": "1", "flags": "+bitexact"}
        audio = None if wave is None else container.add_stream("aac", rate=rate, layout="mono")
        for image, stamp in zip(frames, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts, frame.time_base = round(stamp / ticks), ticks
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio:
            sound = np.ascontiguousarray(wave, np.float32)[None]  # [1, S]
            frame = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
