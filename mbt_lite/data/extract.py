"""Extract the clip that a record stores from a labeled window of a video file.

A clip lasts whole seconds: the window, cut where the file ends and rounded, 1 s at least. Its last
second is completed, by half a second at most, with silence and copies of the last frame. So audio
and video have exactly the same length, and the spectrogram is that of the wave stored beside it.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mbt_lite import features, media
from mbt_lite.config import MODALITIES, STREAMS, FrontEnd, to_dict
from mbt_lite.data import tables
from mbt_lite.data.records import FPS, MELS, ROWS, Example

QUALITY = 90  # of the JPEGs, as Pillow counts


@dataclass(frozen=True)
class Settings:
    """All settings that affect the bytes of a clip."""

    front_end: FrontEnd
    labels: tuple[str, ...]  # the classes in order
    short_side: int = 256  # pixels
    audio_track: int | None = None  # of a file, from 1 on; None: the one that players choose
    streams: tuple[str, ...] = STREAMS  # that a file must have; the other one is left out

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
        """The settings as JSON values, without mean and deviation, which do not affect records."""
        values = to_dict(self) | {"fps": FPS, "jpeg_quality": QUALITY}
        values |= {"labels": list(self.labels), "streams": list(self.streams)}
        del values["front_end"]["mean"], values["front_end"]["std"]
        return values


def example(row: tables.Annotation, settings: Settings) -> Example:
    """The clip of a row.

    ValueError if the file cannot be used or lacks a stream of the settings: a model would learn
    from silence or black frames as if they were real.
    """
    track, total = settings.audio_track, None
    if row.start and row.end is not None:
        total = media.probe(row.path, track).duration
    start, length = tables.window(row, total)
    only = None if len(settings.streams) == 2 else MODALITIES[settings.streams[0]]
    options = {"short_side": settings.short_side, "audio_track": track, "only": only}
    source = media.read(row.path, start, length, **options)
    for stream, values in (("rgb", source.frames), ("spec", source.wave)):
        if stream in settings.streams and not len(values):
            codec = [f": {note}" for note in source.notes if note.startswith("there is ")]
            cause = f"has no {MODALITIES[stream]} in the window{''.join(codec[:1])}"
            other = "spec" if stream == "rgb" else "rgb"
            both = f"a clip needs both; --streams {other} takes {MODALITIES[other]} alone"
            needed = both if only is None else f"--streams {stream} needs it"
            raise ValueError(f"{row.path} {cause}; {needed}.")
    seconds = max(math.floor(source.duration + 0.5), 1)
    wave = np.zeros(seconds * media.RATE * ("spec" in settings.streams), np.float32)
    samples = source.wave[: len(wave)]
    wave[: len(samples)] = samples
    spec = features.log_mel(wave, settings.front_end) if len(wave) else np.zeros(0)
    return Example(
        id=row.id,
        jpegs=_jpegs(source, seconds, settings) if "rgb" in settings.streams else [],
        melspec=spec.astype(np.float32).reshape(-1, ROWS, MELS),
        wave=wave,
        labels=tuple(settings.labels.index(name) for name in row.labels),
        names=row.labels,
        start=start,
        end=start + min(source.duration, seconds),
    )


def _jpegs(source: media.Media, seconds: int, settings: Settings) -> list[bytes]:
    """One JPEG per 1/25 s, of the frame whose time is nearest."""
    between = (source.times[1:] + source.times[:-1]) / 2
    nearest = np.searchsorted(between, np.arange(seconds * FPS) / FPS)
    encoded = {i: _jpeg(source.frames[i], settings) for i in np.unique(nearest).tolist()}
    return [encoded[i] for i in nearest.tolist()]


def _jpeg(frame: np.ndarray, settings: Settings) -> bytes:
    """A frame as JPEG, enlarged if its short side is smaller than that of the settings."""
    image = Image.fromarray(frame)
    scale = settings.short_side / min(image.size)
    if scale > 1:
        size = tuple(round(side * scale) for side in image.size)
        image = image.resize(size, Image.Resampling.BILINEAR)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY, subsampling="4:2:0", optimize=False)
    return data.getvalue()
