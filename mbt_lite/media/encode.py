"""Write frames and audio as an mp4 file that is never left half-written."""

import io
import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mbt_lite.media.container import RATE, MediaError
from mbt_lite.paths import replacing


def write(path, frames, times, wave=None, rate: int = RATE, *, crf: int = 18) -> None:
    """Write frames uint8 [T, H, W, 3] and a wave float [S] as an mp4 file (H.264 4:2:0 + AAC).

    `times` is a frame rate, or the rising instants [T] in seconds, from 0 or later; the wave starts
    at 0. The file appears complete or not at all, and the same input gives the same bytes.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise MediaError(f"{path}: frames must be uint8 [T, H, W, 3] with T > 0.")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise MediaError(f"{path}: H.264 4:2:0 needs an even height and width; crop a row.")
    if np.ndim(times) and (np.shape(times) != frames.shape[:1] or np.any(np.diff(times) <= 0)):
        raise MediaError(f"{path}: times must rise and be as many as the frames.")
    stamps, step = _steady(frames, times)
    images, encoded = zip(stamps, frames, strict=True), io.BytesIO()
    _encode(encoded, images, frames.shape[1:3], step, wave, rate, {"crf": str(crf)})
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def packed(images: Iterable, step: float, wave=None, rate: int = RATE) -> bytes:
    """Bytes of a small mp4 for browsers (H.264 4:2:0 + AAC), from pairs (s, uint8 [H, W, 3]).

    All images have the size of the first, whose odd row or column is left out; `step` is the usual
    time between two, in seconds. Without images the result is empty.
    """
    images = iter(images)
    first = next(images, None)
    if first is None:
        return b""
    size = tuple(side // 2 * 2 for side in first[1].shape[:2])
    file, options = io.BytesIO(), {"crf": "26", "preset": "veryfast", "maxrate": "1M"}
    images = itertools.chain([first], images)
    _encode(file, images, size, step, wave, rate, options | {"bufsize": "2M"})
    return file.getvalue()


def _steady(frames, times) -> tuple[np.ndarray, float]:
    """The instants [T] of frames, and the usual time between two, in seconds."""
    if np.ndim(times) == 0:
        return np.arange(len(frames)) / times, 1 / times
    stamps = np.asarray(times, np.float64)
    return stamps, float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.04


def _encode(file, images: Iterable, size, step: float, wave, rate: int, options: dict) -> None:
    """Encode images, of which what exceeds `size` is left out, and the wave."""
    ticks = Fraction(1, 90_000)
    bitexact = {"fflags": "+bitexact"}
    with av.open(file, "w", format="mp4", container_options=bitexact) as container:
        video = container.add_stream("libx264", rate=Fraction(1 / step).limit_denominator(1001))
        (video.height, video.width), video.pix_fmt = size, "yuv420p"
        video.codec_context.time_base = ticks
        video.codec_context.options = options | {"threads": "1", "flags": "+bitexact"}
        audio = None if wave is None else container.add_stream("aac", rate=rate, layout="mono")
        for stamp, image in images:
            image = np.ascontiguousarray(image[: size[0], : size[1]])
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame = frame.reformat(format="yuv420p")  # left to the encoder, bytes sometimes differ
            frame.pts, frame.time_base = round(stamp / ticks), ticks
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio:
            samples = np.ascontiguousarray(wave, np.float32)[None]  # [1, S]
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
