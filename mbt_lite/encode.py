"""Frames and a wave written as an mp4 file, complete or not at all."""

import os
import tempfile
from fractions import Fraction

import av
import numpy as np

from mbt_lite.container import RATE, MediaError


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
            frame = frame.reformat(format="yuv420p")  # left to the encoder, bytes differ at times
            frame.pts, frame.time_base = round(stamp / ticks), ticks
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio:
            sound = np.ascontiguousarray(wave, np.float32)[None]  # [1, S]
            frame = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
