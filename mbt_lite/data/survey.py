"""Survey labeled files before training: how long they are, what they hold, how their audio looks.

N spectrogram rows   M mel bins
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mbt_lite import features, media
from mbt_lite.config import FrontEnd
from mbt_lite.data.source import Source

LOOKED_AT = 48  # files that are decoded
PROBED = 400  # files whose length is read
MOST = 0.9  # share of the clips that the window covers
SECONDS = 10.0  # of a file that are decoded at most
BELOW = 0.975  # of half the sampling rate: what resampling leaves
STILL = 2.0  # of 255: mean difference between frames, below which a video is a still picture


@dataclass(frozen=True)
class DataFacts:
    """What the clips to learn from are like."""

    clips: int
    seconds: float  # MOST of the files are not longer
    audio: float  # share of the files that have some
    video: float
    short_side: int  # pixels, median
    moving: float  # share of the videos whose frames differ
    rate: int  # Hz, of most audio tracks as they are stored
    front_end: FrontEnd  # its bins end where the audio does, its mean and deviation are the files'


def survey(source: Source, mels: int, audio_track: int | None = None) -> DataFacts:
    """Facts about the files of a source, from evenly spaced ones of them.

    The front end has so many mel bins. ValueError if none of these files can be read.
    """
    paths = [source.file(int(i)) for i in np.linspace(0, len(source) - 1, PROBED).round()]
    paths = [path for path in dict.fromkeys(paths) if path]
    if not paths:
        raise ValueError(
            "clip and model can be chosen by video files only, and these clips are none: take "
            "another recipe, or set --data.adapt False with --model and --clip settings."
        )
    infos = [info for path in paths if (info := _probed(path, audio_track))]
    if not infos:
        raise ValueError(f"none of {len(paths)} files can be read; the first: {paths[0]}.")
    chosen = [paths[int(i)] for i in np.unique(np.linspace(0, len(paths) - 1, LOOKED_AT).round())]
    windows = [window for path in chosen if (window := _read(path, audio_track))]
    lengths = [info.duration or 0.0 for info in infos]
    videos = [info for info in infos if info.has_video]
    rates = Counter(info.sample_rate for info in infos if info.has_audio)
    rate = rates.most_common(1)[0][0] if rates else media.RATE
    return DataFacts(
        clips=len(source),
        seconds=float(np.quantile(lengths, MOST, method="higher")),
        audio=float(np.mean([info.has_audio for info in infos])),
        video=float(np.mean([info.has_video for info in infos])),
        short_side=int(np.median([min(info.width, info.height) for info in videos] or [0])),
        moving=_moving(windows),
        rate=rate,
        front_end=_front_end(windows, rate, mels),
    )


def _probed(path: Path, audio_track: int | None) -> media.Info | None:
    try:
        return media.probe(path, audio_track)
    except (ValueError, OSError):
        return None  # training reports files that cannot be read


def _read(path: Path, audio_track: int | None) -> media.Media | None:
    options = {"short_side": 64, "at": _every_half_second, "audio_track": audio_track}
    try:
        return media.read(path, 0.0, SECONDS, **options)
    except (ValueError, OSError):
        return None


def _every_half_second(length: float) -> np.ndarray:
    return np.arange(0, length, 0.5)


def _front_end(windows: Sequence[media.Media], rate: int, mels: int) -> FrontEnd:
    """A front end with so many bins below half the rate, standardized for the audio of windows."""
    front = FrontEnd("measured", fft=1024, mels=mels)
    front = replace(front, high=min(front.high, BELOW * rate / 2))
    waves = [window.wave for window in windows if len(window.wave)]
    mean, std = features.statistics(waves, front) if waves else (0.0, 1.0)
    return replace(front, mean=round(mean, 3), std=round(std, 3) or 1.0)


def _moving(windows: Sequence[media.Media]) -> float:
    """The share of the videos in which frames half a second apart differ."""
    videos = [window.frames.astype(np.float32) for window in windows if len(window.frames) > 1]
    moves = [np.abs(np.diff(frames, axis=0)).mean() > STILL for frames in videos]
    return float(np.mean(moves)) if moves else 0.0
