"""Extract the clip that a record stores from a labeled window of a video file.

A clip lasts whole seconds: the window, cut where the file ends and rounded, 1 s at least. What is
missing of its last second (half a second at most) is silence and the last frame again. So audio and
video have exactly the same length, and the spectrogram is that of the wave stored beside it.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mbt_lite import features, media
from mbt_lite.config import MODALITIES, STREAMS, FrontEnd, to_dict
from mbt_lite.data import tables
from mbt_lite.data.records import (
    FPS,
    MELS,
    ROWS,
    Example,
)


@dataclass(frozen=True)
class Settings:
    """What decides the bytes of a clip, besides its file."""

    front_end: FrontEnd
    labels: tuple[str, ...]  # the classes in order
    short_side: int = 256  # pixels
    quality: int = 90  # of the JPEGs, as Pillow counts
    audio_track: int | None = None  # of a file, from 1 on; None: the one that players choose
    streams: tuple[str, ...] = STREAMS  # what a file must have; the other one is left out

    def __post_init__(self):
        if not self.streams or not set(self.streams) <= set(STREAMS):
            raise ValueError(f"streams {' '.join(self.streams)}: take {' or '.join(STREAMS)}.")
        front = self.front_end
        per_second = (front.rate, front.rate / front.hop_samples, front.mels)
        if per_second != (media.RATE, ROWS, MELS):
            raise ValueError(
                f"front end {front.name} gives {per_second[1]:g} rows of {front.mels} mels a "
                f"second; records hold {ROWS} of {MELS} at {media.RATE} Hz."
            )

    def described(self) -> dict:
        """The settings as JSON values; mean and deviation do not touch the records."""
        front = to_dict(self.front_end)
        kept = {name: value for name, value in front.items() if name not in ("mean", "std")}
        frames = {"fps": FPS, "short_side": self.short_side, "jpeg_quality": self.quality}
        track = {"audio_track": self.audio_track} if self.audio_track else {}
        streams = {} if len(self.streams) == 2 else {"streams": list(self.streams)}
        described = {"front_end": kept, "labels": list(self.labels), "frames": frames}
        return described | track | streams


def example(row: tables.Row, settings: Settings) -> tuple[Example, tuple[str, ...]]:
    """The clip of a row, and in phrases what was unusual about its file.

    ValueError where the file cannot be used, or lacks a stream of the settings: silence or black
    frames would be learnt from as if they were real.
    """
    track, total = settings.audio_track, None
    if row.start and row.end is not None:
        total = media.probe(row.path, track).duration
    start, length = tables.window(row, total)
    only = None if len(settings.streams) == 2 else MODALITIES[settings.streams[0]]
    thin = {"fps": FPS, "short_side": settings.short_side, "audio_track": track, "only": only}
    found = media.read(row.path, start, length, **thin)
    for stream, values in (("rgb", found.frames), ("spec", found.wave)):
        if stream in settings.streams and not len(values):
            codec = [f": {words}" for words in found.notes if words.startswith("there is ")]
            cause = f"has no {MODALITIES[stream]} in the window{''.join(codec[:1])}"
            needed = "a clip needs both" if only is None else f"--streams {stream} needs it"
            raise ValueError(f"{row.path} {cause}; {needed}.")
    seconds = max(math.floor(found.duration + 0.5), 1)
    wave = np.zeros(seconds * media.RATE * ("spec" in settings.streams), np.float32)
    heard = found.wave[: len(wave)]
    wave[: len(heard)] = heard
    spec = features.log_mel(wave, settings.front_end) if len(wave) else np.zeros(0)
    clip = Example(
        id=row.id,
        jpegs=_jpegs(found, seconds, settings) if "rgb" in settings.streams else [],
        melspec=spec.astype(np.float32).reshape(-1, ROWS, MELS),
        wave=wave,
        labels=tuple(settings.labels.index(name) for name in row.labels),
        names=row.labels,
        start=start,
        end=start + min(found.duration, seconds),
    )
    return clip, found.notes


def _jpegs(found: media.Media, seconds: int, settings: Settings) -> list[bytes]:
    """One JPEG per 1/25 s, of the frame whose time is nearest."""
    between = (found.times[1:] + found.times[:-1]) / 2
    nearest = np.searchsorted(between, np.arange(seconds * FPS) / FPS)
    encoded = {i: _jpeg(found.frames[i], settings) for i in np.unique(nearest).tolist()}
    return [encoded[i] for i in nearest.tolist()]


def _jpeg(frame: np.ndarray, settings: Settings) -> bytes:
    """A frame as JPEG, enlarged where it is smaller than records have it."""
    image = Image.fromarray(frame)
    scale = settings.short_side / min(image.size)
    if scale > 1:
        size = tuple(round(side * scale) for side in image.size)
        image = image.resize(size, Image.Resampling.BILINEAR)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=settings.quality, subsampling="4:2:0", optimize=False)
    return data.getvalue()
