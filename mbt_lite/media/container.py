"""Open a media file safely, choose its streams, and define their common clock.

No file but the named one is ever opened. t = 0 of a file is the earliest time stamp of the chosen
video and audio streams (up to 0.1 s before time stamp 0 are hidden, as players do).
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO

import av

from mbt_lite.paths import DOWNLOAD, address, stand_in

RATE = 16_000  # Hz, of every wave
MAX_PIXELS = 8192 * 8192  # of a frame; a larger one is refused before it is decoded

# Containers that hold their own streams. Play lists and descriptions (hls, dash, concat, sdp, ...),
# devices and numbered images are not listed: they would make libav open other files.
CONTAINERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,ivf,obu,av1,h261,h263,h264,"
    "hevc,vvc,m4v,vc1,mjpeg,dv,gxf,mxf,nut,rm,swf,wtv,nsv,yuv4mpegpipe,smjpeg,flic,wav,w64,aiff,"
    "au,caf,mp3,aac,ac3,eac3,dts,truehd,flac,tta,wv,ape,amr,amrnb,amrwb,voc,mpc,mpc8,jpeg_pipe,"
    "png_pipe,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,pgm_pipe,pbm_pipe,pam_pipe,j2k_pipe"
)
REFERENCES = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"<smil", b"v=0", b"[playlist]")
TITLES = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
FAILURES = (av.FFmpegError, OSError, ValueError, RuntimeError, EOFError, MemoryError)


class MediaError(ValueError):
    """A file that cannot be used; the message gives its name, the cause and the remedy."""


class PastEnd(MediaError):
    """A window that begins after the end of the file, which is `end` seconds after t = 0."""

    def __init__(self, message: str, end: float = 0.0):
        super().__init__(message)
        self.end = end


# ---- opening ----


@contextlib.contextmanager
def opened(path) -> Iterator[av.container.InputContainer]:
    """Open the container at `path` and close it after the block; `MediaError` if that fails."""
    with _file(path) as file:
        head = file.read(512)
        file.seek(0)
        if not head:
            raise MediaError(f"{path} is empty (0 bytes); copy or download it again.")
        with _container(path, file, head) as container:
            yield container


def _file(path) -> BinaryIO:
    """Open the regular file at `path`; a pipe or a device is not opened, because it could block."""
    if url := address(path):
        raise MediaError(f"{url}: addresses are not opened; {DOWNLOAD}.")
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return open(path, "rb")
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{path} cannot be opened: {reason}; check the name.") from None
    kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    raise MediaError(f"{path} is {kind}; name a video file.")


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
        if placeholder := stand_in(head):
            raise MediaError(f"{path} is {placeholder}.") from None
        if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(REFERENCES):
            cause = "points to other files, which are never opened; give the video itself"
        else:
            cause = "is no video or audio that can be read, or its header is lost; get it again"
        raise MediaError(f"{path} {cause}.") from None


def _refuse(url, flags, options):
    raise PermissionError("a media file may not open another one")


# ---- streams ----


def chosen(container, audio_track: int | None = None):
    """The video and the audio stream to use, None for one that is missing; a cover is no video.

    `audio_track` counts from 1; `MediaError` where there is no such track, or no decoder for it.
    """
    usable = [s for s in container.streams if s.codec_context and not is_cover(s)]
    video = _best(container, "video", usable)
    if audio_track is None:
        audio = _best(container, "audio", usable, video)
    else:
        audio = _numbered_track(container, audio_track)
    for stream in filter(None, (video, audio)):
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return video, audio


def _best(container, kind: str, usable: list, related=None):
    """The stream that libav prefers, or the first of its kind that has a decoder."""
    best = container.streams.best(kind, related) or container.streams.best(kind)
    return best if best in usable else next((s for s in usable if s.type == kind), None)


def audio_tracks(container) -> dict[int, str]:
    """Codec, layout and title of each audio track that can be decoded, by number from 1 on."""
    return {
        number: _description(stream)
        for number, stream in enumerate(container.streams.audio, 1)
        if stream.codec_context
    }


def _description(stream) -> str:
    codec, about = stream.codec_context, stream.metadata
    language, title = about.get("language", "und"), about.get("title")
    layout = {1: "mono", 2: "stereo"}.get(codec.channels, codec.layout.name)
    words = [codec.name.removesuffix("float"), layout]
    words += [language] if language != "und" else []
    return ", ".join(words + ([f'"{title}"'] if title else []))


def _numbered_track(container, number: int):
    tracks, decodable = container.streams.audio, audio_tracks(container)
    if number in decodable:
        return tracks[number - 1]
    listing = " and ".join(f"{i} ({words})" for i, words in decodable.items()) or "none"
    cause = f"has no audio track {number}"
    if 1 <= number <= len(tracks):
        cause = f"has an audio track {number}, but its codec cannot be decoded"
    raise MediaError(f"{container.name} {cause}; there is {listing}.")


def undecodable(container) -> dict[str, str]:
    """For each kind, "video" or "audio", whose track has no decoder: a sentence with its codec."""
    streams = [s for s in container.streams if s.type in ("video", "audio") and not is_cover(s)]
    lost = [s for s in streams if not s.codec_context]
    if not lost:
        return {}
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # PyAV shows such streams only in this listing
    try:
        listing = container.dumps_format()
    finally:
        av.logging.set_level(level)
    return {
        s.type: f"there is {'an' if s.type == 'audio' else 'a'} {s.type} track, but its codec "
        f"({_codec(listing, s.index)}) cannot be decoded"
        for s in lost
    }


def _codec(listing: str, index: int) -> str:
    """The name of a codec, or its four-letter code or number."""
    line = re.search(rf"^ *Stream #0:{index}\b.*?: (?:Video|Audio): (\w+)(.*)$", listing, re.M)
    if line and line[1] != "none":
        return line[1]
    tag = re.search(r"\((\S+) / (0x\w+)\)", line[2] if line else "")
    return "unknown" if not tag else tag[2] if "[" in tag[1] else tag[1]


def is_cover(stream) -> bool:
    """Whether a stream is the cover image of an audio file."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def pixel_aspect(video) -> float:
    """Width of a pixel over its height, in an open file; it differs from 1 in anamorphic video.

    A ratio within 2 % of 1 is an encoder's rounding, and one above 16 is damage: both count as 1.
    """
    aspect = float(video.sample_aspect_ratio or 1)
    return aspect if abs(aspect - 1) > 0.02 and 1 / 16 <= aspect <= 16 else 1.0


def display_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Width and height of a stored frame in square pixels, before rotation."""
    return max(1, round(width * aspect)), height


# ---- the clock ----


def in_seconds(stream, value) -> float | None:
    """Convert ticks of the stream's time base to seconds; None stays None."""
    if value is None:
        return None
    base = stream.time_base  # rounded as float(value * base), in a tenth of the time
    return value * base.numerator / base.denominator


def frame_rate(video) -> float:
    """Frames per second according to the header, 240 at most."""
    return min(float(video.average_rate or video.guessed_rate or 25), 240.0)


def zero(*streams) -> float:
    """The time stamp, in seconds, that is t = 0 of the file."""
    starts = [in_seconds(s, s.start_time) for s in streams if s and s.start_time is not None]
    zero = min(starts, default=0.0)
    return 0.0 if -0.1 < zero < 0 else zero


def total_seconds(container, *streams) -> float | None:
    """Seconds from t = 0 to the end of the streams according to the header; None if unknown."""
    used = [s for s in streams if s]
    if all(s.duration and s.start_time is not None for s in used):
        ends = [in_seconds(s, s.start_time + s.duration) for s in used]
        return max(ends, default=0.0) - zero(*used) or None
    return container.duration / 1e6 if (container.duration or 0) > 0 else None
