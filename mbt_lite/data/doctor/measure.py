"""Measure what a model gets from a file: the middle window, and a few others."""

import contextlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mbt_lite import media
from mbt_lite.config import STREAMS, ClipConfig
from mbt_lite.data.doctor.survey import (
    Channels,
    Survey,
    channels,
    survey,
)
from mbt_lite.features import View, hz_to_mel, make_view, starts

FAULT, WARNING, NOTE = "fault", "warning", "note"
LOOKS = 5  # windows that are looked at, odd, so that the middle is one of them
LISTEN = 60.0  # s of stored audio, around the middle, that are searched for defects
FULL_SCALE = 0.99  # of the largest number a sample can hold; lossy codecs blur the last percent
CLIPPED_RUN = 3  # samples in a row at full scale: a real peak has one or two
CLIFF = 25.0  # dB by which an audio falls where its recording ends
VOICE = 3000.0  # Hz: no recorder ends below a telephone, so an edge below is the audio's own


@dataclass(frozen=True)
class Finding:
    """One thing the doctor has to say: what was found, and what to do about it."""

    severity: str  # fault: cannot be used; warning: usable, but; note: good to know
    found: str
    do: str = ""


@dataclass(frozen=True)
class Look:
    """One window of the file, as loud and as bright as the model gets it."""

    start: float  # s on the file's clock
    length: float  # s
    loudness: float  # dB of full scale, root mean square; -inf: none
    light: float  # grey level that 99 % of the pixels stay under


@dataclass(frozen=True)
class Report:
    """What the doctor saw of one file; `findings` say what is wrong, `fit` whether it can be used.

    What was not reached, because the file could not be read so far, is None.
    """

    path: Path
    config: ClipConfig
    streams: tuple[str, ...] = STREAMS  # that the model takes
    info: media.Info | None = None
    survey: Survey | None = None
    found: media.Media | None = None  # the window in the middle, its frames not yet cropped
    view: View | None = None  # the same, as the model eats it
    looks: tuple[Look, ...] = ()
    clipped: np.ndarray = field(default_factory=lambda: np.zeros(0))  # s, where audio is clipped
    statistics: dict[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def fit(self) -> bool:
        """Whether the model can use the file."""
        return not any(finding.severity == FAULT for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One of "not fit", "fit, but see the warnings" and "fit"."""
        if not self.fit:
            return "not fit"
        warned = any(finding.severity == WARNING for finding in self.findings)
        return "fit, but see the warnings" if warned else "fit"

    @property
    def seconds(self) -> float:
        """Seconds of the file that one look of the model takes."""
        return max(self.config.video_seconds, self.config.audio_seconds)

    @property
    def spans(self) -> dict[str, tuple[float, float]]:
        """From which second to which the model looks (rgb) and listens (spec)."""
        wanted = {"rgb": self.config.video_seconds, "spec": self.config.audio_seconds}
        start, length = self.found.start, self.found.duration
        rests = {stream: max(length - wanted[stream], 0.0) / 2 for stream in self.streams}
        return {stream: (start + rest, start + length - rest) for stream, rest in rests.items()}

    @property
    def views(self) -> int:
        """Windows that together cover the file."""
        total = self.info.duration if self.info else None
        return max(1, math.ceil((total or 0.0) / self.seconds - 0.05))

    @property
    def kept(self) -> tuple[float, float]:
        """Shares of the video's width and height that the model sees; 1 where there is none."""
        if not (self.info and self.info.has_video):
            return 1.0, 1.0
        width, height = self.info.width, self.info.height
        shown = min(width, height) * self.config.size / self.config.resize  # pixels of the file
        return min(1.0, shown / width), min(1.0, shown / height)

    @property
    def empty_bands(self) -> float:
        """The share of the model's mel bands that lie above the highest audio."""
        front = self.config.front_end
        highest = min(self.statistics.get("highest_sound", front.high), front.high)
        low, high = hz_to_mel(front.low), hz_to_mel(front.high)
        return float((high - max(hz_to_mel(highest), low)) / (high - low))


def survey_file(report: Report) -> Report:
    """The report with what lies in the file, hardly decoded; `MediaError` where it is none."""
    where = report.path, report.config.audio_track
    return replace(report, survey=survey(*where), info=media.probe(*where))


def measure(report: Report, looks: int = LOOKS) -> Report:
    """The surveyed report with windows, clipping and statistics; `MediaError` if nothing is usable.

    `looks` is odd. Of the looks, those at places that cannot be read are missing.
    """
    middle = starts(report.info.duration, report.seconds, 1)[0]
    try:
        found, view = _window(report, middle)
    except media.PastEnd as error:  # where what can be decoded ends
        return measure(replace(report, info=replace(report.info, duration=error.end)), looks)
    seen, begins = [], starts(report.info.duration, report.seconds, looks) if middle else [middle]
    for start in begins:
        with contextlib.suppress(media.MediaError):
            here = (found, view) if start == middle else _window(report, start)
            seen.append(_look(start, *here))
    return _listen(replace(report, found=found, view=view, looks=tuple(seen)))


def _window(report: Report, start: float) -> tuple[media.Media, View]:
    config = report.config
    thin = {"short_side": config.resize, "audio_track": config.audio_track}
    found = media.read(report.path, start, report.seconds, **thin)
    return found, make_view(found, report.config)


def _look(start: float, found: media.Media, view: View) -> Look:
    light = float(np.percentile(view.rgb, 99)) if len(found.frames) else 0.0
    return Look(start, found.duration, _decibels(found.wave), light)


def _decibels(wave: np.ndarray) -> float:
    """The root mean square of samples in dB of full scale; -inf of silence or of nothing."""
    power = float(np.mean(np.square(wave, dtype=np.float64))) if wave.size else 0.0
    return 10 * math.log10(power) if power > 0 else -math.inf


def _listen(report: Report) -> Report:
    """With the instants at which the stored audio is clipped, and with the statistics."""
    numbers = _video(report) | _audio(report)
    start = max(0.0, report.found.start + report.found.duration / 2 - LISTEN / 2)
    stored = None
    if len(report.found.wave):
        stored = channels(report.path, start, LISTEN, report.config.audio_track)
    if stored is None:
        return replace(report, statistics=numbers)
    hits = clipped(stored.samples)
    numbers |= _channels(stored) | {"clipped": float(hits.mean())}  # share of the samples
    times = stored.start + np.flatnonzero(hits) / stored.rate
    return replace(report, clipped=times, statistics=numbers)


def _video(report: Report) -> dict[str, float]:
    if not len(report.found.frames):
        return {}
    frames = report.view.rgb.astype(np.float32)
    changes = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    return {
        "light": float(np.percentile(frames, 99)),  # grey levels of 255
        "contrast": float(frames.std(axis=(1, 2)).max()),  # grey levels
        "motion": float(changes.max(initial=0.0)),  # grey levels from one look to the next
    }


def _audio(report: Report) -> dict[str, float]:
    if not len(report.found.wave):
        return {}
    front, spec = report.config.front_end, report.view.spec
    heard = bandwidth(report.found.wave, report.found.rate)
    return {
        "loudness": _decibels(report.view.wave),  # dB of full scale
        "spectrogram_mean": float(spec.mean()),
        "spectrogram_std": float(spec.std()),
        "mean_off": float((spec.mean() - front.mean) / front.std),  # sigmas of the model
        "spread": float(spec.std() / front.std),  # times the model's
        "highest_sound": min(heard, report.info.sample_rate / 2 or heard),  # Hz
    }


def _channels(stored: Channels) -> dict[str, float]:
    samples = stored.samples
    numbers = {"shift": float(np.abs(samples.mean(axis=1, dtype=np.float64)).max())}
    if len(samples) == 2 and samples.any():
        left, right = (max(_decibels(channel), -200.0) for channel in samples)  # no infinities
        numbers["balance"] = left - right  # dB
        if samples.std(axis=1).min() > 0:
            numbers["correlation"] = float(np.corrcoef(samples)[0, 1])
    return numbers


def clipped(samples: np.ndarray) -> np.ndarray:
    """Which instants [S] of samples [C, S] lie in a run at full scale, in any channel."""
    full = np.abs(samples) >= FULL_SCALE
    padded = np.pad(full, ((0, 0), (CLIPPED_RUN - 1, CLIPPED_RUN - 1)))
    runs = np.lib.stride_tricks.sliding_window_view(padded, CLIPPED_RUN, axis=1).all(axis=2)
    return np.lib.stride_tricks.sliding_window_view(runs, CLIPPED_RUN, axis=1).any(axis=(0, 2))


def bandwidth(wave: np.ndarray, rate: int) -> float:
    """The frequency in Hz at which the recording of a wave [S] ends, `rate` / 2 if it does not.

    Only a cliff counts, with audio all along the kilohertz below it and nothing 0.3 kHz above: a
    whistle has no more above it either, but that is the whistle's nature, not the recording's.
    """
    size = 512
    if len(wave) < size or not wave.any():
        return rate / 2
    pieces = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2]
    power = np.square(np.abs(np.fft.rfft(pieces * np.hanning(size)))).mean(axis=0)  # [F/2+1]
    levels, hertz = 10 * np.log10(power + 1e-12), rate / size
    below, above = round(1000 / hertz), round(300 / hertz)
    edges = np.arange(round(VOICE / hertz), len(levels) - above)
    drops = [
        np.percentile(levels[edge - below : edge], 20) - levels[edge + above :].max()
        for edge in edges
    ]
    best = int(np.argmax(drops))
    return float(edges[best] * hertz) if drops[best] > CLIFF else rate / 2
